//! A TLS server whose key stays in its token: greets whoever connects.
//!
//! ```text
//! tls-server ADDRESS:PORT CERTIFICATE.pem SOCKET
//! ```
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr)] // It talks to the person who runs it.

use std::error::Error;
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use p11_client::{Client, Config, RenewingResolver};
use rustls::crypto::ring;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, certificate, socket] = arguments.as_slice() else {
        return Err("usage: tls-server ADDRESS:PORT CERTIFICATE.pem SOCKET".into());
    };
    let client = Client::new(Config::new(socket));
    let resolver = RenewingResolver::new(&client, "pkcs11:", None, certificate);
    println!("The key is {}", resolver.check()?.uri());
    let provider = Arc::new(ring::default_provider());
    let config = Arc::new(resolver.server_config(provider)?);

    let listener = TcpListener::bind(address)?;
    println!("Listening on {}", listener.local_addr()?);
    for tcp in listener.incoming() {
        let (tcp, config) = (tcp?, config.clone());
        thread::spawn(move || {
            if let Err(e) = greet(tcp, config) {
                eprintln!("tls-server: {e}");
            }
        });
    }
    Ok(())
}

fn greet(tcp: TcpStream, config: Arc<ServerConfig>) -> io::Result<()> {
    let tls = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(tls, tcp);
    stream.write_all(b"Hello from a key in a token\n")?;
    stream.conn.send_close_notify();
    stream.flush()
}
