//! TLS signature schemes (RFC 8446 section 4.2.3), which are numbers on the wire.

use std::fmt;

/// A signature scheme of TLS 1.2 and 1.3 (RFC 8446 section 4.2.3) that this project can sign with.
///
/// Its number on the wire is the TLS one; a number that is not listed here is no `Scheme`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
#[non_exhaustive]
pub enum Scheme {
    /// `rsa_pkcs1_sha256`: RSASSA-PKCS1-v1_5, TLS 1.2 only.
    RsaPkcs1Sha256 = 0x0401,
    /// `rsa_pkcs1_sha384`
    RsaPkcs1Sha384 = 0x0501,
    /// `rsa_pkcs1_sha512`
    RsaPkcs1Sha512 = 0x0601,
    /// `ecdsa_secp256r1_sha256`; the signature is a DER `Ecdsa-Sig-Value` (RFC 3279 section 2.2.3).
    EcdsaP256Sha256 = 0x0403,
    /// `ecdsa_secp384r1_sha384`
    EcdsaP384Sha384 = 0x0503,
    /// `ecdsa_secp521r1_sha512`
    EcdsaP521Sha512 = 0x0603,
    /// `rsa_pss_rsae_sha256`: the salt is as long as the hash, MGF1 with the same hash.
    RsaPssSha256 = 0x0804,
    /// `rsa_pss_rsae_sha384`
    RsaPssSha384 = 0x0805,
    /// `rsa_pss_rsae_sha512`
    RsaPssSha512 = 0x0806,
    /// `ed25519` (RFC 8032): signs the message, not its hash.
    Ed25519 = 0x0807,
}

impl Scheme {
    /// All schemes.
    pub const ALL: &[Scheme] = &[
        Scheme::RsaPkcs1Sha256,
        Scheme::RsaPkcs1Sha384,
        Scheme::RsaPkcs1Sha512,
        Scheme::EcdsaP256Sha256,
        Scheme::EcdsaP384Sha384,
        Scheme::EcdsaP521Sha512,
        Scheme::RsaPssSha256,
        Scheme::RsaPssSha384,
        Scheme::RsaPssSha512,
        Scheme::Ed25519,
    ];

    /// The scheme of a TLS number, `None` for one that this project cannot sign with.
    pub fn from_number(number: u16) -> Option<Scheme> {
        Scheme::ALL
            .iter()
            .copied()
            .find(|scheme| scheme.number() == number)
    }

    /// The number that TLS gives the scheme.
    pub fn number(self) -> u16 {
        self as u16
    }

    /// The name that RFC 8446 gives the scheme.
    pub fn name(self) -> &'static str {
        match self {
            Scheme::RsaPkcs1Sha256 => "rsa_pkcs1_sha256",
            Scheme::RsaPkcs1Sha384 => "rsa_pkcs1_sha384",
            Scheme::RsaPkcs1Sha512 => "rsa_pkcs1_sha512",
            Scheme::EcdsaP256Sha256 => "ecdsa_secp256r1_sha256",
            Scheme::EcdsaP384Sha384 => "ecdsa_secp384r1_sha384",
            Scheme::EcdsaP521Sha512 => "ecdsa_secp521r1_sha512",
            Scheme::RsaPssSha256 => "rsa_pss_rsae_sha256",
            Scheme::RsaPssSha384 => "rsa_pss_rsae_sha384",
            Scheme::RsaPssSha512 => "rsa_pss_rsae_sha512",
            Scheme::Ed25519 => "ed25519",
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_tls() {
        for &scheme in Scheme::ALL {
            assert_eq!(Scheme::from_number(scheme.number()), Some(scheme));
        }
        assert_eq!(Scheme::from_number(0x0807), Some(Scheme::Ed25519));
        assert_eq!(Scheme::from_number(0x0201), None, "SHA-1 is not offered");
    }
}
