//! What a token is given to sign for a message, and its signature as TLS sends it.

use der::asn1::UintRef;
use der::{Encode, Sequence};
use p11_proto::spki::Kind;

use super::hash::Hash;
use super::scheme::Input;
use crate::error::Error;

/// What `C_Sign` is given for a message.
///
/// # Errors
/// [`Error::NotSupported`] where the key is too small for the scheme.
pub(crate) fn input(input: Input, kind: Kind, message: &[u8]) -> Result<Vec<u8>, Error> {
    match input {
        Input::Message(_) => Ok(message.to_vec()),
        Input::Digest(hash) => Ok(hash.of(message)),
        Input::DigestInfo(hash) => Ok([&hash.digest_info()[..], &hash.of(message)].concat()),
        Input::Pkcs1Block(hash) => {
            let info = [&hash.digest_info()[..], &hash.of(message)].concat();
            pkcs1_block(&info, signature_len(kind))
        }
        Input::PssBlock(hash) => {
            let Kind::Rsa { bits } = kind else {
                return Err(Error::Internal("PSS is for RSA keys".into()));
            };
            let mut salt = vec![0; hash.len()];
            getrandom::fill(&mut salt)
                .map_err(|error| Error::Internal(format!("no random salt: {error}")))?;
            pss_block(hash, &hash.of(message), &salt, bits)
        }
    }
}

/// Bytes of the signatures of a key, before they are encoded for TLS.
pub(crate) fn signature_len(kind: Kind) -> usize {
    match kind {
        Kind::Rsa { bits } => bits.div_ceil(8) as usize,
        Kind::Ec(curve) => 2 * curve.bytes(),
        Kind::Ed25519 => 64,
        // No scheme is offered for them.
        _ => 0,
    }
}

/// A token's signature in the form that TLS sends.
///
/// # Errors
/// [`Error::BadAnswer`] where the module gave something else.
pub(crate) fn output(kind: Kind, signature: Vec<u8>) -> Result<Vec<u8>, Error> {
    if signature.len() != signature_len(kind) {
        return Err(Error::BadAnswer(format!(
            "the PKCS#11 module gave a signature of {} bytes where {} were due",
            signature.len(),
            signature_len(kind)
        )));
    }
    if signature.iter().all(|byte| *byte == 0) {
        let why = "the PKCS#11 module gave a signature of nothing but zeros";
        return Err(Error::BadAnswer(why.into()));
    }
    match kind {
        Kind::Ec(_) => ecdsa_der(&signature),
        _ => Ok(signature),
    }
}

/// `r || s` as a DER `Ecdsa-Sig-Value` (RFC 3279 section 2.2.3).
fn ecdsa_der(raw: &[u8]) -> Result<Vec<u8>, Error> {
    #[derive(Sequence)]
    struct EcdsaSigValue<'a> {
        r: UintRef<'a>,
        s: UintRef<'a>,
    }
    let unusable =
        |_| Error::BadAnswer("the PKCS#11 module gave an unusable ECDSA signature".into());
    let (r, s) = raw.split_at(raw.len() / 2);
    let value = EcdsaSigValue {
        r: UintRef::new(r).map_err(unusable)?,
        s: UintRef::new(s).map_err(unusable)?,
    };
    value.to_der().map_err(unusable)
}

fn too_small() -> Error {
    Error::NotSupported("the RSA key is too small for this scheme".into())
}

/// EMSA-PKCS1-v1_5 (RFC 8017 section 9.2): `00 01 ff … ff 00` and the digest info.
fn pkcs1_block(info: &[u8], len: usize) -> Result<Vec<u8>, Error> {
    let fill = len.checked_sub(info.len() + 3).filter(|fill| *fill >= 8);
    let fill = vec![0xff; fill.ok_or_else(too_small)?];
    Ok([&[0x00, 0x01], &fill[..], &[0x00], info].concat())
}

/// EMSA-PSS (RFC 8017 section 9.1.1) for a modulus of `bits` bits, as long as the modulus.
fn pss_block(hash: Hash, digest: &[u8], salt: &[u8], bits: u32) -> Result<Vec<u8>, Error> {
    let em_bits = bits.saturating_sub(1);
    let em_len = em_bits.div_ceil(8) as usize;
    let fill = em_len
        .checked_sub(hash.len() + salt.len() + 2)
        .ok_or_else(too_small)?;

    let h = hash.of(&[&[0; 8], digest, salt].concat());
    let mut db = [&vec![0; fill][..], &[0x01], salt].concat();
    for (byte, mask) in db.iter_mut().zip(mgf1(hash, &h)) {
        *byte ^= mask;
    }
    if let Some(first) = db.first_mut() {
        *first &= 0xff >> (8 * em_len as u32 - em_bits);
    }
    let leading = vec![0; bits.div_ceil(8) as usize - em_len];
    Ok([&leading[..], &db, &h, &[0xbc]].concat())
}

/// MGF1 (RFC 8017 appendix B.2.1), as far as it is read.
fn mgf1(hash: Hash, seed: &[u8]) -> impl Iterator<Item = u8> {
    (0u32..).flat_map(move |counter| hash.of(&[seed, &counter.to_be_bytes()].concat()))
}

#[cfg(test)]
mod tests {
    use p11_proto::spki::Curve;

    use super::*;

    #[test]
    fn an_ecdsa_signature_becomes_der_with_minimal_integers() {
        let mut raw = vec![0; 64];
        raw[31] = 0x80;
        raw[32] = 0x01;
        let der = output(Kind::Ec(Curve::P256), raw).unwrap();
        assert_eq!(der[..7], [0x30, 0x26, 0x02, 0x02, 0x00, 0x80, 0x02]);
        assert!(output(Kind::Ec(Curve::P256), vec![1; 63]).is_err());
        assert!(output(Kind::Ec(Curve::P256), vec![0; 64]).is_err());
    }

    #[test]
    fn blocks_have_the_length_of_the_modulus() {
        for bits in [1024, 1025, 2047, 2048] {
            let kind = Kind::Rsa { bits };
            for way in [
                Input::PssBlock(Hash::Sha256),
                Input::Pkcs1Block(Hash::Sha256),
            ] {
                assert_eq!(input(way, kind, b"m").unwrap().len(), signature_len(kind));
            }
        }
        let small = Kind::Rsa { bits: 512 };
        assert!(input(Input::PssBlock(Hash::Sha512), small, b"m").is_err());
        assert!(input(Input::Pkcs1Block(Hash::Sha512), small, b"m").is_err());
    }
}
