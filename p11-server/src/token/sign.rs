//! A message enters, a signature leaves, with `C_SignInit` and `C_Sign` and nothing else.

use p11_proto::Pin;

use super::encode;
use super::keys::Key;
use super::login::Guard;
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
    pin: Option<&Pin>,
) -> Result<Vec<u8>, Error> {
    let input = encode::input(plan.input, key.kind, message)?;
    let session = key.token.lend(call)?;
    call.raw()
        .sign_init(&session, &plan.mechanism(), key.handle)?;
    if key.always_authenticate {
        guard.log_in_for_signature(call, &key.token, &session, pin)?;
    }
    let expected = encode::signature_len(key.kind);
    let signature = call.raw().sign(&session, &input, expected)?;
    session.finish();
    encode::output(key.kind, signature)
}
