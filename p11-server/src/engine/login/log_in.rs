//! `C_Login`: which PIN goes first, one attempt, and what its answer tells.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use cryptoki::error::{Error as Cryptoki, RvError};
use cryptoki::session::UserType;
use p11_proto::message::LoginState;
use tracing::{info, warn};

use super::attempt::{Attempt, Subject};
use super::checks::{check_len, current_flags, is_unclear, means_refused, same};
use super::digests::Salted;
use super::server_pin::order;
use super::states::{Owner, Role, Tries};
use super::texts::About;
use super::{Given, Logins, Pins, alone, of_server};
use crate::engine::module::Module;
use crate::engine::settings::Settings;
use crate::engine::token::client::Client;
use crate::engine::token::id::TokenId;
use crate::engine::token::session::PooledSession;
use crate::engine::token::{Login, Token};
use crate::error::{Error, ckr_name};

impl Logins {
    /// Logs the process in, in a slow turn, where it is not: by the server's PIN where that opens the token, else by the
    /// request's.
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
        if self.may_use(client, token, session.life(), pins)? {
            return Ok(());
        }
        let lock = self.turn(&self.subject(token, Role::User));
        let _alone = alone(&lock, token.name(), client)?;
        self.log_in_alone(session, client, pins)
    }

    /// The same for who has the turn to send PINs to this token.
    pub(super) fn log_in_alone(
        &self,
        session: &PooledSession<'_>,
        client: &Client<'_>,
        pins: Pins<'_>,
    ) -> Result<(), Error> {
        let token = session.token();
        if self.may_use(client, token, session.life(), pins)? {
            return Ok(());
        }
        // Another part of this program has initialised the module, and is left in peace where it is logged in.
        if !session.module().is_ours() && session.user_is_logged_in()? {
            session.life().set_login(Login::In {
                pin: None,
                by_server: true,
            });
            return Ok(());
        }
        let settings = self.settings();
        if token.flags().protected_authentication_path() {
            let given = Given {
                pin: None,
                owner: Owner::PinPad,
            };
            return self.open(session, client, given, &settings);
        }
        let server = self.server_pin(token, &settings);
        let server = server.as_ref().map(|(pin, owner)| Given {
            pin: Some(pin),
            owner: *owner,
        });
        let own = pins.own.map(|pin| Given {
            pin: Some(pin),
            owner: Owner::Client(client.access.user()),
        });
        let servers_first = |server: &Given<'_>, own: &Given<'_>| {
            self.goes_first(token, *server, Some(*own), &settings)
        };
        let Some((first, then)) = order(server, own, servers_first) else {
            return Err(self.required(token, &settings));
        };
        match (self.open(session, client, first, &settings), then) {
            (Ok(()), Some(_)) => self.may_use(client, token, session.life(), pins).map(drop),
            (Err(Error::PinIncorrect(_)), Some(own)) => self.open(session, client, own, &settings),
            (outcome, _) => outcome,
        }
    }

    /// The login for one signature, between `C_SignInit` and `C_Sign`, that a key with
    /// `CKA_ALWAYS_AUTHENTICATE` wants: by the PIN with which the token is logged in.
    ///
    /// # Errors
    /// As [`Logins::log_in`].
    pub fn log_in_for_signature(
        &self,
        session: &PooledSession<'_>,
        client: &Client<'_>,
    ) -> Result<(), Error> {
        let token = session.token();
        let lock = self.turn(&self.subject(token, Role::User));
        let _alone = alone(&lock, token.name(), client)?;
        let settings = self.settings();
        let (pin, by_server) = match session.life().login_state() {
            Login::In { pin, by_server } => (pin, by_server),
            Login::Out => (None, true),
        };
        let owner = match (self.server_pin(token, &settings), by_server) {
            (Some((_, owner)), true) => owner,
            (None, true) => Owner::Server,
            (_, false) => Owner::Client(client.access.user()),
        };
        let given = Given {
            pin: pin.as_ref(),
            owner,
        };
        let user = UserType::ContextSpecific;
        self.attempt(session, client, user, given, &settings)
            .map(drop)
    }

    /// Logs the process in, by who has the turn to send PINs.
    pub(super) fn open(
        &self,
        session: &PooledSession<'_>,
        client: &Client<'_>,
        given: Given<'_>,
        settings: &Arc<Settings>,
    ) -> Result<(), Error> {
        let token = session.token();
        let by_pin_pad = self.attempt(session, client, UserType::User, given, settings)?;
        let pin = given.pin.filter(|_| !by_pin_pad);
        let server = self.server_pin(token, settings);
        let by_server = match (pin, &server) {
            (Some(pin), Some((server, _))) => same(pin, server),
            (pin, _) => pin.is_none(),
        };
        session.life().set_login(Login::In {
            pin: pin.cloned(),
            by_server,
        });
        self.count.fetch_add(1, Ordering::Relaxed);
        if matches!(given.owner, Owner::Client(_)) {
            client.set_matched(token);
        }
        info!("logged in to the token {}", token.name());
        Ok(())
    }

    /// One `C_Login`, if the rules allow it, by who has the turn to send PINs. Answers whether the PIN came from a PIN pad.
    pub(super) fn attempt(
        &self,
        session: &PooledSession<'_>,
        client: &Client<'_>,
        user: UserType,
        given: Given<'_>,
        settings: &Arc<Settings>,
    ) -> Result<bool, Error> {
        let token = session.token();
        let role = role_of(user);
        let subject = self.subject(token, role);
        let is_given = |digest| {
            let given = given.pin.map(|pin| self.digest(&subject, pin));
            given == Some(digest)
        };
        let accepted = token.accepted().filter(|last| is_given(last.pin));
        let idle = session.module().timeouts().idle;
        let flags = match (user, &accepted) {
            // For keys that want a login for each signature, a look would be a fourth call.
            (UserType::ContextSpecific, Some(last)) if last.at.elapsed() <= idle => {
                token.flags().as_ref().clone()
            }
            _ => current_flags(session)?,
        };
        let by_pin_pad = flags.protected_authentication_path();
        let given = match (by_pin_pad, given.pin) {
            (true, _) => Given {
                pin: None,
                owner: Owner::PinPad,
            },
            (false, Some(_)) => given,
            (false, None) => return Err(self.required(token, settings)),
        };
        let about = self.about(token, role, given.owner, settings);
        if let Some(pin) = given.pin {
            check_len(&flags, pin, &about)?;
        }
        let attempt = Attempt {
            shares_tpm: subject.in_tpm && self.has_neighbour(token),
            ..self.attempt_of(&subject, client, given, Tries::of(&flags, role))
        };
        self.check_current(token, given, settings)?;
        self.decide(&subject, client, &attempt, &about)?;
        token.set_accepted(None);
        let of_server = self.of_server(token, role, given);
        self.sending(&subject, attempt.pin, of_server);
        let sent = send(session, user, given, accepted.is_some());
        match sent.inspect_err(|_| self.not_looked_at(&subject))? {
            Ok(()) => {
                self.change_if(|guard| guard.accepted(&subject, given.owner, attempt.pin));
                token.set_accepted(attempt.pin);
                answered(
                    token,
                    &subject,
                    given.owner,
                    attempt.pin,
                    LoginState::Accepted,
                );
                Ok(by_pin_pad)
            }
            Err(error) => Err(self.failed(session, &subject, given, &about, error)),
        }
    }

    /// Whether another token is in the same device.
    fn has_neighbour(&self, token: &Token) -> bool {
        let (id, known) = (token.id(), self.registry.known());
        let is_other = |other: &TokenId| other != id && other.device() == id.device();
        let mut others = known.iter().filter(|other| !other.is_absent());
        others.any(|other| is_other(other.id()))
    }

    /// A PIN of the server that the operator has replaced a moment ago is not sent any more.
    pub(super) fn check_current(
        &self,
        token: &Token,
        given: Given<'_>,
        settings: &Arc<Settings>,
    ) -> Result<(), Error> {
        let is_servers = matches!(given.owner, Owner::Server | Owner::Default);
        match is_servers && !Arc::ptr_eq(settings, &self.settings()) {
            true => Err(Error::Changed {
                token: token.name().into(),
            }),
            false => Ok(()),
        }
    }

    /// What a call with a PIN has failed with: remembers what it says of the PIN, and answers what the client is told.
    pub(super) fn failed(
        &self,
        session: &PooledSession<'_>,
        subject: &Subject,
        given: Given<'_>,
        about: &About<'_>,
        error: Cryptoki,
    ) -> Error {
        let token = session.token();
        let digest = given.pin.map(|pin| self.digest(subject, pin));
        let note = |answer| answered(token, subject, given.owner, digest, answer);
        match error {
            Cryptoki::Pkcs11(rv, _) if means_refused(rv) => {
                note(LoginState::Refused);
                self.refused(token, subject, given);
                let left = session.token_flags().ok();
                let error = about.refused(rv, left.as_ref());
                warn!("{error}");
                error
            }
            Cryptoki::Pkcs11(rv, _) if is_unclear(rv, given.pin.is_none()) => {
                note(LoginState::Guarded);
                self.unclear(session.module(), subject, (given.owner, digest), rv);
                about.failed(error)
            }
            error => {
                match error {
                    Cryptoki::Pkcs11(RvError::PinLocked, _) => {
                        note(LoginState::Locked);
                        self.change(|guard| guard.locked(subject, Instant::now()));
                    }
                    _ => self.not_looked_at(subject),
                }
                about.failed(error)
            }
        }
    }

    /// An answer tells nothing of the PIN. What is behind it may be healed by a reload, after which the PIN may be sent once more.
    pub(super) fn unclear(
        &self,
        module: &Module,
        subject: &Subject,
        (owner, pin): (Owner, Option<Salted>),
        rv: RvError,
    ) {
        let now = Instant::now();
        self.change(|guard| guard.unclear(subject, owner, pin, now));
        let why = format!("a call with a PIN was answered with {}", ckr_name(rv));
        module.request_reload(&module.life(), &why);
    }

    /// The token has refused a PIN. One that had taken the place of the configured one is the server's no longer.
    fn refused(&self, token: &Token, subject: &Subject, given: Given<'_>) {
        let digest = given.pin.map(|pin| self.digest(subject, pin));
        let of_server = self.of_server(token, subject.role, given);
        // What was the server's before SIGHUP does not use up the try of the new one.
        let owner = match given.owner {
            Owner::Server if of_server.is_none() => Owner::Default,
            owner => owner,
        };
        self.change(|guard| {
            guard.refused(subject, owner, digest, Instant::now());
            if let Some(of_server) = of_server {
                guard.servers_refused(of_server);
            }
        });
        if of_server.is_some() {
            self.replaced.lock().remove(token.id());
        }
    }

    /// What a PIN is remembered as where it is the server's for the user of this token, whoever has given it.
    pub(super) fn of_server(&self, token: &Token, role: Role, given: Given<'_>) -> Option<Salted> {
        let settings = self.settings();
        match (self.server_pin(token, &settings), given.pin, role) {
            (Some((server, Owner::Server)), Some(pin), Role::User) if same(&server, pin) => {
                Some(of_server(&self.guard.lock(), pin))
            }
            _ => None,
        }
    }
}

