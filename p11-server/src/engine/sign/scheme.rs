//! The TLS schemes that a key can sign on its token, each with the mechanism for it.

use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsPssParams};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki_sys::CK_ULONG;
use p11_proto::Scheme;
use p11_proto::spki::{Curve, Kind};

use super::hash::Hash;
use crate::engine::token::mechanisms::Mechanisms;

/// How one scheme is signed with one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Method {
    /// The scheme.
    pub scheme: Scheme,
    family: Family,
    /// What `C_Sign` is given.
    pub input: Input,
}

/// What a scheme is made of, beside its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Ecdsa(Curve),
    Pkcs1,
    Pss,
    Ed25519,
}

/// Every scheme with what it is made of. Those of one kind of key stand in our order of preference.
const SCHEMES: [(Scheme, Family, Hash); 10] = [
    (Scheme::RsaPssSha256, Family::Pss, Hash::Sha256),
    (Scheme::RsaPssSha384, Family::Pss, Hash::Sha384),
    (Scheme::RsaPssSha512, Family::Pss, Hash::Sha512),
    (Scheme::RsaPkcs1Sha256, Family::Pkcs1, Hash::Sha256),
    (Scheme::RsaPkcs1Sha384, Family::Pkcs1, Hash::Sha384),
    (Scheme::RsaPkcs1Sha512, Family::Pkcs1, Hash::Sha512),
    (
        Scheme::EcdsaP256Sha256,
        Family::Ecdsa(Curve::P256),
        Hash::Sha256,
    ),
    (
        Scheme::EcdsaP384Sha384,
        Family::Ecdsa(Curve::P384),
        Hash::Sha384,
    ),
    (
        Scheme::EcdsaP521Sha512,
        Family::Ecdsa(Curve::P521),
        Hash::Sha512,
    ),
    (Scheme::Ed25519, Family::Ed25519, Hash::Sha512),
];

impl Family {
    fn is_of(self, kind: Kind) -> bool {
        match (self, kind) {
            (Family::Ecdsa(wanted), Kind::Ec(curve)) => wanted == curve,
            (Family::Pkcs1 | Family::Pss, Kind::Rsa { .. }) => true,
            (Family::Ed25519, Kind::Ed25519) => true,
            _ => false,
        }
    }

    /// Whether a key is large enough for the scheme (RFC 8017 sections 9.1.1 and 9.2).
    fn fits(self, kind: Kind, hash: Hash) -> bool {
        match (self, kind) {
            (Family::Pss, Kind::Rsa { bits }) => bits as usize >= 16 * hash.len() + 9,
            (Family::Pkcs1, Kind::Rsa { bits }) => {
                bits.div_ceil(8) as usize >= hash.len() + hash.digest_info().len() + 11
            }
            _ => true,
        }
    }

    /// The ways to sign, best first: hash here and sign there, else let the token hash, else leave it
    /// nothing but the raw RSA operation.
    fn inputs(self, hash: Hash, can_decrypt: bool) -> Vec<Input> {
        match self {
            Family::Ecdsa(_) => vec![Input::Digest(hash), Input::Message(hash)],
            // Where it is given the hash, tpm2-pkcs11 pads it and has the TPM decrypt the block.
            Family::Pkcs1 if !can_decrypt => vec![
                Input::Message(hash),
                Input::DigestInfo(hash),
                Input::Pkcs1Block(hash),
            ],
            Family::Pkcs1 => vec![
                Input::DigestInfo(hash),
                Input::Message(hash),
                Input::Pkcs1Block(hash),
            ],
            Family::Pss => vec![
                Input::Digest(hash),
                Input::Message(hash),
                Input::PssBlock(hash),
            ],
            Family::Ed25519 => vec![Input::Message(hash)],
        }
    }
}

