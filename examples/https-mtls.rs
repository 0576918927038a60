//! Fetches a page with reqwest, over TLS with a client certificate whose key stays in its token.
//!
//! ```text
//! https-mtls URL CA.pem CERTIFICATE.pem SOCKET
//! ```
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)] // It talks to the person who runs it.

use std::error::Error;
use std::sync::Arc;

use p11_client::{Client, Config, RenewingResolver};
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, pem::PemObject};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, ca, certificate, socket] = arguments.as_slice() else {
        return Err("usage: https-mtls URL CA.pem CERTIFICATE.pem SOCKET".into());
    };
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca)?)?;

    // The key of the certificate, wherever it lies. Nobody is asked for it before the first handshake.
    let client = Client::new(Config::new(socket));
    let resolver = RenewingResolver::new(&client, "pkcs11:", None, certificate);
    let provider = Arc::new(ring::default_provider());
    let http = reqwest::Client::builder()
        .tls_backend_preconfigured(resolver.client_config(provider, roots)?)
        .build()?;

    // The signature holds up this thread, and tokio has others: see "What blocks" in the documentation of p11-client.
    let response = http.get(url).send().await?.error_for_status()?;
    print!("{}", response.text().await?);
    Ok(())
}
