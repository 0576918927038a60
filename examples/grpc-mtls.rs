//! Asks a gRPC server for its health with tonic, which takes a private key as PEM only and the crypto provider that is installed: a
//! reference to the key in the token stands in for the key.
//!
//! ```text
//! grpc-mtls URL CA.pem CERTIFICATE.pem SOCKET URI
//! ```
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)] // It talks to the person who runs it.

use std::error::Error;
use std::fs;

use p11_client::{Client, Config, KeyProvider, KeyReference};
use rustls::crypto::ring;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, ca, certificate, socket, uri] = arguments.as_slice() else {
        return Err("usage: grpc-mtls URL CA.pem CERTIFICATE.pem SOCKET URI".into());
    };

    let client = Client::new(Config::new(socket));
    let provider = KeyProvider::over(ring::default_provider(), client);
    let installed = provider.install_default();
    installed.map_err(|_| "another crypto provider is installed already")?;

    let key = KeyReference::new(uri.as_str()).to_pem()?;
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(fs::read(ca)?))
        .identity(Identity::from_pem(fs::read(certificate)?, key));
    let channel = Channel::from_shared(url.clone())?.tls_config(tls)?;

    let mut health = HealthClient::new(channel.connect().await?);
    let answer = health.check(HealthCheckRequest::default()).await?;
    println!("{}", answer.into_inner().status().as_str_name());
    Ok(())
}
