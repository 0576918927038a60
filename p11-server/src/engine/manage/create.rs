//! Making key pairs on a token.

use cryptoki::error::{Error as Cryptoki, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, KeyType as CkKeyType, ObjectClass, ObjectHandle};
use cryptoki_sys::CK_ULONG;
use der::Encode;
use der::asn1::PrintableStringRef;
use p11_proto::message::{CreateKey, KeySpec, KeyType, PublicKeyEntry};
use p11_proto::spki::{Curve, PublicKey};
use p11_uri::{ObjectInfo, ObjectType, Uri};
use tracing::info;

use crate::engine::core::Core;
use crate::engine::find::object::{LONGEST_NAME, Object};
use crate::engine::module::Session;
use crate::error::Error;
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
            let public = template.generate(&session, &request.label, &id)?;
            info!("made the key {uri}");
            Ok(PublicKeyEntry::new(uri.to_string(), &public))
        })
    }
}

/// How a kind of key is made.
struct KeyTemplate {
    mechanism: Mechanism<'static>,
    key_type: CkKeyType,
    /// The attributes of the public key that say which key is wanted.
    parameters: Vec<Attribute>,
}

impl KeyTemplate {
    fn of(spec: KeySpec) -> Result<KeyTemplate, Error> {
        let on = |curve: Curve| {
            let params = curve.oid().to_der();
            let params = params.map_err(|error| Error::Internal(error.to_string()))?;
            Ok(KeyTemplate {
                mechanism: Mechanism::EccKeyPairGen,
                key_type: CkKeyType::EC,
                parameters: vec![Attribute::EcParams(params)],
            })
        };
        match (spec.key_type, spec.bits) {
            (KeyType::Rsa, bits @ (2048 | 3072 | 4096)) => Ok(KeyTemplate {
                mechanism: Mechanism::RsaPkcsKeyPairGen,
                key_type: CkKeyType::RSA,
                parameters: vec![
                    Attribute::ModulusBits(CK_ULONG::from(bits).into()),
                    Attribute::PublicExponent(vec![1, 0, 1]),
                ],
            }),
            (KeyType::Ec, 256) => on(Curve::P256),
            (KeyType::Ec, 384) => on(Curve::P384),
            (KeyType::Ec, 521) => on(Curve::P521),
            (KeyType::Ed25519, _) => {
                let name = PrintableStringRef::new("edwards25519").and_then(|name| name.to_der());
                let name = name.map_err(|error| Error::Internal(error.to_string()))?;
                Ok(KeyTemplate {
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
    /// A pair that cannot be read back, or that a failed call has left, is destroyed.
    fn generate(&self, session: &Session, label: &str, id: &[u8]) -> Result<PublicKey, Error> {
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
        let mut made = session.generate_key_pair(&self.mechanism, &public, &private)?;
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
            made = session.generate_key_pair(&self.mechanism, &public, &private)?;
        }
        let (public, private) =
            made.map_err(|error| undo(session, label, with_id(session, id), not_generated(error)))?;
        let told = Object::read(session, public, ObjectClass::PUBLIC_KEY);
        let told = told.and_then(|object| object.public_key()).and_then(|key| {
            let untold = || Error::BadAnswer("the token tells no public key of the new key".into());
            key.ok_or_else(untold)
        });
        let halves = vec![("private key", private), ("public key", public)];
        told.map_err(|cause| undo(session, label, halves, cause))
    }
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
