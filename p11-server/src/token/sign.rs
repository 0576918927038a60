//! A message enters, a signature leaves, with `C_SignInit` and `C_Sign` and nothing else where the
//! module lets us.

use super::encode;
use super::guard::{Guard, Pins};
use super::keys::Key;
use super::module::Call;
use super::schemes::Plan;
use crate::error::Error;

/// Signs a message with a key whose token is logged in.
///
/// # Errors
/// What the module said, and the PIN errors where the key wants a login for each signature.
pub fn sign(
    call: &Call<'_>,
    guard: &Guard,
    key: &Key,
    plan: &Plan,
    message: &[u8],
    pins: Pins<'_>,
) -> Result<Vec<u8>, Error> {
    let input = encode::input(plan.input, key.kind, message)?;
    let session = key.token.lend(call)?;
    // Others may have given up what this handle belongs to.
    if session.era() != key.era {
        let token = key.token.name().into();
        return Err(Error::Changed { token });
    }
    let signature = match call.raw() {
        Some(raw) => {
            raw.sign_init(&session, &plan.mechanism(), key.handle)?;
            if key.always_authenticate {
                guard.log_in_for_signature(call, &key.token, &session, pins)?;
            }
            raw.sign(&session, &input, encode::signature_len(key.kind))?
        }
        None if key.always_authenticate => {
            return Err(Error::NotSupported(
                "the key wants a login for each signature, which cannot be done through this \
                 PKCS#11 module; configure the token's own module instead of p11-kit's"
                    .into(),
            ));
        }
        None => session.sign(&plan.mechanism(), key.handle, &input)?,
    };
    session.finish();
    encode::output(key.kind, signature)
}
