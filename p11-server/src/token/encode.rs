//! Bytes of PKCS#11 and bytes of TLS: attributes become public keys, messages become what a token
//! signs, its signatures become what TLS sends.

use cryptoki::object::{Attribute, KeyType};
use der::asn1::{AnyRef, UintRef};
use der::{Decode, Encode, Sequence, Tag, Tagged};
use p11_proto::spki::{Curve, Kind, PublicKey};
use sha2::{Digest, Sha256, Sha384, Sha512};

use super::schemes::Input;
use crate::error::Error;

/// The hashes of the TLS schemes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
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
    fn digest_info(self) -> [u8; 19] {
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

/// The public key that the attributes of one object tell, `None` where they are not all there.
///
/// # Errors
/// [`Error::NotSupported`] for a key that is there but of a kind, curve or form that we do not know.
pub fn public_key(attributes: &[Attribute]) -> Result<Option<PublicKey>, Error> {
    let (mut kind, mut modulus, mut exponent) = (None, None, None);
    let (mut params, mut point, mut info) = (None, None, None);
    for attribute in attributes {
        match attribute {
            Attribute::KeyType(key_type) => kind = Some(*key_type),
            Attribute::Modulus(bytes) if !bytes.is_empty() => modulus = Some(bytes),
            Attribute::PublicExponent(bytes) if !bytes.is_empty() => exponent = Some(bytes),
            Attribute::EcParams(bytes) if !bytes.is_empty() => params = Some(bytes),
            Attribute::EcPoint(bytes) if !bytes.is_empty() => point = Some(bytes),
            Attribute::PublicKeyInfo(bytes) if !bytes.is_empty() => info = Some(bytes),
            _ => {}
        }
    }
    let unusable = |error: p11_proto::Error| Error::NotSupported(error.to_string());
    let key = match (kind, modulus, exponent, params, point) {
        (Some(KeyType::RSA), Some(modulus), Some(exponent), ..) => {
            PublicKey::rsa(modulus, exponent)
        }
        (Some(KeyType::EC), _, _, Some(params), Some(point)) => {
            let curve = curve(params)?;
            PublicKey::ec(curve, unwrap_point(point, 1 + 2 * curve.bytes()))
        }
        (Some(KeyType::EC_EDWARDS), _, _, Some(params), Some(point)) => {
            edwards25519(params)?;
            PublicKey::ed25519(unwrap_point(point, 32))
        }
        _ => match info {
            Some(info) => PublicKey::from_spki(info),
            None => return Ok(None),
        },
    };
    key.map(Some).map_err(unusable)
}

/// `CKA_EC_PARAMS` (PKCS#11 section 6.3.3): an object identifier, or the name of the curve.
fn curve(params: &[u8]) -> Result<Curve, Error> {
    let named = |curve: &Curve| {
        let name = match curve {
            Curve::P256 => ["secp256r1", "prime256v1", "P-256"],
            Curve::P384 => ["secp384r1", "ansip384r1", "P-384"],
            Curve::P521 => ["secp521r1", "ansip521r1", "P-521"],
        };
        curve.oid().to_der().is_ok_and(|oid| oid == params)
            || printable(params).is_some_and(|text| name.contains(&text))
    };
    Curve::ALL.into_iter().find(named).ok_or_else(|| {
        Error::NotSupported("the EC key is on none of P-256, P-384 and P-521".into())
    })
}

/// The same for Edwards curves (section 6.3.5), of which TLS clients use one.
fn edwards25519(params: &[u8]) -> Result<(), Error> {
    // id-Ed25519 (RFC 8410), and the curve's own identifier that older modules give.
    const OIDS: [&[u8]; 2] = [
        &[0x06, 0x03, 0x2b, 0x65, 0x70],
        &[
            0x06, 0x09, 0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01,
        ],
    ];
    if OIDS.contains(&params) || matches!(printable(params), Some("edwards25519" | "Ed25519")) {
        return Ok(());
    }
    Err(Error::NotSupported(
        "the Edwards key is not on edwards25519".into(),
    ))
}

fn printable(params: &[u8]) -> Option<&str> {
    let any = AnyRef::from_der(params).ok()?;
    let text = matches!(any.tag(), Tag::PrintableString | Tag::Utf8String);
    text.then(|| std::str::from_utf8(any.value()).ok())
        .flatten()
}

/// `CKA_EC_POINT` is a DER OCTET STRING (section 6.3.3), which some modules leave away, and some
/// make a BIT STRING of.
fn unwrap_point(point: &[u8], expected: usize) -> &[u8] {
    if point.len() == expected {
        return point;
    }
    match AnyRef::from_der(point) {
        Ok(octets) if octets.tag() == Tag::OctetString => octets.value(),
        Ok(bits) if bits.tag() == Tag::BitString => {
            bits.value().strip_prefix(&[0]).unwrap_or(point)
        }
        _ => point,
    }
}

/// What `C_Sign` is given for a message.
///
/// # Errors
/// [`Error::NotSupported`] where the key is too small for the scheme.
pub fn input(input: Input, kind: Kind, message: &[u8]) -> Result<Vec<u8>, Error> {
    match input {
        Input::Message => Ok(message.to_vec()),
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
pub fn signature_len(kind: Kind) -> usize {
    match kind {
        Kind::Rsa { bits } => bits.div_ceil(8) as usize,
        Kind::Ec(curve) => 2 * curve.bytes(),
        Kind::Ed25519 => 64,
    }
}

/// A token's signature in the form that TLS sends.
///
/// # Errors
/// [`Error::Internal`] where the module gave something else.
pub fn output(kind: Kind, signature: Vec<u8>) -> Result<Vec<u8>, Error> {
    if signature.len() != signature_len(kind) {
        return Err(Error::Internal(format!(
            "the PKCS#11 module gave a signature of {} bytes where {} were due",
            signature.len(),
            signature_len(kind)
        )));
    }
    match kind {
        Kind::Ec(_) => ecdsa_der(&signature),
        Kind::Rsa { .. } | Kind::Ed25519 => Ok(signature),
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
        |_| Error::Internal("the PKCS#11 module gave an unusable ECDSA signature".into());
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
    use super::*;

    #[test]
    fn an_ecdsa_signature_becomes_der_with_minimal_integers() {
        let mut raw = vec![0; 64];
        raw[31] = 0x80;
        raw[32] = 0x01;
        let der = output(Kind::Ec(Curve::P256), raw).unwrap();
        assert_eq!(der[..7], [0x30, 0x26, 0x02, 0x02, 0x00, 0x80, 0x02]);
        assert!(output(Kind::Ec(Curve::P256), vec![0; 63]).is_err());
    }

    #[test]
    fn curves_are_read_from_oid_or_name_and_points_wrapped_or_raw() {
        let oid = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
        let name = *b"\x13\x09secp256r1";
        let point = [vec![4], vec![7; 64]].concat();
        let wrapped = [vec![0x04, 65], point.clone()].concat();
        let bits = [vec![0x03, 66, 0], point.clone()].concat();
        let keys: Vec<_> = [(&oid[..], &point), (&name[..], &wrapped), (&oid[..], &bits)]
            .into_iter()
            .map(|(params, point)| {
                public_key(&[
                    Attribute::KeyType(KeyType::EC),
                    Attribute::EcParams(params.to_vec()),
                    Attribute::EcPoint(point.clone()),
                ])
                .unwrap()
                .unwrap()
            })
            .collect();
        assert!(keys.iter().all(|key| *key == keys[0]));
        assert!(
            curve(b"\x13\x09secp256k1").is_err(),
            "another curve is no guess"
        );
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
