//! [`Uri`], and the attributes of RFC 7512 section 2.3 that it may have, in three tables.

use crate::error::{Error, ErrorKind};
use crate::info::{ObjectInfo, ObjectType, TokenInfo};
use crate::value::{Pin, Value};
use secrecy::SecretString;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::path::PathBuf;

pub(crate) const SCHEME: &str = "pkcs11:";

/// A PKCS#11 URI (RFC 7512 section 2.3): path attributes say which token and object is meant, query
/// attributes say how to get at it.
///
/// [`Uri::default`] is `pkcs11:`, which matches everything. `Display` and `Debug` show no PIN. Two URIs
/// are equal when they say the same, whatever the spelling and the order of their attributes (section
/// 2.6); the comparison takes the PIN into account and is not constant in time.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Uri {
    pub(crate) token: TokenAttributes,
    pub(crate) object: ObjectAttributes,
    pub(crate) vendor_path: BTreeMap<String, Vec<u8>>,
    pub(crate) query: QueryAttributes,
    /// Ordered by name; values of the same name in the order of the text.
    pub(crate) vendor_query: Vec<(String, Vec<u8>)>,
}

/// Declares a group of attributes: its struct, what parsing and printing need of it, and the methods of
/// [`Uri`] that return the values.
macro_rules! attributes {
    ($group:ident in $part:ident {
        $($(#[$doc:meta])* $name:literal $field:ident: $Type:ty => $get:ident -> $Returned:ty;)*
    }) => {
        #[derive(Clone, Default, PartialEq, Eq)]
        pub(crate) struct $group {
            $(pub(crate) $field: Option<$Type>,)*
        }

        impl $group {
            pub(crate) fn has(name: &str) -> bool {
                matches!(name, $($name)|*)
            }

            /// Takes a percent-decoded value. `false` if the attribute is of another group.
            pub(crate) fn set(&mut self, name: &str, value: &[u8]) -> Result<bool, ErrorKind> {
                match name {
                    $($name => set(&mut self.$field, name, value)?,)*
                    _ => return Ok(false),
                }
                Ok(true)
            }

            /// Names and values to print, in the order of the table.
            pub(crate) fn values(&self) -> impl Iterator<Item = (&str, Cow<'_, [u8]>)> {
                let all = [$(($name, self.$field.as_ref().map(Value::bytes))),*];
                all.into_iter().filter_map(|(name, value)| Some((name, value?)))
            }
        }

        impl Uri {
            $($(#[$doc])*
            pub fn $field(&self) -> Option<$Returned> {
                self.$part.$field.$get()
            })*
        }
    };
}

/// [`attributes`] of the path, which may also be those of a scope and are matched with an info struct.
macro_rules! path_attributes {
    ($group:ident in $part:ident, compared with $Info:ident by $matches:path {
        $($(#[$doc:meta])* $name:literal $field:ident: $Type:ty => $get:ident -> $Returned:ty,
            $info_field:ident;)*
    }) => {
        attributes! { $group in $part { $($(#[$doc])* $name $field: $Type => $get -> $Returned;)* } }

        impl $group {
            pub(crate) fn apply_scope(&mut self, scope: &Self, replaced: &mut Vec<String>) {
                $(apply_scope(&mut self.$field, &scope.$field, $name, replaced);)*
            }

            pub(crate) fn matches(&self, info: &$Info) -> bool {
                true $(&& self.$field.as_ref().is_none_or(|own| $matches(own, &info.$info_field)))*
            }
        }

        impl Hash for $group {
            fn hash<H: Hasher>(&self, state: &mut H) {
                $(self.$field.hash(state);)*
            }
        }
    };
}

// A line is: the name in a URI, the method of `Uri` and the type of the value => the method of `Option` that
// returns it -> as which type, the field of the info struct. The order is that in which p11tool prints, but for
// `slot-id`: scripts of thin-edge cut a token's URI behind it.

path_attributes! { TokenAttributes in token, compared with TokenInfo by Value::matches {
    /// `library-description` (`CK_INFO`).
    "library-description" library_description: String => as_deref -> &str, library_description;
    /// `library-manufacturer` (`CK_INFO`).
    "library-manufacturer" library_manufacturer: String => as_deref -> &str, library_manufacturer;
    /// `library-version` (`CK_INFO`) as major and minor number; `3` is 3.0.
    "library-version" library_version: (u8, u8) => clone -> (u8, u8), library_version;
    /// `slot-description` (`CK_SLOT_INFO`).
    "slot-description" slot_description: String => as_deref -> &str, slot_description;
    /// `slot-manufacturer` (`CK_SLOT_INFO`).
    "slot-manufacturer" slot_manufacturer: String => as_deref -> &str, slot_manufacturer;
    /// `model` of the token (`CK_TOKEN_INFO`).
    "model" model: String => as_deref -> &str, model;
    /// `manufacturer` of the token (`CK_TOKEN_INFO`).
    "manufacturer" manufacturer: String => as_deref -> &str, manufacturer;
    /// `serial` number of the token (`CK_TOKEN_INFO`).
    "serial" serial: String => as_deref -> &str, serial;
    /// `token`: the token's label (`CK_TOKEN_INFO`).
    "token" token: String => as_deref -> &str, label;
    /// `slot-id` (`CK_SLOT_ID`).
    "slot-id" slot_id: u64 => clone -> u64, slot_id;
} }

path_attributes! { ObjectAttributes in object, compared with ObjectInfo by PartialEq::eq {
    /// `id` of the object (`CKA_ID`).
    "id" id: Vec<u8> => as_deref -> &[u8], id;
    /// `object`: the object's label (`CKA_LABEL`).
    "object" object: String => as_deref -> &str, label;
    /// `type` of the object (`CKA_CLASS`).
    "type" object_type: ObjectType => clone -> ObjectType, object_type;
} }

attributes! { QueryAttributes in query {
    /// `pin-source` as it is written; [`Uri::pin_source_path`] says which file that is.
    "pin-source" pin_source: String => as_deref -> &str;
    /// `pin-value`: the PIN itself.
    "pin-value" pin_value: Pin => as_deref -> &SecretString;
    /// `module-name`: the file name of the PKCS#11 library, without folder and suffix.
    "module-name" module_name: String => as_deref -> &str;
    /// `module-path`: where the PKCS#11 library is.
    "module-path" module_path: String => as_deref -> &str;
} }

fn set<V: Value>(field: &mut Option<V>, name: &str, value: &[u8]) -> Result<(), ErrorKind> {
    if field.is_some() {
        return Err(ErrorKind::Duplicate(name.to_owned()));
    }
    *field = Some(V::parse(name, value)?);
    Ok(())
}

/// Puts the scope's value, if it has one, in the place of `own`.
fn apply_scope<V: Clone + PartialEq>(
    own: &mut Option<V>,
    scope: &Option<V>,
    name: &str,
    replaced: &mut Vec<String>,
) {
    if scope.is_none() || own == scope {
        return;
    }
    if own.is_some() {
        replaced.push(name.to_owned());
    }
    own.clone_from(scope);
}

impl Uri {
    /// Path attributes that RFC 7512 does not define, by name. Any of them makes the URI match nothing
    /// (section 2.5).
    pub fn vendor_path(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.vendor_path
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// Query attributes that RFC 7512 does not define, by name; the same one may be there twice (section
    /// 2.3). They do not take part in matching (section 2.5).
    pub fn vendor_query(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.vendor_query
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// Whether the URI says anything about the token, its slot or its library.
    pub fn names_token(&self) -> bool {
        self.token != TokenAttributes::default()
    }

    /// Whether the URI says which object, by label or id.
    pub fn names_object(&self) -> bool {
        self.object().is_some() || self.id().is_some()
    }

    /// The file that `pin-source` names: `file:/path`, `file:///path` or an absolute path.
    ///
    /// The value is percent-decoded once, as every value is. RFC 7512 section 2.4 leaves other forms,
    /// such as `|program`, to the implementation: here they are refused.
    ///
    /// # Errors
    /// [`ErrorKind::PinSource`]
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
            Err(ErrorKind::PinSource.into())
        }
    }

    /// The path attributes alone: what may be remembered and compared.
    pub fn without_query(&self) -> Uri {
        Uri {
            token: self.token.clone(),
            object: self.object.clone(),
            vendor_path: self.vendor_path.clone(),
            ..Uri::default()
        }
    }

    /// The same URI without what it says of the slot.
    pub fn without_slot(&self) -> Uri {
        let mut uri = self.clone();
        uri.token.slot_description = None;
        uri.token.slot_manufacturer = None;
        uri.token.slot_id = None;
        uri
    }

    /// The same URI without `type`: what names both halves of a key pair.
    pub fn without_type(&self) -> Uri {
        let mut uri = self.clone();
        uri.object.object_type = None;
        uri
    }

    /// The same URI with this `type`.
    pub fn with_type(&self, object_type: ObjectType) -> Uri {
        let mut uri = self.clone();
        uri.object.object_type = Some(object_type);
        uri
    }

    /// Refuses what a client may not send to a service: attributes that would make the service read a
    /// file or load a library of the client's choice.
    ///
    /// # Errors
    /// [`ErrorKind::NotInRequest`]
    pub fn require_request_form(&self) -> Result<(), Error> {
        match self.query.values().find(|(name, _)| *name != "pin-value") {
            Some((name, _)) => Err(ErrorKind::NotInRequest(name.to_owned()).into()),
            None => Ok(()),
        }
    }
}

impl Hash for Uri {
    /// Of the path only, so that no hash depends on a PIN. Equal URIs have equal hashes all the same.
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.token, &self.object, &self.vendor_path).hash(state);
    }
}
