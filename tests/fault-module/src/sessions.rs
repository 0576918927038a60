//! The sessions that the application has open, with what the faults must know about each.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use cryptoki_sys::{CK_OBJECT_HANDLE, CK_SESSION_HANDLE, CK_SLOT_ID};

/// What is known of an open session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Session {
    /// The real id of its slot.
    pub slot: CK_SLOT_ID,
    /// Its token was pulled out; the real session is closed.
    pub removed: bool,
    /// Its signature was begun with an always-authenticate key and waits for the context-specific login.
    pub awaits_login: bool,
    /// The object that a search in it found last, by its visible handle.
    pub last_found: Option<CK_OBJECT_HANDLE>,
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
            last_found: None,
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

    /// Notes what a search found, if it found something; the object that was found last.
    pub fn found(
        &self,
        handle: CK_SESSION_HANDLE,
        objects: &[CK_OBJECT_HANDLE],
    ) -> Option<CK_OBJECT_HANDLE> {
        let mut sessions = self.write();
        let session = sessions.get_mut(&handle)?;
        session.last_found = objects.last().copied().or(session.last_found);
        session.last_found
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
