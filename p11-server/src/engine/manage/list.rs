//! Listing tokens and keys, and public keys alone.

use std::sync::Arc;
use std::time::Instant;

use p11_proto::message::{
    Class, GetPublicKey, ListKeys, ObjectEntry, Objects, PinState, PublicKeyEntry, TokenEntry,
    Tokens,
};
use p11_proto::spki::PublicKey;
use p11_uri::{ObjectType, TokenInfo, Uri};
use tracing::info;

use crate::engine::core::Core;
use crate::engine::find::contents::Contents;
use crate::engine::find::object::{Object, one_line};
use crate::engine::module::TokenFlags;
use crate::engine::query::KeyQuery;
use crate::engine::token::SlotToken;
use crate::engine::token::Token;
use crate::engine::token::client::Client;
use crate::engine::token::turns::Lane;
use crate::error::Error;
use crate::service::Access;

impl Core {
    /// The tokens that the client may know of, initialised or not.
    pub fn list_tokens(&self, access: &dyn Access) -> Result<Tokens, Error> {
        let scope = self.settings().scope.clone();
        self.retry(access, |client, _| {
            self.look_anew(client);
            let mut tokens = Vec::new();
            for SlotToken { info, flags, .. } in &self.registry.scan(client)?.all {
                let in_scope = match flags.token_initialized() {
                    true => scope.matches_token(info),
                    false => in_scope_before_it_has_a_label(&scope, info),
                };
                if in_scope && access.check(info, None).is_ok() {
                    tokens.push(token_entry(info, flags));
                }
            }
            tokens.sort_unstable_by(|a, b| {
                (&a.label, &a.serial, a.slot).cmp(&(&b.label, &b.serial, b.slot))
            });
            Ok(Tokens::new(tokens))
        })
    }

    /// The keys and certificates of one token that the client may know of.
    pub fn list_keys(&self, request: &ListKeys, access: &dyn Access) -> Result<Objects, Error> {
        let query = self.query(&request.uri, request.pin.as_ref(), access)?;
        self.retry(access, |client, _| {
            let uri = query.scoped()?;
            let since = Instant::now();
            let token = self.registry.one(client, &uri)?;
            let (contents, hidden) = self.look(client, &token, &query, since)?;
            let token_info = token.info();
            let mut objects = Vec::new();
            let mut add = |class, object_type, object: &Object, public: Option<PublicKey>| {
                let info = object.info_as(object_type);
                // Either type of key names the pair.
                let is_meant = match class {
                    Class::Certificate => uri.matches_object(&info),
                    _ => uri.matches_key(&info.label, &info.id),
                };
                let is_shown = hidden.is_none() || !object.is_private();
                if is_meant && is_shown && access.check(&token_info, Some(&info)).is_ok() {
                    let uri = Uri::of_object(&token_info, &info).to_string();
                    objects.push(object_entry(class, object, public, uri));
                }
            };
            for (object, half) in contents.private.iter().zip(contents.pairs.halves()) {
                let public = half.as_ref().ok().map(|half| half.public.clone());
                add(Class::Private, ObjectType::Private, object, public);
            }
            for object in &contents.public {
                add(Class::Public, ObjectType::Public, object, told(object));
            }
            for object in &contents.certificates {
                add(Class::Certificate, ObjectType::Cert, object, told(object));
            }
            objects.sort_unstable_by(|a, b| {
                (&a.label, &a.id, a.class).cmp(&(&b.label, &b.id, b.class))
            });
            let note = hidden.map(|why| format!("private keys are not shown: {why}"));
            Ok(Objects::new(objects).note(note))
        })
    }

    /// The public half of a key.
    pub fn get_public_key(
        &self,
        request: &GetPublicKey,
        access: &dyn Access,
    ) -> Result<PublicKeyEntry, Error> {
        let query = self.query(&request.uri, request.pin.as_ref(), access)?;
        self.retry(access, |client, _| {
            let uri = query.scoped()?;
            let slots = self.registry.scan(client)?;
            let search = self.search(client, &query, &uri);
            let found = search.public_key(&slots.tokens);
            let (uri, public) = found.map_err(|error| slots.explain(error, client.access))?;
            Ok(PublicKeyEntry::new(uri.to_string(), &public))
        })
    }

