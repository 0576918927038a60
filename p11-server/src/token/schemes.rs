//! A key and its token enter, the TLS schemes they can sign leave, each with the way to do it.

use std::ops::RangeInclusive;

use cryptoki::context::Pkcs11;
use cryptoki::error::{Error as Cryptoki, RvError};
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsPssParams};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::slot::Slot;
use p11_proto::Scheme;
use p11_proto::spki::{Curve, Kind};

use super::encode::Hash;
use crate::error::Error;

/// The mechanisms of a token that we could sign with, with their limits.
#[derive(Debug, Default)]
pub struct Mechanisms(Vec<(MechanismType, Limits)>);

#[derive(Clone, Copy, Debug)]
struct Limits {
    min: usize,
    max: usize,
}

impl Mechanisms {
    /// Asks the token (PKCS#11 section 5.5, `C_GetMechanismList`).
    ///
    /// # Errors
    /// What the module said. Only a mechanism that the module lists and then disowns is left out: one
    /// that fails for a while must not be missing as long as the token is known.
    pub fn read(module: &Pkcs11, slot: Slot) -> Result<Mechanisms, Error> {
        let mut usable = Vec::new();
        for how in module.get_mechanism_list(slot)? {
            if !SIGNING.contains(&how) {
                continue;
            }
            match module.get_mechanism_info(slot, how) {
                Ok(info) if info.sign() => usable.push((
                    how,
                    Limits {
                        min: info.min_key_size(),
                        max: info.max_key_size(),
                    },
                )),
                Ok(_) => {}
                Err(Cryptoki::Pkcs11(
                    RvError::MechanismInvalid | RvError::FunctionNotSupported,
                    _,
                )) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Mechanisms(usable))
    }

    /// Whether a key of so many bits can use the mechanism.
    fn has(&self, how: MechanismType, bits: &RangeInclusive<u32>) -> bool {
        let (least, most) = (*bits.start() as usize, *bits.end() as usize);
        self.0.iter().any(|(known, limits)| {
            // Modules that set no limit say 0.
            *known == how && most >= limits.min && (limits.max == 0 || least <= limits.max)
        })
    }
}

const SIGNING: [MechanismType; 14] = [
    MechanismType::ECDSA,
    MechanismType::ECDSA_SHA256,
    MechanismType::ECDSA_SHA384,
    MechanismType::ECDSA_SHA512,
    MechanismType::EDDSA,
    MechanismType::RSA_X_509,
    MechanismType::RSA_PKCS,
    MechanismType::SHA256_RSA_PKCS,
    MechanismType::SHA384_RSA_PKCS,
    MechanismType::SHA512_RSA_PKCS,
    MechanismType::RSA_PKCS_PSS,
    MechanismType::SHA256_RSA_PKCS_PSS,
    MechanismType::SHA384_RSA_PKCS_PSS,
    MechanismType::SHA512_RSA_PKCS_PSS,
];

/// How one scheme is signed with one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The scheme.
    pub scheme: Scheme,
    /// What `C_Sign` is given.
    pub input: Input,
}

impl Plan {
    /// What `C_SignInit` is given.
    pub fn mechanism(&self) -> Mechanism<'static> {
        match self.input {
            Input::Pkcs1Block(_) | Input::PssBlock(_) => Mechanism::RsaX509,
            Input::DigestInfo(_) => Mechanism::RsaPkcs,
            Input::Digest(hash) => match self.scheme {
                Scheme::RsaPssSha256 | Scheme::RsaPssSha384 | Scheme::RsaPssSha512 => {
                    Mechanism::RsaPkcsPss(pss_params(hash))
                }
                _ => Mechanism::Ecdsa,
            },
            Input::Message => match self.scheme {
                Scheme::EcdsaP256Sha256 => Mechanism::EcdsaSha256,
                Scheme::EcdsaP384Sha384 => Mechanism::EcdsaSha384,
                Scheme::EcdsaP521Sha512 => Mechanism::EcdsaSha512,
                Scheme::RsaPkcs1Sha256 => Mechanism::Sha256RsaPkcs,
                Scheme::RsaPkcs1Sha384 => Mechanism::Sha384RsaPkcs,
                Scheme::RsaPkcs1Sha512 => Mechanism::Sha512RsaPkcs,
                Scheme::RsaPssSha256 => Mechanism::Sha256RsaPkcsPss(pss_params(Hash::Sha256)),
                Scheme::RsaPssSha384 => Mechanism::Sha384RsaPkcsPss(pss_params(Hash::Sha384)),
                Scheme::RsaPssSha512 => Mechanism::Sha512RsaPkcsPss(pss_params(Hash::Sha512)),
                Scheme::Ed25519 => Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Pure)),
            },
        }
    }
}

