//! The kind, label and id of a key, and how each tool spells them.

/// What key to make.
#[derive(Clone, Debug)]
pub struct KeySpec {
    /// Type and size.
    pub kind: KeyKind,
    /// `CKA_LABEL` of both halves.
    pub label: String,
    /// `CKA_ID` of both halves.
    pub id: Vec<u8>,
}

/// A key pair in a token.
#[derive(Clone, Debug)]
pub struct Key {
    /// What was asked for.
    pub spec: KeySpec,
    /// The public key, as SubjectPublicKeyInfo in DER (RFC 5280, section 4.1.2.7).
    pub spki: Vec<u8>,
}

/// Type and size of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on NIST's P-256.
    P256,
    /// ECDSA on NIST's P-384.
    P384,
    /// ECDSA on NIST's P-521.
    P521,
    /// RSA with 2048 bits.
    Rsa2048,
    /// RSA with 3072 bits; takes a second to make.
    Rsa3072,
    /// RSA with 4096 bits; takes some seconds to make.
    Rsa4096,
    /// EdDSA on Curve25519.
    Ed25519,
}

impl KeySpec {
    /// A key of this kind, label and id.
    pub fn new(kind: KeyKind, label: &str, id: &[u8]) -> Self {
        Self {
            kind,
            label: label.into(),
            id: id.into(),
        }
    }
}

impl KeyKind {
    /// The key type as `pkcs11-tool --key-type` takes it.
    pub(crate) fn pkcs11_tool_name(self) -> &'static str {
        match self {
            Self::P256 => "EC:secp256r1",
            Self::P384 => "EC:secp384r1",
            Self::P521 => "EC:secp521r1",
            Self::Rsa2048 => "rsa:2048",
            Self::Rsa3072 => "rsa:3072",
            Self::Rsa4096 => "rsa:4096",
            Self::Ed25519 => "EC:edwards25519",
        }
    }

    /// The key type as `openssl genpkey` takes it.
    pub(crate) fn openssl_arguments(self) -> &'static [&'static str] {
        match self {
            Self::P256 => &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
            Self::P384 => &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
            Self::P521 => &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"],
            Self::Rsa2048 => &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
            Self::Rsa3072 => &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"],
            Self::Rsa4096 => &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:4096"],
            Self::Ed25519 => &["-algorithm", "ED25519"],
        }
    }
}

/// Bytes as hexadecimal digits, the form in which the tools take an id.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