/// Notes what the token has answered to a PIN of its user, for `Status`.
fn answered(
    token: &Token,
    subject: &Subject,
    owner: Owner,
    pin: Option<Salted>,
    answer: LoginState,
) {
    if subject.role == Role::User {
        token.add_outcome(owner.into(), pin, answer);
    }
}

fn role_of(user: UserType) -> Role {
    match user {
        UserType::So => Role::So,
        _ => Role::User,
    }
}

/// `C_Login`. `is_last` where it is the PIN that the token accepted last.
fn send(
    session: &PooledSession<'_>,
    user: UserType,
    given: Given<'_>,
    is_last: bool,
) -> Result<Result<(), Cryptoki>, Error> {
    let answer = session.login(user, given.pin)?;
    let Err(Cryptoki::Pkcs11(RvError::UserAlreadyLoggedIn, _)) = answer else {
        return Ok(answer);
    };
    match (user, given.pin) {
        // A logout would end the signature that this login is for.
        (UserType::ContextSpecific, _) => Ok(answer),
        // It is our own login, kept alive by sessions of an earlier life.
        (_, Some(_)) if is_last => Ok(Ok(())),
        // Somebody logged in behind our back, so the PIN was not checked. The failure of a logout
        // would show in the login.
        (_, Some(_)) => {
            let _ = session.logout();
            session.login(user, given.pin)
        }
        (_, None) => Ok(Ok(())),
    }
}
