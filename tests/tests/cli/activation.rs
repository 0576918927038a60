//! A server that systemd starts when somebody connects.

use p11_client::{Client, Config};
use p11_tests::softhsm::SoftHsm;

use super::with_module;

#[test]
fn the_first_connection_starts_the_server_which_leaves_the_socket_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("passed.sock");
    let hsm = SoftHsm::new();
    let mut server = with_module(&hsm).activate(&socket);
    assert!(!server.log().contains("Starting tedge-p11-server"));

    let pong = Client::new(Config::new(&socket)).ping().unwrap();

    assert!(pong.server.contains("tedge-p11-server"), "{}", pong.server);
    let line = server.wait_for_log("Server listening");
    assert!(
        line.ends_with(&format!("listener=Some({socket:?})")),
        "{line}"
    );
    // systemd-socket-activate has become the server.
    assert_eq!(server.terminate().code(), Some(0), "{}", server.log());
    assert!(socket.exists(), "the socket is systemd's");
    assert!(
        !server.log().contains("tedge-p11-server.sock"),
        "no warning about a default socket that is not used: {}",
        server.log()
    );
}
