//! The parsed URI: typed attribute values go in (from `parse` and `facts`), answers about them come out.

use crate::{Error, ObjectType};
use secrecy::{ExposeSecret, SecretString};
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::path::PathBuf;

/// A PKCS#11 URI (RFC 7512 section 2.3): path attributes say which token and object is meant, query
/// attributes say how to get at it.
///
/// [`Uri::default`] is `pkcs11:`, which matches everything. `Display` and `Debug` show no PIN. Two URIs
/// are equal when they say the same, whatever the spelling and the order of their path attributes
/// (section 2.6); the comparison takes the PIN into account and is not constant in time.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Uri {
    pub(crate) path: Path,
    pub(crate) query: Query,
}

/// What stands before the `?`.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Path {
    pub library_description: Option<String>,
    pub library_manufacturer: Option<String>,
    pub library_version: Option<(u8, u8)>,
    pub slot_description: Option<String>,
    pub slot_manufacturer: Option<String>,
    pub slot_id: Option<u64>,
    pub model: Option<String>,
    pub manufacturer: Option<String>,
    pub serial: Option<String>,
    pub token: Option<String>,
    pub id: Option<Vec<u8>>,
    pub object: Option<String>,
    pub object_type: Option<ObjectType>,
    /// Attributes that RFC 7512 does not define; their values may be any bytes.
    pub vendor: BTreeMap<String, Vec<u8>>,
}

/// What stands after the `?`.
#[derive(Clone, Default)]
pub(crate) struct Query {
    pub pin_source: Option<String>,
    pub pin_value: Option<SecretString>,
    pub module_name: Option<String>,
    pub module_path: Option<String>,
    /// Attributes that RFC 7512 does not define; the same one may be there twice (section 2.3).
    pub vendor: Vec<(String, Vec<u8>)>,
}

/// Path attributes.
impl Uri {
    /// `token`: the token's label (`CK_TOKEN_INFO`).
    pub fn token(&self) -> Option<&str> {
        self.path.token.as_deref()
    }

    /// `manufacturer` of the token (`CK_TOKEN_INFO`).
    pub fn manufacturer(&self) -> Option<&str> {
        self.path.manufacturer.as_deref()
    }

    /// `serial` number of the token (`CK_TOKEN_INFO`).
    pub fn serial(&self) -> Option<&str> {
        self.path.serial.as_deref()
    }

    /// `model` of the token (`CK_TOKEN_INFO`).
    pub fn model(&self) -> Option<&str> {
        self.path.model.as_deref()
    }

    /// `library-manufacturer` (`CK_INFO`).
    pub fn library_manufacturer(&self) -> Option<&str> {
        self.path.library_manufacturer.as_deref()
    }

    /// `library-description` (`CK_INFO`).
    pub fn library_description(&self) -> Option<&str> {
        self.path.library_description.as_deref()
    }

    /// `library-version` (`CK_INFO`) as major and minor number; `3` is 3.0.
    pub fn library_version(&self) -> Option<(u8, u8)> {
        self.path.library_version
    }

    /// `slot-description` (`CK_SLOT_INFO`).
    pub fn slot_description(&self) -> Option<&str> {
        self.path.slot_description.as_deref()
    }

    /// `slot-manufacturer` (`CK_SLOT_INFO`).
    pub fn slot_manufacturer(&self) -> Option<&str> {
        self.path.slot_manufacturer.as_deref()
    }

    /// `slot-id` (`CK_SLOT_ID`).
    pub fn slot_id(&self) -> Option<u64> {
        self.path.slot_id
    }

    /// `object`: the object's label (`CKA_LABEL`).
    pub fn object(&self) -> Option<&str> {
        self.path.object.as_deref()
    }

    /// `id` of the object (`CKA_ID`).
    pub fn id(&self) -> Option<&[u8]> {
        self.path.id.as_deref()
    }

    /// `type` of the object (`CKA_CLASS`).
    pub fn object_type(&self) -> Option<ObjectType> {
        self.path.object_type
    }

