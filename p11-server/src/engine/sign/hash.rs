//! The hashes of the TLS schemes, and their `DigestInfo` (RFC 8017 section 9.2).

use sha2::{Digest, Sha256, Sha384, Sha512};

/// The hashes of the TLS schemes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hash {
    /// SHA-256
    Sha256,
    /// SHA-384
    Sha384,
    /// SHA-512
    Sha512,
}

impl Hash {
    /// The hash of a message.
    pub fn of(self, message: &[u8]) -> Vec<u8> {
        match self {
            Hash::Sha256 => Sha256::digest(message).to_vec(),
            Hash::Sha384 => Sha384::digest(message).to_vec(),
            Hash::Sha512 => Sha512::digest(message).to_vec(),
        }
    }

    /// Its length in bytes.
    pub fn len(self) -> usize {
        match self {
            Hash::Sha256 => 32,
            Hash::Sha384 => 48,
            Hash::Sha512 => 64,
        }
    }

    /// What comes before the hash in a DER `DigestInfo` (RFC 8017 section 9.2, note 1).
    pub fn digest_info(self) -> [u8; 19] {
        let (whole, oid, hash) = match self {
            Hash::Sha256 => (0x31, 0x01, 0x20),
            Hash::Sha384 => (0x41, 0x02, 0x30),
            Hash::Sha512 => (0x51, 0x03, 0x40),
        };
        [
            0x30, whole, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02,
            oid, 0x05, 0x00, 0x04, hash,
        ]
    }
}
