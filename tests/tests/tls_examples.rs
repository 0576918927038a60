//! The examples that speak TLS, each built with its own features alone, against real peers.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, which fail by panicking"
)]

use std::{fs, io::pipe, path::PathBuf, process::Command};

use p11_client::{
    Client, Config, Pin,
    message::{CreateKey, KeySpec, KeyType},
};
use p11_tests::{
    binary::example,
    broker::Broker,
    fixture::{Fixture, KEY, PIN},
    openssl::OpensslServer,
    pki::{Pki, Version},
    process::Process,
    server::Server,
    text::assert_contains,
    tools::{command, run},
    wait::TIMEOUT,
};
use tonic::transport::{Certificate, Identity, ServerTlsConfig, server::TcpIncoming};

struct Device {
    _fixture: Fixture,
    server: Server,
    pki: Pki,
    certificate: PathBuf,
}

impl Device {
    fn new(version: Version) -> Self {
        let (fixture, server) = Fixture::started();
        let pki = Pki::new();
        let certificate = pki.client("a device", &fixture.key.spki, version);
        Device {
            _fixture: fixture,
            server,
            pki,
            certificate,
        }
    }

    /// What the example says to the address of a peer, and whatever else it is told.
    fn output(&self, name: &str, peer: String, more: &[&str]) -> String {
        let mut example = example(name);
        example.arg(peer).arg(self.pki.authority());
        example.arg(&self.certificate).arg(self.server.socket());
        text(example.args(more))
    }
}

fn text(command: &mut Command) -> String {
    String::from_utf8(run(command)).unwrap()
}

#[test]
fn mqtt_mtls_publishes_and_receives() {
    let device = Device::new(Version::V3);
    let broker = Broker::start(&device.pki);
    let said = text(
        example("mqtt-mtls")
            .arg("--broker")
            .arg(format!("localhost:{}", broker.port()))
            .arg("--ca")
            .arg(device.pki.authority())
            .arg("--cert")
            .arg(&device.certificate)
            .arg("--socket")
            .arg(device.server.socket()),
    );
    assert!(said.contains("Received it back"), "{said}");
    broker.wait_for_log("u'a device'");
}

#[test]
fn https_mtls_fetches_a_page_as_the_device() {
    let device = Device::new(Version::V3);
    let peer = OpensslServer::http(&device.pki);
    let url = format!("https://localhost:{}/", peer.port());
    let page = device.output("https-mtls", url, &[]);
    assert!(
        page.replace(" = ", "=").contains("Subject: CN=a device"),
        "{page}"
    );
}

#[test]
fn http_mtls_blocking_fetches_a_page_as_the_device() {
    let device = Device::new(Version::V3);
    let peer = OpensslServer::http(&device.pki);
    let url = format!("https://localhost:{}/", peer.port());
    let page = device.output("http-mtls-blocking", url, &[KEY]);
    assert!(
        page.replace(" = ", "=").contains("Subject: CN=a device"),
        "{page}"
    );
}

#[test]
fn grpc_mtls_is_let_in_by_a_server_that_wants_a_certificate() {
    let device = Device::new(Version::V3);
    let identity = device.pki.server();
    let read = |file: &PathBuf| fs::read(file).unwrap();
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(
            read(&identity.certificate),
            read(&identity.private_key),
        ))
        .client_ca_root(Certificate::from_pem(read(&device.pki.authority())));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let port = runtime.block_on(async {
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = incoming.local_addr().unwrap().port();
        let (_, health) = tonic_health::server::health_reporter();
        let server = tonic::transport::Server::builder().tls_config(tls).unwrap();
        tokio::spawn(server.serve_with_incoming(health, incoming));
        port
    });
    let url = format!("https://localhost:{port}");
    assert_eq!(device.output("grpc-mtls", url, &[KEY]), "SERVING\n");
}

#[test]
fn tls_server_proves_itself_to_openssl() {
    // Without extensions it may be a server's, too.
    let device = Device::new(Version::V1);
    let mut server = example("tls-server");
    server.arg("127.0.0.1:0").arg(&device.certificate);
    let server = Process::start("tls-server", {
        server.arg(device.server.socket());
        server
    });
    let line = server.wait_for_log("Listening on 127.0.0.1:", TIMEOUT);
    let address = line.rsplit(' ').next().unwrap();
    for version in ["-tls1_2", "-tls1_3"] {
        let output = command("openssl")
            .args(["s_client", "-brief", "-ign_eof", "-verify_return_error"])
            .arg("-CAfile")
            .arg(device.pki.authority())
            .args([version, "-connect", address])
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        let parts = [
            "Verification: OK",
            "Hello from a key in a token",
            "a device",
        ];
        assert_contains(said.concat(), parts);
    }
}

#[test]
fn renew_goes_over_to_a_new_key_and_certificate_and_no_connection_fails() {
    let device = Device::new(Version::V3);
    device.server.secrets().add(PIN);
    let peer = OpensslServer::http(&device.pki);
    let (input, open) = pipe().unwrap();
    let mut renew = example("renew");
    renew.arg(format!("localhost:{}", peer.port()));
    renew.arg(device.pki.authority()).arg(&device.certificate);
    renew.arg(device.server.socket());
    let renew = Process::start_with_input("renew", renew, input.into());
    renew.wait_for_log("a device", TIMEOUT);

    let client = Client::new(Config::new(device.server.socket()).pin(Pin::from(PIN)));
    let kind = KeySpec::new(KeyType::Ec, 256);
    let create = CreateKey::new("pkcs11:token=device", kind, "the next");
    let created = client.create_key(create).unwrap();
    let next = device.pki.client("renewed", &created.spki, Version::V3);
    fs::rename(next, &device.certificate).unwrap();
    renew.wait_for_log("renewed", TIMEOUT);
    drop(open);
    renew.wait_for_log("connections, 0 failed", TIMEOUT);
}
