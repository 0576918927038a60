//! Every `C_Login`: no token is ever locked, since the guard stands before each.

pub mod pin_guard;

use cryptoki::context::Function;
use cryptoki::error::{Error as Cryptoki, RvError};
use cryptoki::session::UserType;
use p11_proto::Pin;
use subtle::ConstantTimeEq;
use tracing::{info, warn};

use self::pin_guard::{Guard, Pins, Role};
use super::module::TokenFlags;
use super::token::client::Client;
use super::token::session::PooledSession;
use super::token::{Accepted, Login, Opened, Token};
use crate::error::{Error, ckr_name};

impl Guard {
    /// Whether the user is logged in to a token in this life already, with the PIN of this request.
    ///
    /// # Errors
    /// [`Error::PinIncorrect`] where it was another one: a token that is logged in checks no further PINs.
    pub fn is_logged_in(
        &self,
        token: &Token,
        life: &Opened,
        pins: Pins<'_>,
    ) -> Result<bool, Error> {
        if !token.flags().login_required() {
            return Ok(true);
        }
        match life.login_state() {
            Login::Out => Ok(false),
            Login::In(None) => Ok(true),
            Login::In(Some(with)) => match self.choose(token, pins) {
                Some(pin) if same(&with, &pin) => Ok(true),
                _ => Err(logged_in_otherwise(token)),
            },
        }
    }

    /// Makes sure that a token may be shown its user's PIN, then logs the process in, in a slow turn.
    ///
    /// # Errors
    /// The PIN errors of [`Error`], each with what to do, or what `C_Login` said.
    pub fn log_in(
        &self,
        session: &PooledSession<'_>,
        client: &Client<'_>,
        pins: Pins<'_>,
    ) -> Result<(), Error> {
        let token = session.token();
        if self.is_logged_in(token, session.life(), pins)? {
            return Ok(());
        }
        // Another part of this program has initialised the module, and is left in peace where it is logged in.
        if !session.module().is_ours() && session.user_is_logged_in()? {
            session.life().set_login(Login::In(None));
            return Ok(());
        }
        let pin = self.choose(token, pins);
        let pin = pin.as_deref();
        let by_pin_pad = self.attempt(session, client, UserType::User, Role::User, pin)?;
        let with = pin.cloned().filter(|_| !by_pin_pad);
        session.life().set_login(Login::In(with));
        info!("logged in to the token {}", token.name());
        Ok(())
    }

    /// The login for one signature, between `C_SignInit` and `C_Sign`, that a key with
    /// `CKA_ALWAYS_AUTHENTICATE` wants.
    ///
    /// # Errors
    /// As [`Guard::log_in`].
    pub fn log_in_for_signature(
        &self,
        session: &PooledSession<'_>,
        client: &Client<'_>,
        pins: Pins<'_>,
    ) -> Result<(), Error> {
        let pin = self.choose(session.token(), pins);
        let user = UserType::ContextSpecific;
        self.attempt(session, client, user, Role::User, pin.as_deref())
            .map(drop)
    }

    /// `C_SetPIN` by the user, in a slow turn. Afterwards the process is logged in as it was before. Requests
    /// without a PIN may use the new one only where they could use the old one.
    ///
    /// # Errors
    /// As [`Guard::log_in`] for the old PIN, and [`Error::BadRequest`] for a new one that the token
    /// does not take.
    pub fn change_pin(
        &self,
        session: &PooledSession<'_>,
        (old, new): (&Pin, &Pin),
        server: Option<&Pin>,
    ) -> Result<(), Error> {
        let token = session.token();
        let login = session.life().login_state();
        if let Login::In(Some(with)) = &login
            && !same(with, old)
        {
            return Err(logged_in_otherwise(token));
        }
        let flags = allowing_flags(session, Role::User)?;
        self.check(token, Role::User, Some(old))?;
        match session.set_pin(old, new)? {
            Ok(()) => {}
            Err(Cryptoki::Pkcs11(rv @ RvError::PinIncorrect, _)) => {
                return Err(self.refused(session, Role::User, Some(old), rv));
            }
            Err(Cryptoki::Pkcs11(RvError::PinLocked, _)) => return Err(locked(token, Role::User)),
            Err(error) => return Err(of_new_pin(error, &flags, token)),
        }
        let of_server = self.choose(token, Pins { own: None, server });
        let was_the_servers = of_server.is_some_and(|pin| same(&pin, old));
        self.changed(token, Some(old), new, was_the_servers);
        if let Login::In(Some(_)) = login {
            session.life().set_login(Login::In(Some(new.clone())));
        }
        Ok(())
    }