impl Method {
    /// What `C_SignInit` is given.
    pub fn mechanism(&self) -> Mechanism<'static> {
        match (self.family, self.input) {
            (_, Input::Pkcs1Block(_) | Input::PssBlock(_)) => Mechanism::RsaX509,
            (_, Input::DigestInfo(_)) => Mechanism::RsaPkcs,
            (Family::Pss, Input::Digest(hash)) => Mechanism::RsaPkcsPss(pss_params(hash)),
            (_, Input::Digest(_)) => Mechanism::Ecdsa,
            (Family::Ecdsa(_), Input::Message(hash)) => match hash {
                Hash::Sha256 => Mechanism::EcdsaSha256,
                Hash::Sha384 => Mechanism::EcdsaSha384,
                Hash::Sha512 => Mechanism::EcdsaSha512,
            },
            (Family::Pkcs1, Input::Message(hash)) => match hash {
                Hash::Sha256 => Mechanism::Sha256RsaPkcs,
                Hash::Sha384 => Mechanism::Sha384RsaPkcs,
                Hash::Sha512 => Mechanism::Sha512RsaPkcs,
            },
            (Family::Pss, Input::Message(hash)) => match hash {
                Hash::Sha256 => Mechanism::Sha256RsaPkcsPss(pss_params(hash)),
                Hash::Sha384 => Mechanism::Sha384RsaPkcsPss(pss_params(hash)),
                Hash::Sha512 => Mechanism::Sha512RsaPkcsPss(pss_params(hash)),
            },
            (Family::Ed25519, Input::Message(_)) => {
                Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Pure))
            }
        }
    }
}

/// What the token is given to sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// The message; the token hashes it, or the scheme does not hash first.
    Message(Hash),
    /// Its hash.
    Digest(Hash),
    /// Its hash in a `DigestInfo` (RFC 8017 section 9.2).
    DigestInfo(Hash),
    /// The whole block of EMSA-PKCS1-v1_5 (RFC 8017 section 9.2).
    Pkcs1Block(Hash),
    /// The whole block of EMSA-PSS (RFC 8017 section 9.1.1).
    PssBlock(Hash),
}

/// How a key can sign its schemes, the preferred one first, and of one scheme's ways the best.
///
/// `allowed` is its `CKA_ALLOWED_MECHANISMS`, where an empty list allows all.
pub(crate) fn methods(
    kind: Kind,
    token: &Mechanisms,
    allowed: &[MechanismType],
    can_decrypt: bool,
) -> Vec<Method> {
    let bits = match kind {
        Kind::Rsa { bits } => bits..=bits,
        Kind::Ec(curve) => curve.bits()..=curve.bits(),
        // The field has 255; SoftHSM counts 256.
        Kind::Ed25519 => 255..=256,
        _ => return Vec::new(),
    };
    let usable = |method: &Method| {
        let how = method.mechanism().mechanism_type();
        token.has(how, &bits) && (allowed.is_empty() || allowed.contains(&how))
    };
    let of_kind = SCHEMES
        .iter()
        .filter(|(_, family, hash)| family.is_of(kind) && family.fits(kind, *hash));
    let ways = |&(scheme, family, hash): &(Scheme, Family, Hash)| {
        let inputs = family.inputs(hash, can_decrypt).into_iter();
        inputs.map(move |input| Method {
            scheme,
            family,
            input,
        })
    };
    of_kind.flat_map(ways).filter(usable).collect()
}

