//! A request's URI and PIN enter, and leave beside what the operator says: the scope and the server's PIN.

use std::borrow::Cow;
use std::sync::Arc;

use p11_proto::{Identity, Pin};
use p11_uri::Uri;
use tracing::warn;

use super::guard::Pins;
use super::{Engine, Settings};
use crate::error::Error;
use crate::service::Access;

/// A token, and the key on it, as a request asks for them.
pub struct Asked<'a> {
    /// The URI as it came.
    pub uri: &'a str,
    /// The URI without PIN, by which the key is remembered.
    pub name: Cow<'a, str>,
    /// The PIN of the URI or of the request.
    pub own_pin: Option<Cow<'a, Pin>>,
    /// The only key that will do.
    pub wanted: Option<Identity>,
    /// Whether it was opened before, so that another key in its place is a change.
    pub opened: bool,
    /// What the client may do with which of them.
    pub access: &'a dyn Access,
    /// The operator's, as they were when the request came.
    pub settings: Arc<Settings>,
}

impl Engine {
    /// What a request about a token asks for, of whatever key.
    pub(super) fn asked<'a>(
        &self,
        uri: &'a str,
        pin: Option<&'a Pin>,
        access: &'a dyn Access,
    ) -> Result<Asked<'a>, Error> {
        let mut asked = Asked {
            uri,
            name: Cow::Borrowed(uri),
            own_pin: pin.map(Cow::Borrowed),
            wanted: None,
            opened: false,
            access,
            settings: self.settings(),
        };
        // Without a query there is nothing to look at before the key is found.
        if uri.contains('?') {
            let parsed = Uri::parse(uri)?;
            parsed.require_request_form()?;
            asked.name = Cow::Owned(parsed.without_query().to_string());
            if let Some(pin) = parsed.pin_value() {
                asked.own_pin = Some(Cow::Owned(Pin::from(pin.clone())));
            }
        }
        Ok(asked)
    }
}

impl Asked<'_> {
    /// The URI, held to the server's scope.
    pub fn scoped(&self) -> Result<Uri, Error> {
        let scope = &self.settings.scope;
        let scoped = Uri::parse(self.uri)?.scoped_by(scope);
        if !scoped.replaced.is_empty() {
            warn!(
                "the request for {} is held to the server's own URI {}: {} replaced",
                self.name,
                scope.without_query(),
                scoped.replaced.join(", ")
            );
        }
        Ok(scoped.uri)
    }

    /// The URI of a request that changes a token: it must lie within the scope by itself.
    pub fn in_scope(&self) -> Result<Uri, Error> {
        self.held(&Uri::parse(self.uri)?)
    }

    /// A URI that is held to the scope and was no other before, but for its type: either half of a
    /// key pair stands for both.
    pub fn held(&self, uri: &Uri) -> Result<Uri, Error> {
        let scope = &self.settings.scope;
        let mut scoped = uri.scoped_by(scope);
        scoped.replaced.retain(|name| name != "type");
        match scoped.replaced.is_empty() {
            true => Ok(scoped.uri),
            false => Err(out_of_scope(
                &uri.without_query().to_string(),
                scope,
                &scoped.replaced,
            )),
        }
    }

    /// The PINs for a token that wants one.
    pub fn pins(&self) -> Pins<'_> {
        Pins {
            own: self.own_pin.as_deref(),
            server: self.settings.pin.as_ref(),
        }
    }
}

/// The refusal to change what the scope leaves out.
pub fn out_of_scope(uri: &str, scope: &Uri, differing: &[String]) -> Error {
    Error::OutOfScope(format!(
        "{uri} lies outside of what this server may change, {}: {} differs",
        scope.without_query(),
        differing.join(", ")
    ))
}
