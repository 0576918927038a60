//! A server of thin-edge 1.7 to 2.0, which knows less.

use p11_tests::{fixture::Fixture, old_server::OldServer};

use super::{CommandLine, Ended};

#[test]
fn an_old_server_does_what_it_can_and_the_rest_is_refused_by_name() {
    let (_fixture, server) = Fixture::started();
    let old = OldServer::before(&server);
    let run = |arguments: &[&str]| -> Ended {
        let command = CommandLine::new(&server, arguments);
        command
            .env("TEDGE_DEVICE_CRYPTOKI_SOCKET_PATH", old.socket())
            .run()
    };
    assert!(run(&["tokens"]).done().contains("pkcs11:token=device"));
    assert!(
        run(&["keys"])
            .done()
            .contains("pkcs11:token=device;object=key")
    );
    assert_eq!(
        run(&["create-key", "new"]).done(),
        "pkcs11:token=device;object=new"
    );
    assert_eq!(
        run(&["sign", "--test", "new"]).done(),
        "pkcs11:token=device;object=new"
    );
    assert!(
        run(&["public-key", "new"])
            .done()
            .starts_with("-----BEGIN PUBLIC KEY-----")
    );
    run(&["certificate", "show", "new"]).refused(1, &["is an old one and cannot"]);
}
