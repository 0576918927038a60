//! The mechanisms of a token that sign, with the sizes of keys that each takes.

use std::ops::RangeInclusive;

use cryptoki::mechanism::MechanismType;

use crate::engine::module::{Guard, Place};
use crate::error::Error;

/// The mechanisms of a token that we could sign with, with their limits.
#[derive(Debug, Default)]
pub(crate) struct Mechanisms(pub Vec<(MechanismType, KeySizes)>);

/// The sizes of keys that a mechanism takes, in its own unit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeySizes {
    pub min: usize,
    pub max: usize,
}

impl Mechanisms {
    /// Asks the token (PKCS#11 section 5.5, `C_GetMechanismList`).
    ///
    /// # Errors
    /// What the module said: a mechanism that fails for a while must not be missing as long as the token is
    /// known.
    pub fn read(module: &Guard<'_>, place: &Place) -> Result<Mechanisms, Error> {
        let mut usable = Vec::new();
        for how in module.mechanisms(place)? {
            if SIGNING.contains(&how)
                && let Some((min, max)) = module.signing_sizes(place, how)?
            {
                usable.push((how, KeySizes { min, max }));
            }
        }
        Ok(Mechanisms(usable))
    }

    /// Whether a key of so many bits can use the mechanism.
    pub fn has(&self, how: MechanismType, bits: &RangeInclusive<u32>) -> bool {
        let (least, most) = (*bits.start() as usize, *bits.end() as usize);
        self.0.iter().any(|(known, limits)| {
            // Modules that set no limit say 0.
            *known == how && most >= limits.min && (limits.max == 0 || least <= limits.max)
        })
    }
}

pub(crate) const SIGNING: [MechanismType; 14] = [
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
