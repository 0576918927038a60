//! Connects to an MQTT broker over mutual TLS with a key that stays in its PKCS#11 token,
//! publishes a message, and receives it back.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr)] // It talks to the person who runs it.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use der::asn1::{AnyRef, ObjectIdentifier, SetOfVec};
use der::{Decode, Sequence, ValueOrd};
use p11_client::{Client, Config, Pin, Resolver, SigningKey};
use p11_proto::spki::Certificate;
use rumqttc::{Connection, Event, MqttOptions, Outgoing, Packet, QoS, TlsConfiguration, Transport};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore, crypto::ring};

/// Longer than a signature may take, which is part of connecting.
const CONNECT_SECONDS: u64 = 40;

/// For connecting, publishing and receiving in all.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Publish a message and receive it back, with a client key in a PKCS#11 token.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The broker's TLS listener
    #[arg(long, value_name = "HOST:PORT", value_parser = host_and_port)]
    broker: (String, u16),

    /// Certificates of the authorities that the broker's certificate may be issued by (PEM)
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,

    /// The client's certificate, and its intermediates after it (PEM)
    #[arg(long, value_name = "FILE")]
    cert: PathBuf,

    /// Where the key is, RFC 7512; among several that match, the certificate's is used
    #[arg(long, value_name = "URI", default_value = "pkcs11:")]
    key_uri: String,

    /// The socket of tedge-p11-server
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,

    /// The token's PIN, where the server does not know it
    #[arg(long, value_name = "PIN", value_parser = |pin: &str| Ok::<_, String>(Pin::from(pin)))]
    pin: Option<Pin>,
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_writer(std::io::stderr)
        .init();
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("mqtt-mtls: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let chain = certificates(&arguments.cert)?;
    let leaf = chain
        .first()
        .ok_or(format!("there is no certificate in {:?}", arguments.cert))?;
    let name = common_name(leaf)?;

    let server = arguments.socket.map(Config::new).unwrap_or_default();
    let key = SigningKey::open(
        &Client::new(server),
        &arguments.key_uri,
        arguments.pin,
        Some(leaf),
    )?;
    println!("The key is {}", key.uri());
    println!("It can sign {:?}", key.schemes());

    let mut roots = RootCertStore::empty();
    for certificate in certificates(&arguments.ca)? {
        roots.add(certificate)?;
    }
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::new(Resolver::new(chain, key)?));

    let (host, port) = arguments.broker;
    let id = format!("mqtt-mtls-{}", std::process::id());
    let mut options = MqttOptions::new(&id, &host, port);
    let tls = TlsConfiguration::Rustls(Arc::new(tls));
    options.set_transport(Transport::tls_with_config(tls));
    let (client, mut connection) = rumqttc::Client::new(options, 10);
    connection
        .eventloop
        .network_options
        .set_connection_timeout(CONNECT_SECONDS);

    println!("Connecting to {host}:{port} with the certificate of {name:?}");
    let topic = format!("p11-examples/{id}");
    client.subscribe(&topic, QoS::AtLeastOnce)?;
    wait_for(&mut connection, |event| {
        matches!(event, Event::Incoming(Packet::ConnAck(_)))
    })?;
    println!("Connected: the broker saw that certificate and a signature by its key");
    wait_for(&mut connection, |event| {
        matches!(event, Event::Incoming(Packet::SubAck(_)))
    })?;

    let message = format!("Hello from {name}");
    client.publish(&topic, QoS::AtLeastOnce, false, message.as_str())?;
    println!("Published {message:?} to {topic}");
    wait_for(
        &mut connection,
        |event| matches!(event, Event::Incoming(Packet::Publish(p)) if p.payload == message.as_bytes()),
    )?;
    println!("Received it back");

    client.disconnect()?;
    wait_for(&mut connection, |event| {
        matches!(event, Event::Outgoing(Outgoing::Disconnect))
    })
}

/// Lets the connection work until what is expected happens.
fn wait_for(
    connection: &mut Connection,
    expected: impl Fn(&Event) -> bool,
) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    while let Some(left) = TIMEOUT.checked_sub(start.elapsed()) {
        match connection.recv_timeout(left) {
            Ok(Ok(event)) if expected(&event) => return Ok(()),
            Ok(Ok(_)) => {}
            Ok(Err(e)) => {
                // The signature failed, or else the broker or the network did.
                return Err(match p11_client::Error::in_handshake(&e) {
                    Some(failure) => format!("no signature: {failure}").into(),
                    None => e.into(),
                });
            }
            Err(_) => break,
        }
    }
    Err("the broker did not answer in time".into())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|e| format!("{path:?} cannot be read as PEM certificates: {e}"))
}

/// One attribute of a name (RFC 5280 section 4.1.2.4).
#[derive(Sequence, ValueOrd)]
struct Attribute<'a> {
    kind: ObjectIdentifier,
    value: AnyRef<'a>,
}

/// The common name of a certificate's subject, which mosquitto can take as the user name.
fn common_name(certificate: &CertificateDer<'_>) -> Result<String, Box<dyn Error>> {
    const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
    let subject = Certificate::parse(certificate)?.subject;
    let name = Vec::<SetOfVec<Attribute<'_>>>::from_der(subject)?;
    let mut attributes = name.iter().flat_map(SetOfVec::iter);
    let common_name = attributes
        .find(|attribute| attribute.kind == COMMON_NAME)
        .ok_or("the client certificate has no common name")?;
    Ok(String::from_utf8_lossy(common_name.value.value()).into_owned())
}

fn host_and_port(text: &str) -> Result<(String, u16), String> {
    let (host, port) = text.rsplit_once(':').ok_or("the form is HOST:PORT")?;
    let port = port
        .parse()
        .map_err(|e| format!("the port {port:?}: {e}"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Ok((host.to_owned(), port))
}
