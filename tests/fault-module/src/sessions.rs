//! The sessions that the application has open: handles go in when they open and close, what the faults
//! must know about a session comes out.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use cryptoki_sys::{CK_SESSION_HANDLE, CK_SLOT_ID};

/// What is known of an open session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Session {
    /// The real id of its slot.
    pub slot: CK_SLOT_ID,
    /// Its token was pulled out; the real session is closed.
    pub removed: bool,
    /// Its signature was begun with an always-authenticate key and waits for the context-specific login.
    pub awaits_login: bool,
}

/// All open sessions of the process.
#[derive(Debug, Default)]
pub(crate) struct Sessions(RwLock<HashMap<CK_SESSION_HANDLE, Session>>);

impl Sessions {
    pub fn get(&self, handle: CK_SESSION_HANDLE) -> Option<Session> {
        self.read().get(&handle).copied()
    }

    /// Notes a new session, and returns how many its slot has with it.
    pub fn opened(&self, handle: CK_SESSION_HANDLE, slot: CK_SLOT_ID) -> usize {
        let session = Session {
            slot,
            removed: false,
            awaits_login: false,
        };
        let mut sessions = self.write();
        sessions.insert(handle, session);
        sessions
            .values()
            .filter(|session| session.slot == slot && !session.removed)
            .count()
    }

    pub fn closed(&self, handle: CK_SESSION_HANDLE) {
        self.write().remove(&handle);
    }

    pub fn closed_all(&self, slot: CK_SLOT_ID) {
        self.write().retain(|_, session| session.slot != slot);
    }

    pub fn removed_all(&self, slot: CK_SLOT_ID) {
        for session in self
            .write()
            .values_mut()
            .filter(|session| session.slot == slot)
        {
            session.removed = true;
        }
    }

    /// How many are open, those of a token that was pulled out left aside.
    pub fn count(&self) -> usize {
        let sessions = self.read();
        sessions.values().filter(|session| !session.removed).count()
    }

    pub fn clear(&self) {
        self.write().clear();
    }

    pub fn set_awaits_login(&self, handle: CK_SESSION_HANDLE, awaits_login: bool) {
        if let Some(session) = self.write().get_mut(&handle) {
            session.awaits_login = awaits_login;
        }
    }

    pub fn any_on(&self, slot: CK_SLOT_ID) -> Option<CK_SESSION_HANDLE> {
        let sessions = self.read();
        let mut live = sessions
            .iter()
            .filter(|(_, session)| session.slot == slot && !session.removed);
        live.next().map(|(handle, _)| *handle)
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<CK_SESSION_HANDLE, Session>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<CK_SESSION_HANDLE, Session>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}
