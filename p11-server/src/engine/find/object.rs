//! Objects on a token: their attributes, read by kind and never by position.

use cryptoki::error::RvError;
use cryptoki::mechanism::MechanismType;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use p11_proto::message;
use p11_proto::spki::PublicKey;
use p11_uri::{ObjectInfo, ObjectType};
use tracing::debug;

use super::public_key::{could_have, edwards25519, public_key};
use crate::engine::module::{Attributes, Session};
use crate::error::Error;

/// One object, as far as it lets itself be read.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub handle: ObjectHandle,
    /// As far as it is text. Control characters stay but NUL, with which some programs pad: in a URI they are encoded.
    pub label: String,
    pub id: Vec<u8>,
    /// Whether that is the label to the byte.
    is_label_exact: bool,
    is_private_key: bool,
    attributes: Attributes,
}

/// What is read of a private key, and how long it may be.
const PRIVATE: [(AttributeType, usize); 15] = [
    (AttributeType::Private, BOOL),
    (AttributeType::Label, TEXT),
    (AttributeType::Id, LONGEST_NAME),
    (AttributeType::KeyType, NUMBER),
    (AttributeType::Sign, BOOL),
    (AttributeType::Decrypt, BOOL),
    (AttributeType::AlwaysAuthenticate, BOOL),
    (AttributeType::Extractable, BOOL),
    (AttributeType::Sensitive, BOOL),
    (AttributeType::AllowedMechanisms, 128 * NUMBER),
    (AttributeType::Modulus, KEY),
    (AttributeType::PublicExponent, KEY),
    (AttributeType::EcParams, KEY),
    (AttributeType::EcPoint, KEY),
    (AttributeType::PublicKeyInfo, SPKI),
];

/// What is read of a public key.
const PUBLIC: [(AttributeType, usize); 9] = [
    (AttributeType::Private, BOOL),
    (AttributeType::Label, TEXT),
    (AttributeType::Id, LONGEST_NAME),
    (AttributeType::KeyType, NUMBER),
    (AttributeType::Modulus, KEY),
    (AttributeType::PublicExponent, KEY),
    (AttributeType::EcParams, KEY),
    (AttributeType::EcPoint, KEY),
    (AttributeType::PublicKeyInfo, SPKI),
];

/// What is read of a certificate.
const CERTIFICATE: [(AttributeType, usize); 4] = [
    (AttributeType::Private, BOOL),
    (AttributeType::Label, TEXT),
    (AttributeType::Id, LONGEST_NAME),
    (AttributeType::Value, 64 * 1024),
];

/// The longest label and id, in bytes. Longer ids are as good as none, longer labels are cut.
pub(crate) const LONGEST_NAME: usize = 255;
/// Of labels that are longer than this not even the beginning is known.
const TEXT: usize = 4096;
const NUMBER: usize = size_of::<cryptoki_sys::CK_ULONG>();
const BOOL: usize = 1;
/// A modulus of 16,384 bits.
const KEY: usize = 2048;
const SPKI: usize = 4096;

