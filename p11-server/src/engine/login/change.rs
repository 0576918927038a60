//! `C_SetPIN` by the user, and `C_InitPIN` by the security officer.

use cryptoki::error::Error as Cryptoki;
use cryptoki::session::UserType;
use p11_proto::Pin;
use p11_proto::message::LoginState;
use tracing::warn;

use super::attempt::{Attempt, Subject};
use super::checks::{check_len, check_new_pin, current_flags, is_of_new_pin, same};
use super::states::{Owner, Role, State, Tries};
use super::{Given, Logins, Pins, alone, texts};
use crate::engine::token::Login;
use crate::engine::token::client::Client;
use crate::engine::token::session::PooledSession;
use crate::error::Error;

/// A new PIN of the user, by the security officer's.
#[derive(Clone, Copy)]
pub(crate) struct Reset<'a> {
    pub so: &'a Pin,
    pub new: &'a Pin,
    /// Whether nobody guesses it: it is the server's, or the token was made with it a moment ago.
    pub is_known: bool,
}

impl Logins {
    /// `C_SetPIN` by the user, in a slow turn. Afterwards the process is logged in as it was before. Requests
    /// without a PIN may use the new one only where they could use the old one. Answers whether the old one was the server's.
    ///
    /// # Errors
    /// As [`Logins::log_in`] for the old PIN, and [`Error::BadRequest`] for a new one that the token
    /// does not take.
    pub fn change_pin(
        &self,
        session: &PooledSession<'_>,
        client: &Client<'_>,
        pins: Pins<'_>,
        new: &Pin,
    ) -> Result<bool, Error> {
        let token = session.token();
        let subject = self.subject(token, Role::User);
        let lock = self.turn(&subject);
        let _alone = alone(&lock, token.name(), client)?;
        check_new_pin(&current_flags(session)?, Role::User, new, token.name())?;
        let settings = self.settings();
        let server = self.server_pin(token, &settings);
        // Where the server's PIN opens the token, a client's is compared with it and not sent.
        if pins.own.is_some() && server.is_some() {
            self.log_in_alone(session, client, pins)?;
        } else {
            self.may_use(client, token, session.life(), pins)?;
        }
        let (old, owner) = match (pins.own, &server) {
            (Some(own), _) => (own, Owner::Client(client.access.user())),
            (None, Some((server, owner))) => (server.as_ref(), *owner),
            (None, None) => return Err(self.required(token, &settings)),
        };
        let given = Given {
            pin: Some(old),
            owner,
        };
        let about = self.about(token, Role::User, owner, &settings);
        let flags = current_flags(session)?;
        check_len(&flags, old, &about)?;
        let tries = Tries::of(&flags, Role::User);
        let attempt = self.attempt_of(&subject, client, given, tries);
        self.check_current(token, given, &settings)?;
        self.decide(&subject, client, &attempt, &about)?;
        let of_server = self.of_server(token, Role::User, given);
        self.sending(&subject, attempt.pin, of_server);
        let sent = session.set_pin(old, new);
        match sent.inspect_err(|_| self.not_looked_at(&subject))? {
            Ok(()) => {}
            Err(Cryptoki::Pkcs11(rv, _)) if is_of_new_pin(rv) => {
                self.not_looked_at(&subject);
                return Err(texts::of_new_pin(rv, &flags, Role::User, token.name()));
            }
            Err(error) => return Err(self.failed(session, &subject, given, &about, error)),
        }
        let was_the_servers = server.as_ref().is_some_and(|(server, _)| same(server, old));
        let (old, digest) = (self.digest(&subject, old), self.digest(&subject, new));
        self.change(|guard| guard.changed(&subject, old, digest));
        token.set_accepted(None);
        token.add_outcome(owner.into(), Some(digest), LoginState::Accepted);
        self.replace(token, new, was_the_servers);
        let life = session.life();
        if let Login::In { pin, by_server } = life.login_state() {
            let pin = pin.map(|_| new.clone());
            life.set_login(Login::In { pin, by_server });
        }
        Ok(was_the_servers)
    }

