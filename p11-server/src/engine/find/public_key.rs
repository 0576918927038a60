//! The public key that attributes of a PKCS#11 object tell.

use cryptoki::object::{AttributeType, KeyType};
use der::asn1::AnyRef;
use der::{Decode, Encode, Tag, Tagged};
use p11_proto::spki::{Curve, Kind, PublicKey};

use crate::engine::module::Attributes;
use crate::error::Error;

/// id-Ed25519 (RFC 8410), and the curve's own identifier that older modules give, in DER.
pub(crate) const EDWARDS25519_OIDS: [&[u8]; 2] = [
    &[0x06, 0x03, 0x2b, 0x65, 0x70],
    &[
        0x06, 0x09, 0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01,
    ],
];

/// The public key that the attributes of one object tell, `None` where they are not all there.
///
/// # Errors
/// [`Error::NotSupported`] for a key that is there but of a kind, curve or form that we do not know.
pub(crate) fn public_key(attributes: &Attributes) -> Result<Option<PublicKey>, Error> {
    let kind = attributes.number(AttributeType::KeyType);
    let kind = kind.and_then(|kind| KeyType::try_from(kind).ok());
    let modulus = attributes.bytes(AttributeType::Modulus);
    let exponent = attributes.bytes(AttributeType::PublicExponent);
    let params = attributes.bytes(AttributeType::EcParams);
    let point = attributes.bytes(AttributeType::EcPoint);
    let info = attributes.bytes(AttributeType::PublicKeyInfo);
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

/// Whether the private key of these attributes could have this public key, as far as they tell. An RSA key tells its
/// modulus, and with it which key it is.
pub(super) fn could_have(attributes: &Attributes, public: &PublicKey) -> bool {
    let kind = attributes.number(AttributeType::KeyType);
    let kind = kind.and_then(|kind| KeyType::try_from(kind).ok());
    let params = attributes.bytes(AttributeType::EcParams);
    match (kind, public.kind()) {
        (Some(KeyType::EC), Kind::Ec(wanted)) => {
            params.is_none_or(|params| curve(params).is_ok_and(|its| its == wanted))
        }
        (Some(KeyType::EC_EDWARDS), Kind::Ed25519) => {
            params.is_none_or(|params| edwards25519(params).is_ok())
        }
        _ => false,
    }
}

/// `CKA_EC_PARAMS` (PKCS#11 section 6.3.3): an object identifier, or the name of the curve.
fn curve(params: &[u8]) -> Result<Curve, Error> {
    let named = |curve: &Curve| {
        let name = match curve {
            Curve::P256 => ["secp256r1", "prime256v1", "P-256"],
            Curve::P384 => ["secp384r1", "ansip384r1", "P-384"],
            Curve::P521 => ["secp521r1", "ansip521r1", "P-521"],
            _ => return false,
        };
        curve.oid().to_der().is_ok_and(|oid| oid == params)
            || printable(params).is_some_and(|text| name.contains(&text))
    };
    Curve::ALL.iter().copied().find(named).ok_or_else(|| {
        Error::NotSupported("the EC key is on none of P-256, P-384 and P-521".into())
    })
}

/// The same for Edwards curves (section 6.3.5), of which TLS clients use one.
pub(super) fn edwards25519(params: &[u8]) -> Result<(), Error> {
    if EDWARDS25519_OIDS.contains(&params)
        || matches!(printable(params), Some("edwards25519" | "Ed25519"))
    {
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

#[cfg(test)]
mod tests {
    use cryptoki_sys::CK_ULONG;

    use super::*;

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
                public_key(&Attributes::from([
                    (
                        AttributeType::KeyType,
                        CK_ULONG::from(KeyType::EC).to_ne_bytes().to_vec(),
                    ),
                    (AttributeType::EcParams, params.to_vec()),
                    (AttributeType::EcPoint, point.clone()),
                ]))
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
}