    /// Whether the security officer may try to log in with this PIN, asked before anybody is disturbed.
    ///
    /// # Errors
    /// As [`Guard::log_in`].
    pub fn check_officer(&self, session: &PooledSession<'_>, so: &Pin) -> Result<(), Error> {
        allowing_flags(session, Role::So)?;
        self.check(session.token(), Role::So, Some(so))
    }

    /// `C_InitPIN` by the security officer, in the only session that is open on the token. `old` is the PIN
    /// that logged in before, if one is known.
    ///
    /// # Errors
    /// As [`Guard::log_in`] for the security officer's PIN, and [`Error::BadRequest`] for a new one
    /// that the token does not take.
    pub fn reset_pin(
        &self,
        session: &PooledSession<'_>,
        client: &Client<'_>,
        old: Option<&Pin>,
        (so, new): (&Pin, &Pin),
    ) -> Result<(), Error> {
        self.attempt(session, client, UserType::So, Role::So, Some(so))?;
        let outcome = session.init_pin(new)?;
        // However it went, the next login is the user's.
        let _ = session.logout();
        let token = session.token();
        outcome.map_err(|error| of_new_pin(error, &token.flags(), token))?;
        // Nobody else knows what it was; the security officer wants the token to be of use.
        self.changed(token, old, new, true);
        Ok(())
    }

    /// One `C_Login`, if the guard lets it pass. Answers whether the PIN came from a PIN pad.
    fn attempt(
        &self,
        session: &PooledSession<'_>,
        client: &Client<'_>,
        user: UserType,
        role: Role,
        pin: Option<&Pin>,
    ) -> Result<bool, Error> {
        let token = session.token();
        // One after the other: of many that come with the same wrong PIN, the first one tells.
        let late = || Error::Timeout(format!("a login to {} takes long; try again", token.name()));
        let _alone = session
            .life()
            .login
            .lock_until(client.deadline)
            .ok_or_else(late)?;
        let accepted: Option<Accepted> = token
            .accepted()
            .filter(|last| pin.is_some_and(|pin| last.pin == self.digest(token.id(), role, pin)));
        let idle = session.module().timeouts().idle;
        let flags = match (user, &accepted) {
            // For keys that want a login for each signature, a look would be a fourth call.
            (UserType::ContextSpecific, Some(last)) if last.at.elapsed() <= idle => {
                token.flags().as_ref().clone()
            }
            _ => allowing_flags(session, role)?,
        };
        let by_pin_pad = flags.protected_authentication_path();
        let pin = match (by_pin_pad, pin) {
            (true, _) => None,
            (false, Some(pin)) => Some(pin),
            (false, None) => {
                return Err(Error::PinRequired {
                    token: token.name().into(),
                });
            }
        };
        self.check(token, role, pin)?;
        token.set_accepted(None);
        let mut answer = session.login(user, pin)?;
        if let Err(Cryptoki::Pkcs11(RvError::UserAlreadyLoggedIn, _)) = answer {
            answer = match (user, pin) {
                // A logout would end the signature that this login is for.
                (UserType::ContextSpecific, _) => answer,
                // It is our own login, kept alive by sessions of an earlier life.
                (_, Some(_)) if accepted.is_some() => Ok(()),
                // Somebody logged in behind our back, so the PIN was not checked. The failure of a logout
                // would show in the login.
                (_, Some(_)) => {
                    let _ = session.logout();
                    session.login(user, pin)?
                }
                (_, None) => Ok(()),
            };
        }
        match answer {
            Ok(()) => {
                self.remember_success(token.id(), role);
                token.set_accepted(pin.map(|pin| self.digest(token.id(), role, pin)));
                Ok(by_pin_pad)
            }
            Err(Cryptoki::Pkcs11(rv, Function::Login)) if means_refused(rv) => {
                Err(self.refused(session, role, pin, rv))
            }
            Err(Cryptoki::Pkcs11(RvError::PinLocked, _)) => Err(locked(token, role)),
            Err(other) => Err(other.into()),
        }
    }

