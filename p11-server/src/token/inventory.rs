//! Which tokens and keys are there: they enter as slots and objects and leave as lists.

use std::sync::Arc;

use cryptoki::context::Function;
use cryptoki::object::ObjectClass;
use p11_proto::message::{self, Class, GetPublicKey, KeyType, ListKeys, PinState};
use p11_proto::spki::{Kind, PublicKey};
use p11_uri::{ObjectType, TokenFacts, Uri};
use tracing::info;

use super::asked::Asked;
use super::guard::Pins;
use super::module::Call;
use super::objects::Object;
use super::select::Search;
use super::session::Token;
use super::{DEADLINE, Engine, pairs, slots};
use crate::error::Error;
use crate::service::Access;

impl Engine {
    pub(super) fn tokens_in_sight(
        &self,
        access: &dyn Access,
    ) -> Result<Vec<message::Token>, Error> {
        let scope = self.settings().scope.clone();
        self.heal(DEADLINE, |call, _| {
            let mut tokens = Vec::new();
            for (_, facts, info) in slots::list(call.pkcs11())? {
                let initialized = info.token_initialized();
                let in_scope = match initialized {
                    true => scope.matches_token(&facts),
                    false => in_scope_before_it_has_a_label(&scope, &facts),
                };
                if !in_scope || access.check(&facts, None).is_err() {
                    continue;
                }
                let uri = if initialized {
                    Uri::of_token(&facts)
                } else {
                    Uri::of_slot(&facts)
                };
                tokens.push(message::Token {
                    slot: facts.slot_id,
                    uri: uri.to_string(),
                    label: facts.label,
                    model: facts.model,
                    manufacturer: facts.manufacturer,
                    serial: facts.serial,
                    initialized,
                    user_pin_set: info.user_pin_initialized(),
                    login_required: info.login_required(),
                    pin_pad: info.protected_authentication_path(),
                    write_protected: info.write_protected(),
                    user_pin: pin_state(
                        info.user_pin_locked(),
                        info.user_pin_final_try(),
                        info.user_pin_count_low(),
                    ),
                    so_pin: pin_state(
                        info.so_pin_locked(),
                        info.so_pin_final_try(),
                        info.so_pin_count_low(),
                    ),
                });
            }
            tokens.sort_unstable_by(|a, b| {
                (&a.label, &a.serial, a.slot).cmp(&(&b.label, &b.serial, b.slot))
            });
            Ok(tokens)
        })
    }

    pub(super) fn objects_in_sight(
        &self,
        request: &ListKeys,
        access: &dyn Access,
    ) -> Result<Vec<message::Object>, Error> {
        let asked = self.asked(&request.uri, request.pin.as_ref(), access)?;
        self.heal(DEADLINE, |call, _| {
            let uri = asked.scoped()?;
            let token = self.tokens.one(call, &uri, access)?;
            self.log_in_to_look(call, &token, &asked)?;
            let facts = token.facts();
            let session = token.lend(call)?;
            let mut objects = Vec::new();
            for (class, object_type) in [
                (Class::Private, ObjectType::Private),
                (Class::Public, ObjectType::Public),
                (Class::Certificate, ObjectType::Cert),
            ] {
                for object in Object::find(&session, of(class), uri.object(), uri.id())? {
                    let its_facts = object.facts_as(object_type);
                    // Either type of key names the pair.
                    let is_meant = match class {
                        Class::Certificate => uri.matches_object(&its_facts),
                        _ => uri.matches_key(&its_facts.label, &its_facts.id),
                    };
                    if is_meant && access.check(&facts, Some(&its_facts)).is_ok() {
                        let uri = Uri::of_object(&facts, &its_facts).to_string();
                        let public = match class {
                            Class::Private => pairs::public_half(&session, &object).ok(),
                            _ => object.public_key().ok().flatten(),
                        };
                        objects.push(describe(class, &object, public, uri));
                    }
                }
            }
            session.finish();
            objects.sort_unstable_by(|a, b| {
                (&a.label, &a.id, a.class).cmp(&(&b.label, &b.id, b.class))
            });
            Ok(objects)
        })
    }

