//! Every `C_Login`: no token is ever locked, since the guard stands before each.

pub mod pin_guard;

use std::time::Instant;

use cryptoki::context::Function;
use cryptoki::error::{Error as Cryptoki, RvError};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::TokenInfo;
use cryptoki::types::AuthPin;
use p11_proto::Pin;
use subtle::ConstantTimeEq;
use tracing::{info, warn};

use self::pin_guard::{Guard, Pins, Role};
use crate::engine::module::Call;
use crate::engine::token::session::PooledSession;
use crate::engine::token::{Accepted, Login, Token, is_full};
use crate::error::Error;
use crate::lock::lock;

impl Guard {
    /// Makes sure that a token may be shown its user's PIN, then logs the process in.
    ///
    /// A token that is logged in is not asked again: the PIN must be the one that logged in.
    ///
    /// # Errors
    /// The PIN errors of [`Error`], each with what to do, or what `C_Login` said.
    pub fn log_in(&self, call: &Call<'_>, token: &Token, pins: Pins<'_>) -> Result<(), Error> {
        if !token.login_required() {
            return Ok(());
        }
        // The PIN is chosen under the lock: it may be changed while we wait.
        let mut login = lock(&token.login);
        let pin = self.choose(token, pins);
        let pin = pin.as_deref();
        if let Login::In(era, with) = &*login
            && *era == token.era(call)
        {
            return match (with, pin) {
                (None, _) => Ok(()),
                (Some(with), Some(pin)) if same(with, pin) => Ok(()),
                (Some(_), _) => Err(logged_in_otherwise(token)),
            };
        }
        token.keep_login_session(call)?;
        let session = token.acquire(call)?;
        *login = self.log_in_through(call, token, &session, pin)?;
        session.finish();
        Ok(())
    }

