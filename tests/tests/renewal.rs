//! Certificates and keys that are replaced under a program that runs on, with the real server and openssl as the peer.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, which fail by panicking"
)]

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    path::Path,
    sync::Arc,
};

use p11_client::{
    Client, Config, Error, Pin, RenewingResolver,
    message::{CreateKey, DeleteKey, KeySpec, KeyType},
};
use p11_tests::{
    fixture::{Fixture, KEY, PIN},
    openssl::OpensslServer,
    pki::{Pki, Version},
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};

#[test]
fn a_key_and_certificate_that_replace_those_of_a_running_program_are_used_without_any_recipe() {
    let (fixture, server) = Fixture::started();
    server.secrets().add(PIN);
    let client = Client::new(Config::new(server.socket()).pin(Pin::from(PIN)));
    let pki = Pki::new();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("device.pem");
    let certify = |name: &str, spki: &[u8]| {
        fs::rename(pki.client(name, spki, Version::V3), &file).unwrap();
    };
    certify("before", &fixture.key.spki);
    let resolver = RenewingResolver::new(&client, KEY, None, &file);
    let config = Arc::new(client_config(&resolver, &pki.authority()));
    assert_eq!(name_seen_by_openssl(&pki, &config).unwrap(), "CN = before");
    assert_eq!(name_seen_by_openssl(&pki, &config).unwrap(), "CN = before");

    // Under a random id, as CreateKey gives it.
    client.delete_key(DeleteKey::new(KEY)).unwrap();
    let kind = KeySpec::new(KeyType::Ec, 384);
    let create = CreateKey::new("pkcs11:token=device", kind, "key");
    let created = client.create_key(create).unwrap();
    let error = name_seen_by_openssl(&pki, &config).unwrap_err();
    assert!(Error::in_handshake(&error).unwrap().is_key_changed());
    certify("after", &created.spki);
    assert_eq!(name_seen_by_openssl(&pki, &config).unwrap(), "CN = after");
}

fn client_config(resolver: &RenewingResolver, authority: &Path) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(authority).unwrap();
    roots.add(authority).unwrap();
    let provider = Arc::new(ring::default_provider());
    resolver.client_config(provider, roots).unwrap()
}

/// Whom openssl takes the client for.
fn name_seen_by_openssl(pki: &Pki, config: &Arc<ClientConfig>) -> std::io::Result<String> {
    let peer = OpensslServer::start(pki, &[]);
    let tcp = TcpStream::connect(("127.0.0.1", peer.port()))?;
    let name = "localhost".try_into().unwrap();
    let tls = ClientConnection::new(config.clone(), name).unwrap();
    let mut stream = StreamOwned::new(tls, tcp);
    stream.write_all(b"hello\n")?;
    BufReader::new(&mut stream).read_line(&mut String::new())?;
    Ok(peer.seen().certificate)
}
