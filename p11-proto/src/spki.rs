//! Public keys in one form: a DER `SubjectPublicKeyInfo` (RFC 5280 section 4.1.2.7), normalised.
//!
//! Two encodings of the same key must compare and hash alike, whether they come from a token, a
//! certificate or a peer. Normalised means: RSA with NULL parameters (RFC 3279 section 2.3.1), EC
//! with a named curve (RFC 5480 section 2.1.1) and the uncompressed point (section 2.2), Ed25519
//! without parameters (RFC 8410 section 3).

use std::fmt;
use std::time::Duration;

use der::asn1::{
    AnyRef, BitStringRef, ContextSpecific, GeneralizedTime, Null, ObjectIdentifier, UintRef,
    UtcTime,
};
use der::{Decode, Encode, Reader, Sequence, SliceReader, Tag, TagNumber, Tagged};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use spki::{AlgorithmIdentifierRef, SubjectPublicKeyInfoRef};

use crate::error::Error;
use crate::pem;

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// SHA-256 of a normalised `SubjectPublicKeyInfo`: which key pair this is, wherever it lies.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity([u8; 32]);

impl Identity {
    /// The identity of the key with this public key, normalised or not.
    ///
    /// # Errors
    /// [`Error::PublicKey`] for a key that is no `SubjectPublicKeyInfo` of a known kind.
    pub fn of(spki: &[u8]) -> Result<Identity, Error> {
        Ok(PublicKey::from_spki(spki)?.identity())
    }

    /// The 32 bytes of the hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Identity {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Identity {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde_bytes::ByteArray::deserialize(deserializer).map(|bytes| Identity(bytes.into_array()))
    }
}

/// The curves of TLS 1.3's ECDSA schemes (RFC 8446 section 4.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Curve {
    /// secp256r1
    P256,
    /// secp384r1
    P384,
    /// secp521r1
    P521,
}

impl Curve {
    /// All curves.
    pub const ALL: &[Curve] = &[Curve::P256, Curve::P384, Curve::P521];

    /// The curve's object identifier (RFC 5480 section 2.1.1.1).
    pub const fn oid(self) -> ObjectIdentifier {
        ObjectIdentifier::new_unwrap(match self {
            Curve::P256 => "1.2.840.10045.3.1.7",
            Curve::P384 => "1.3.132.0.34",
            Curve::P521 => "1.3.132.0.35",
        })
    }

    /// Bits of the curve's field.
    pub const fn bits(self) -> u32 {
        match self {
            Curve::P256 => 256,
            Curve::P384 => 384,
            Curve::P521 => 521,
        }
    }

    /// Bytes of one coordinate, and of each half of a raw signature.
    pub const fn bytes(self) -> usize {
        self.bits().div_ceil(8) as usize
    }

    fn from_oid(oid: ObjectIdentifier) -> Option<Curve> {
        Curve::ALL.iter().copied().find(|curve| curve.oid() == oid)
    }
}

/// What kind of key a public key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// RSA, with the bits of its modulus.
    Rsa {
        /// Bits of the modulus.
        bits: u32,
    },
    /// EC on a named curve.
    Ec(Curve),
    /// Ed25519.
    Ed25519,
}

impl Kind {
    /// RSA: bits of the modulus. EC and Ed25519: bits of the curve's field.
    pub const fn bits(self) -> u32 {
        match self {
            Kind::Rsa { bits } => bits,
            Kind::Ec(curve) => curve.bits(),
            Kind::Ed25519 => 255,
        }
    }
}

/// A public key of a kind that this project can sign with, in its one normalised form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    kind: Kind,
    spki: Vec<u8>,
    key: Vec<u8>,
}

