//! A rustls certificate resolver that follows its certificate file, and the key that the certificate is for.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use p11_proto::Pin;
use p11_proto::spki::PublicKey;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SignatureScheme};

use crate::chain_file::{FileState, read_chain};
use crate::client::Client;
use crate::error::Error;
use crate::per_process::{Inherit, PerProcess};
use crate::resolver::Resolver;
use crate::signing_key::{KeySource, SigningKey, algorithm};
use crate::unusable_key::UnusableKey;

/// How long a handshake waits to hear whether its key is still the one.
const LIMIT: Duration = Duration::from_secs(2);

/// A certificate file and its key, as they are when a handshake wants them: a new certificate, or a new key with a new
/// certificate, needs no restart of the program.
///
/// Each handshake looks whether the file was replaced, and asks for the key of its first certificate, which takes two
/// seconds at most. One thread does that while others go on with the pair that was good before. What cannot be used, a
/// certificate without its key for example, is a warning in the log, and that pair stays. Replace the file by `rename(2)`,
/// so that no half of it is read. What is no regular file, a FIFO for example, is not read.
///
/// Nothing is asked or read before the first handshake, so a program may start before the server. A handshake without a
/// usable pair fails with the reason: see [`Error::in_handshake`].
///
/// ```no_run
/// use p11_client::{Client, Config, RenewingResolver};
/// # fn f(roots: rustls::RootCertStore) -> Result<(), p11_client::Error> {
///
/// let client = Client::new(Config::default());
/// let resolver = RenewingResolver::new(&client, "pkcs11:token=device", None, "/etc/tedge/device-certs/tedge.pem");
/// let tls = resolver.client_config(None, roots)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct RenewingResolver(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    source: KeySource,
    path: PathBuf,
    state: PerProcess<State>,
}

#[derive(Debug, Default)]
struct State {
    current: Mutex<Option<Arc<Pair>>>,
    /// Held by the one who renews.
    renewal: Mutex<Renewal>,
}

/// A chain and its key.
#[derive(Debug)]
struct Pair {
    file: FileState,
    chain: Vec<CertificateDer<'static>>,
    key: SigningKey,
    resolver: Resolver,
}

/// How the last renewal ended.
#[derive(Debug, Default)]
struct Renewal {
    failed: Option<(Instant, Arc<Error>)>,
    /// The warning that is in the log.
    told: Option<String>,
}

impl RenewingResolver {
    /// Follows a PEM file with the own certificate and those of its issuers, the own first. Of the keys that match the URI
    /// it is the certificate's; `pkcs11:` matches any. `pin` as for [`SigningKey::open`].
    pub fn new(
        client: &Client,
        uri: &str,
        pin: Option<Pin>,
        certificates: impl Into<PathBuf>,
    ) -> Self {
        RenewingResolver(Arc::new(Inner {
            source: KeySource::new(client, uri, pin),
            path: certificates.into(),
            state: PerProcess::default(),
        }))
    }

    /// Looks now, as a handshake does, and tells which key it is.
    ///
    /// # Errors
    /// Why there is no pair, not even one of before.
    pub fn check(&self) -> Result<SigningKey, Arc<Error>> {
        Ok(self.renewed()?.key.clone())
    }

    /// Why no certificate was sent in the last handshake, if none was: see [`SigningKey::why_not_sent`].
    pub fn why_not_sent(&self) -> Option<Error> {
        self.0.state.get().current()?.resolver.why_not_sent()
    }

