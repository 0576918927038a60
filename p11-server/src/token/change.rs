//! Key pairs are made and deleted, certificates stored beside their keys.

use cryptoki::error::{Error as Cryptoki, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, CertificateType, KeyType as CkKeyType, ObjectClass};
use cryptoki::session::Session;
use der::Encode;
use der::asn1::PrintableStringRef;
use p11_proto::message::{self, CreateKey, DeleteKey, ImportCertificate, KeySpec, KeyType};
use p11_proto::spki::{Certificate, Curve, PublicKey};
use p11_uri::{ObjectFacts, ObjectType, Uri};
use tracing::info;

use super::inventory::of_public_key;
use super::module::Call;
use super::objects::Object;
use super::pairs::public_half;
use super::session::Token;
use super::{Asked, DEADLINE, Engine, LONG_DEADLINE};
use crate::error::Error;
use crate::service::Access;

/// Bytes of an id that we choose: as long as the SHA-1 that other tools use there.
const ID_LEN: usize = 20;

impl Engine {
    pub(super) fn make_key(
        &self,
        request: &CreateKey,
        access: &dyn Access,
    ) -> Result<message::PublicKey, Error> {
        let recipe = Recipe::of(request.key)?;
        let asked = Asked::new(
            &request.uri,
            request.pin.as_ref(),
            None,
            false,
            access,
            self,
        )?;
        let id = match &request.id {
            Some(id) if id.is_empty() => {
                return Err(Error::BadRequest("an id has at least one byte".into()));
            }
            Some(id) => id.to_vec(),
            None => random_id()?,
        };
        self.once(LONG_DEADLINE, |call, _| {
            let token = self.one_token(call, &asked.in_scope()?)?;
            let facts = ObjectFacts {
                object_type: ObjectType::Private,
                label: request.label.clone(),
                id: id.clone(),
            };
            let uri = Uri::of_object(&token.facts(), &facts);
            asked.held(&uri)?;
            access.check(&token.facts(), Some(&facts))?;
            self.guard.log_in(call, &token, asked.pins())?;
            let session = token.lend_to_write(call)?;
            for class in [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
                if !Object::find(&session, class, None, Some(&id))?.is_empty() {
                    return Err(Error::AlreadyExists(format!(
                        "a key with this id is on the token {} already; choose another id, or none",
                        token.name()
                    )));
                }
            }
            let public = recipe.make(&session, &request.label, &id)?;
            info!("made the key {uri}");
            Ok(of_public_key(&uri, &public))
        })
    }

    pub(super) fn store_certificate(
        &self,
        request: &ImportCertificate,
        access: &dyn Access,
    ) -> Result<String, Error> {
        let bad = |error: p11_proto::Error| Error::BadRequest(error.to_string());
        let parts = Certificate::parse(&request.certificate).map_err(bad)?;
        let public = PublicKey::from_spki(parts.spki).map_err(bad)?;
        let asked = Asked::new(
            &request.uri,
            request.pin.as_ref(),
            None,
            false,
            access,
            self,
        )?;
        self.once(DEADLINE, |call, _| {
            let uri = asked.in_scope()?;
            let token = self.one_token(call, &uri)?;
            access.check(&token.facts(), None)?;
            self.guard.log_in(call, &token, asked.pins())?;
            let session = token.lend_to_write(call)?;
            let keys =
                Object::find(&session, ObjectClass::PRIVATE_KEY, uri.object(), uri.id())?;
            let is_its = |key: &&Object| {
                public_half(&session, key).is_ok_and(|half| half.identity() == public.identity())
            };
            let key = keys.iter().find(is_its).ok_or_else(|| {
                Error::KeyNotFound(format!(
                    "Failed to find a key: none that matches {} has the certificate's public key {}",
                    uri.without_query(),
                    public.identity()
                ))
            })?;
            let facts = key.facts_as(ObjectType::Cert);
            access.check(&token.facts(), Some(&facts))?;
            let there = Object::find(&session, ObjectClass::CERTIFICATE, None, Some(&key.id))?;
            let same = |object: &Object| object.certificate() == Some(&request.certificate[..]);
            if !there.iter().any(same) {
                session.create_object(&[
                    Attribute::Class(ObjectClass::CERTIFICATE),
                    Attribute::CertificateType(CertificateType::X_509),
                    Attribute::Token(true),
                    Attribute::Private(false),
                    Attribute::Label(key.label.clone().into_bytes()),
                    Attribute::Id(key.id.clone()),
                    Attribute::Subject(parts.subject.to_vec()),
                    Attribute::Issuer(parts.issuer.to_vec()),
                    Attribute::SerialNumber(parts.serial.to_vec()),
                    Attribute::Value(request.certificate.to_vec()),
                ])?;
            }
            Ok(Uri::of_object(&token.facts(), &facts).to_string())
        })
    }

