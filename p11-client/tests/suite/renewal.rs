//! Certificates and keys that are replaced while a program runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use p11_client::{Client, Error, ErrorCode, LazyKey, Pin, RenewingResolver};
use p11_proto::{Request, Response};
use rustls::HandshakeKind;
use rustls::client::ResolvesClientCert;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::version::{TLS12, TLS13};

use crate::assertions::assert_error;
use crate::fake_server::{FakeServer, Reaction, TempSocket};
use crate::handshake::logged;
use crate::test_key::{TestKey, failure, pong};
use crate::tls::{ALL_SCHEMES, TlsServer, handshake, send, shown_by};

/// A server with keys that come and go, and a certificate file.
struct Device {
    socket: TempSocket,
    keys: Arc<Mutex<Vec<TestKey>>>,
    file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Device {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Device {
            socket: TempSocket::new(),
            keys: Arc::default(),
            file: folder.path().join("device.pem"),
            _folder: folder,
        }
    }

    fn with(key: &TestKey) -> (Self, FakeServer) {
        let device = Device::new();
        device.has(key);
        device.is_certified(key);
        let server = device.serve();
        (device, server)
    }

    fn serve(&self) -> FakeServer {
        self.serve_unless(|_| None)
    }

    /// Answers with the keys that there are, where this has no answer.
    fn serve_unless(
        &self,
        other: impl Fn(&Request) -> Option<Reaction> + Send + Sync + 'static,
    ) -> FakeServer {
        let keys = self.keys.clone();
        self.socket.serve(move |request| {
            other(&request).unwrap_or_else(|| answer(&keys.lock().unwrap(), request).into())
        })
    }

    /// This is its only key from now on.
    fn has(&self, key: &TestKey) {
        *self.keys.lock().unwrap() = vec![key.clone()];
    }

    /// The file has the certificate of this key from now on, as a rename(2) does it.
    fn is_certified(&self, key: &TestKey) {
        replace(&self.file, &pem(&key.certificate));
    }

    fn resolver(&self) -> RenewingResolver {
        let client = Client::new(self.socket.config().retry_for(Duration::ZERO));
        RenewingResolver::new(&client, "pkcs11:", None, &self.file)
    }
}

fn answer(keys: &[TestKey], request: Request) -> Response {
    let key = keys.iter().find(|key| match &request {
        Request::OpenKey(open) => open.spki.as_ref().is_some_and(|s| **s == key.public.spki()),
        Request::Sign(sign) => sign.identity == key.public.identity(),
        _ => true,
    });
    match (key, request) {
        (_, Request::Ping(_)) => pong(),
        (Some(key), request) => key.answer(request),
        (None, _) => failure(ErrorCode::KeyNotFound, "no such key"),
    }
}

fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, file).unwrap();
}

pub fn pem(certificate: &CertificateDer<'_>) -> String {
    use base64ct::{Base64, Encoding};
    let base64 = Base64::encode_string(certificate);
    format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n")
}

/// The certificate that a server sees.
fn shown(resolver: &RenewingResolver) -> Result<CertificateDer<'static>, rustls::Error> {
    let seen = handshake(&TLS13, &ALL_SCHEMES, Arc::new(resolver.clone()))?;
    Ok(seen.expect("a certificate is sent").0)
}

#[test]
fn a_new_certificate_and_key_are_those_of_the_next_handshake() {
    let (before, after) = (TestKey::p256(), TestKey::rsa());
    let (device, server) = Device::with(&before);
    let resolver = device.resolver();
    assert_eq!(shown(&resolver).unwrap(), before.certificate);
    device.has(&after);
    // Between the two there is no certificate for the key.
    let error = shown(&resolver).unwrap_err();
    assert!(Error::in_handshake(&error).unwrap().is_key_changed());
    device.is_certified(&after);
    server.take_requests();
    for _ in 0..2 {
        assert_eq!(shown(&resolver).unwrap(), after.certificate);
    }
    let names: Vec<_> = server.take_requests();
    assert!(
        matches!(
            &names[..],
            [
                Request::OpenKey(_),
                Request::Sign(_),
                Request::OpenKey(_),
                Request::Sign(_)
            ]
        ),
        "{names:?}"
    );
    let provider = Arc::new(ring::default_provider());
    let config = resolver.server_config(provider).unwrap();
    device.has(&before);
    device.is_certified(&before);
    assert_eq!(shown_by(config, &ALL_SCHEMES), before.certificate);
}

