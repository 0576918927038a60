//! The messages of protocol 1: one struct for each, gathered in [`Request`] and [`Response`].
//!
//! On the wire a message is a map with one entry, its name, whose value is a map of its fields:
//! `{"Sign": {"uri": "pkcs11:…", "scheme": 1027, …}}`. Optional fields that are absent are left
//! out; fields that a reader does not know are ignored.

mod builders;
mod failure;
mod nil;
mod objects;
mod signing;
mod status;
mod tokens;

use serde::{Deserialize, Serialize};

pub use serde_bytes::ByteBuf;

pub use failure::{ErrorCode, Failure};
pub use objects::{
    CertificateEntry, Certificates, Class, CreateKey, DeleteCertificate, DeleteKey, Deleted,
    GetCertificates, GetPublicKey, ImportCertificate, Imported, KeySpec, ListKeys, ObjectEntry,
    Objects, PublicKeyEntry,
};
pub use signing::{KeyType, OpenKey, OpenedKey, Sign, Signature};
pub use status::{
    Account, Counters, GetStatus, HungCall, LastError, LoginState, ModuleStatus, PinOwner, Ping,
    Pong, Setting, Source, Status, StatusDetails, TokenStatus,
};
pub use tokens::{
    ChangePin, InitToken, ListTokens, PinChanged, PinState, TokenEntry, TokenReady, Tokens,
};

/// A message that can be told from others by its name alone.
pub trait Message: Serialize + for<'de> Deserialize<'de> {
    /// The names that this reader knows. A frame with another name is no malformed frame: it comes
    /// from a newer peer.
    const NAMES: &'static [&'static str];

    /// The name of this message on the wire.
    fn name(&self) -> &'static str;
}

/// An enum of messages.
macro_rules! messages {
    ($(#[$doc:meta])* $all:ident { $($(#[$each:meta])* $name:ident($fields:ty),)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum $all { $($(#[$each])* $name($fields),)* }

        impl Message for $all {
            const NAMES: &'static [&'static str] = &[$(stringify!($name)),*];

            fn name(&self) -> &'static str {
                match self { $($all::$name(_) => stringify!($name),)* }
            }
        }
    };
}

messages! {
    /// What a client asks for.
    Request {
        /// Does the server run, and which is it? Answered by [`Response::Pong`].
        Ping(Ping),
        /// Can the module be used, and how does the server fare? Answered by [`Response::Status`]. Touches no token.
        Status(GetStatus),
        /// Which key is this, and what can it sign? Answered by [`Response::Key`].
        OpenKey(OpenKey),
        /// One signature. Answered by [`Response::Signature`].
        Sign(Sign),
        /// Which tokens are there? Answered by [`Response::Tokens`].
        ListTokens(ListTokens),
        /// What keys and certificates does a token hold? Answered by [`Response::Objects`].
        ListKeys(ListKeys),
        /// The public half of a key. Answered by [`Response::PublicKey`].
        GetPublicKey(GetPublicKey),
        /// Certificates, leaf first. Answered by [`Response::Certificates`].
        GetCertificates(GetCertificates),
        /// Stores the certificate of a key. Answered by [`Response::Imported`].
        ImportCertificate(ImportCertificate),
        /// Makes a key pair on a token. Answered by [`Response::PublicKey`].
        CreateKey(CreateKey),
        /// Deletes a key pair. Answered by [`Response::Deleted`].
        DeleteKey(DeleteKey),
        /// Deletes a certificate. Answered by [`Response::Deleted`].
        DeleteCertificate(DeleteCertificate),
        /// Makes a token ready for use. Answered by [`Response::TokenReady`].
        InitToken(InitToken),
        /// Changes the PIN of a token's user. Answered by [`Response::PinChanged`].
        ChangePin(ChangePin),
    }
}

impl Request {
    /// Whether it changes a token, so that nobody sends it again when its answer is lost.
    pub fn changes_token(&self) -> bool {
        matches!(
            self,
            Request::ImportCertificate(_)
                | Request::CreateKey(_)
                | Request::DeleteKey(_)
                | Request::DeleteCertificate(_)
                | Request::InitToken(_)
                | Request::ChangePin(_)
        )
    }

    /// Whether a card may take minutes for it.
    pub fn takes_minutes(&self) -> bool {
        matches!(self, Request::CreateKey(_) | Request::InitToken(_))
    }
}

messages! {
    /// What the server answers.
    Response {
        /// To [`Request::Ping`].
        Pong(Pong),
        /// To [`Request::Status`].
        Status(Status),
        /// To [`Request::OpenKey`].
        Key(OpenedKey),
        /// To [`Request::Sign`].
        Signature(Signature),
        /// To [`Request::ListTokens`].
        Tokens(Tokens),
        /// To [`Request::ListKeys`].
        Objects(Objects),
        /// To [`Request::GetPublicKey`] and [`Request::CreateKey`].
        PublicKey(PublicKeyEntry),
        /// To [`Request::GetCertificates`].
        Certificates(Certificates),
        /// To [`Request::ImportCertificate`].
        Imported(Imported),
        /// To [`Request::DeleteKey`] and [`Request::DeleteCertificate`].
        Deleted(Deleted),
        /// To [`Request::InitToken`].
        TokenReady(TokenReady),
        /// To [`Request::ChangePin`].
        PinChanged(PinChanged),
        /// To any request that failed.
        Error(Failure),
    }
}