    pub(super) fn public_half(
        &self,
        request: &GetPublicKey,
        access: &dyn Access,
    ) -> Result<message::PublicKey, Error> {
        let asked = self.asked(&request.uri, request.pin.as_ref(), access)?;
        self.heal(DEADLINE, |call, _| {
            let uri = asked.scoped()?;
            let search = Search {
                call,
                guard: &self.guard,
                uri: &uri,
                pins: asked.pins(),
                wanted: None,
                opened: false,
                home: None,
                access,
                preferred: self.memory.meant(&asked.name),
            };
            let (uri, public) = search.public_key(&self.tokens.scan(call)?)?;
            Ok(of_public_key(&uri, &public))
        })
    }

    /// A listing shows what is public without a PIN. A PIN of the request has to be right; the
    /// server's own is used if somebody has set it, and what is public is shown where it is wrong.
    pub(super) fn log_in_to_look(
        &self,
        call: &Call<'_>,
        token: &Arc<Token>,
        asked: &Asked<'_>,
    ) -> Result<(), Error> {
        asked.access.check(&token.facts(), None)?;
        let pins = asked.pins();
        let server = pins.server.filter(|_| asked.settings.pin_origin.is_some());
        if pins.own.is_none() && server.is_none() {
            return Ok(());
        }
        match self.guard.log_in(call, token, Pins { server, ..pins }) {
            Err(error) if pins.own.is_none() && is_about_the_pin(&error) => {
                info!("listing only what is public: {error}");
                Ok(())
            }
            other => other,
        }
    }
}

/// Whether a token without label and serial number lies in a scope: the other attributes decide.
pub fn in_scope_before_it_has_a_label(scope: &Uri, facts: &TokenFacts) -> bool {
    scope.matches_token(&TokenFacts {
        label: scope.token().unwrap_or(&facts.label).into(),
        serial: scope.serial().unwrap_or(&facts.serial).into(),
        ..facts.clone()
    })
}

/// A public key as a message.
pub fn of_public_key(uri: &Uri, public: &PublicKey) -> message::PublicKey {
    let (key_type, bits) = kind(public.kind());
    message::PublicKey {
        uri: uri.to_string(),
        key_type,
        bits,
        spki: public.spki().to_vec().into(),
        identity: public.identity(),
    }
}

/// The kind of a key as clients are told it.
pub fn kind(kind: Kind) -> (KeyType, u32) {
    match kind {
        Kind::Rsa { bits } => (KeyType::Rsa, bits),
        Kind::Ec(curve) => (KeyType::Ec, curve.bits()),
        Kind::Ed25519 => (KeyType::Ed25519, 255),
    }
}

/// The module's name for a class.
pub fn of(class: Class) -> ObjectClass {
    match class {
        Class::Private => ObjectClass::PRIVATE_KEY,
        Class::Public => ObjectClass::PUBLIC_KEY,
        Class::Certificate | Class::Unknown => ObjectClass::CERTIFICATE,
    }
}

fn describe(
    class: Class,
    object: &Object,
    public: Option<PublicKey>,
    uri: String,
) -> message::Object {
    let (key_type, bits) = match public {
        Some(public) => kind(public.kind()),
        None => (object.key_type(), 0),
    };
    let private = |is: bool| (class == Class::Private).then_some(is);
    message::Object {
        class,
        key_type,
        bits,
        label: object.label.clone(),
        id: object.id.clone().into(),
        uri,
        can_sign: private(object.can_sign()),
        extractable: private(object.extractable()),
        always_authenticate: private(object.always_authenticate()),
    }
}

fn pin_state(locked: bool, final_try: bool, low: bool) -> PinState {
    match (locked, final_try, low) {
        (true, ..) => PinState::Locked,
        (_, true, _) => PinState::FinalTry,
        (.., true) => PinState::Low,
        _ => PinState::Ok,
    }
}

fn is_about_the_pin(error: &Error) -> bool {
    match error {
        Error::PinRequired { .. }
        | Error::PinIncorrect(_)
        | Error::PinLocked(_)
        | Error::PinGuarded(_) => true,
        Error::Module { function, .. } => matches!(function, Function::Login),
        _ => false,
    }
}