impl PublicKey {
    /// Reads any DER `SubjectPublicKeyInfo` of a known kind and normalises it.
    ///
    /// # Errors
    /// [`Error::PublicKey`] names what is not understood; nothing is guessed.
    pub fn from_spki(spki: &[u8]) -> Result<PublicKey, Error> {
        let info = SubjectPublicKeyInfoRef::from_der(spki)
            .map_err(|_| Error::PublicKey("the public key is no DER SubjectPublicKeyInfo"))?;
        let key = info
            .subject_public_key
            .as_bytes()
            .ok_or(Error::PublicKey("the public key has unused bits"))?;
        match info.algorithm.oid {
            RSA => PublicKey::rsa_from_pkcs1(key),
            EC => {
                let oid = info
                    .algorithm
                    .parameters_oid()
                    .map_err(|_| Error::PublicKey("the EC public key names no curve"))?;
                let curve = Curve::from_oid(oid).ok_or(UNKNOWN_CURVE)?;
                PublicKey::ec(curve, key)
            }
            ED25519 => PublicKey::ed25519(key),
            _ => Err(Error::PublicKey(
                "the public key is neither RSA, EC nor Ed25519",
            )),
        }
    }

    /// An RSA key of big-endian modulus and exponent; leading zeros are dropped.
    ///
    /// # Errors
    /// [`Error::PublicKey`] where one of them is zero or absurdly long.
    pub fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<PublicKey, Error> {
        const BAD: Error = Error::PublicKey("the RSA public key has no usable modulus or exponent");
        let key = RsaPublicKey {
            modulus: UintRef::new(modulus).map_err(|_| BAD)?,
            public_exponent: UintRef::new(exponent).map_err(|_| BAD)?,
        };
        let leading = key.modulus.as_bytes().first().copied().unwrap_or(0);
        if leading == 0 || key.public_exponent.as_bytes().iter().all(|byte| *byte == 0) {
            return Err(BAD);
        }
        let bits = key.modulus.as_bytes().len() * 8 - leading.leading_zeros() as usize;
        let kind = Kind::Rsa {
            bits: u32::try_from(bits).map_err(|_| BAD)?,
        };
        let key = key.to_der().map_err(|_| BAD)?;
        PublicKey::build(kind, RSA, Some(AnyRef::from(Null)), key)
    }

    /// An RSA key of its DER `RSAPublicKey` (RFC 8017 appendix A.1.1).
    ///
    /// # Errors
    /// [`Error::PublicKey`] for what is no such key.
    pub fn rsa_from_pkcs1(der: &[u8]) -> Result<PublicKey, Error> {
        let key = RsaPublicKey::from_der(der)
            .map_err(|_| Error::PublicKey("the RSA public key is malformed"))?;
        PublicKey::rsa(key.modulus.as_bytes(), key.public_exponent.as_bytes())
    }

    /// An EC key of a curve and its uncompressed point, `04 || x || y` (SEC 1 section 2.3.3).
    ///
    /// # Errors
    /// [`Error::PublicKey`] for a compressed point or one of another length.
    pub fn ec(curve: Curve, point: &[u8]) -> Result<PublicKey, Error> {
        match point.first() {
            Some(0x04) if point.len() == 1 + 2 * curve.bytes() => {}
            Some(0x02 | 0x03) => {
                return Err(Error::PublicKey(
                    "the EC point is compressed; store it uncompressed",
                ));
            }
            _ => return Err(Error::PublicKey("the EC point does not fit its curve")),
        }
        let oid = curve.oid();
        PublicKey::build(
            Kind::Ec(curve),
            EC,
            Some(AnyRef::from(&oid)),
            point.to_vec(),
        )
    }

    /// An Ed25519 key of its 32 bytes.
    ///
    /// # Errors
    /// [`Error::PublicKey`] for another length.
    pub fn ed25519(point: &[u8]) -> Result<PublicKey, Error> {
        if point.len() != 32 {
            return Err(Error::PublicKey("an Ed25519 public key has 32 bytes"));
        }
        PublicKey::build(Kind::Ed25519, ED25519, None, point.to_vec())
    }

    /// The public key of a DER certificate, of any X.509 version.
    ///
    /// # Errors
    /// [`Error::PublicKey`]
    pub fn of_certificate(certificate: &[u8]) -> Result<PublicKey, Error> {
        PublicKey::from_spki(Certificate::parse(certificate)?.spki)
    }