/// What the token is given to sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// The message; the token hashes it, or the scheme does not hash first.
    Message,
    /// Its hash.
    Digest(Hash),
    /// Its hash in a `DigestInfo` (RFC 8017 section 9.2).
    DigestInfo(Hash),
    /// The whole block of EMSA-PKCS1-v1_5 (RFC 8017 section 9.2).
    Pkcs1Block(Hash),
    /// The whole block of EMSA-PSS (RFC 8017 section 9.1.1).
    PssBlock(Hash),
}

/// The schemes of a key, the preferred one first.
///
/// `allowed` is its `CKA_ALLOWED_MECHANISMS`, where an empty list allows all.
pub fn plans(
    kind: Kind,
    token: &Mechanisms,
    allowed: &[MechanismType],
    can_decrypt: bool,
) -> Vec<Plan> {
    let bits = match kind {
        Kind::Rsa { bits } => bits..=bits,
        Kind::Ec(curve) => curve.bits()..=curve.bits(),
        // The field has 255; SoftHSM counts 256.
        Kind::Ed25519 => 255..=256,
    };
    let usable = |plan: &Plan| {
        let how = plan.mechanism().mechanism_type();
        token.has(how, &bits) && (allowed.is_empty() || allowed.contains(&how))
    };
    let best = |scheme: &Scheme| {
        let scheme = *scheme;
        let ways = inputs(scheme, can_decrypt).into_iter();
        ways.map(|input| Plan { scheme, input }).find(usable)
    };
    schemes(kind).iter().filter_map(best).collect()
}

/// What TLS knows for a kind of key, in our order of preference.
fn schemes(kind: Kind) -> &'static [Scheme] {
    match kind {
        Kind::Rsa { .. } => &[
            Scheme::RsaPssSha256,
            Scheme::RsaPssSha384,
            Scheme::RsaPssSha512,
            Scheme::RsaPkcs1Sha256,
            Scheme::RsaPkcs1Sha384,
            Scheme::RsaPkcs1Sha512,
        ],
        Kind::Ec(Curve::P256) => &[Scheme::EcdsaP256Sha256],
        Kind::Ec(Curve::P384) => &[Scheme::EcdsaP384Sha384],
        Kind::Ec(Curve::P521) => &[Scheme::EcdsaP521Sha512],
        Kind::Ed25519 => &[Scheme::Ed25519],
    }
}

/// The ways to sign a scheme, best first: hash here and sign there, else let the token hash, else
/// leave it nothing but the raw RSA operation.
fn inputs(scheme: Scheme, can_decrypt: bool) -> Vec<Input> {
    match scheme {
        Scheme::EcdsaP256Sha256 => vec![Input::Digest(Hash::Sha256), Input::Message],
        Scheme::EcdsaP384Sha384 => vec![Input::Digest(Hash::Sha384), Input::Message],
        Scheme::EcdsaP521Sha512 => vec![Input::Digest(Hash::Sha512), Input::Message],
        Scheme::RsaPkcs1Sha256 => pkcs1(Hash::Sha256, can_decrypt),
        Scheme::RsaPkcs1Sha384 => pkcs1(Hash::Sha384, can_decrypt),
        Scheme::RsaPkcs1Sha512 => pkcs1(Hash::Sha512, can_decrypt),
        Scheme::RsaPssSha256 => pss(Hash::Sha256),
        Scheme::RsaPssSha384 => pss(Hash::Sha384),
        Scheme::RsaPssSha512 => pss(Hash::Sha512),
        Scheme::Ed25519 => vec![Input::Message],
    }
}

