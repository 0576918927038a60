//! Fetches a page with ureq, which takes a private key as PEM only: a reference to the key in the token stands in for it.
//!
//! ```text
//! http-mtls-blocking URL CA.pem CERTIFICATE.pem SOCKET URI
//! ```
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)] // It talks to the person who runs it.

use std::error::Error;
use std::fs;
use std::sync::Arc;

use p11_client::{Client, Config, KeyProvider, KeyReference};
use rustls::crypto::ring;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, ca, certificate, socket, uri] = arguments.as_slice() else {
        return Err("usage: http-mtls-blocking URL CA.pem CERTIFICATE.pem SOCKET URI".into());
    };
    let ca = Certificate::from_pem(&fs::read(ca)?)?;
    let certificate = Certificate::from_pem(&fs::read(certificate)?)?;
    // This may as well be read from a file.
    let key = KeyReference::new(uri.as_str()).to_pem()?;
    let key = PrivateKey::from_pem(key.as_bytes())?;

    let client = Client::new(Config::new(socket));
    let provider = KeyProvider::over(ring::default_provider(), client);
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&[ca]))
        .client_cert(Some(ClientCert::new_with_certs(&[certificate], key)))
        .unversioned_rustls_crypto_provider(Arc::new(provider))
        .build();
    let agent = ureq::Agent::config_builder().tls_config(tls).build();

    let mut response = agent.new_agent().get(url).call()?;
    print!("{}", response.body_mut().read_to_string()?);
    Ok(())
}
