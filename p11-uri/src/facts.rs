//! What a PKCS#11 module says about tokens and objects goes in as plain structs; the URIs that name them
//! come out.

use crate::Uri;
use std::fmt;

/// What is known of a token, its slot and its library, without the padding of the PKCS#11 structures
/// (`CK_TOKEN_INFO`, `CK_SLOT_INFO`, `CK_INFO`; PKCS#11 section 3).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct TokenFacts {
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
}

/// What is known of an object on a token.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ObjectFacts {
    /// Its class (`CKA_CLASS`).
    pub object_type: ObjectType,
    /// Its label (`CKA_LABEL`).
    pub label: String,
    /// Its identifier (`CKA_ID`).
    pub id: Vec<u8>,
}

/// The object classes that a URI can name (RFC 7512 section 2.3, `type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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

impl Uri {
    /// The URI of a token: model, manufacturer, serial number and label, as p11tool prints it. A fact that
    /// is empty is left out, since many modules have no value there.
    pub fn of_token(facts: &TokenFacts) -> Uri {
        let mut uri = Uri::default();
        uri.path.model = given(&facts.model);
        uri.path.manufacturer = given(&facts.manufacturer);
        uri.path.serial = given(&facts.serial);
        uri.path.token = given(&facts.label);
        uri
    }

    /// The URI of a slot whose token has no label and serial number yet: slot id and model. It is good as
    /// long as the library stays loaded.
    pub fn of_slot(facts: &TokenFacts) -> Uri {
        let mut uri = Uri::default();
        uri.path.slot_id = Some(facts.slot_id);
        uri.path.model = given(&facts.model);
        uri
    }

    /// The whole URI of an object: its token's, with the object's id, label and type.
    pub fn of_object(token: &TokenFacts, object: &ObjectFacts) -> Uri {
        let mut uri = Uri::of_token(token);
        uri.path.id = (!object.id.is_empty()).then(|| object.id.clone());
        uri.path.object = given(&object.label);
        uri.path.object_type = Some(object.object_type);
        uri
    }
}

fn given(fact: &str) -> Option<String> {
    (!fact.is_empty()).then(|| fact.to_owned())
}
