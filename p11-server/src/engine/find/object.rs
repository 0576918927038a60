//! Objects on a token: their attributes, read by kind and never by position.

use cryptoki::error::RvError;
use cryptoki::mechanism::MechanismType;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use p11_proto::message;
use p11_proto::spki::PublicKey;
use p11_uri::{ObjectInfo, ObjectType};
use tracing::debug;

use super::public_key::public_key;
use crate::error::Error;

/// One object, as far as it lets itself be read.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub handle: ObjectHandle,
    pub label: String,
    pub id: Vec<u8>,
    attributes: Vec<Attribute>,
}

/// What is read of a private key.
const PRIVATE: [AttributeType; 14] = [
    AttributeType::Label,
    AttributeType::Id,
    AttributeType::KeyType,
    AttributeType::Sign,
    AttributeType::Decrypt,
    AttributeType::AlwaysAuthenticate,
    AttributeType::Extractable,
    AttributeType::Sensitive,
    AttributeType::AllowedMechanisms,
    AttributeType::Modulus,
    AttributeType::PublicExponent,
    AttributeType::EcParams,
    AttributeType::EcPoint,
    AttributeType::PublicKeyInfo,
];

/// What is read of a public key.
const PUBLIC: [AttributeType; 8] = [
    AttributeType::Label,
    AttributeType::Id,
    AttributeType::KeyType,
    AttributeType::Modulus,
    AttributeType::PublicExponent,
    AttributeType::EcParams,
    AttributeType::EcPoint,
    AttributeType::PublicKeyInfo,
];

/// What is read of a certificate.
const CERTIFICATE: [AttributeType; 3] = [
    AttributeType::Label,
    AttributeType::Id,
    AttributeType::Value,
];

impl Object {
    /// Finds the objects of a class that have this label and this id, where given.
    ///
    /// # Errors
    /// What the module said. An object that cannot be read at all is left out.
    pub fn find(
        session: &Session,
        class: ObjectClass,
        label: Option<&str>,
        id: Option<&[u8]>,
    ) -> Result<Vec<Object>, Error> {
        let mut template = vec![Attribute::Token(true), Attribute::Class(class)];
        template.extend(label.map(|label| Attribute::Label(label.into())));
        template.extend(id.map(|id| Attribute::Id(id.into())));
        let mut objects = Vec::new();
        for handle in session.find_objects(&template)? {
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

    /// Reads the private key of a handle.
    ///
    /// # Errors
    /// What the module said.
    pub fn private_key(session: &Session, handle: ObjectHandle) -> Result<Object, Error> {
        Object::read(session, handle, ObjectClass::PRIVATE_KEY)
    }

    /// Reads the public key of a handle.
    ///
    /// # Errors
    /// What the module said.
    pub fn of_public_key(session: &Session, handle: ObjectHandle) -> Result<Object, Error> {
        Object::read(session, handle, ObjectClass::PUBLIC_KEY)
    }

    fn read(session: &Session, handle: ObjectHandle, class: ObjectClass) -> Result<Object, Error> {
        let wanted: &[AttributeType] = match class {
            ObjectClass::PRIVATE_KEY => &PRIVATE,
            ObjectClass::PUBLIC_KEY => &PUBLIC,
            _ => &CERTIFICATE,
        };
        let attributes = attributes(session, handle, class, wanted)?;
        let bytes = |pick: fn(&Attribute) -> Option<&Vec<u8>>| attributes.iter().find_map(pick);
        let label = bytes(|a| match a {
            Attribute::Label(bytes) => Some(bytes),
            _ => None,
        });
        let id = bytes(|a| match a {
            Attribute::Id(bytes) => Some(bytes),
            _ => None,
        });
        Ok(Object {
            handle,
            label: label
                .map(|label| String::from_utf8_lossy(label).into_owned())
                .unwrap_or_default(),
            id: id.cloned().unwrap_or_default(),
            attributes,
        })
    }

    /// What it says of itself, as the private half of a pair.
    pub fn info(&self) -> ObjectInfo {
        self.info_as(ObjectType::Private)
    }

    /// What it says of itself.
    pub fn info_as(&self, object_type: ObjectType) -> ObjectInfo {
        ObjectInfo::new(object_type, self.label.clone(), self.id.clone())
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

    /// `CKA_SIGN`; a module that does not tell is believed to sign.
    pub fn can_sign(&self) -> bool {
        !self.attributes.contains(&Attribute::Sign(false))
    }

    /// `CKA_DECRYPT`; a module that does not tell is believed to decrypt.
    pub fn can_decrypt(&self) -> bool {
        !self.attributes.contains(&Attribute::Decrypt(false))
    }

    /// `CKA_ALWAYS_AUTHENTICATE`
    pub fn always_authenticate(&self) -> bool {
        self.attributes
            .contains(&Attribute::AlwaysAuthenticate(true))
    }

    /// `CKA_EXTRACTABLE`
    pub fn extractable(&self) -> bool {
        self.attributes.contains(&Attribute::Extractable(true))
    }

    /// `CKA_VALUE` of a certificate.
    pub fn certificate(&self) -> Option<&[u8]> {
        self.attributes
            .iter()
            .find_map(|attribute| match attribute {
                Attribute::Value(der) => Some(der.as_slice()),
                _ => None,
            })
    }

    /// `CKA_KEY_TYPE`
    pub fn key_type(&self) -> message::KeyType {
        let of = |attribute: &Attribute| match attribute {
            Attribute::KeyType(KeyType::RSA) => Some(message::KeyType::Rsa),
            Attribute::KeyType(KeyType::EC) => Some(message::KeyType::Ec),
            Attribute::KeyType(KeyType::EC_EDWARDS) => Some(message::KeyType::Ed25519),
            _ => None,
        };
        self.attributes
            .iter()
            .find_map(of)
            .unwrap_or(message::KeyType::Unknown)
    }

    /// `CKA_ALLOWED_MECHANISMS`; empty means all.
    pub fn allowed_mechanisms(&self) -> Vec<MechanismType> {
        let allowed = self
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                Attribute::AllowedMechanisms(allowed) => Some(allowed.clone()),
                _ => None,
            });
        allowed.unwrap_or_default()
    }
}

/// Reads what can be read. When one attribute fails the whole call, each is asked for alone.
///
/// Some modules stop at an attribute that they do not have, and cryptoki takes what they left untouched
/// for zeros. So the class is asked for last: where it is not told, nothing of the answer is believed.
fn attributes(
    session: &Session,
    handle: ObjectHandle,
    class: ObjectClass,
    wanted: &[AttributeType],
) -> Result<Vec<Attribute>, Error> {
    let ask = |wanted: &[AttributeType]| {
        let with_class = [wanted, &[AttributeType::Class]].concat();
        let told = session.get_attributes(handle, &with_class)?;
        match told.contains(&Attribute::Class(class)) {
            true => Ok(told),
            false => Err(Error::Internal(
                "the PKCS#11 module does not tell the class of an object".into(),
            )),
        }
    };
    let first = match ask(wanted) {
        Err(error) if concerns_attributes(&error) => error,
        other => return other,
    };
    let mut readable = Vec::new();
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
        _ => true,
    }
}
