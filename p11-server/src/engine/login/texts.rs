//! What people are told about a PIN that was refused: whose it was, how many tries seem left, and what to do next.

use std::time::Duration;

use cryptoki::error::{Error as Cryptoki, RvError};

use super::states::{Owner, Role, State, Tries};
use crate::engine::module::TokenFlags;
use crate::engine::settings::{Settings, Wording};
use crate::error::{Error, ckr_name};

/// How a TPM's lockout ends.
const UNLOCK_TPM: &str = "it ends by itself, or by tpm2_dictionarylockout --clear-lockout";

/// A PIN, as errors name it.
pub(super) struct About<'a> {
    /// The token's URI.
    pub token: String,
    /// Whether it lies in a TPM, which locks all its tokens at once, and for a time only.
    pub in_tpm: bool,
    pub role: Role,
    pub owner: Owner,
    pub settings: &'a Settings,
    /// Whether the operator's reload has freed what was refused, and no PIN was accepted since.
    pub is_freed: bool,
    /// Whether the server's PIN for it was changed through us, and is not the configured one.
    pub was_replaced: bool,
}

impl About<'_> {
    /// Why a PIN was not sent.
    pub fn of_state(&self, state: State) -> Error {
        let token = &self.token;
        let (whose, next) = (self.whose(), self.next());
        match state {
            State::Waiting(time) => Error::PinGuarded(format!(
                "too many PINs that are not the one of the token {token} came from this user, or from users that \
                 never had it; PINs are looked at again in {}",
                seconds(time)
            )),
            State::OpenOther => Error::PinIncorrect(format!(
                "The specified PIN is incorrect: the token {token} is logged in with another one than {whose}"
            )),
            State::Locked => self.locked(),
            State::FinalTry if self.in_tpm => Error::PinGuarded(format!(
                "one more wrong PIN locks the TPM of the token {token}, so none is sent; {UNLOCK_TPM}"
            )),
            State::FinalTry => {
                let (try_of, user) = match self.role {
                    Role::User => ("PIN try", ""),
                    Role::So => (
                        "try of the security officer's PIN",
                        " --login-type so --session-rw",
                    ),
                };
                Error::PinGuarded(format!(
                    "the token {token} has one {try_of} left, so none is sent; log in once by hand with the \
                     token's own tool, for example pkcs11-tool --login{user} --list-objects"
                ))
            }
            State::Refused => Error::PinIncorrect(format!(
                "The specified PIN is incorrect: the token {token} has refused {whose} before, or it was changed from \
                 that to another one, so it was not sent; {next}{}",
                self.once()
            )),
            State::Unclear(time) => Error::PinGuarded(format!(
                "the token {token} gave an unclear answer, or none, to {whose} and that may have used up a try; it is \
                 sent again when the module was reloaded, in {} at the earliest, or after this: {next}",
                seconds(time)
            )),
            State::UnclearTwice => Error::PinGuarded(format!(
                "the token {token} gave two unclear answers, or none, to {whose} and that may have used up two tries, so \
                 it is not sent again; {next}{}",
                self.once()
            )),
            State::Spent => self.spent(),
            State::TryUsed => Error::PinRequired {
                token: token.clone(),
                place: self.settings.wording.pin,
            },
            State::Reloaded => Error::Busy(format!(
                "the PKCS#11 module was reloaded, and {whose} is not sent to the token {token} in the same request; \
                 try again"
            )),
            // In these it is sent or used.
            State::Open | State::Accepted | State::New => Error::Internal(format!(
                "a PIN of the token {token} was refused as {state:?}"
            )),
        }
    }

    /// It has none of the server's, since a client has set it.
    pub fn is_clients(&self) -> Error {
        Error::PinIncorrect(format!(
            "The specified PIN is incorrect: a client has set the PIN of the token {}, so {} was not sent to it; give \
             the token's own, or name the token in {}'s URI and {}",
            self.token,
            self.whose(),
            self.settings.wording.owner,
            self.settings.wording.reload
        ))
    }

    fn spent(&self) -> Error {
        let token = &self.token;
        let refused = match self.role {
            Role::User => "has refused PINs, so no other is tried",
            Role::So => "has refused a PIN of the security officer, so no other is tried",
        };
        let shared = match self.in_tpm {
            true => ", which all tokens of its TPM count together",
            false => "",
        };
        let Wording { owner, reload, .. } = self.settings.wording;
        let next = match (self.owner, self.role) {
            (Owner::Server | Owner::Client(_), Role::User) => {
                format!("set the right one as {owner}'s PIN")
            }
            _ => "make sure of the right one".into(),
        };
        Error::PinGuarded(format!(
            "the token {token} {refused}{shared}; {next} and {reload}{}",
            self.once()
        ))
    }

    /// What a reload does not do a second time.
    fn once(&self) -> &'static str {
        match self.is_freed {
            true => {
                ". A reload has freed unchanged PINs once already: they wait for another one that is accepted, or for the \
                 next boot; to try them at once, remove refused-pins from the folder of RuntimeDirectory= while the server \
                 is stopped"
            }
            false => "",
        }
    }

    /// The token has refused the PIN just now.
    pub fn refused(&self, rv: RvError, left: Option<&TokenFlags>) -> Error {
        Error::PinIncorrect(format!(
            "The specified PIN is incorrect: the token {} refused {}{} ({}). {} {}",
            self.token,
            self.whose(),
            match self.role {
                Role::User => "",
                Role::So => " as the security officer's",
            },
            ckr_name(rv),
            left.map_or(UNTOLD, |flags| remaining(flags, self.role)),
            match self.owner {
                Owner::PinPad => self.next(),
                Owner::Client(_) =>
                    "It is not sent to the token again until one is accepted; give the right one"
                        .to_owned(),
                _ => format!(
                    "It is not sent to the token again until one is accepted; {}",
                    self.next()
                ),
            },
        ))
    }

    /// The call has failed, and not for the PIN.
    pub fn failed(&self, error: Cryptoki) -> Error {
        match error {
            Cryptoki::Pkcs11(RvError::PinLocked, _) => self.locked(),
            Cryptoki::Pkcs11(rv, function) => Error::Login {
                token: self.token.clone(),
                rv,
                function,
                hint: String::new(),
            },
            other => other.into(),
        }
    }

    /// A PIN of a length that the token never takes.
    pub fn of_length(&self, flags: &TokenFlags) -> Error {
        Error::PinIncorrect(format!(
            "The specified PIN is incorrect: the token {} takes PINs of {} to {} characters, so {} was not sent; {}",
            self.token,
            flags.pin_len.start(),
            flags.pin_len.end(),
            self.whose(),
            self.next()
        ))
    }

    /// The token takes no PIN any more.
    pub fn locked(&self) -> Error {
        let token = &self.token;
        Error::PinLocked(match (self.in_tpm, self.role) {
            (true, _) => format!(
                "the TPM of the token {token} is in its dictionary-attack lockout, as after wrong PINs or unclean \
                 power-offs. Nothing is lost: {UNLOCK_TPM}; don't initialise the token"
            ),
            (false, Role::User) => format!(
                "the PIN of the token {token} is locked: unlock it with the security officer's PIN, by the token's \
                 own tool or by ChangePin with reset"
            ),
            (false, Role::So) => format!(
                "the security officer's PIN of the token {token} is locked. The user's PIN and the keys are not \
                 touched by that; the token's maker says whether it can be unlocked"
            ),
        })
    }

    /// Whose PIN it is, where it was set.
    fn whose(&self) -> String {
        let owner = self.settings.wording.owner;
        match (self.owner, &self.settings.pin_origin) {
            (Owner::Client(_), _) => "the request's PIN".into(),
            (Owner::Default, _) => "the default PIN, since none is configured,".into(),
            (Owner::PinPad, _) => "what was typed at its PIN pad".into(),
            (Owner::Server, _) if self.was_replaced => {
                format!("{owner}'s PIN, which ChangePin has set,")
            }
            (Owner::Server, Some(origin)) => format!("{owner}'s PIN, of {origin},"),
            (Owner::Server, None) => format!("{owner}'s PIN"),
        }
    }

    fn next(&self) -> String {
        let Wording { pin, reload, .. } = self.settings.wording;
        match (self.owner, &self.settings.pin_origin) {
            (Owner::Client(_), _) => {
                format!("give the right one, or {reload} where it is right now")
            }
            (Owner::Server, Some(origin)) => {
                format!("set the right one there ({origin}) and {reload}")
            }
            (Owner::PinPad, _) => "type the right one at the token's PIN pad".into(),
            (Owner::Server | Owner::Default, _) => {
                format!("set the right one ({pin}) and {reload}")
            }
        }
    }
}

const UNTOLD: &str = "The token does not say how many tries are left.";

/// What the token's flags (PKCS#11 section 3.2, `CK_TOKEN_INFO`) say of the tries that are left.
fn remaining(flags: &TokenFlags, role: Role) -> &'static str {
    let tries = Tries::of(flags, role);
    match (tries.locked, tries.final_try, tries.some_used) {
        (true, ..) => "The token is locked now.",
        (_, true, _) => "One try is left, which we do not use.",
        (.., true) => "At least one try was used up.",
        _ => UNTOLD,
    }
}

/// A new PIN that the token does not take.
pub(super) fn of_new_pin(rv: RvError, flags: &TokenFlags, role: Role, token: &str) -> Error {
    let whose = match role {
        Role::User => "new PIN",
        Role::So => "security officer's PIN",
    };
    Error::BadRequest(format!(
        "the token {token} does not take the {whose} ({}): it wants {} to {} characters",
        ckr_name(rv),
        flags.pin_len.start(),
        flags.pin_len.end(),
    ))
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_millis().div_ceil(1000))
}