    /// The pair as it is now, or the last good one.
    fn renewed(&self) -> Result<Arc<Pair>, Arc<Error>> {
        let inner = &self.0;
        let state = inner.state.get();
        let came = Instant::now();
        let mut renewal = match (state.renewal.try_lock(), state.current()) {
            (Ok(renewal), _) => renewal,
            (Err(TryLockError::Poisoned(renewal)), _) => renewal.into_inner(),
            (Err(TryLockError::WouldBlock), Some(pair)) => return Ok(pair),
            (Err(TryLockError::WouldBlock), None) => {
                let renewal = locked(&state.renewal);
                // What the other thread has found is for this one, too.
                if let Some(pair) = state.current() {
                    return Ok(pair);
                }
                match &renewal.failed {
                    Some((when, error)) if *when >= came => return Err(error.clone()),
                    _ => renewal,
                }
            }
        };
        let known = state.current();
        match inner.look(known.as_ref()) {
            Ok(pair) => {
                *renewal = Renewal::default();
                if known.is_none_or(|known| known.chain != pair.chain) {
                    let (path, key) = (&inner.path, pair.key.uri());
                    tracing::info!("the certificate in {path:?} is used, with the key {key:?}");
                }
                *locked(&state.current) = Some(pair.clone());
                Ok(pair)
            }
            Err(error) => {
                let error = Arc::new(error);
                renewal.failed = Some((Instant::now(), error.clone()));
                renewal.warn(&inner.path, &error, known.is_some());
                known.ok_or(error)
            }
        }
    }

    fn resolve_with(
        &self,
        of_pair: impl FnOnce(&Resolver) -> Option<Arc<CertifiedKey>>,
    ) -> Option<Arc<CertifiedKey>> {
        match self.renewed() {
            Ok(pair) => of_pair(&pair.resolver),
            Err(error) => Some(Arc::new(self.0.unusable(error))),
        }
    }
}

impl Inner {
    /// What there is now: the known pair itself where nothing has changed.
    fn look(&self, known: Option<&Arc<Pair>>) -> Result<Arc<Pair>, Error> {
        let file = FileState::of(&self.path)?;
        let chain = match known.filter(|pair| pair.file == file) {
            Some(pair) => Cow::Borrowed(&pair.chain),
            None => Cow::Owned(read_chain(&self.path)?),
        };
        let key = self.source.open_for(&chain, LIMIT)?;
        if let Some(pair) = known
            && pair.file == file
            && pair.key.is_as_opened(&key)
        {
            return Ok(pair.clone());
        }
        Ok(Arc::new(Pair {
            file,
            resolver: Resolver::new(chain.to_vec(), key.clone())?,
            chain: chain.into_owned(),
            key,
        }))
    }

    /// What fails the handshake. With the chain, if that at least can be read.
    fn unusable(&self, error: Arc<Error>) -> CertifiedKey {
        let chain = read_chain(&self.path).unwrap_or_default();
        let leaf = chain.first().map(|leaf| PublicKey::of_certificate(leaf));
        let algorithm = match leaf {
            Some(Ok(public)) => algorithm(public.kind()),
            _ => None,
        };
        let algorithm = algorithm.unwrap_or(SignatureAlgorithm::ECDSA);
        CertifiedKey::new(chain, Arc::new(UnusableKey { error, algorithm }))
    }
}

impl State {
    fn current(&self) -> Option<Arc<Pair>> {
        locked(&self.current).clone()
    }
}

impl Inherit for State {
    fn inherit(&self) -> Self {
        let current = self.current.try_lock();
        State {
            current: Mutex::new(current.ok().and_then(|pair| pair.clone())),
            renewal: Mutex::default(),
        }
    }
}

impl Renewal {
    /// Once for each kind of trouble: handshakes may be many.
    fn warn(&mut self, path: &Path, error: &Error, is_known: bool) {
        let consequence = match is_known {
            true => "the last good certificate and key stay in use",
            false => "handshakes fail",
        };
        let warning =
            format!("no usable certificate and key for {path:?}, so {consequence}: {error}");
        let told = self.told.as_ref() == Some(&warning);
        if told {
            tracing::debug!("{warning}");
        } else {
            tracing::warn!("{warning}");
            self.told = Some(warning);
        }
    }
}

impl ResolvesClientCert for RenewingResolver {
    fn resolve(&self, issuers: &[&[u8]], offered: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.resolve_with(|pair| ResolvesClientCert::resolve(pair, issuers, offered))
    }

    /// Always: nothing is looked at for that.
    fn has_certs(&self) -> bool {
        true
    }
}

impl ResolvesServerCert for RenewingResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.resolve_with(|pair| ResolvesServerCert::resolve(pair, hello))
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
