//! The PEM in which tedge1 sends public keys.
//!
//! The label is that of a `SubjectPublicKeyInfo` (RFC 7468 section 13), the content is only what one
//! wraps. Released clients build certificate requests from it, so it stays as it is.

use crate::error::Error;
use crate::pem;
use crate::spki::{Curve, PublicKey};

/// The PEM that released clients expect: labelled `PUBLIC KEY`, but around the bare key. That is, for
/// RSA the DER `RSAPublicKey` (RFC 8017 appendix A.1.1), for EC the uncompressed point (SEC 1 section
/// 2.3.3), for Ed25519 its 32 bytes.
pub fn legacy_pem(public: &PublicKey) -> String {
    pem::encode("PUBLIC KEY", public.key())
}

/// The public key in a PEM labelled `PUBLIC KEY`, be the content the bare key, as in [`legacy_pem`], or a
/// true `SubjectPublicKeyInfo`. A bare EC point tells its curve by its length.
///
/// # Errors
/// [`Error::PublicKey`] names what is not understood; nothing is guessed.
pub fn public_key_from_legacy_pem(pem: &str) -> Result<PublicKey, Error> {
    let key =
        pem::decode("PUBLIC KEY", pem).ok_or(Error::PublicKey("this is no PEM of a public key"))?;
    match key.as_slice() {
        point if point.len() == 32 => PublicKey::ed25519(point),
        point @ [0x04, ..] => {
            let curve = Curve::ALL
                .iter()
                .copied()
                .find(|curve| point.len() == 1 + 2 * curve.bytes())
                .ok_or(Error::PublicKey("the EC point has the length of no curve"))?;
            PublicKey::ec(curve, point)
        }
        // An RSAPublicKey starts with a number, a SubjectPublicKeyInfo does not.
        der => PublicKey::rsa_from_pkcs1(der).or_else(|_| PublicKey::from_spki(der)),
    }
}