/// RFC 8446 section 4.2.3: MGF1 with the same hash, and a salt as long as it.
fn pss_params(hash: Hash) -> PkcsPssParams {
    let (hash_alg, mgf) = match hash {
        Hash::Sha256 => (MechanismType::SHA256, PkcsMgfType::MGF1_SHA256),
        Hash::Sha384 => (MechanismType::SHA384, PkcsMgfType::MGF1_SHA384),
        Hash::Sha512 => (MechanismType::SHA512, PkcsMgfType::MGF1_SHA512),
    };
    PkcsPssParams {
        hash_alg,
        mgf,
        s_len: (hash.len() as CK_ULONG).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::token::mechanisms::{KeySizes, SIGNING};

    fn token(mechanisms: &[MechanismType]) -> Mechanisms {
        let any = KeySizes { min: 0, max: 0 };
        Mechanisms(mechanisms.iter().map(|how| (*how, any)).collect())
    }

    /// The first way of each scheme.
    fn best(kind: Kind, token: &Mechanisms, can_decrypt: bool) -> Vec<Method> {
        let mut best = methods(kind, token, &[], can_decrypt);
        best.dedup_by_key(|method| method.scheme);
        best
    }

    #[test]
    fn a_scheme_that_the_key_is_too_small_for_is_not_offered() {
        let all = token(&SIGNING);
        let schemes = |bits| -> Vec<Scheme> {
            let best = best(Kind::Rsa { bits }, &all, true);
            best.iter().map(|method| method.scheme).collect()
        };
        assert!(!schemes(1024).contains(&Scheme::RsaPssSha512));
        assert!(!schemes(1032).contains(&Scheme::RsaPssSha512));
        assert_eq!(schemes(1033).len(), 6);
        assert_eq!(schemes(1024).len(), 5);
        assert!(!schemes(512).contains(&Scheme::RsaPkcs1Sha512));
        assert!(schemes(512).contains(&Scheme::RsaPkcs1Sha256));
    }

    #[test]
    fn hashing_here_is_preferred_and_the_token_hashes_only_where_it_must() {
        let p256 = Kind::Ec(Curve::P256);
        let both = token(&[MechanismType::ECDSA_SHA256, MechanismType::ECDSA]);
        let method = |input| Method {
            scheme: Scheme::EcdsaP256Sha256,
            family: Family::Ecdsa(Curve::P256),
            input,
        };
        assert_eq!(
            methods(p256, &both, &[], true),
            [Input::Digest, Input::Message].map(|input| method(input(Hash::Sha256)))
        );
        let hashing = token(&[MechanismType::ECDSA_SHA256]);
        assert_eq!(
            methods(p256, &hashing, &[], true),
            [method(Input::Message(Hash::Sha256))]
        );
        assert!(methods(p256, &token(&[MechanismType::RSA_PKCS]), &[], true).is_empty());
    }

    #[test]
    fn raw_rsa_alone_does_every_rsa_scheme() {
        let raw = token(&[MechanismType::RSA_X_509]);
        let methods = methods(Kind::Rsa { bits: 2048 }, &raw, &[], true);
        assert_eq!(methods.len(), 6);
        assert_eq!(methods[0].input, Input::PssBlock(Hash::Sha256));
        assert_eq!(methods[5].input, Input::Pkcs1Block(Hash::Sha512));
    }

    #[test]
    fn a_key_signs_only_with_the_mechanisms_it_allows() {
        let all = token(&SIGNING);
        let rsa = Kind::Rsa { bits: 2048 };
        let only = methods(rsa, &all, &[MechanismType::SHA256_RSA_PKCS], true);
        let hashing = Method {
            scheme: Scheme::RsaPkcs1Sha256,
            family: Family::Pkcs1,
            input: Input::Message(Hash::Sha256),
        };
        assert_eq!(only, [hashing]);
    }

    #[test]
    fn a_key_that_may_not_decrypt_leaves_the_padding_of_pkcs1_to_the_token() {
        let all = token(&SIGNING);
        let inputs = |can_decrypt| -> Vec<Input> {
            let best = best(Kind::Rsa { bits: 2048 }, &all, can_decrypt);
            best.iter().map(|method| method.input).collect()
        };
        let (may, may_not) = (inputs(true), inputs(false));
        assert_eq!(may[..3], may_not[..3], "PSS as ever");
        assert_eq!(may[3], Input::DigestInfo(Hash::Sha256));
        let hashes = [Hash::Sha256, Hash::Sha384, Hash::Sha512];
        assert_eq!(may_not[3..], hashes.map(Input::Message));
    }

    #[test]
    fn a_key_outside_the_size_range_of_a_mechanism_does_not_use_it() {
        let small = Mechanisms(vec![(
            MechanismType::RSA_PKCS,
            KeySizes {
                min: 1024,
                max: 2048,
            },
        )]);
        assert_eq!(
            methods(Kind::Rsa { bits: 2048 }, &small, &[], true).len(),
            3
        );
        assert!(methods(Kind::Rsa { bits: 1023 }, &small, &[], true).is_empty());
        assert!(methods(Kind::Rsa { bits: 4096 }, &small, &[], true).is_empty());
    }

    #[test]
    fn ed25519_has_255_or_256_bits() {
        for (min, max) in [(255, 255), (256, 456), (0, 0)] {
            let token = Mechanisms(vec![(MechanismType::EDDSA, KeySizes { min, max })]);
            assert_eq!(
                methods(Kind::Ed25519, &token, &[], true).len(),
                1,
                "{min} to {max}"
            );
        }
        let ed448 = Mechanisms(vec![(
            MechanismType::EDDSA,
            KeySizes { min: 448, max: 456 },
        )]);
        assert!(methods(Kind::Ed25519, &ed448, &[], true).is_empty());
    }
}
