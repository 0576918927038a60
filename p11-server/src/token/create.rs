//! A kind of key, a label and an id enter, a key pair is made on the token.

use cryptoki::error::{Error as Cryptoki, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, KeyType as CkKeyType, ObjectClass};
use cryptoki::session::Session;
use der::Encode;
use der::asn1::PrintableStringRef;
use p11_proto::message::{self, CreateKey, KeySpec, KeyType};
use p11_proto::spki::{Curve, PublicKey};
use p11_uri::{ObjectFacts, ObjectType, Uri};
use tracing::info;

use super::inventory::of_public_key;
use super::objects::Object;
use super::{Engine, LONG_DEADLINE};
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
        let asked = self.asked(&request.uri, request.pin.as_ref(), access)?;
        let id = match &request.id {
            Some(id) if id.is_empty() => {
                return Err(Error::BadRequest("an id has at least one byte".into()));
            }
            Some(id) => id.to_vec(),
            None => random_id()?,
        };
        self.once(LONG_DEADLINE, |call, _| {
            let token = self.tokens.one(call, &asked.in_scope()?, access)?;
            let facts = ObjectFacts {
                object_type: ObjectType::Private,
                label: request.label.clone(),
                id: id.clone(),
            };
            let uri = Uri::of_object(&token.facts(), &facts);
            asked.held(&uri)?;
            access.check(&token.facts(), Some(&facts))?;
            let session = self.guard.log_in_to_write(call, &token, asked.pins())?;
            for class in [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
                if !Object::find(&session, class, None, Some(&id))?.is_empty() {
                    return Err(Error::AlreadyExists(format!(
                        "a key with this id is on the token {} already; choose another id, or none",
                        token.name()
                    )));
                }
            }
            let public = recipe.make(&session, &request.label, &id)?;
            session.finish();
            info!("made the key {uri}");
            Ok(of_public_key(&uri, &public))
        })
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
