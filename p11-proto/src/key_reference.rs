//! References to keys in tokens, in place of private keys: a PKCS#11 URI in the clothes of a PEM file.

use der::asn1::Utf8StringRef;
use der::{AnyRef, Decode, Encode, Reader, Sequence, SliceReader, Tag, Tagged};

use crate::error::Error;
use crate::pem;
use crate::secret::UriText;

/// Says to programs that know keys in PEM files only which key in a token they mean, by its PKCS#11 URI (RFC 7512).
///
/// It has two forms, both with the same SEQUENCE, that of OpenSSL's pkcs11-provider, in them:
///
/// - a `PRIVATE KEY`, PKCS#8 (RFC 5208) under an algorithm of this project, 2.25.253957271009186626707486067947167478369:
///   libraries take that for a key of a kind that they hand on;
/// - a `PKCS#11 PROVIDER URI`, as pkcs11-provider itself has it: libraries for TLS skip this label.
///
/// There is no key in it. Only where the URI has a `pin-value` is it secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyReference {
    uri: UriText,
}

const PKCS8: &str = "PRIVATE KEY";
const PROVIDER: &str = "PKCS#11 PROVIDER URI";
const DESCRIPTION: &[u8] = b"PKCS#11 Provider URI v1.0";

/// 2.25 and the UUID bf0e642b-21da-4027-a66d-25318e0af261 (ITU-T X.667). `ObjectIdentifier` has no room for it.
const OID: &[u8] = &[
    0x69, 0x82, 0xfe, 0x8e, 0xb2, 0x8a, 0xe4, 0x9d, 0xd2, 0x80, 0xcf, 0xa6, 0xb6, 0xc9, 0xa6, 0x98,
    0xf0, 0xab, 0xe4, 0x61,
];

const MALFORMED: Error = Error::KeyReference("the reference to a key in a token is malformed");
const TOO_LONG: Error = Error::KeyReference("the URI is too long for a reference");

impl KeyReference {
    /// A reference by this URI.
    pub fn new(uri: impl Into<UriText>) -> Self {
        KeyReference { uri: uri.into() }
    }

    /// The URI.
    pub fn uri(&self) -> &UriText {
        &self.uri
    }

    /// As PEM under the label `PRIVATE KEY`: for libraries that take no other.
    ///
    /// # Errors
    /// [`Error::KeyReference`] for a URI of many megabytes.
    pub fn to_pem(&self) -> Result<String, Error> {
        Ok(pem::encode(PKCS8, &self.to_pkcs8()?))
    }

    /// As PEM under the label `PKCS#11 PROVIDER URI`: for OpenSSL with pkcs11-provider.
    ///
    /// # Errors
    /// As [`KeyReference::to_pem`].
    pub fn to_provider_pem(&self) -> Result<String, Error> {
        Ok(pem::encode(PROVIDER, &self.to_der()?))
    }

    /// The first reference in a PEM file, of either form.
    ///
    /// # Errors
    /// [`Error::KeyReference`] where there is none, or it is malformed.
    pub fn from_pem(text: &str) -> Result<Self, Error> {
        if let Some(found) = pem::find(PROVIDER, text) {
            return KeyReference::from_der(&pem::decode(PROVIDER, found).ok_or(MALFORMED)?);
        }
        let mut rest = text;
        while let Some(found) = pem::find(PKCS8, rest) {
            let der = pem::decode(PKCS8, found).unwrap_or_default();
            if let Some(reference) = KeyReference::from_pkcs8(&der)? {
                return Ok(reference);
            }
            rest = rest.split_once(found).map_or("", |(_, after)| after);
        }
        Err(Error::KeyReference(
            "there is no reference to a key in a token in the PEM",
        ))
    }

    /// The reference in a DER PKCS#8 key, `None` for one of another algorithm.
    ///
    /// # Errors
    /// [`Error::KeyReference`] for one of ours that is malformed.
    pub fn from_pkcs8(der: &[u8]) -> Result<Option<Self>, Error> {
        if !is_ours(der).unwrap_or(false) {
            return Ok(None);
        }
        let info = PrivateKeyInfo::from_der(der).map_err(|_| MALFORMED)?;
        match (info.version, info.private_key.tag()) {
            (0, Tag::OctetString) => KeyReference::from_der(info.private_key.value()).map(Some),
            _ => Err(MALFORMED),
        }
    }

    fn to_pkcs8(&self) -> Result<Vec<u8>, Error> {
        let inner = self.to_der()?;
        let any = |tag, value| AnyRef::new(tag, value).map_err(|_| TOO_LONG);
        let info = PrivateKeyInfo {
            version: 0,
            algorithm: Algorithm {
                oid: any(Tag::ObjectIdentifier, OID)?,
            },
            private_key: any(Tag::OctetString, &inner)?,
        };
        info.to_der().map_err(|_| TOO_LONG)
    }

    fn to_der(&self) -> Result<Vec<u8>, Error> {
        let reference = ProviderUri {
            description: AnyRef::new(Tag::VisibleString, DESCRIPTION).map_err(|_| TOO_LONG)?,
            uri: Utf8StringRef::new(&*self.uri).map_err(|_| TOO_LONG)?,
        };
        reference.to_der().map_err(|_| TOO_LONG)
    }

    fn from_der(der: &[u8]) -> Result<Self, Error> {
        let reference = ProviderUri::from_der(der).map_err(|_| MALFORMED)?;
        let description = AnyRef::new(Tag::VisibleString, DESCRIPTION).map_err(|_| MALFORMED)?;
        match reference.description == description {
            true => Ok(KeyReference::new(reference.uri.as_str())),
            false => Err(Error::KeyReference(
                "the reference to a key in a token is of an unknown version",
            )),
        }
    }
}

/// Whether its algorithm is that of references, whatever else is wrong with it.
fn is_ours(der: &[u8]) -> der::Result<bool> {
    let info: AnyRef<'_> = SliceReader::new(der)?.decode()?;
    let mut info = SliceReader::new(info.value())?;
    let _version: AnyRef<'_> = info.decode()?;
    let algorithm: AnyRef<'_> = info.decode()?;
    let oid: AnyRef<'_> = SliceReader::new(algorithm.value())?.decode()?;
    Ok(oid.tag() == Tag::ObjectIdentifier && oid.value() == OID)
}

/// `PrivateKeyInfo` (RFC 5208 section 5) of an algorithm without parameters.
#[derive(Sequence)]
struct PrivateKeyInfo<'a> {
    version: u8,
    algorithm: Algorithm<'a>,
    private_key: AnyRef<'a>,
}

#[derive(Sequence)]
struct Algorithm<'a> {
    oid: AnyRef<'a>,
}

/// `P11PROV_PK11_URI` of pkcs11-provider.
#[derive(Sequence)]
struct ProviderUri<'a> {
    description: AnyRef<'a>,
    uri: Utf8StringRef<'a>,
}
