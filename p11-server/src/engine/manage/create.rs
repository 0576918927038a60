//! Making key pairs on a token: what is made is read back, and destroyed where it is not as it should be.

use cryptoki::error::{Error as Cryptoki, RvError};
use cryptoki::object::{Attribute, ObjectClass, ObjectHandle};
use p11_proto::message::{CreateKey, PublicKeyEntry};
use p11_proto::spki::PublicKey;
use p11_uri::{ObjectInfo, ObjectType, Uri};
use tracing::info;

use super::key_template::{KeyTemplate, PairTemplate};
use crate::engine::core::Core;
use crate::engine::find::object::{LONGEST_NAME, Object};
use crate::engine::module::Session;
use crate::engine::token::session::PooledSession;
use crate::error::{Error, ckr_name};
use crate::service::Access;

/// Bytes of an id that we choose: as long as the SHA-1 that other tools use there.
const ID_LEN: usize = 20;

impl Core {
    /// Makes a key pair.
    pub fn create_key(
        &self,
        request: &CreateKey,
        access: &dyn Access,
    ) -> Result<PublicKeyEntry, Error> {
        let template = KeyTemplate::of(request.key)?;
        if request.label.len() > LONGEST_NAME || request.label.chars().any(char::is_control) {
            return Err(Error::BadRequest(format!(
                "the field CreateKey.label has at most {LONGEST_NAME} bytes and no control characters"
            )));
        }
        let query = self.query(&request.uri, request.pin.as_ref(), access)?;
        let id = match &request.id {
            Some(id) if id.is_empty() => {
                return Err(Error::BadRequest("an id has at least one byte".into()));
            }
            Some(id) if id.len() > LONGEST_NAME => {
                return Err(Error::BadRequest(format!(
                    "the field CreateKey.id has at most {LONGEST_NAME} bytes"
                )));
            }
            Some(id) => id.to_vec(),
            None => random_id()?,
        };
        self.without_retry(access, self.module.timeouts().long_request, |client| {
            let wanted = query.in_scope()?;
            if !wanted.names_token() {
                self.look_anew(client);
                self.check_tokens_are_known()?;
            }
            let token = self.registry.one(client, &wanted)?;
            let info = ObjectInfo::new(ObjectType::Private, request.label.clone(), id.clone());
            let uri = Uri::of_object(&token.info(), &info);
            query.restrict(&uri)?;
            access.check(&token.info(), Some(&info))?;
            let session = self.session_to_change(client, &token, query.pins())?;
            let contents = self.contents_to_change(&session, client)?;
            let mut keys = contents.private.iter().chain(&contents.public);
            if keys.any(|key| key.id == id) {
                return Err(Error::AlreadyExists(format!(
                    "a key with this id is on the token {} already; choose another id, or none",
                    token.name()
                )));
            }
            let made = generate(&session, &template, &request.label, &id);
            let public = made.map_err(|error| match error {
                // Whatever it says: some modules have a general error for what they have not.
                Error::Module { rv, .. } if !lists(&session, &template) => makes_no_keys(rv),
                other => other,
            })?;
            info!("made the key {uri}");
            Ok(PublicKeyEntry::new(uri.to_string(), &public))
        })
    }
}

/// `C_GenerateKeyPair`, by the first template that the module takes. A pair that is not as it should be, or that a
/// failed call has left, is destroyed.
fn generate(
    session: &Session,
    template: &KeyTemplate,
    label: &str,
    id: &[u8],
) -> Result<PublicKey, Error> {
    let mut first_refusal = None;
    for pair in template.pairs(label, id) {
        match session.generate_key_pair(&template.mechanism, &pair.public, &pair.private)? {
            Ok((public, private)) => {
                return read_back(session, &pair, public, private).map_err(|cause| {
                    let halves = vec![("private key", private), ("public key", public)];
                    undo(session, label, halves, cause)
                });
            }
            Err(Cryptoki::Pkcs11(rv, _)) if template.may_be_taken_otherwise(rv) => {
                first_refusal.get_or_insert(rv);
            }
            Err(error) => {
                let cause = not_generated(error);
                return Err(undo(session, label, with_id(session, id), cause));
            }
        }
    }
    let why = first_refusal.map_or_else(String::new, ckr_name);
    Err(undo(
        session,
        label,
        with_id(session, id),
        no_such_keys(&why),
    ))
}