    /// RSA, EC or Ed25519, and how large.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The normalised DER `SubjectPublicKeyInfo`.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// The same as PEM (RFC 7468 section 13).
    pub fn to_pem(&self) -> String {
        pem::encode("PUBLIC KEY", &self.spki)
    }

    /// What the `SubjectPublicKeyInfo` wraps: DER `RSAPublicKey` (RFC 8017 appendix A.1.1), EC
    /// point, or the bytes of an Ed25519 key.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// SHA-256 of [`PublicKey::spki`].
    pub fn identity(&self) -> Identity {
        Identity(Sha256::digest(&self.spki).into())
    }

    fn build(
        kind: Kind,
        oid: ObjectIdentifier,
        parameters: Option<AnyRef<'_>>,
        key: Vec<u8>,
    ) -> Result<PublicKey, Error> {
        const BAD: Error = Error::PublicKey("the public key cannot be encoded");
        let spki = SubjectPublicKeyInfoRef {
            algorithm: AlgorithmIdentifierRef { oid, parameters },
            subject_public_key: BitStringRef::from_bytes(&key).map_err(|_| BAD)?,
        }
        .to_der()
        .map_err(|_| BAD)?;
        Ok(PublicKey { kind, spki, key })
    }
}

const UNKNOWN_CURVE: Error = Error::PublicKey("the EC key is on none of P-256, P-384 and P-521");

/// `RSAPublicKey` (RFC 8017 appendix A.1.1).
#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    public_exponent: UintRef<'a>,
}

/// The parts of a certificate (RFC 5280 section 4.1) that say whose it is, each as whole DER.
///
/// Reads X.509 v1 certificates too, which have no version and no extensions. Verifies nothing.
#[non_exhaustive]
pub struct Certificate<'a> {
    /// The serial number.
    pub serial: &'a [u8],
    /// The issuer's name.
    pub issuer: &'a [u8],
    /// The subject's name.
    pub subject: &'a [u8],
    /// The subject's public key.
    pub spki: &'a [u8],
    /// From when on it is valid, since 1970; zero where that cannot be read.
    pub not_before: Duration,
}

impl<'a> Certificate<'a> {
    /// Finds the parts of a DER certificate.
    ///
    /// # Errors
    /// [`Error::PublicKey`] for what is no certificate.
    pub fn parse(der: &'a [u8]) -> Result<Certificate<'a>, Error> {
        Certificate::read(der).map_err(|_| Error::PublicKey("this is no DER X.509 certificate"))
    }

    fn read(der: &'a [u8]) -> der::Result<Certificate<'a>> {
        let certificate = content(der)?;
        let tbs = SliceReader::new(certificate)?.tlv_bytes()?;
        let mut tbs = SliceReader::new(content(tbs)?)?;
        let _version = ContextSpecific::<u8>::decode_explicit(&mut tbs, TagNumber(0))?;
        let [serial, _algorithm] = [tbs.tlv_bytes()?, tbs.tlv_bytes()?];
        let issuer = tbs.tlv_bytes()?;
        let not_before = not_before(tbs.tlv_bytes()?).unwrap_or_default();
        Ok(Certificate {
            not_before,
            serial,
            issuer,
            subject: tbs.tlv_bytes()?,
            spki: tbs.tlv_bytes()?,
        })
    }
}

/// The first time of a `Validity` (RFC 5280 section 4.1.2.5).
fn not_before(validity: &[u8]) -> der::Result<Duration> {
    let first = SliceReader::new(content(validity)?)?.tlv_bytes()?;
    let utc = UtcTime::from_der(first).map(|time| time.to_unix_duration());
    utc.or_else(|_| Ok(GeneralizedTime::from_der(first)?.to_unix_duration()))
}

/// The content of a DER SEQUENCE.
fn content(der: &[u8]) -> der::Result<&[u8]> {
    let any = AnyRef::from_der(der)?;
    any.tag().assert_eq(Tag::Sequence)?;
    Ok(any.value())
}
