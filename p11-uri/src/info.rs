//! What a PKCS#11 module says about tokens and objects, as plain structs.

use std::fmt;

/// What a URI can say of a token, its slot and its library, without the padding of the PKCS#11 structures
/// (`CK_TOKEN_INFO`, `CK_SLOT_INFO`, `CK_INFO`; PKCS#11 section 3).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct TokenInfo {
    /// Label of the token; `token` in a URI.
    pub label: String,
    /// Manufacturer of the token.
    pub manufacturer: String,
    /// Serial number of the token.
    pub serial: String,
    /// Model of the token.
    pub model: String,
    /// Description of the slot.
    pub slot_description: String,
    /// Manufacturer of the slot.
    pub slot_manufacturer: String,
    /// Manufacturer of the library.
    pub library_manufacturer: String,
    /// Description of the library.
    pub library_description: String,
    /// Identifier of the slot; it may change whenever the library is loaded.
    pub slot_id: u64,
    /// Version of the library, major and minor.
    pub library_version: (u8, u8),
    /// Whether another token says the same of itself, so that a URI needs the slot to name it.
    pub is_ambiguous: bool,
}

/// What a URI can say of an object on a token.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ObjectInfo {
    /// Its class (`CKA_CLASS`).
    pub object_type: ObjectType,
    /// Its label (`CKA_LABEL`).
    pub label: String,
    /// Its identifier (`CKA_ID`).
    pub id: Vec<u8>,
}

impl ObjectInfo {
    /// An object of this class, label and id.
    pub fn new(
        object_type: ObjectType,
        label: impl Into<String>,
        id: impl Into<Vec<u8>>,
    ) -> ObjectInfo {
        ObjectInfo {
            object_type,
            label: label.into(),
            id: id.into(),
        }
    }
}

/// The object classes that a URI can name (RFC 7512 section 2.3, `type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ObjectType {
    /// `CKO_CERTIFICATE`.
    Cert,
    /// `CKO_DATA`.
    Data,
    /// `CKO_PRIVATE_KEY`.
    Private,
    /// `CKO_PUBLIC_KEY`.
    Public,
    /// `CKO_SECRET_KEY`.
    SecretKey,
}

impl ObjectType {
    pub(crate) const ALL: [Self; 5] = [
        Self::Cert,
        Self::Data,
        Self::Private,
        Self::Public,
        Self::SecretKey,
    ];

    /// As it is written in a URI.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cert => "cert",
            Self::Data => "data",
            Self::Private => "private",
            Self::Public => "public",
            Self::SecretKey => "secret-key",
        }
    }
}

impl fmt::Display for ObjectType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