    /// Whether a PIN of the configuration is the one that a user has set. `None` where this user, or all together, have set too many
    /// others to be told.
    pub fn is_configured(
        &self,
        client: &Client<'_>,
        origin: &str,
        configured: &Pin,
        new: &Pin,
    ) -> Option<bool> {
        let mut guard = self.guard.lock();
        let source = guard.salted(b"source", origin.as_bytes());
        let subject = Subject {
            token: source,
            role: Role::User,
            counter: source,
            in_tpm: false,
            server: None,
            is_shared: false,
        };
        let salted = |pin: &Pin| guard.salted(&source, pin.expose().as_bytes());
        let (open, pin) = (Some(salted(configured)), Some(salted(new)));
        let owner = Owner::Client(client.access.user());
        let attempt = Attempt {
            open,
            ..Attempt::new(owner, pin)
        };
        match guard.decide(&subject, &attempt).0 {
            State::Open => Some(true),
            State::OpenOther => Some(false),
            _ => None,
        }
    }

    /// Whether the security officer may try to log in and set this PIN, asked before anybody is disturbed.
    ///
    /// # Errors
    /// As [`Logins::log_in`], and [`Error::BadRequest`] for a new PIN that the token does not take.
    pub fn check_officer(
        &self,
        session: &PooledSession<'_>,
        client: &Client<'_>,
        Reset { so, new, is_known }: Reset<'_>,
    ) -> Result<(), Error> {
        let token = session.token();
        let flags = current_flags(session)?;
        check_new_pin(&flags, Role::User, new, token.name())?;
        let subject = self.subject(token, Role::So);
        let given = Given {
            pin: Some(so),
            owner: officer(client, is_known),
        };
        let settings = self.settings();
        let about = self.about(token, Role::So, given.owner, &settings);
        check_len(&flags, so, &about)?;
        let tries = Tries::of(&flags, Role::So);
        let attempt = self.attempt_of(&subject, client, given, tries);
        self.decide(&subject, client, &attempt, &about)
    }

    /// `C_InitPIN` by the security officer, in the only session that is open on the token, then a login with the new PIN.
    /// The server goes on with it only where `is_the_servers`: where the old one was, or it is to be.
    ///
    /// # Errors
    /// As [`Logins::log_in`] for the security officer's PIN, and [`Error::BadRequest`] for a new one
    /// that the token does not take.
    pub fn reset_pin(
        &self,
        session: &PooledSession<'_>,
        client: &Client<'_>,
        Reset { so, new, is_known }: Reset<'_>,
        is_the_servers: bool,
    ) -> Result<(), Error> {
        let token = session.token();
        let subject = self.subject(token, Role::User);
        let lock = self.turn(&subject);
        let _alone = alone(&lock, token.name(), client)?;
        let settings = self.settings();
        let owner = officer(client, is_known);
        let officers = Given {
            pin: Some(so),
            owner,
        };
        self.attempt(session, client, UserType::So, officers, &settings)?;
        let outcome = session.init_pin(new)?;
        // However it went, the next login is the user's.
        let _ = session.logout();
        match outcome {
            Ok(()) => {}
            Err(Cryptoki::Pkcs11(rv, _)) if is_of_new_pin(rv) => {
                let flags = token.flags();
                return Err(texts::of_new_pin(rv, &flags, Role::User, token.name()));
            }
            Err(error) => {
                let about = self.about(token, Role::So, owner, &settings);
                return Err(about.failed(error));
            }
        }
        let digest = self.digest(&subject, new);
        self.change(|guard| {
            guard.invalidate(&subject);
            guard.accepted(&subject, Owner::Server, Some(digest));
        });
        token.set_accepted(None);
        self.replace(token, new, is_the_servers);
        // That is made, whatever becomes of this.
        let new = Given {
            pin: Some(new),
            owner,
        };
        if let Err(error) = self.open(session, client, new, &settings) {
            warn!("not logged in with the new PIN yet: {error}");
        }
        Ok(())
    }
}

/// Whose the security officer's PIN is.
fn officer(client: &Client<'_>, is_known: bool) -> Owner {
    match is_known {
        true => Owner::Server,
        false => Owner::Client(client.access.user()),
    }
}
