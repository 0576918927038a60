//! What is looked at before a PIN is sent, and what the answers of the token mean.

use cryptoki::context::Function;
use cryptoki::error::RvError;
use p11_proto::Pin;
use subtle::ConstantTimeEq;

use super::states::Role;
use super::texts::{self, About};
use crate::engine::module::TokenFlags;
use crate::engine::token::session::PooledSession;
use crate::error::Error;

/// Compares in a time that tells nothing but the length.
pub(crate) fn same(a: &Pin, b: &Pin) -> bool {
    a.expose().as_bytes().ct_eq(b.expose().as_bytes()).into()
}

/// The answers that say that the PIN is wrong.
pub(super) fn means_refused(rv: RvError) -> bool {
    matches!(
        rv,
        RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange
    )
}

/// The answers that may hide a refusal: all but those that say that the token has not looked at the PIN, or could not. A device
/// that was removed, or a session that was closed, went during the call. At a PIN pad a login is cancelled before that.
pub(super) fn is_unclear(rv: RvError, is_at_pad: bool) -> bool {
    match rv {
        RvError::FunctionCanceled => !is_at_pad,
        RvError::CryptokiNotInitialized
        | RvError::SessionHandleInvalid
        | RvError::SessionReadOnlyExists
        | RvError::SessionReadOnly
        | RvError::SessionExists
        | RvError::TokenWriteProtected
        | RvError::OperationActive
        | RvError::OperationNotInitialized
        | RvError::SlotIdInvalid
        | RvError::TokenNotPresent
        | RvError::TokenNotRecognized
        | RvError::UserAlreadyLoggedIn
        | RvError::UserAnotherAlreadyLoggedIn
        | RvError::UserTooManyTypes
        | RvError::UserTypeInvalid
        | RvError::UserNotLoggedIn
        | RvError::UserPinNotInitialized
        | RvError::PinLocked
        | RvError::FunctionNotSupported => false,
        _ => true,
    }
}

/// The answers that say that a new PIN is none for this token.
pub(super) fn is_of_new_pin(rv: RvError) -> bool {
    matches!(
        rv,
        RvError::PinLenRange | RvError::PinInvalid | RvError::PinTooWeak
    )
}

/// What a token says of itself at this moment, in which another program may have used up tries. No PIN goes to another
/// token in its slot.
pub(super) fn current_flags(session: &PooledSession<'_>) -> Result<TokenFlags, Error> {
    let flags = session.token_flags()?;
    match session.token().id().is_of(&flags) {
        true => Ok(flags),
        false => Err(Error::Module {
            rv: RvError::TokenNotRecognized,
            function: Function::GetTokenInfo,
        }),
    }
}

/// A PIN of a length that the token never takes is not the right one, so it costs no try.
pub(super) fn check_len(flags: &TokenFlags, pin: &Pin, about: &About<'_>) -> Result<(), Error> {
    match fits(flags, pin) {
        true => Ok(()),
        false => Err(about.of_length(flags)),
    }
}

/// The same for a PIN that is about to be set.
pub(super) fn check_new_pin(
    flags: &TokenFlags,
    role: Role,
    new: &Pin,
    token: &str,
) -> Result<(), Error> {
    match fits(flags, new) {
        true => Ok(()),
        false => Err(texts::of_new_pin(RvError::PinLenRange, flags, role, token)),
    }
}

/// Some tokens tell no lengths, or 0 for both.
fn fits(flags: &TokenFlags, pin: &Pin) -> bool {
    let told = *flags.pin_len.end() > 0 && flags.pin_len.start() <= flags.pin_len.end();
    !told || flags.pin_len.contains(&pin.expose().len())
}