impl Object {
    /// Reads all objects of a class that are stored on the token.
    ///
    /// # Errors
    /// What the module said, and what `go_on` did. An object that cannot be read at all is left out.
    pub fn read_all(
        session: &Session,
        class: ObjectClass,
        go_on: &dyn Fn() -> Result<(), Error>,
    ) -> Result<Vec<Object>, Error> {
        let template = [Attribute::Token(true), Attribute::Class(class)];
        let mut objects = Vec::new();
        for handle in session.find(&template, go_on)? {
            go_on()?;
            match Object::read(session, handle, class) {
                Ok(object) => objects.push(object),
                Err(error) if concerns_one_object(&error) => {
                    debug!("leaving out an object that cannot be read: {error}");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(objects)
    }

    /// Reads the object of a handle, of which the class is known.
    ///
    /// # Errors
    /// What the module said.
    pub fn read(
        session: &Session,
        handle: ObjectHandle,
        class: ObjectClass,
    ) -> Result<Object, Error> {
        let wanted: &[_] = match class {
            ObjectClass::PRIVATE_KEY => &PRIVATE,
            ObjectClass::PUBLIC_KEY => &PUBLIC,
            _ => &CERTIFICATE,
        };
        let attributes = attributes(session, handle, class, wanted)?;
        let bytes = attributes.bytes(AttributeType::Label).unwrap_or_default();
        let label = text(bytes, |letter| letter == '\0');
        Ok(Object {
            handle,
            is_label_exact: label.as_bytes() == bytes,
            label,
            id: attributes
                .bytes(AttributeType::Id)
                .unwrap_or_default()
                .to_vec(),
            is_private_key: class == ObjectClass::PRIVATE_KEY,
            attributes,
        })
    }

    /// Whether it shows after a login only. A private key that does not say is.
    pub fn is_private(&self) -> bool {
        self.private().unwrap_or(self.is_private_key)
    }

    /// Whether a signature with it needs a login.
    pub fn needs_login(&self) -> bool {
        self.is_private() || self.always_authenticate()
    }

    /// What it says of itself, as the private half of a pair.
    pub fn info(&self) -> ObjectInfo {
        self.info_as(ObjectType::Private)
    }

    /// What it says of itself. A label that other programs would spell otherwise, since it is no UTF-8, is left out where
    /// the id names the object.
    pub fn info_as(&self, object_type: ObjectType) -> ObjectInfo {
        let label = match self.is_label_exact || self.id.is_empty() {
            true => self.label.as_str(),
            false => "",
        };
        ObjectInfo::new(object_type, label, self.id.clone())
    }

    /// The public key that the object itself tells.
    ///
    /// # Errors
    /// As [`public_key`].
    pub fn public_key(&self) -> Result<Option<PublicKey>, Error> {
        match self.certificate() {
            Some(der) => PublicKey::of_certificate(der)
                .map(Some)
                .map_err(|error| Error::NotSupported(error.to_string())),
            None => public_key(&self.attributes),
        }
    }

    /// Whether it could be the private half of this public key, as far as it tells.
    pub fn could_have(&self, public: &PublicKey) -> bool {
        could_have(&self.attributes, public)
    }

    /// `CKA_SIGN`; a module that does not tell is believed to sign.
    pub fn can_sign(&self) -> bool {
        self.attributes.bool(AttributeType::Sign) != Some(false)
    }

    /// `CKA_DECRYPT`; a module that does not tell is believed to decrypt.
    pub fn can_decrypt(&self) -> bool {
        self.attributes.bool(AttributeType::Decrypt) != Some(false)
    }

    /// `CKA_ALWAYS_AUTHENTICATE`
    pub fn always_authenticate(&self) -> bool {
        self.attributes.bool(AttributeType::AlwaysAuthenticate) == Some(true)
    }

    /// `CKA_EXTRACTABLE`, where it is told.
    pub fn extractable(&self) -> Option<bool> {
        self.attributes.bool(AttributeType::Extractable)
    }

    /// `CKA_SENSITIVE`, where it is told.
    pub fn sensitive(&self) -> Option<bool> {
        self.attributes.bool(AttributeType::Sensitive)
    }

    /// `CKA_PRIVATE`, where it is told.
    pub fn private(&self) -> Option<bool> {
        self.attributes.bool(AttributeType::Private)
    }

    /// `CKA_VALUE` of a certificate.
    pub fn certificate(&self) -> Option<&[u8]> {
        self.attributes.bytes(AttributeType::Value)
    }

    /// `CKA_KEY_TYPE`
    pub fn key_type(&self) -> message::KeyType {
        match self.attributes.number(AttributeType::KeyType) {
            Some(kind) if kind == cryptoki_sys::CK_KEY_TYPE::from(KeyType::RSA) => {
                message::KeyType::Rsa
            }
            Some(kind) if kind == cryptoki_sys::CK_KEY_TYPE::from(KeyType::EC) => {
                message::KeyType::Ec
            }
            // Not Ed448, nor one that does not say.
            Some(kind)
                if kind == cryptoki_sys::CK_KEY_TYPE::from(KeyType::EC_EDWARDS)
                    && self.is_on_edwards25519() =>
            {
                message::KeyType::Ed25519
            }
            _ => message::KeyType::Unknown,
        }
    }

    fn is_on_edwards25519(&self) -> bool {
        let params = self.attributes.bytes(AttributeType::EcParams);
        params.is_some_and(|params| edwards25519(params).is_ok())
    }

    /// `CKA_ALLOWED_MECHANISMS`; empty means all.
    pub fn allowed_mechanisms(&self) -> Vec<MechanismType> {
        let allowed = self.attributes.numbers(AttributeType::AllowedMechanisms);
        allowed
            .filter_map(|number| number.try_into().ok())
            .collect()
    }
}

/// A label or another text of a token as clients are shown it: one line, of at most [`LONGEST_NAME`] bytes.
pub(crate) fn one_line(label: &str) -> String {
    text(label.as_bytes(), char::is_control)
}

/// The beginning of a text, of at most [`LONGEST_NAME`] bytes, without what is not to be in it.
fn text(bytes: &[u8], is_replaced: impl Fn(char) -> bool) -> String {
    let mut short = String::new();
    for letter in String::from_utf8_lossy(bytes).chars() {
        let shown = match is_replaced(letter) {
            true => char::REPLACEMENT_CHARACTER,
            false => letter,
        };
        if short.len() + shown.len_utf8() > LONGEST_NAME {
            break;
        }
        short.push(shown);
    }
    short
}

/// Reads what can be read. When one attribute fails the whole call, each is asked for alone.
///
/// Some modules stop at an attribute that they do not have, and leave the rest untouched, which reads as
/// zeros. So the class is asked for last: where it is not told, nothing of the answer is believed.
fn attributes(
    session: &Session,
    handle: ObjectHandle,
    class: ObjectClass,
    wanted: &[(AttributeType, usize)],
) -> Result<Attributes, Error> {
    let ask = |wanted: &[(AttributeType, usize)]| {
        let with_class = [wanted, &[(AttributeType::Class, NUMBER)]].concat();
        let told = session.attributes(handle, &with_class)?;
        match told.number(AttributeType::Class) == Some(class.into()) {
            true => Ok(told),
            false => Err(Error::BadAnswer(
                "the PKCS#11 module does not tell the class of an object".into(),
            )),
        }
    };
    let first = match ask(wanted) {
        Err(error) if concerns_attributes(&error) => error,
        other => return other,
    };
    let mut readable = Attributes::default();
    for one in wanted {
        match ask(&[*one]) {
            Ok(told) => readable.extend(told),
            Err(error) if concerns_attributes(&error) => {}
            Err(error) => return Err(error),
        }
    }
    match readable.is_empty() {
        true => Err(first),
        false => Ok(readable),
    }
}

/// Whether another attribute of the same object may still be readable.
fn concerns_attributes(error: &Error) -> bool {
    match error {
        Error::Module { rv, .. } => matches!(
            rv,
            RvError::AttributeSensitive
                | RvError::AttributeTypeInvalid
                | RvError::AttributeValueInvalid
                | RvError::ArgumentsBad
                | RvError::BufferTooSmall
                | RvError::FunctionFailed
                | RvError::FunctionNotSupported
                | RvError::GeneralError
                | RvError::VendorDefined(_)
        ),
        Error::Timeout(_) => false,
        // cryptoki could not make sense of a value, of an unknown mechanism for example.
        _ => true,
    }
}

/// Whether an object that cannot be read at all is as good as none. Trouble that may pass is not: the
/// object could be the one that is looked for.
fn concerns_one_object(error: &Error) -> bool {
    match error {
        Error::Module { rv, .. } => matches!(
            rv,
            RvError::AttributeSensitive
                | RvError::AttributeTypeInvalid
                | RvError::AttributeValueInvalid
                | RvError::ArgumentsBad
                | RvError::ObjectHandleInvalid
        ),
        Error::Timeout(_) => false,
        _ => true,
    }
}
