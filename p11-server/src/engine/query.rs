//! What a request asks for: its URI and PIN beside the operator's scope and PIN.

use std::borrow::Cow;
use std::sync::Arc;

use p11_proto::spki::PublicKey;
use p11_proto::{Identity, Pin};
use p11_uri::Uri;
use tracing::warn;

use super::login::Pins;
use super::settings::Settings;
use crate::error::Error;
use crate::service::Access;

/// A token, and the key on it, as a request asks for them.
pub(crate) struct KeyQuery<'a> {
    /// The URI as it came.
    pub uri: &'a str,
    /// The URI without PIN, by which the key is remembered.
    pub name: Cow<'a, str>,
    /// The PIN of the URI or of the request.
    pub own_pin: Option<Cow<'a, Pin>>,
    /// The only key that will do.
    pub expected: Option<Identity>,
    /// The public key that the client has brought.
    pub given: Option<PublicKey>,
    /// Whether it was opened before, so that another key in its place is a change.
    pub opened: bool,
    /// What the client may do with which of them.
    pub access: &'a dyn Access,
    /// The operator's, as they were when the request came.
    pub settings: Arc<Settings>,
}

/// What a request about a token asks for, of whatever key.
pub(crate) fn query<'a>(
    uri: &'a str,
    pin: Option<&'a Pin>,
    access: &'a dyn Access,
    settings: Arc<Settings>,
) -> Result<KeyQuery<'a>, Error> {
    let mut query = KeyQuery {
        uri,
        name: Cow::Borrowed(uri),
        own_pin: pin.map(Cow::Borrowed),
        expected: None,
        given: None,
        opened: false,
        access,
        settings,
    };
    // Without a query there is nothing to look at before the key is found.
    if uri.contains('?') {
        let parsed = Uri::parse(uri)?;
        parsed.require_request_form()?;
        query.name = Cow::Owned(parsed.without_query().to_string());
        if let Some(pin) = parsed.pin_value() {
            query.own_pin = Some(Cow::Owned(Pin::from(pin.clone())));
        }
    }
    Ok(query)
}

impl KeyQuery<'_> {
    /// The URI, held to the server's scope.
    pub fn scoped(&self) -> Result<Uri, Error> {
        let scope = &self.settings.scope;
        let scoped = Uri::parse(self.uri)?.apply_scope(scope);
        if !scoped.replaced.is_empty() {
            warn!(
                "the request for {} is held to {}'s own URI {}: {} replaced",
                p11_uri::redact(&self.name),
                self.settings.wording.owner,
                scope.shown(),
                scoped.replaced.join(", ")
            );
        }
        Ok(scoped.uri)
    }

    /// The URI of a request that changes a token: it must lie within the scope by itself.
    pub fn in_scope(&self) -> Result<Uri, Error> {
        self.restrict(&Uri::parse(self.uri)?)
    }

    /// The URI within the scope, an error where the scope replaces any of it but its type: either half
    /// of a key pair stands for both.
    pub fn restrict(&self, uri: &Uri) -> Result<Uri, Error> {
        let scope = &self.settings.scope;
        let mut scoped = uri.apply_scope(scope);
        scoped.replaced.retain(|name| name != "type");
        match scoped.replaced.is_empty() {
            true => Ok(scoped.uri),
            false => Err(self.out_of_scope(&uri.shown(), &scoped.replaced)),
        }
    }

    /// The refusal to change what the scope leaves out.
    pub fn out_of_scope(&self, uri: &str, differing: &[String]) -> Error {
        Error::OutOfScope(format!(
            "{uri} lies outside of what {} may change, {}: {} differs",
            self.settings.wording.owner,
            self.settings.scope.shown(),
            differing.join(", ")
        ))
    }

    /// By which name it is remembered what its URI means. A policy hides keys from users, so each has their own;
    /// no URI has a blank.
    pub fn meaning(&self) -> Cow<'_, str> {
        match self.access.is_restricted() && self.expected.is_none() {
            true => format!("{} {}", self.access.user(), self.name).into(),
            false => Cow::Borrowed(&self.name),
        }
    }

    /// The PINs for a token that wants one.
    pub fn pins(&self) -> Pins<'_> {
        Pins {
            own: self.own_pin.as_deref(),
        }
    }
}
