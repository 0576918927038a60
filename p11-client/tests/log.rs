//! Programs that use the crate `log`, and not tracing, are told too. In a process of its own, which has one logger.
#![cfg(test)]

use std::sync::Mutex;

use log::{Level, LevelFilter, Log, Metadata, Record};
use p11_client::message::{OpenedKey, Request, Response};
use p11_client::spki::PublicKey;
use p11_client::{Client, ErrorCode, Failure, Scheme, SigningKey};
use rustls::SignatureScheme;
use rustls::sign::SigningKey as _;

struct Logger(Mutex<Vec<String>>);

static LOGGER: Logger = Logger(Mutex::new(Vec::new()));

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        if record.level() == Level::Warn {
            self.0.lock().unwrap().push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

#[test]
fn why_no_certificate_is_sent_reaches_the_crate_log() {
    log::set_logger(&LOGGER).unwrap();
    log::set_max_level(LevelFilter::Info);
    let public = PublicKey::ed25519(&[1; 32]).unwrap();
    let client = Client::with_transport(move |request: &Request| {
        Ok(match request {
            Request::OpenKey(_) => Response::Key(OpenedKey::new(
                "pkcs11:object=k",
                &public,
                [Scheme::Ed25519],
            )),
            _ => Response::Error(Failure::new(ErrorCode::Unsupported, "not here")),
        })
    });
    let key = SigningKey::open(&client, "pkcs11:", None, None).unwrap();
    let offered = [SignatureScheme::RSA_PSS_SHA256];
    assert!(key.choose_scheme(&offered).is_none());
    let lines = LOGGER.0.lock().unwrap();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("no certificate is sent"), "{lines:?}");
}
