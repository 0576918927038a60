//! The TLS sessions of a client whose certificate may be renewed: those of another certificate are not resumed.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::NamedGroup;
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::pki_types::ServerName;

use crate::renewing_resolver::RenewingResolver;

/// As many as rustls remembers by default.
const SESSIONS: usize = 256;

/// A session that is resumed asks the resolver for nothing, and the server sees the certificate of then. So the file is looked
/// at before one is resumed.
#[derive(Debug)]
pub(crate) struct SessionStore {
    resolver: RenewingResolver,
    sessions: Mutex<(Option<u64>, Arc<ClientSessionMemoryCache>)>,
}

impl SessionStore {
    pub(crate) fn new(resolver: RenewingResolver) -> Self {
        let sessions = Mutex::new((None, empty()));
        SessionStore { resolver, sessions }
    }

    /// Those of the chain that is in use now, after a look at the file or as far as is known.
    fn current(&self, look: bool) -> Arc<ClientSessionMemoryCache> {
        let generation = self.resolver.generation(look);
        let sessions = &self.sessions;
        let mut sessions = sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.0 != generation {
            *sessions = (generation, empty());
        }
        sessions.1.clone()
    }
}

fn empty() -> Arc<ClientSessionMemoryCache> {
    Arc::new(ClientSessionMemoryCache::new(SESSIONS))
}

impl ClientSessionStore for SessionStore {
    fn set_kx_hint(&self, server: ServerName<'static>, group: NamedGroup) {
        self.current(false).set_kx_hint(server, group);
    }

    fn kx_hint(&self, server: &ServerName<'_>) -> Option<NamedGroup> {
        self.current(false).kx_hint(server)
    }

    fn set_tls12_session(&self, server: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.current(false).set_tls12_session(server, value);
    }

    fn tls12_session(&self, server: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.current(true).tls12_session(server)
    }

    fn remove_tls12_session(&self, server: &ServerName<'static>) {
        self.current(false).remove_tls12_session(server);
    }

    fn insert_tls13_ticket(&self, server: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.current(false).insert_tls13_ticket(server, value);
    }

    fn take_tls13_ticket(&self, server: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.current(true).take_tls13_ticket(server)
    }
}