    /// Path attributes that RFC 7512 does not define, by name. Any of them makes the URI match nothing
    /// (section 2.5).
    pub fn vendor_path(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.path
            .vendor
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// Whether the URI says anything about the token, its slot or its library.
    pub fn names_token(&self) -> bool {
        let path = &self.path;
        let texts = [
            &path.library_description,
            &path.library_manufacturer,
            &path.slot_description,
            &path.slot_manufacturer,
            &path.model,
            &path.manufacturer,
            &path.serial,
            &path.token,
        ];
        texts.into_iter().any(Option::is_some)
            || path.library_version.is_some()
            || path.slot_id.is_some()
    }

    /// Whether the URI says which object, by label or id.
    pub fn names_object(&self) -> bool {
        self.path.object.is_some() || self.path.id.is_some()
    }
}

/// Query attributes.
impl Uri {
    /// `pin-value`: the PIN itself.
    pub fn pin_value(&self) -> Option<&SecretString> {
        self.query.pin_value.as_ref()
    }

    /// `pin-source` as it is written; [`Uri::pin_source_path`] says which file that is.
    pub fn pin_source(&self) -> Option<&str> {
        self.query.pin_source.as_deref()
    }

    /// The file that `pin-source` names: `file:/path`, `file:///path` or an absolute path.
    ///
    /// The value is percent-decoded once, as every value is. RFC 7512 section 2.4 leaves other forms,
    /// such as `|program`, to the implementation: here they are refused.
    pub fn pin_source_path(&self) -> Result<Option<PathBuf>, Error> {
        let Some(source) = self.pin_source() else {
            return Ok(None);
        };
        let path = source.strip_prefix("file:").unwrap_or(source);
        let path = path.strip_prefix("//").unwrap_or(path);
        // `//host/path` is no longer absolute here. No file name holds a NUL.
        if path.starts_with('/') && !path.contains('\0') {
            Ok(Some(PathBuf::from(path)))
        } else {
            Err(Error::PinSource)
        }
    }

    /// `module-name`: the file name of the PKCS#11 library, without folder and suffix.
    pub fn module_name(&self) -> Option<&str> {
        self.query.module_name.as_deref()
    }

    /// `module-path`: where the PKCS#11 library is.
    pub fn module_path(&self) -> Option<&str> {
        self.query.module_path.as_deref()
    }

    /// Query attributes that RFC 7512 does not define, in their order; they do not take part in matching
    /// (section 2.5).
    pub fn vendor_query(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.query
            .vendor
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// The path attributes alone: what may be remembered and compared.
    pub fn without_query(&self) -> Uri {
        Uri {
            path: self.path.clone(),
            query: Query::default(),
        }
    }

    /// The same URI without `type`: what names both halves of a key pair.
    pub fn without_type(&self) -> Uri {
        let mut uri = self.clone();
        uri.path.object_type = None;
        uri
    }

    /// Refuses what a client may not send to a service: attributes that would make the service read a
    /// file or load a library of the client's choice.
    pub fn require_request_form(&self) -> Result<(), Error> {
        let query = &self.query;
        let refused = [
            ("pin-source", &query.pin_source),
            ("module-name", &query.module_name),
            ("module-path", &query.module_path),
        ];
        match refused.into_iter().find(|(_, value)| value.is_some()) {
            Some((attribute, _)) => Err(Error::NotInRequest { attribute }),
            None => Ok(()),
        }
    }
}

impl Hash for Uri {
    /// Of the path only, so that no hash depends on a PIN. Equal URIs have equal hashes all the same.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.path.hash(state);
    }
}

impl PartialEq for Query {
    fn eq(&self, other: &Self) -> bool {
        self.pin_source == other.pin_source
            && self.pin() == other.pin()
            && self.module_name == other.module_name
            && self.module_path == other.module_path
            && self.vendor == other.vendor
    }
}

impl Eq for Query {}

impl Query {
    fn pin(&self) -> Option<&str> {
        self.pin_value.as_ref().map(SecretString::expose_secret)
    }
}