#[test]
fn a_program_may_start_before_its_server_and_its_certificate() {
    let key = TestKey::p256();
    let device = Device::new();
    let resolver = device.resolver();
    assert!(resolver.has_certs());
    let reason = |code: &str| {
        let error = shown(&resolver).unwrap_err();
        assert_error(Error::in_handshake(&error).unwrap(), code, &[]);
    };
    reason("ChainFile");
    device.is_certified(&key);
    reason("NoSocket");
    device.has(&key);
    let server = device.serve();
    assert!(resolver.has_certs());
    assert_eq!(server.take_requests(), []);
    assert_eq!(shown(&resolver).unwrap(), key.certificate);
}

#[test]
fn what_cannot_be_used_is_a_warning_and_the_last_good_pair_stays() {
    let (good, other) = (TestKey::p256(), TestKey::p256());
    let (device, _server) = Device::with(&good);
    let resolver = device.resolver();
    let stays = |part: &str| {
        let handshakes = || [(); 3].map(|()| shown(&resolver).unwrap());
        let (shown, log) = logged(handshakes);
        assert!(shown.iter().all(|shown| *shown == good.certificate));
        let stays = "the last good certificate and key stay in use";
        let path = device.file.to_str().unwrap();
        for part in ["WARN", stays, path, part] {
            assert!(log.contains(part), "{part:?} is not in: {log}");
        }
        assert_eq!(log.lines().count(), 1, "{log}");
    };
    shown(&resolver).unwrap();
    device.is_certified(&other);
    stays("no such key");
    replace(&device.file, "-----BEGIN CERTIFICATE-----\nMIIB");
    stays("cannot be used");
    fs::write(&device.file, vec![b'#'; 2 << 20]).unwrap();
    stays("longer than 1 MiB");
    fs::remove_file(&device.file).unwrap();
    // Nobody writes into it.
    nix::unistd::mkfifo(&device.file, nix::sys::stat::Mode::S_IRWXU).unwrap();
    stays("no regular file");
    fs::remove_file(&device.file).unwrap();
    stays("No such file");
    device.is_certified(&other);
    stays("no such key");
    device.keys.lock().unwrap().push(other.clone());
    assert_eq!(shown(&resolver).unwrap(), other.certificate);
}

#[test]
fn a_file_with_the_issuer_first_says_what_must_be_first() {
    let (key, issuer) = (TestKey::p256(), TestKey::p384());
    let (device, _server) = Device::with(&key);
    replace(
        &device.file,
        &(pem(&issuer.certificate) + &pem(&key.certificate)),
    );
    let error = device.resolver().check().unwrap_err();
    let parts = ["certificate 2", "put your own certificate first"];
    assert_error(&error, "CertificateOrder", &parts);
}

#[test]
fn one_thread_renews_and_the_others_go_on_with_the_pair_of_before() {
    let (before, after) = (TestKey::p256(), TestKey::p256());
    let device = Device::new();
    device.has(&before);
    device.is_certified(&before);
    // How many were asked for, and whether they may be answered.
    let gate = Arc::new((Mutex::new((0, false)), Condvar::new()));
    let _server = device.serve_unless({
        let (gate, spki) = (gate.clone(), after.public.spki().to_vec());
        move |request| {
            let Request::OpenKey(open) = request else {
                return None;
            };
            if open.spki.as_ref().is_some_and(|asked| **asked == spki) {
                let mut state = gate.0.lock().unwrap();
                state.0 += 1;
                gate.1.notify_all();
                // Not for ever, so that a test that fails ends.
                let closed = |state: &mut (_, bool)| !state.1;
                let limit = Duration::from_secs(20);
                drop(gate.1.wait_timeout_while(state, limit, closed).unwrap());
            }
            None
        }
    });
    let resolver = device.resolver();
    shown(&resolver).unwrap();
    device.keys.lock().unwrap().push(after.clone());
    device.is_certified(&after);
    thread::scope(|scope| {
        let renewing = scope.spawn(|| shown(&resolver));
        let state = gate.0.lock().unwrap();
        drop(gate.1.wait_while(state, |state| state.0 == 0).unwrap());
        assert_eq!(shown(&resolver).unwrap(), before.certificate);
        let mut state = gate.0.lock().unwrap();
        // After two seconds, on a slow machine, another one renews.
        assert!(state.0 == 1 || renewing.is_finished());
        state.1 = true;
        drop(state);
        gate.1.notify_all();
        renewing.join().unwrap().unwrap();
    });
    assert_eq!(shown(&resolver).unwrap(), after.certificate);
}

