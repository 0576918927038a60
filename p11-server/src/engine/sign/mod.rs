//! One signature: `C_SignInit` and `C_Sign` and nothing else, where the module lets us.

pub mod encode;
mod hash;
pub mod scheme;

use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;
use p11_proto::spki::Kind;

use self::scheme::Method;
use crate::engine::module::Call;
use crate::error::Error;

/// Signs a message. `log_in` is called between the two calls, where the key wants a login for each
/// signature.
///
/// # Errors
/// What the module said, and what `log_in` did.
pub(crate) fn sign(
    call: &Call<'_>,
    session: &Session,
    key: ObjectHandle,
    (kind, method): (Kind, &Method),
    message: &[u8],
    log_in: Option<&dyn Fn() -> Result<(), Error>>,
) -> Result<Vec<u8>, Error> {
    let input = encode::input(method.input, kind, message)?;
    let signature = match (call.raw(), log_in) {
        (Some(raw), log_in) => {
            raw.sign_init(session, &method.mechanism(), key)?;
            if let Some(log_in) = log_in {
                log_in()?;
            }
            raw.sign(session, &input, encode::signature_len(kind))?
        }
        (None, Some(_)) => {
            return Err(Error::NotSupported(
                "the key wants a login for each signature, which cannot be done through this \
                 PKCS#11 module; configure the token's own module instead of p11-kit's"
                    .into(),
            ));
        }
        (None, None) => session.sign(&method.mechanism(), key, &input)?,
    };
    encode::output(kind, signature)
}
