//! Connects to a TLS server over and over, from several threads, while certificate and key may be replaced: tells how the
//! server knows it, and what failed. Ends with its input.
//!
//! ```text
//! renew HOST:PORT CA.pem CERTIFICATE.pem SOCKET
//! ```
//!
//! The server is `openssl s_server -www`, which answers with the certificate that it saw. To renew: make a new key, have it
//! certified, and replace CERTIFICATE.pem by rename(2). The old key may go when its last handshake is over.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)] // It talks to the person who runs it.

use std::collections::BTreeSet;
use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use p11_client::{Client, Config, RenewingResolver};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

const THREADS: u32 = 4;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, ca, certificate, socket] = arguments.as_slice() else {
        return Err("usage: renew HOST:PORT CA.pem CERTIFICATE.pem SOCKET".into());
    };
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca)?)?;
    let client = Client::new(Config::new(socket));
    let resolver = RenewingResolver::new(&client, "pkcs11:", None, certificate);
    let provider = Arc::new(ring::default_provider());
    let config = Arc::new(resolver.client_config(provider, roots)?);

    let over = AtomicBool::new(false);
    let [connected, failed] = [AtomicU32::new(0), AtomicU32::new(0)];
    let names = Mutex::new(BTreeSet::new());
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    match known_as(address, config.clone()) {
                        Ok(name) => {
                            connected.fetch_add(1, Ordering::Relaxed);
                            let mut names = names.lock().unwrap_or_else(PoisonError::into_inner);
                            if names.insert(name.clone()) {
                                println!("The server knows this client as {name}");
                            }
                        }
                        Err(e) => {
                            failed.fetch_add(1, Ordering::Relaxed);
                            println!("A connection failed: {e}");
                        }
                    }
                }
            });
        }
        let ended = io::copy(&mut io::stdin(), &mut io::sink());
        over.store(true, Ordering::Relaxed);
        ended
    })?;
    let [connected, failed] = [connected, failed].map(AtomicU32::into_inner);
    println!("{connected} connections, {failed} failed");
    Ok(())
}

/// The subject of the certificate that the server saw.
fn known_as(address: &str, config: Arc<ClientConfig>) -> Result<String, Box<dyn Error>> {
    let (host, _port) = address.rsplit_once(':').ok_or("the form is HOST:PORT")?;
    let tls = ClientConnection::new(config, host.to_owned().try_into()?)?;
    let mut stream = StreamOwned::new(tls, TcpStream::connect(address)?);
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut page = String::new();
    match stream.read_to_string(&mut page) {
        // openssl closes without saying so.
        Err(e) if e.kind() != ErrorKind::UnexpectedEof => return Err(e.into()),
        _ => {}
    }
    let subject = page
        .lines()
        .find_map(|line| line.trim().strip_prefix("Subject: "));
    Ok(subject.ok_or("the server saw no certificate")?.to_owned())
}