/// The public key of a new pair whose private half is what was asked for, or says so by itself where the module would
/// not be asked.
fn read_back(
    session: &Session,
    asked: &PairTemplate,
    public: ObjectHandle,
    private: ObjectHandle,
) -> Result<PublicKey, Error> {
    let private = Object::read(session, private, ObjectClass::PRIVATE_KEY)?;
    let has = |told: Option<bool>, asked: bool| told.unwrap_or(asked);
    let is_safe = has(private.sensitive(), asked.asks_protection())
        && !has(private.extractable(), !asked.asks_protection())
        && has(private.private(), asked.asks_privacy());
    if !private.can_sign() {
        return Err(Error::NotSupported(
            "the token makes keys of this kind that do not sign (CKA_SIGN), so the new one is not kept"
                .into(),
        ));
    }
    if !is_safe {
        return Err(Error::NotSupported(
            "the new private key could leave the token (CKA_SENSITIVE, CKA_EXTRACTABLE) or be used without a login \
             (CKA_PRIVATE), since the token would not be told otherwise, so it is not kept; make the key with the \
             token's own tool"
                .into(),
        ));
    }
    let public = Object::read(session, public, ObjectClass::PUBLIC_KEY)?;
    let untold = || Error::BadAnswer("the token tells no public key of the new key".into());
    public.public_key()?.ok_or_else(untold)
}

/// What a failed call has left on the token, which had nothing of this id before.
fn with_id(session: &Session, id: &[u8]) -> Vec<(&'static str, ObjectHandle)> {
    let classes = [
        ("private key", ObjectClass::PRIVATE_KEY),
        ("public key", ObjectClass::PUBLIC_KEY),
    ];
    let found = classes.map(|(half, class)| {
        let template = [Attribute::Class(class), Attribute::Id(id.into())];
        let found = session.find(&template, &|| Ok(())).unwrap_or_default();
        found.into_iter().map(move |handle| (half, handle))
    });
    found.into_iter().flatten().collect()
}

/// Destroys what is there of a new key that cannot be used.
fn undo(session: &Session, label: &str, halves: Vec<(&str, ObjectHandle)>, cause: Error) -> Error {
    let left = halves
        .into_iter()
        .map(|(half, handle)| match session.destroy_object(handle) {
            Ok(()) => None,
            Err(error) => Some(format!("its {half} is left on the token ({error})")),
        });
    let left: Vec<_> = left.into_iter().flatten().collect();
    match left.as_slice() {
        [] => cause,
        left => Error::BadAnswer(format!(
            "the new key {label:?} cannot be used ({cause}), and {}; delete it with the token's own tool",
            left.join(" and ")
        )),
    }
}

/// A failure to make a key, which may be that the token knows no such keys.
fn not_generated(error: Cryptoki) -> Error {
    match error {
        Cryptoki::Pkcs11(
            rv @ (RvError::MechanismInvalid
            | RvError::KeySizeRange
            | RvError::CurveNotSupported
            | RvError::DomainParamsInvalid
            | RvError::AttributeValueInvalid
            | RvError::TemplateInconsistent),
            _,
        ) => no_such_keys(&ckr_name(rv)),
        Cryptoki::Pkcs11(
            rv @ (RvError::FunctionNotSupported
            | RvError::TokenWriteProtected
            | RvError::SessionReadOnly),
            _,
        ) => makes_no_keys(rv),
        other => other.into(),
    }
}

fn makes_no_keys(rv: RvError) -> Error {
    Error::NotSupported(format!(
        "the token makes no keys of this kind through this PKCS#11 module ({}); make the key with the token's own tool",
        ckr_name(rv)
    ))
}

/// Whether the token lists the mechanism of a template; one that does not tell is believed to have it.
fn lists(session: &PooledSession<'_>, template: &KeyTemplate) -> bool {
    let how = template.mechanism.mechanism_type();
    session.lists(how).unwrap_or(true)
}

fn no_such_keys(ckr: &str) -> Error {
    Error::NotSupported(format!(
        "the token cannot make keys of this kind ({ckr}); ask for another"
    ))
}

fn random_id() -> Result<Vec<u8>, Error> {
    let mut id = vec![0; ID_LEN];
    getrandom::fill(&mut id)
        .map_err(|error| Error::Internal(format!("no random bytes: {error}")))?;
    Ok(id)
}