    pub(super) fn remove_key(
        &self,
        request: &DeleteKey,
        several: bool,
        access: &dyn Access,
    ) -> Result<Vec<String>, Error> {
        let asked = Asked::new(
            &request.uri,
            request.pin.as_ref(),
            None,
            false,
            access,
            self,
        )?;
        if !Uri::parse(&request.uri)?.names_object() {
            return Err(Error::BadRequest(
                "which key is to be deleted? name it by object=… or id=… in the URI".into(),
            ));
        }
        let deleted = self.once(DEADLINE, |call, _| {
            let uri = asked.in_scope()?;
            let token = self.one_token(call, &uri)?;
            access.check(&token.facts(), None)?;
            self.guard.log_in(call, &token, asked.pins())?;
            remove_from(call, &token, &uri, several, access)
        });
        self.memory.forget_handles();
        deleted
    }
}

/// Deletes the key pairs of which one half matches.
fn remove_from(
    call: &Call<'_>,
    token: &Token,
    uri: &Uri,
    several: bool,
    access: &dyn Access,
) -> Result<Vec<String>, Error> {
    let session = token.lend_to_write(call)?;
    let all_private = Object::find(&session, ObjectClass::PRIVATE_KEY, None, None)?;
    let all_public = Object::find(&session, ObjectClass::PUBLIC_KEY, None, None)?;
    let matching = |half: &&Object| uri.matches_key(&half.label, &half.id);
    let mut private: Vec<&Object> = all_private.iter().filter(matching).collect();
    let mut public: Vec<&Object> = all_public.iter().filter(matching).collect();
    let others = other_halves(&public, &all_private);
    add(&mut public, other_halves(&private, &all_public));
    add(&mut private, others);

    let one_pair = match (private.as_slice(), public.as_slice()) {
        ([private], [public]) => is_pair(private, public),
        (private, public) => private.len() + public.len() <= 1,
    };
    let private = private.iter().map(|half| (half, ObjectType::Private));
    let halves: Vec<_> = private
        .chain(public.iter().map(|half| (half, ObjectType::Public)))
        .map(|(half, object_type)| (half.handle, half.facts_as(object_type)))
        .collect();
    for (_, facts) in &halves {
        access.check(&token.facts(), Some(facts))?;
    }
    let names = halves
        .iter()
        .map(|(_, facts)| Uri::of_object(&token.facts(), facts).to_string());
    let mut names: Vec<String> = names.collect();
    if !one_pair && !several {
        return Err(Error::AmbiguousKey(format!(
            "several keys match {}, and none was deleted: {}",
            uri.without_query(),
            names.join(", ")
        )));
    }
    for (number, (handle, _)) in halves.iter().enumerate() {
        match session.destroy_object(*handle) {
            Ok(()) => {}
            Err(error) if number == 0 => return Err(error.into()),
            Err(error) => {
                return Err(Error::Unfinished {
                    left: names.split_off(number),
                    deleted: names,
                    cause: Box::new(error.into()),
                });
            }
        }
    }
    if !names.is_empty() {
        info!("deleted {}", names.join(", "));
    }
    Ok(names)
}

/// What belongs to these halves among those of the other class; where several could, the ones of
/// equal label.
fn other_halves<'o>(halves: &[&Object], among: &'o [Object]) -> Vec<&'o Object> {
    let mut others = Vec::new();
    for half in halves {
        let mut found: Vec<_> = among.iter().filter(|other| is_pair(half, other)).collect();
        if found.len() > 1 {
            found.retain(|other| other.label == half.label);
        }
        add(&mut others, found);
    }
    others
}

/// Halves of one pair have the same id, or the same label where one has no id.
fn is_pair(half: &Object, other: &Object) -> bool {
    match half.id.is_empty() || other.id.is_empty() {
        true => half.label == other.label,
        false => half.id == other.id,
    }
}

fn add<'o>(halves: &mut Vec<&'o Object>, more: Vec<&'o Object>) {
    for half in more {
        if !halves.iter().any(|known| known.handle == half.handle) {
            halves.push(half);
        }
    }
}

