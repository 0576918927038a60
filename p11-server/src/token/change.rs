//! Key pairs are made and deleted, certificates stored beside their keys.

use std::collections::BTreeSet;
use std::sync::Arc;

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
use super::pairs::{add_other_halves, public_half};
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
            let uri = Uri::of_object(&token.facts(), &facts);
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
        let deleted = self.once(DEADLINE, |call, _| {
            let uri = asked.in_scope()?;
            if !uri.names_object() {
                return Err(Error::BadRequest(
                    "which key is to be deleted? name it by object=… or id=… in the URI".into(),
                ));
            }
            let token = self.one_token(call, &uri)?;
            access.check(&token.facts(), None)?;
            self.guard.log_in(call, &token, asked.pins())?;
            self.remove_from(call, &token, &uri, several, access)
        });
        self.memory.forget_all();
        deleted
    }

    fn remove_from(
        &self,
        call: &Call<'_>,
        token: &Arc<Token>,
        uri: &Uri,
        several: bool,
        access: &dyn Access,
    ) -> Result<Vec<String>, Error> {
        let session = token.lend_to_write(call)?;
        let find = |class| Object::find(&session, class, uri.object(), uri.id());
        let mut private = find(ObjectClass::PRIVATE_KEY)?;
        let mut public = find(ObjectClass::PUBLIC_KEY)?;
        add_other_halves(&session, ObjectClass::PRIVATE_KEY, &public, &mut private)?;
        add_other_halves(&session, ObjectClass::PUBLIC_KEY, &private, &mut public)?;
        let halves = private.iter().map(|half| (half, ObjectType::Private));
        let halves = halves.chain(public.iter().map(|half| (half, ObjectType::Public)));
        let halves: Vec<_> = halves
            .map(|(half, object_type)| (half.handle, half.facts_as(object_type)))
            .filter(|(_, facts)| uri.matches_key(&facts.label, &facts.id) || !facts.id.is_empty())
            .collect();
        let name = |facts: &ObjectFacts| Uri::of_object(&token.facts(), facts).to_string();
        for (_, facts) in &halves {
            access.check(&token.facts(), Some(facts))?;
        }
        let pairs: BTreeSet<_> = halves.iter().map(|(_, facts)| pair(facts)).collect();
        // Two keys may even share id and label.
        if (pairs.len() > 1 || private.len() > 1) && !several {
            let names: Vec<_> = halves.iter().map(|(_, facts)| name(facts)).collect();
            return Err(Error::AmbiguousKey(format!(
                "several keys match {}, and none was deleted: {}",
                uri.without_query(),
                names.join(", ")
            )));
        }
        let mut deleted = Vec::new();
        for (handle, facts) in &halves {
            match session.destroy_object(*handle) {
                Ok(()) => deleted.push(name(facts)),
                Err(error) if deleted.is_empty() => return Err(error.into()),
                Err(error) => {
                    return Err(Error::Unfinished {
                        message: format!(
                            "deleted {}, but not {}: {}",
                            deleted.join(", "),
                            name(facts),
                            Error::from(error)
                        ),
                    });
                }
            }
        }
        if !deleted.is_empty() {
            info!("deleted {}", deleted.join(", "));
        }
        Ok(deleted)
    }
}

/// What the halves of a key pair have in common: their id, or their label where they have none.
fn pair(facts: &ObjectFacts) -> Result<&[u8], &str> {
    match facts.id.is_empty() {
        true => Err(&facts.label),
        false => Ok(&facts.id),
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
    fn make(&self, session: &Session, label: &str, id: &[u8]) -> Result<PublicKey, Error> {
        let common = [
            Attribute::Token(true),
            Attribute::Label(label.into()),
            Attribute::Id(id.into()),
        ];
        let public = [
            &common[..],
            &self.parameters,
            &[Attribute::Private(false), Attribute::Verify(true)],
        ]
        .concat();
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
        let (public, _) = made?;
        let public = Object::of_public_key(session, public)?.public_key()?;
        public.ok_or_else(|| Error::Internal("the token tells no public key of the new key".into()))
    }
}

fn random_id() -> Result<Vec<u8>, Error> {
    let mut id = vec![0; ID_LEN];
    getrandom::fill(&mut id)
        .map_err(|error| Error::Internal(format!("no random bytes: {error}")))?;
    Ok(id)
}