#[test]
fn a_server_that_does_not_tell_of_the_key_holds_a_handshake_up_for_two_seconds() {
    let key = TestKey::p256();
    let device = Device::new();
    device.has(&key);
    device.is_certified(&key);
    let silent = Arc::new(Mutex::new(false));
    let _server = device.serve_unless({
        let silent = silent.clone();
        move |request| match request {
            Request::OpenKey(_) if *silent.lock().unwrap() => Some(Reaction::Silence),
            _ => None,
        }
    });
    let resolver = device.resolver();
    shown(&resolver).unwrap();
    *silent.lock().unwrap() = true;
    let start = Instant::now();
    assert_eq!(shown(&resolver).unwrap(), key.certificate);
    let took = start.elapsed();
    // Of a request it would be 35.
    let expected = Duration::from_secs(2)..Duration::from_secs(20);
    assert!(expected.contains(&took), "{took:?}");
}

#[test]
fn trouble_that_lasts_is_one_warning_however_many_connections_are_made() {
    let key = TestKey::p256();
    let device = Device::new();
    device.has(&key);
    device.is_certified(&key);
    let locked = Arc::new(Mutex::new(false));
    let _server = device.serve_unless({
        let locked = locked.clone();
        move |request| match request {
            Request::OpenKey(_) if *locked.lock().unwrap() => {
                Some(failure(ErrorCode::PinLocked, "locked").into())
            }
            _ => None,
        }
    });
    let (resolver, peer) = (device.resolver(), TlsServer::new(&TLS13));
    let connect = || {
        let provider = Arc::new(ring::default_provider());
        let config = resolver.client_config(provider, peer.roots()).unwrap();
        assert_eq!(peer.connect(Arc::new(config)).1, key.certificate);
    };
    connect();
    *locked.lock().unwrap() = true;
    let ((), log) = logged(|| (0..3).for_each(|_| connect()));
    assert_eq!(log.matches("WARN").count(), 1, "{log}");
}

#[test]
fn many_first_handshakes_wait_together_for_a_server_that_is_silent() {
    const MANY: usize = 8;
    let key = TestKey::p256();
    let device = Device::new();
    device.is_certified(&key);
    let server = device.serve_unless(|request| match request {
        Request::OpenKey(_) => Some(Reaction::Silence),
        _ => None,
    });
    let resolver = device.resolver();
    thread::scope(|scope| {
        let all: Vec<_> = (0..MANY)
            .map(|_| scope.spawn(|| shown(&resolver)))
            .collect();
        for handshake in all {
            let error = handshake.join().unwrap().unwrap_err();
            assert_error(Error::in_handshake(&error).unwrap(), "Deadline", &[]);
        }
    });
    // One after the other they would be eight; on a slow machine some may come late.
    let asked = server.take_requests().len();
    assert!(asked <= MANY / 2, "{asked}");
}

#[test]
fn no_connection_after_a_renewal_is_known_by_the_certificate_before() {
    for version in [&TLS12, &TLS13] {
        let (before, after) = (TestKey::p256(), TestKey::p256());
        let (device, _server) = Device::with(&before);
        let peer = TlsServer::new(version);
        let provider = Arc::new(ring::default_provider());
        let config = device.resolver().client_config(provider, peer.roots());
        let config = Arc::new(config.unwrap());
        // It hears of its session after another connection has seen the renewal.
        let (mut early, mut server) = peer.pair(config.clone());
        while early.is_handshaking() {
            send(&mut early, &mut server).unwrap();
            send(&mut server, &mut early).unwrap();
        }
        send(&mut early, &mut server).unwrap();
        device.keys.lock().unwrap().push(after.clone());
        device.is_certified(&after);
        assert_eq!(peer.connect(config.clone()).1, after.certificate);
        send(&mut server, &mut early).unwrap();
        for _ in 0..3 {
            let shown = peer.connect(config.clone());
            assert_eq!(shown, (HandshakeKind::Full, after.certificate.clone()));
        }
    }
}

#[test]
fn an_old_server_will_do_and_no_pin_is_printed() {
    let key = TestKey::p256();
    let device = Device::new();
    device.is_certified(&key);
    let _server = device.socket.serve_old_key(&key);
    let uri = "pkcs11:object=k?pin-value=sesame";
    let client = device.socket.client();
    let resolver = RenewingResolver::new(&client, uri, Some(Pin::from("sesame")), &device.file);
    assert_eq!(shown(&resolver).unwrap(), key.certificate);
    let lazy = LazyKey::new(&client, uri, Some(Pin::from("sesame")), None).unwrap();
    let printed = format!("{resolver:?} {lazy:?}");
    assert!(!printed.contains("sesame"), "{printed}");
}