/// How a kind of key is made.
struct Recipe {
    mechanism: Mechanism<'static>,
    key_type: CkKeyType,
    /// The attributes of the public key that say which key is wanted.
    parameters: Vec<Attribute>,
}

impl Recipe {
    fn of(spec: KeySpec) -> Result<Recipe, Error> {
        let on = |curve: Curve| {
            let params = curve.oid().to_der();
            let params = params.map_err(|error| Error::Internal(error.to_string()))?;
            Ok(Recipe {
                mechanism: Mechanism::EccKeyPairGen,
                key_type: CkKeyType::EC,
                parameters: vec![Attribute::EcParams(params)],
            })
        };
        match (spec.key_type, spec.bits) {
            (KeyType::Rsa, bits @ (2048 | 3072 | 4096)) => Ok(Recipe {
                mechanism: Mechanism::RsaPkcsKeyPairGen,
                key_type: CkKeyType::RSA,
                parameters: vec![
                    Attribute::ModulusBits(u64::from(bits).into()),
                    Attribute::PublicExponent(vec![1, 0, 1]),
                ],
            }),
            (KeyType::Ec, 256) => on(Curve::P256),
            (KeyType::Ec, 384) => on(Curve::P384),
            (KeyType::Ec, 521) => on(Curve::P521),
            (KeyType::Ed25519, _) => {
                let name = PrintableStringRef::new("edwards25519").and_then(|name| name.to_der());
                let name = name.map_err(|error| Error::Internal(error.to_string()))?;
                Ok(Recipe {
                    mechanism: Mechanism::EccEdwardsKeyPairGen,
                    key_type: CkKeyType::EC_EDWARDS,
                    parameters: vec![Attribute::EcParams(name)],
                })
            }
            _ => Err(Error::BadRequest(
                "the keys that can be made are RSA of 2048, 3072 and 4096 bits, EC of 256, 384 and \
                 521 bits, and Ed25519"
                    .into(),
            )),
        }
    }

    /// `C_GenerateKeyPair`, in the dialect of most modules, else in that of those that want the
    /// private key's template to say again what is to be made.
    ///
    /// What the public key may do is not said: nobody needs the token for that, and tpm2-pkcs11 takes
    /// `CKA_VERIFY` for a wish to decrypt.
    fn make(&self, session: &Session, label: &str, id: &[u8]) -> Result<PublicKey, Error> {
        let common = [
            Attribute::Token(true),
            Attribute::Label(label.into()),
            Attribute::Id(id.into()),
        ];
        let public = [&common[..], &self.parameters, &[Attribute::Private(false)]].concat();
        let private = [
            &common[..],
            &[
                Attribute::Private(true),
                Attribute::Sensitive(true),
                Attribute::Extractable(false),
                Attribute::Sign(true),
                Attribute::Decrypt(false),
                Attribute::Unwrap(false),
                Attribute::Derive(false),
            ],
        ]
        .concat();
        let mut made = session.generate_key_pair(&self.mechanism, &public, &private);
        if let Err(Cryptoki::Pkcs11(RvError::TemplateInconsistent, _)) = made {
            let again = [
                Attribute::Class(ObjectClass::PRIVATE_KEY),
                Attribute::KeyType(self.key_type),
            ];
            let curve = self
                .parameters
                .iter()
                .filter(|a| matches!(a, Attribute::EcParams(_)));
            let private = [&private[..], &again].concat();
            let private: Vec<_> = private.into_iter().chain(curve.cloned()).collect();
            made = session.generate_key_pair(&self.mechanism, &public, &private);
        }
        let (public, _) = made.map_err(of_recipe)?;
        let public = Object::of_public_key(session, public)?.public_key()?;
        public.ok_or_else(|| Error::Internal("the token tells no public key of the new key".into()))
    }
}

/// A failure to make a key, which may be that the token knows no such keys.
fn of_recipe(error: Cryptoki) -> Error {
    match error {
        Cryptoki::Pkcs11(
            rv @ (RvError::MechanismInvalid
            | RvError::KeySizeRange
            | RvError::CurveNotSupported
            | RvError::DomainParamsInvalid),
            _,
        ) => Error::NotSupported(format!(
            "the token cannot make keys of this kind ({}); ask for another",
            crate::error::ckr_name(rv)
        )),
        other => other.into(),
    }
}

fn random_id() -> Result<Vec<u8>, Error> {
    let mut id = vec![0; ID_LEN];
    getrandom::fill(&mut id)
        .map_err(|error| Error::Internal(format!("no random bytes: {error}")))?;
    Ok(id)
}
