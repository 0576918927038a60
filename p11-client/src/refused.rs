//! What the last peer has offered, where no key could sign that.

use std::sync::{Mutex, PoisonError};

use rustls::SignatureScheme;

use crate::per_process::{Inherit, PerProcess};

#[derive(Debug, Default)]
pub(crate) struct Refused(PerProcess<Offer>);

#[derive(Debug, Default)]
struct Offer(Mutex<Option<Vec<SignatureScheme>>>);

impl Refused {
    /// `None` where the peer took one.
    pub(crate) fn set(&self, offered: Option<Vec<SignatureScheme>>) {
        let offer = &self.0.get().0;
        *offer.lock().unwrap_or_else(PoisonError::into_inner) = offered;
    }

    pub(crate) fn get(&self) -> Option<Vec<SignatureScheme>> {
        let offer = &self.0.get().0;
        offer.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Inherit for Offer {
    fn inherit(&self) -> Self {
        Offer::default()
    }
}
