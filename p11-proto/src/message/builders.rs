//! Constructors of messages from their required fields, and setters of the others, which can be
//! chained: `OpenKey::new(uri).pin(pin)`.
//!
//! Fields that are added within version 1 are optional. So they change no constructor.

use serde_bytes::ByteBuf;

use super::failure::{ErrorCode, Failure};
use super::objects::{
    CertificateEntry, Certificates, Class, CreateKey, DeleteCertificate, DeleteKey, Deleted,
    GetCertificates, GetPublicKey, ImportCertificate, Imported, KeySpec, ListKeys, ObjectEntry,
    Objects,
};
use super::signing::{KeyType, OpenKey, Sign, Signature};
use super::status::{Pong, Status};
use super::tokens::{ChangePin, InitToken, PinChanged, PinState, TokenEntry, TokenReady, Tokens};
use crate::secret::{Pin, UriText};
use crate::spki::Identity;

macro_rules! builders {
    ($($message:ident($($field:ident: $value:ty),*) $(.$option:ident($type:ty))*;)*) => {
        $(impl $message {
            /// The message with its required fields. The others are absent, false, zero or empty.
            pub fn new($($field: $value),*) -> Self {
                $message {
                    $($field: $field.into(),)*
                    $($option: Default::default(),)*
                }
            }

            $(
                #[doc = concat!("Sets the field `", stringify!($option), "`.")]
                #[must_use]
                pub fn $option(mut self, $option: $type) -> Self {
                    self.$option = $option.into();
                    self
                }
            )*
        })*
    };
}

builders! {
    OpenKey(uri: impl Into<UriText>)
        .pin(impl Into<Option<Pin>>)
        .spki(impl Into<Option<ByteBuf>>);
    Sign(uri: impl Into<UriText>, scheme: u16, message: impl Into<ByteBuf>, identity: Identity)
        .pin(impl Into<Option<Pin>>);
    ListKeys(uri: impl Into<UriText>)
        .pin(impl Into<Option<Pin>>);
    GetPublicKey(uri: impl Into<UriText>)
        .pin(impl Into<Option<Pin>>);
    GetCertificates(uri: impl Into<UriText>)
        .pin(impl Into<Option<Pin>>);
    ImportCertificate(uri: impl Into<UriText>, certificate: impl Into<ByteBuf>)
        .pin(impl Into<Option<Pin>>);
    CreateKey(uri: impl Into<UriText>, key: KeySpec, label: impl Into<String>)
        .pin(impl Into<Option<Pin>>)
        .id(impl Into<Option<ByteBuf>>);
    DeleteKey(uri: impl Into<UriText>)
        .pin(impl Into<Option<Pin>>)
        .all(bool);
    DeleteCertificate(uri: impl Into<UriText>)
        .pin(impl Into<Option<Pin>>)
        .certificate(impl Into<Option<ByteBuf>>);
    InitToken(label: impl Into<String>)
        .uri(impl Into<Option<UriText>>)
        .so_pin(impl Into<Option<Pin>>)
        .pin(impl Into<Option<Pin>>);
    ChangePin(new_pin: impl Into<Pin>)
        .uri(impl Into<Option<UriText>>)
        .old_pin(impl Into<Option<Pin>>)
        .so_pin(impl Into<Option<Pin>>)
        .reset(bool);

    Pong(server: impl Into<String>, protocol: u8);
    Status(server: impl Into<String>, available: bool)
        .trouble(impl Into<Option<String>>);
    Signature(signature: impl Into<ByteBuf>);
    Tokens(tokens: Vec<TokenEntry>)
        .truncated(bool);
    TokenEntry(slot: u64, uri: impl Into<String>)
        .label(impl Into<String>)
        .model(impl Into<String>)
        .manufacturer(impl Into<String>)
        .serial(impl Into<String>)
        .initialized(bool)
        .user_pin_set(bool)
        .login_required(bool)
        .pin_pad(bool)
        .write_protected(bool)
        .user_pin(PinState)
        .so_pin(PinState);
    Objects(objects: Vec<ObjectEntry>)
        .truncated(bool);
    ObjectEntry(class: Class, key_type: KeyType, label: impl Into<String>, id: impl Into<ByteBuf>,
        uri: impl Into<String>)
        .bits(u32)
        .can_sign(impl Into<Option<bool>>)
        .extractable(impl Into<Option<bool>>)
        .always_authenticate(impl Into<Option<bool>>);
    Certificates(certificates: Vec<CertificateEntry>)
        .truncated(bool);
    CertificateEntry(uri: impl Into<String>, certificate: impl Into<ByteBuf>);
    Imported(uri: impl Into<String>);
    Deleted(deleted: Vec<String>);
    TokenReady(uri: impl Into<String>, created: bool);
    PinChanged(uri: impl Into<String>)
        .stale(impl Into<Option<String>>);
    Failure(code: ErrorCode, message: impl Into<String>)
        .function(impl Into<Option<String>>)
        .ckr(impl Into<Option<String>>);
}
