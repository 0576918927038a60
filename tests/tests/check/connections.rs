//! `--connect`: the handshake with a broker, and what it means when there is none.

use std::{io::Write, net::TcpListener, thread};

use p11_tests::{
    broker::Broker, openssl::OpensslServer, pki::Pki, server::Server, text::assert_in_order,
};

use super::device::{Device, Told};

fn in_use() -> (Device, Server) {
    let device = Device::new();
    let server = device.in_use();
    (device, server)
}

fn connect(device: &Device, server: &Server, port: u16, pki: &Pki) -> Told {
    let peer = format!("localhost:{port}");
    let authority = pki.authority();
    device.check(
        server,
        &["--connect", &peer, "--ca", authority.to_str().unwrap()],
    )
}

#[test]
fn a_broker_that_knows_the_issuer_takes_the_certificate() {
    let (device, server) = in_use();
    let broker = Broker::start(&device.pki);
    let told = connect(&device, &server, broker.port(), &device.pki);
    assert_eq!(told.code, 0, "{}", told.text);
    assert_in_order(
        &told.text,
        [
            "connection      localhost:",
            " has taken the certificate, TLS 1.3\n",
        ],
    );
    let old = OpensslServer::start(&device.pki, &["-tls1_2"]);
    let told = connect(&device, &server, old.port(), &device.pki);
    assert_in_order(&told.text, [" has taken the certificate, TLS 1.2\n"]);
}

#[test]
fn a_broker_that_does_not_know_the_issuer_is_told_as_that() {
    let (device, server) = in_use();
    let other = Pki::new();
    for arguments in [&["-tls1_2"][..], &["-tls1_3"]] {
        let broker = OpensslServer::start(&other, arguments);
        let told = connect(&device, &server, broker.port(), &other);
        told.fails(
            "connection",
            1,
            &["the broker", "issuer", "CN=Test CA", "Its alert: "],
        );
    }
    let broker = Broker::start(&other);
    connect(&device, &server, broker.port(), &other).fails(
        "connection",
        1,
        &["the broker", "issuer", "CN=Test CA"],
    );
}

#[test]
fn a_broker_whose_certificate_nobody_knows_is_told_with_the_flag() {
    let (device, server) = in_use();
    let broker = OpensslServer::start(&device.pki, &[]);
    let told = connect(&device, &server, broker.port(), &Pki::new());
    told.fails(
        "connection",
        1,
        &["is by nobody whom this machine trusts", "--ca FILE"],
    );
}

#[test]
fn a_broker_of_another_name_or_that_asks_for_no_certificate_is_told() {
    let (device, server) = in_use();
    let broker = OpensslServer::start(&device.pki, &[]);
    let peer = format!("[::ffff:127.0.0.1]:{}", broker.port());
    let authority = device.pki.authority();
    let told = device.check(
        &server,
        &["--connect", &peer, "--ca", authority.to_str().unwrap()],
    );
    told.fails("connection", 1, &["has a certificate of another name"]);

    let open = OpensslServer::start(&device.pki, &["-verify", "0"]);
    let told = connect(&device, &server, open.port(), &device.pki);
    assert!(
        ["ok", "warning"].contains(&told.result("connection").as_str()),
        "{}",
        told.text
    );
}

#[test]
fn a_peer_that_is_not_there_or_speaks_no_tls_is_told() {
    let (device, server) = in_use();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let _ = connection.unwrap().write_all(b"220 mail.example ESMTP\r\n");
        }
    });
    connect(&device, &server, port, &device.pki).fails(
        "connection",
        1,
        &["does not speak TLS", "8883"],
    );

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    connect(&device, &server, port, &device.pki).fails(
        "connection",
        1,
        &["cannot be reached: Connection refused"],
    );
    let told = device.check(&server, &["--connect", "broker.invalid:8883"]);
    told.fails(
        "connection",
        1,
        &["the name in broker.invalid:8883 is not known"],
    );
    let ca = device.folder.path().join("none.pem");
    let told = device.check(
        &server,
        &["--connect", "localhost:1", "--ca", ca.to_str().unwrap()],
    );
    told.fails("connection", 1, &["none.pem cannot be used"]);
}