    /// The token has refused this PIN. Answers what the client is told.
    fn refused(
        &self,
        session: &PooledSession<'_>,
        role: Role,
        pin: Option<&Pin>,
        rv: RvError,
    ) -> Error {
        let token = session.token();
        self.remember_refusal(token.id(), role, pin);
        let left = session.token_flags();
        let error = Error::PinIncorrect(format!(
            "The specified PIN is incorrect: the token {} refused it{} ({}). {} {}",
            token.name(),
            match role {
                Role::User => "",
                Role::So => " as the security officer's",
            },
            ckr_name(rv),
            left.as_ref().map_or(UNTOLD, |flags| remaining(flags, role)),
            match (pin, role) {
                (None, _) => "Type the right one at the token's PIN pad",
                (Some(_), Role::User) =>
                    "It will not be sent to the token again; set the right one \
                     (--pin, device.cryptoki.pin or the request's) and send SIGHUP or restart",
                (Some(_), Role::So) => "It will not be sent to the token again; give the right one",
            },
        ));
        warn!("{error}");
        error
    }
}

const UNTOLD: &str = "The token does not say how many tries are left.";

fn logged_in_otherwise(token: &Token) -> Error {
    Error::PinIncorrect(format!(
        "The specified PIN is incorrect: the token {} is logged in with another one",
        token.name()
    ))
}

/// A failure to set a PIN, which may be that the token wants another length.
fn of_new_pin(error: Cryptoki, flags: &TokenFlags, token: &Token) -> Error {
    match error {
        Cryptoki::Pkcs11(
            rv @ (RvError::PinLenRange | RvError::PinInvalid | RvError::PinTooWeak),
            _,
        ) => Error::BadRequest(format!(
            "the token {} does not take the new PIN ({}): it wants {} to {} characters",
            token.name(),
            ckr_name(rv),
            flags.pin_len.start(),
            flags.pin_len.end(),
        )),
        other => other.into(),
    }
}

/// Compares in a time that tells nothing but the length.
pub(crate) fn same(a: &Pin, b: &Pin) -> bool {
    a.expose().as_bytes().ct_eq(b.expose().as_bytes()).into()
}

/// The answers that say that the PIN is wrong. Every other failure says nothing about the PIN.
fn means_refused(rv: RvError) -> bool {
    matches!(
        rv,
        RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange
    )
}

/// What a token says of itself at this moment, in which another program may have used up tries: no
/// PIN is sent to one that is locked or has one try left, nor to another one in its slot.
fn allowing_flags(session: &PooledSession<'_>, role: Role) -> Result<TokenFlags, Error> {
    let token = session.token();
    let flags = session.token_flags()?;
    if !token.id().is_of(&flags) {
        return Err(Error::Module {
            rv: RvError::TokenNotRecognized,
            function: Function::GetTokenInfo,
        });
    }
    let (is_locked, final_try) = match role {
        Role::User => (flags.user_pin_locked(), flags.user_pin_final_try()),
        Role::So => (flags.so_pin_locked(), flags.so_pin_final_try()),
    };
    if is_locked {
        return Err(locked(token, role));
    }
    if final_try {
        return Err(Error::PinGuarded(format!(
            "the token {} has one PIN try left, so none is sent; log in once by hand with the \
             token's own tool, for example pkcs11-tool --login --list-objects",
            token.name()
        )));
    }
    Ok(flags)
}

fn locked(token: &Token, role: Role) -> Error {
    let remedy = match role {
        Role::User => "unlock it with the security officer's PIN, by the token's own tool",
        Role::So => "the security officer's PIN is lost; the token must be initialised anew",
    };
    Error::PinLocked(format!(
        "the PIN of the token {} is locked: {remedy}",
        token.name()
    ))
}

/// What the token's flags (PKCS#11 section 3.2, `CK_TOKEN_INFO`) say of the tries that are left.
fn remaining(flags: &TokenFlags, role: Role) -> &'static str {
    let (is_locked, final_try, low) = match role {
        Role::User => (
            flags.user_pin_locked(),
            flags.user_pin_final_try(),
            flags.user_pin_count_low(),
        ),
        Role::So => (
            flags.so_pin_locked(),
            flags.so_pin_final_try(),
            flags.so_pin_count_low(),
        ),
    };
    match (is_locked, final_try, low) {
        (true, ..) => "The token is locked now.",
        (_, true, _) => "One try is left, which we do not use.",
        (.., true) => "At least one try was used up.",
        _ => UNTOLD,
    }
}