    /// Logs the process in and takes the token for one change. Where there is no room for one more
    /// session, the change is made in the only one, after a login of its own; finished, that lasts.
    ///
    /// # Errors
    /// As [`Guard::log_in`], and [`Error::Busy`] where the token is not to be had.
    pub fn log_in_to_write<'t>(
        &self,
        call: &'t Call<'_>,
        token: &'t Token,
        pins: Pins<'_>,
    ) -> Result<PooledSession<'t>, Error> {
        self.log_in(call, token, pins)?;
        match token.acquire_to_write(call) {
            Err(error) if is_full(&error) => {}
            Err(error) => return Err(error),
            // Lost since, by another's trouble perhaps: half of what is there would not be seen.
            Ok(session) if token.login_required() && !session.still_logged_in()? => {
                let token = token.name().into();
                return Err(Error::Changed { token });
            }
            Ok(session) => return Ok(session),
        }
        // Before the sessions, as for every login.
        let mut login = lock(&token.login);
        if !token.login_required() {
            return token.acquire_alone(call);
        }
        let pin = self.choose(token, pins);
        let pin = pin.as_deref();
        self.check_user(call, token, &login, pin)?;
        let session = token.acquire_alone(call)?;
        *login = self.log_in_through(call, token, &session, pin)?;
        Ok(session)
    }

    fn log_in_through(
        &self,
        call: &Call<'_>,
        token: &Token,
        session: &PooledSession<'_>,
        pin: Option<&Pin>,
    ) -> Result<Login, Error> {
        let by_pin_pad = self.attempt(call, token, session, UserType::User, Role::User, pin)?;
        token.note_login(call, session.era());
        info!("logged in to the token {}", token.name());
        let pin = pin.cloned().filter(|_| !by_pin_pad);
        Ok(Login::In(session.era(), pin))
    }

    /// The login for one signature, between `C_SignInit` and `C_Sign`, that a key with
    /// `CKA_ALWAYS_AUTHENTICATE` wants.
    ///
    /// # Errors
    /// As [`Guard::log_in`].
    pub fn log_in_for_signature(
        &self,
        call: &Call<'_>,
        token: &Token,
        session: &Session,
        pins: Pins<'_>,
    ) -> Result<(), Error> {
        let pin = self.choose(token, pins);
        let user = UserType::ContextSpecific;
        self.attempt(call, token, session, user, Role::User, pin.as_deref())
            .map(drop)
    }

    /// `C_SetPIN` by the user, on a token that was taken. Afterwards the process is logged in as it
    /// was before. Requests without a PIN may use the new one only where they could use the old one.
    ///
    /// # Errors
    /// As [`Guard::log_in`] for the old PIN, and [`Error::BadRequest`] for a new one that the token
    /// does not take.
    pub fn change_pin(
        &self,
        call: &Call<'_>,
        token: &Token,
        login: &mut Login,
        session: &Session,
        (old, new): (&Pin, &Pin),
        server: Option<&Pin>,
    ) -> Result<(), Error> {
        let info = allowing_info(call, token, Role::User)?;
        self.check(token, Role::User, Some(old))?;
        let auth = |pin: &Pin| AuthPin::new(pin.expose().into());
        match session.set_pin(&auth(old), &auth(new)) {
            Ok(()) => {}
            Err(Cryptoki::Pkcs11(rv @ RvError::PinIncorrect, _)) => {
                return Err(self.refused(call, token, Role::User, Some(old), rv));
            }
            Err(Cryptoki::Pkcs11(RvError::PinLocked, _)) => return Err(locked(token, Role::User)),
            Err(error) => return Err(of_new_pin(error, &info, token)),
        }
        let of_server = self.choose(token, Pins { own: None, server });
        let was_the_servers = of_server.is_some_and(|pin| same(&pin, old));
        self.changed(token, Some(old), new, was_the_servers);
        if let Login::In(era, Some(with)) = login
            && *era == token.era(call)
        {
            *with = new.clone();
        }
        Ok(())
    }

    /// Whether the user may try to log in with this PIN, asked before a login is given up for that.
    ///
    /// # Errors
    /// As [`Guard::log_in`].
    pub fn check_user(
        &self,
        call: &Call<'_>,
        token: &Token,
        login: &Login,
        pin: Option<&Pin>,
    ) -> Result<(), Error> {
        if let Login::In(era, Some(with)) = login
            && *era == token.era(call)
            && !pin.is_some_and(|pin| same(with, pin))
        {
            return Err(logged_in_otherwise(token));
        }
        allowing_info(call, token, Role::User)?;
        self.check(token, Role::User, pin)
    }

    /// Whether the security officer may try to log in with this PIN.
    ///
    /// # Errors
    /// As [`Guard::log_in`].
    pub fn check_officer(&self, call: &Call<'_>, token: &Token, so: &Pin) -> Result<(), Error> {
        allowing_info(call, token, Role::So)?;
        self.check(token, Role::So, Some(so))
    }

    /// `C_InitPIN` by the security officer, on a token that was taken and has no session open.
    ///
    /// # Errors
    /// As [`Guard::log_in`] for the security officer's PIN, and [`Error::BadRequest`] for a new one
    /// that the token does not take.
    pub fn reset_pin(
        &self,
        call: &Call<'_>,
        token: &Token,
        login: &Login,
        session: &Session,
        (so, new): (&Pin, &Pin),
    ) -> Result<(), Error> {
        self.attempt(call, token, session, UserType::So, Role::So, Some(so))?;
        let outcome = session.init_pin(&AuthPin::new(new.expose().into()));
        // However it went, the next login is the user's.
        let _ = session.logout();
        outcome.map_err(|error| of_new_pin(error, &token.flags(), token))?;
        let old = match login {
            Login::In(_, old) => old.as_ref(),
            Login::Out => None,
        };
        // Nobody else knows what it was; the security officer wants the token to be of use.
        self.changed(token, old, new, true);
        Ok(())
    }

    /// One `C_Login`, if the guard lets it pass. Answers whether the PIN came from a PIN pad.
    fn attempt(
        &self,
        call: &Call<'_>,
        token: &Token,
        session: &Session,
        user: UserType,
        role: Role,
        pin: Option<&Pin>,
    ) -> Result<bool, Error> {
        // One after the other: of many that come with the same wrong PIN, the first one tells.
        let mut accepted = lock(&token.accepted);
        let accepted_before = pin.and_then(|pin| {
            let last = accepted.as_ref()?;
            (last.pin == self.digest(token.id(), role, pin)).then_some(last.at)
        });
        let info = match (user, accepted_before) {
            (UserType::ContextSpecific, Some(at)) if at.elapsed() <= call.timeouts().idle => {
                token.flags()
            }
            _ => allowing_info(call, token, role)?,
        };
        let by_pin_pad = info.protected_authentication_path();
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
        *accepted = None;
        let mut answer = login(session, user, pin);
        if let Err(Cryptoki::Pkcs11(RvError::UserAlreadyLoggedIn, _)) = answer {
            answer = match (user, pin) {
                // A logout would end the signature that this login is for.
                (UserType::ContextSpecific, _) => answer,
                // It is our own login, kept alive by sessions that are still in use.
                (_, Some(_)) if accepted_before.is_some() => Ok(()),
                // Somebody in this process logged in behind our back, so the PIN was not checked.
                (_, Some(_)) => {
                    // Its failure would show in the login.
                    let _ = session.logout();
                    login(session, user, pin)
                }
                (_, None) => Ok(()),
            };
        }
        match answer {
            Ok(()) => {
                self.remember_success(token.id(), role);
                *accepted = pin.map(|pin| Accepted {
                    pin: self.digest(token.id(), role, pin),
                    at: Instant::now(),
                });
                Ok(by_pin_pad)
            }
            Err(Cryptoki::Pkcs11(rv, Function::Login)) if means_refused(rv) => {
                Err(self.refused(call, token, role, pin, rv))
            }
            Err(Cryptoki::Pkcs11(RvError::PinLocked, _)) => Err(locked(token, role)),
            Err(other) => Err(other.into()),
        }
    }

    /// The token has refused this PIN. Answers what the client is told.
    fn refused(
        &self,
        call: &Call<'_>,
        token: &Token,
        role: Role,
        pin: Option<&Pin>,
        rv: RvError,
    ) -> Error {
        self.remember_refusal(token.id(), role, pin);
        let left = call.pkcs11().get_token_info(token.slot());
        let error = Error::PinIncorrect(format!(
            "The specified PIN is incorrect: the token {} refused it{} ({}). {} {}",
            token.name(),
            match role {
                Role::User => "",
                Role::So => " as the security officer's",
            },
            crate::error::ckr_name(rv),
            left.as_ref().map_or(UNTOLD, |info| remaining(info, role)),
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
fn of_new_pin(error: Cryptoki, info: &TokenInfo, token: &Token) -> Error {
    match error {
        Cryptoki::Pkcs11(
            rv @ (RvError::PinLenRange | RvError::PinInvalid | RvError::PinTooWeak),
            _,
        ) => Error::BadRequest(format!(
            "the token {} does not take the new PIN ({}): it wants {} to {} characters",
            token.name(),
            crate::error::ckr_name(rv),
            info.min_pin_length(),
            info.max_pin_length(),
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

fn login(session: &Session, user: UserType, pin: Option<&Pin>) -> Result<(), Cryptoki> {
    let pin = pin.map(|pin| AuthPin::new(pin.expose().into()));
    session.login(user, pin.as_ref())
}

/// What a token says of itself at this moment, in which another program may have used up tries: no
/// PIN is sent to one that is locked or has one try left, nor to another one in its slot.
fn allowing_info(call: &Call<'_>, token: &Token, role: Role) -> Result<TokenInfo, Error> {
    let info = call.pkcs11().get_token_info(token.slot())?;
    if !token.id().is_of(&info) {
        return Err(Error::Module {
            rv: RvError::TokenNotRecognized,
            function: Function::GetTokenInfo,
        });
    }
    let (is_locked, final_try) = match role {
        Role::User => (info.user_pin_locked(), info.user_pin_final_try()),
        Role::So => (info.so_pin_locked(), info.so_pin_final_try()),
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
    Ok(info)
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
fn remaining(info: &TokenInfo, role: Role) -> &'static str {
    let (is_locked, final_try, low) = match role {
        Role::User => (
            info.user_pin_locked(),
            info.user_pin_final_try(),
            info.user_pin_count_low(),
        ),
        Role::So => (
            info.so_pin_locked(),
            info.so_pin_final_try(),
            info.so_pin_count_low(),
        ),
    };
    match (is_locked, final_try, low) {
        (true, ..) => "The token is locked now.",
        (_, true, _) => "One try is left, which we do not use.",
        (.., true) => "At least one try was used up.",
        _ => UNTOLD,
    }
}