    /// What is on a token, as of `since` or later, and why a listing does not show what is private of it; `None` where it
    /// does.
    pub fn look(
        &self,
        client: &Client<'_>,
        token: &Arc<Token>,
        query: &KeyQuery<'_>,
        since: Instant,
    ) -> Result<(Arc<Contents>, Option<String>), Error> {
        let hidden = self.log_in_to_look(client, token, query)?;
        let contents = self
            .contents
            .get(&self.module, client, token, Lane::Slow, since)?;
        if hidden.is_none() {
            contents.check_whole()?;
        }
        Ok((contents, hidden))
    }

    /// Why a listing does not show what is private. It does with the request's PIN, which has to be right, and without one where
    /// the server's, or the default one, has opened the token or does so now. Where nobody has set a PIN and the default one is
    /// none of the token's, or where another client's has opened the token, it shows what is public.
    fn log_in_to_look(
        &self,
        client: &Client<'_>,
        token: &Arc<Token>,
        query: &KeyQuery<'_>,
    ) -> Result<Option<String>, Error> {
        client.access.check(&token.info(), None)?;
        let pins = query.pins();
        let settings = self.settings();
        let is_without = pins.own.is_none();
        let is_unset = is_without && (settings.pin.is_none() || settings.pin_is_default);
        let has_pin_pad = token.flags().protected_authentication_path();
        match self.logins.may_use(client, token, &token.life(), pins) {
            Ok(true) => return Ok(None),
            Ok(false) if is_unset && has_pin_pad => {
                return Ok(Some(
                    "the PIN is typed at the token, and a listing asks for none".into(),
                ));
            }
            Ok(false) if is_unset && settings.pin.is_none() => {
                let owner = settings.wording.owner;
                return Ok(Some(format!("neither the request nor {owner} has a PIN")));
            }
            Ok(false) => {}
            Err(error) if is_without => {
                info!("listing only what is public: {error}");
                return Ok(Some(error.to_string()));
            }
            Err(error) => return Err(error),
        }
        match self.log_in(client, token, pins) {
            Err(error) if is_unset && error.is_of_pin() => {
                info!("listing only what is public: {error}");
                Ok(Some(error.to_string()))
            }
            outcome => outcome.map(|()| None),
        }
    }
}

/// Whether a token without label and serial number lies in a scope: the other attributes decide.
pub(super) fn in_scope_before_it_has_a_label(scope: &Uri, info: &TokenInfo) -> bool {
    let mut labelled = info.clone();
    labelled.label = scope.token().unwrap_or(&info.label).into();
    labelled.serial = scope.serial().unwrap_or(&info.serial).into();
    scope.matches_token(&labelled)
}

/// The public key that a public object tells, if it can be told.
fn told(object: &Object) -> Option<PublicKey> {
    object.public_key().ok().flatten()
}

fn object_entry(
    class: Class,
    object: &Object,
    public: Option<PublicKey>,
    uri: String,
) -> ObjectEntry {
    let kind = public.map(|public| public.kind());
    let key_type = kind.map_or_else(|| object.key_type(), Into::into);
    let entry = ObjectEntry::new(
        class,
        key_type,
        one_line(&object.label),
        object.id.clone(),
        uri,
    )
    .bits(kind.map_or(0, |kind| kind.bits()));
    match class {
        Class::Private => entry
            .can_sign(object.can_sign())
            .extractable(object.extractable() == Some(true))
            .always_authenticate(object.always_authenticate()),
        _ => entry,
    }
}

fn token_entry(info: &TokenInfo, flags: &TokenFlags) -> TokenEntry {
    let initialized = flags.token_initialized();
    let uri = match initialized {
        true => Uri::of_token(info),
        false => Uri::of_slot(info),
    };
    let mut entry = TokenEntry::new(info.slot_id, uri.to_string());
    entry.label = one_line(&info.label);
    entry.model = one_line(&info.model);
    entry.manufacturer = one_line(&info.manufacturer);
    entry.serial = one_line(&info.serial);
    entry.initialized = initialized;
    entry.user_pin_set = flags.user_pin_initialized();
    entry.login_required = flags.login_required();
    entry.pin_pad = flags.protected_authentication_path();
    entry.write_protected = flags.write_protected();
    entry.user_pin = pin_state(
        flags.user_pin_locked(),
        flags.user_pin_final_try(),
        flags.user_pin_count_low(),
    );
    entry.so_pin = pin_state(
        flags.so_pin_locked(),
        flags.so_pin_final_try(),
        flags.so_pin_count_low(),
    );
    entry
}

fn pin_state(locked: bool, final_try: bool, low: bool) -> PinState {
    match (locked, final_try, low) {
        (true, ..) => PinState::Locked,
        (_, true, _) => PinState::FinalTry,
        (.., true) => PinState::Low,
        _ => PinState::Ok,
    }
}
