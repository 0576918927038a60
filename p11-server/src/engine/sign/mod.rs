//! One signature: `C_SignInit` and `C_Sign` and nothing else, where the module lets us.

pub mod encode;
mod hash;
pub mod scheme;

use cryptoki::object::ObjectHandle;
use p11_proto::spki::Kind;

use self::scheme::Method;
use crate::engine::module::Session;
use crate::error::Error;

/// Signs a message. `log_in` is called between the two calls, where the key wants a login for each
/// signature.
///
/// # Errors
/// What the module said, and what `log_in` did.
pub(crate) fn sign(
    session: &Session,
    key: ObjectHandle,
    (kind, method): (Kind, &Method),
    message: &[u8],
    log_in: Option<&dyn Fn() -> Result<(), Error>>,
) -> Result<Vec<u8>, Error> {
    let input = encode::input(method.input, kind, message)?;
    let (mechanism, length) = (method.mechanism(), encode::signature_len(kind));
    let signature = session.sign(&mechanism, key, &input, length, log_in)?;
    encode::output(kind, signature)
}
