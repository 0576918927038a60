//! The PEM in which tedge1 sends public keys.
//!
//! The label is that of a `SubjectPublicKeyInfo` (RFC 7468 section 13), the content is only what one
//! wraps. Released clients build certificate requests from it, so it stays as it is.

use base64ct::{Base64, Encoding};

use crate::error::Error;
use crate::spki::{Curve, PublicKey};

const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const END: &str = "-----END PUBLIC KEY-----";

/// The PEM that released clients expect: labelled `PUBLIC KEY`, but around the bare key. That is, for
/// RSA the DER `RSAPublicKey` (RFC 8017 appendix A.1.1), for EC the uncompressed point (SEC 1 section
/// 2.3.3), for Ed25519 its 32 bytes.
pub fn legacy_pem(public: &PublicKey) -> String {
    let mut pem = BEGIN.to_owned();
    for (place, digit) in Base64::encode_string(public.key()).chars().enumerate() {
        if place % 64 == 0 {
            pem.push('\n');
        }
        pem.push(digit);
    }
    pem + "\n" + END + "\n"
}

/// The public key in a PEM labelled `PUBLIC KEY`, be the content the bare key, as in [`legacy_pem`], or a
/// true `SubjectPublicKeyInfo`. A bare EC point tells its curve by its length.
///
/// # Errors
/// [`Error::PublicKey`] names what is not understood; nothing is guessed.
pub fn public_key_from_legacy_pem(pem: &str) -> Result<PublicKey, Error> {
    let key = content(pem).ok_or(Error::PublicKey("this is no PEM of a public key"))?;
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

fn content(pem: &str) -> Option<Vec<u8>> {
    let text = pem.trim().strip_prefix(BEGIN)?.strip_suffix(END)?;
    let base64: String = text.split_ascii_whitespace().collect();
    Base64::decode_vec(&base64).ok()
}
