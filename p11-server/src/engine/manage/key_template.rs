//! The templates of new key pairs, in every way in which modules want them.

use cryptoki::error::RvError;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, KeyType as CkKeyType, ObjectClass};
use cryptoki_sys::CK_ULONG;
use der::Encode;
use der::asn1::PrintableStringRef;
use p11_proto::message::{KeySpec, KeyType};
use p11_proto::spki::Curve;

use crate::engine::find::public_key::EDWARDS25519_OIDS;
use crate::error::Error;

/// How a kind of key is made.
pub(super) struct KeyTemplate {
    pub mechanism: Mechanism<'static>,
    key_type: CkKeyType,
    /// The attributes of the public key that say which key is wanted, in the forms that modules take.
    parameters: Vec<Vec<Attribute>>,
}

/// What `C_GenerateKeyPair` is given.
pub(super) struct PairTemplate {
    pub public: Vec<Attribute>,
    pub private: Vec<Attribute>,
}

impl KeyTemplate {
    pub fn of(spec: KeySpec) -> Result<KeyTemplate, Error> {
        let encoded =
            |form: der::Result<Vec<u8>>| form.map_err(|error| Error::Internal(error.to_string()));
        let on = |curve: Curve| {
            let params = encoded(curve.oid().to_der())?;
            Ok(KeyTemplate {
                mechanism: Mechanism::EccKeyPairGen,
                key_type: CkKeyType::EC,
                parameters: vec![vec![Attribute::EcParams(params)]],
            })
        };
        match (spec.key_type, spec.bits) {
            (KeyType::Rsa, bits @ (2048 | 3072 | 4096)) => Ok(KeyTemplate {
                mechanism: Mechanism::RsaPkcsKeyPairGen,
                key_type: CkKeyType::RSA,
                parameters: vec![vec![
                    Attribute::ModulusBits(CK_ULONG::from(bits).into()),
                    Attribute::PublicExponent(vec![1, 0, 1]),
                ]],
            }),
            (KeyType::Ec, 256) => on(Curve::P256),
            (KeyType::Ec, 384) => on(Curve::P384),
            (KeyType::Ec, 521) => on(Curve::P521),
            (KeyType::Ed25519, _) => {
                let name = PrintableStringRef::new("edwards25519").and_then(|name| name.to_der());
                let mut forms = vec![encoded(name)?];
                forms.extend(EDWARDS25519_OIDS.map(<[u8]>::to_vec));
                let forms = forms.into_iter().map(|form| vec![Attribute::EcParams(form)]);
                Ok(KeyTemplate {
                    mechanism: Mechanism::EccEdwardsKeyPairGen,
                    key_type: CkKeyType::EC_EDWARDS,
                    parameters: forms.collect(),
                })
            }
            _ => Err(Error::BadRequest(
                "the keys that can be made are RSA of 2048, 3072 and 4096 bits, EC of 256, 384 and \
                 521 bits, and Ed25519"
                    .into(),
            )),
        }
    }

    /// Both templates, in the dialect of most modules first, then in that of those that want the private key's template
    /// to say again what is to be made; then less, for modules that know no such attribute or set it by themselves alone.
    ///
    /// What the public key may do is not said: nobody needs the token for that, and tpm2-pkcs11 takes
    /// `CKA_VERIFY` for a wish to decrypt.
    pub fn pairs(&self, label: &str, id: &[u8]) -> impl Iterator<Item = PairTemplate> {
        let common = [
            Attribute::Token(true),
            Attribute::Label(label.into()),
            Attribute::Id(id.into()),
        ];
        let kind = [
            Attribute::Class(ObjectClass::PRIVATE_KEY),
            Attribute::KeyType(self.key_type),
        ];
        let mut pairs = Vec::new();
        for ours in private_halves() {
            for says_kind in [false, true] {
                for parameters in &self.parameters {
                    let is_public = (!ours.is_empty()).then_some(Attribute::Private(false));
                    let public = common.iter().chain(parameters).chain(&is_public);
                    let is_curve = |a: &&Attribute| matches!(a, Attribute::EcParams(_));
                    let kind = kind.iter().chain(parameters.iter().filter(is_curve));
                    let kind = kind.filter(|_| says_kind);
                    pairs.push(PairTemplate {
                        public: public.cloned().collect(),
                        private: common.iter().chain(&ours).chain(kind).cloned().collect(),
                    });
                }
            }
        }
        pairs.into_iter()
    }

    /// Whether a module that gives this answer to one template may take another.
    pub fn may_be_taken_otherwise(&self, rv: RvError) -> bool {
        match rv {
            RvError::AttributeReadOnly
            | RvError::AttributeTypeInvalid
            | RvError::AttributeValueInvalid
            | RvError::TemplateIncomplete
            | RvError::TemplateInconsistent => true,
            RvError::CurveNotSupported | RvError::DomainParamsInvalid => self.parameters.len() > 1,
            _ => false,
        }
    }
}

/// What the private half is to be, beside its names: all that we want, then less.
fn private_halves() -> impl Iterator<Item = Vec<Attribute>> {
    let all = [
        Attribute::Private(true),
        Attribute::Sign(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Decrypt(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
    ];
    let first = move |count| all.iter().take(count).cloned().collect();
    [7, 4, 2, 0].into_iter().map(first)
}

impl PairTemplate {
    /// Whether the private key is to be sensitive and not extractable.
    pub fn asks_protection(&self) -> bool {
        self.private.contains(&Attribute::Sensitive(true))
    }

    /// Whether the private key is to show after a login only.
    pub fn asks_privacy(&self) -> bool {
        self.private.contains(&Attribute::Private(true))
    }
}