fn pkcs1(hash: Hash, can_decrypt: bool) -> Vec<Input> {
    let mut ways = vec![
        Input::DigestInfo(hash),
        Input::Message,
        Input::Pkcs1Block(hash),
    ];
    if !can_decrypt {
        // Where it is given the hash, tpm2-pkcs11 pads it and has the TPM decrypt the block.
        ways.swap(0, 1);
    }
    ways
}

fn pss(hash: Hash) -> Vec<Input> {
    vec![Input::Digest(hash), Input::Message, Input::PssBlock(hash)]
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
        s_len: (hash.len() as u64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(mechanisms: &[MechanismType]) -> Mechanisms {
        let any = Limits { min: 0, max: 0 };
        Mechanisms(mechanisms.iter().map(|how| (*how, any)).collect())
    }

    #[test]
    fn hashing_here_is_preferred_and_the_token_hashes_only_where_it_must() {
        let p256 = Kind::Ec(Curve::P256);
        let both = token(&[MechanismType::ECDSA_SHA256, MechanismType::ECDSA]);
        let plan = |input| Plan {
            scheme: Scheme::EcdsaP256Sha256,
            input,
        };
        assert_eq!(
            plans(p256, &both, &[], true),
            [plan(Input::Digest(Hash::Sha256))]
        );
        let hashing = token(&[MechanismType::ECDSA_SHA256]);
        assert_eq!(plans(p256, &hashing, &[], true), [plan(Input::Message)]);
        assert!(plans(p256, &token(&[MechanismType::RSA_PKCS]), &[], true).is_empty());
    }

    #[test]
    fn raw_rsa_alone_does_every_rsa_scheme() {
        let raw = token(&[MechanismType::RSA_X_509]);
        let plans = plans(Kind::Rsa { bits: 2048 }, &raw, &[], true);
        assert_eq!(plans.len(), 6);
        assert_eq!(plans[0].input, Input::PssBlock(Hash::Sha256));
        assert_eq!(plans[5].input, Input::Pkcs1Block(Hash::Sha512));
    }

    #[test]
    fn a_key_signs_only_with_the_mechanisms_it_allows() {
        let all = token(&SIGNING);
        let rsa = Kind::Rsa { bits: 2048 };
        let only = plans(rsa, &all, &[MechanismType::SHA256_RSA_PKCS], true);
        let hashing = Plan {
            scheme: Scheme::RsaPkcs1Sha256,
            input: Input::Message,
        };
        assert_eq!(only, [hashing]);
    }

    #[test]
    fn a_key_that_may_not_decrypt_leaves_the_padding_of_pkcs1_to_the_token() {
        let all = token(&SIGNING);
        let inputs = |can_decrypt| -> Vec<Input> {
            let plans = plans(Kind::Rsa { bits: 2048 }, &all, &[], can_decrypt);
            plans.iter().map(|plan| plan.input).collect()
        };
        let (may, may_not) = (inputs(true), inputs(false));
        assert_eq!(may[..3], may_not[..3], "PSS as ever");
        assert_eq!(may[3], Input::DigestInfo(Hash::Sha256));
        assert_eq!(may_not[3..], [Input::Message; 3]);
    }

    #[test]
    fn a_key_outside_the_size_range_of_a_mechanism_does_not_use_it() {
        let small = Mechanisms(vec![(
            MechanismType::RSA_PKCS,
            Limits {
                min: 1024,
                max: 2048,
            },
        )]);
        assert_eq!(plans(Kind::Rsa { bits: 2048 }, &small, &[], true).len(), 3);
        assert!(plans(Kind::Rsa { bits: 1023 }, &small, &[], true).is_empty());
        assert!(plans(Kind::Rsa { bits: 4096 }, &small, &[], true).is_empty());
    }
    #[test]
    fn ed25519_has_255_or_256_bits() {
        for (min, max) in [(255, 255), (256, 456), (0, 0)] {
            let token = Mechanisms(vec![(MechanismType::EDDSA, Limits { min, max })]);
            assert_eq!(
                plans(Kind::Ed25519, &token, &[], true).len(),
                1,
                "{min} to {max}"
            );
        }
        let ed448 = Mechanisms(vec![(MechanismType::EDDSA, Limits { min: 448, max: 456 })]);
        assert!(plans(Kind::Ed25519, &ed448, &[], true).is_empty());
    }
}
