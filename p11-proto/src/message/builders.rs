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
use super::status::{
    Account, Counters, HungCall, LastError, LoginState, ModuleStatus, PinOwner, Pong, Setting,
    Source, Status, StatusDetails, TokenStatus,
};
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
        .trouble(impl Into<Option<String>>)
        .version(impl Into<Option<String>>)
        .uptime(impl Into<Option<u64>>)
        .account(impl Into<Option<Account>>)
        .allowed(impl Into<Option<Vec<String>>>)
        .details(impl Into<Option<Box<StatusDetails>>>);
    StatusDetails(module: ModuleStatus, counters: Counters)
        .tokens(Vec<TokenStatus>)
        .hung(Vec<HungCall>)
        .settings(Vec<Setting>)
        .last_error(impl Into<Option<LastError>>);
    Account(uid: u32)
        .user(impl Into<Option<String>>);
    ModuleStatus(path: impl Into<String>)
        .description(impl Into<Option<String>>)
        .manufacturer(impl Into<Option<String>>)
        .version(impl Into<Option<String>>);
    TokenStatus(uri: impl Into<String>, label: impl Into<String>, pin: LoginState)
        .since(impl Into<Option<u64>>)
        .pin_owner(impl Into<Option<PinOwner>>)
        .pin_origin(impl Into<Option<String>>)
        .reason(impl Into<Option<String>>);
    HungCall(function: impl Into<String>, seconds: u64)
        .token(impl Into<Option<String>>);
    LastError(at: u64, code: ErrorCode, message: impl Into<String>)
        .function(impl Into<Option<String>>)
        .ckr(impl Into<Option<String>>);
    Counters(signatures: u64, failures: u64, logins: u64, reloads: u64)
        .connections(impl Into<Option<u64>>)
        .signed_at(impl Into<Option<u64>>)
        .signing_us(impl Into<Option<u64>>);
    Setting(name: impl Into<String>, source: Source)
        .value(impl Into<Option<String>>)
        .place(impl Into<Option<String>>)
        .line(impl Into<Option<u32>>);
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
        .truncated(bool)
        .note(impl Into<Option<String>>);
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
