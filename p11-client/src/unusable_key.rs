//! A key that could not be opened: it fails the handshake with the reason, where none at all would let rustls go on without a
//! certificate.

use std::sync::Arc;

use rustls::{OtherError, SignatureAlgorithm, SignatureScheme, sign};

use crate::error::Error;

#[derive(Debug)]
pub(crate) struct UnusableKey {
    pub error: Arc<Error>,
    /// What it would be.
    pub algorithm: SignatureAlgorithm,
}

impl sign::SigningKey for UnusableKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn sign::Signer>> {
        Some(Box::new(UnusableSigner {
            error: self.error.clone(),
            scheme: *offered.first()?,
        }))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }
}

#[derive(Debug)]
struct UnusableSigner {
    error: Arc<Error>,
    scheme: SignatureScheme,
}

impl sign::Signer for UnusableSigner {
    fn sign(&self, _message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        Err(OtherError(self.error.clone()).into())
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}
