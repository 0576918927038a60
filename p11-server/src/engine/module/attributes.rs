//! What one object tells of itself, as bytes.

use cryptoki::object::{Attribute, AttributeType};
use cryptoki_sys::CK_ULONG;

/// Attributes of one object, as far as the module tells them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attributes(Vec<(AttributeType, Vec<u8>)>);

impl Attributes {
    /// The bytes of an attribute, where it is told and not empty.
    pub fn bytes(&self, wanted: AttributeType) -> Option<&[u8]> {
        let mut told = self.0.iter();
        let (_, value) = told.find(|(kind, _)| *kind == wanted)?;
        Some(value.as_slice()).filter(|value| !value.is_empty())
    }

    /// A `CK_BBOOL`.
    pub fn bool(&self, wanted: AttributeType) -> Option<bool> {
        self.bytes(wanted)?.first().map(|byte| *byte != 0)
    }

    /// A `CK_ULONG`.
    pub fn number(&self, wanted: AttributeType) -> Option<CK_ULONG> {
        self.numbers(wanted).next()
    }

    /// Several of them.
    pub fn numbers(&self, wanted: AttributeType) -> impl Iterator<Item = CK_ULONG> {
        let bytes = self.bytes(wanted).unwrap_or_default();
        let numbers = bytes.chunks_exact(size_of::<CK_ULONG>());
        numbers.filter_map(|chunk| Some(CK_ULONG::from_ne_bytes(chunk.try_into().ok()?)))
    }

    /// Adds what another answer tells.
    pub fn extend(&mut self, other: Attributes) {
        self.0.extend(other.0);
    }

    /// Whether nothing is told.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(AttributeType, Vec<u8>)> for Attributes {
    fn from_iter<I: IntoIterator<Item = (AttributeType, Vec<u8>)>>(told: I) -> Self {
        Attributes(told.into_iter().collect())
    }
}

#[cfg(test)]
impl<const N: usize> From<[(AttributeType, Vec<u8>); N]> for Attributes {
    fn from(told: [(AttributeType, Vec<u8>); N]) -> Self {
        Attributes(told.into())
    }
}

/// The bytes of an attribute, of the kinds that we read.
pub(super) fn bytes_of(attribute: &Attribute) -> Vec<u8> {
    match attribute {
        Attribute::Label(bytes)
        | Attribute::Id(bytes)
        | Attribute::Modulus(bytes)
        | Attribute::PublicExponent(bytes)
        | Attribute::EcParams(bytes)
        | Attribute::EcPoint(bytes)
        | Attribute::PublicKeyInfo(bytes)
        | Attribute::Value(bytes) => bytes.clone(),
        Attribute::Sign(is)
        | Attribute::Decrypt(is)
        | Attribute::AlwaysAuthenticate(is)
        | Attribute::Extractable(is)
        | Attribute::Sensitive(is) => vec![u8::from(*is)],
        Attribute::Class(class) => CK_ULONG::from(*class).to_ne_bytes().into(),
        Attribute::KeyType(kind) => CK_ULONG::from(*kind).to_ne_bytes().into(),
        Attribute::AllowedMechanisms(allowed) => {
            let numbers = allowed.iter().map(|how| CK_ULONG::from(*how));
            numbers.flat_map(CK_ULONG::to_ne_bytes).collect()
        }
        _ => Vec::new(),
    }
}
