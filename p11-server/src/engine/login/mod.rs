//! Every call that takes a PIN: `C_Login`, `C_SetPIN`, `C_InitPIN` and `C_InitToken`, each behind the rules for PINs.
//!
//! | file | what it has |
//! |---|---|
//! | `mod` | what is shared, and who may use a login that is there |
//! | `log_in` | `C_Login`: which PIN goes first, one attempt, what its answer tells |
//! | `change` | `C_SetPIN` and `C_InitPIN` |
//! | `init` | `C_InitToken` |
//! | `server_pin` | which PIN is the server's |
//! | `status` | how a token stands towards the PIN of a request that brings none |
//! | `checks` | what is looked at before a PIN is sent, and what answers mean |
//! | `texts` | what people are told |
//! | `states` | **the table of states** |
//! | `attempt` | a PIN that somebody wants to use, on which token |
//! | `pin_guard` | what is known of PINs, and in which state it puts one |
//! | `freed` | what lets PINs be sent again |
//! | `known` | what that is, for a token and for what counts its tries |
//! | `misses` | wrong PINs of users |
//! | `refusals` | the file in which refusals, and PINs of which nothing was told, outlive the process |
//! | `digests` | salted PINs, and how they are compared |

mod attempt;
mod change;
mod checks;
mod digests;
mod freed;
mod init;
mod known;
mod log_in;
mod misses;
mod pin_guard;
mod refusals;
mod server_pin;
mod states;
mod status;
#[cfg(test)]
mod tests;
mod texts;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use p11_proto::Pin;
use tracing::warn;

use self::attempt::{Attempt, Subject};
pub(crate) use self::change::Reset;
pub(crate) use self::checks::same;
use self::digests::Salted;
use self::known::Note;
use self::pin_guard::PinGuard;
use self::refusals::RefusalsFile;
use self::states::{Fate, Owner, Role, State, Tries};
use self::texts::About;
use super::lock::{Locked, Mutex, Rank};
use super::module::Place;
use super::settings::Settings;
use super::token::client::Client;
use super::token::id::TokenId;
use super::token::slots::Registry;
use super::token::{Login, Opened, Token};
use crate::error::Error;

/// Stands before every call that takes a PIN.
pub(crate) struct Logins {
    registry: Arc<Registry>,
    /// The operator's, as they are now: a request that began before them does not bring an older PIN.
    settings: Mutex<Arc<Settings>>,
    guard: Mutex<PinGuard>,
    file: Option<RefusalsFile>,
    /// Whether it was said that there is no file.
    has_warned: AtomicBool,
    /// How many logins have succeeded.
    count: AtomicU64,
    /// What took the place of the server's PIN on tokens where it was changed through us.
    replaced: Mutex<HashMap<TokenId, Pin>>,
    /// Held by who sends PINs to a token, or to any of one TPM: of many that come with a wrong one, the first one tells.
    turns: Mutex<HashMap<Salted, Arc<Mutex<()>>>>,
}

/// The PIN that a request brings for a token that wants one.
#[derive(Clone, Copy)]
pub(crate) struct Pins<'a> {
    /// `None` uses the server's.
    pub own: Option<&'a Pin>,
}

/// A PIN, and who has given it.
#[derive(Clone, Copy)]
struct Given<'a> {
    /// `None` is whatever is typed at a PIN pad.
    pin: Option<&'a Pin>,
    owner: Owner,
}

impl Logins {
    /// Knows what an earlier process has left in a folder; without one, nothing yet.
    ///
    /// # Errors
    /// [`Error::Internal`] where the system gives no random bytes.
    pub fn new(
        registry: Arc<Registry>,
        settings: Settings,
        pause: Duration,
    ) -> Result<Logins, Error> {
        let file = settings.refusals.as_deref().map(RefusalsFile::new);
        let guard = match file.as_ref().and_then(|file| file.load(pause)) {
            Some(mut guard) => {
                let server = settings.pin.as_ref();
                let server = server.map(|pin| of_server(&guard, pin));
                guard.restarted(server, Instant::now());
                guard
            }
            None => {
                let mut salt = [0; 32];
                getrandom::fill(&mut salt)
                    .map_err(|error| Error::Internal(format!("no random bytes: {error}")))?;
                PinGuard::new(salt, pause)
            }
        };
        Ok(Logins {
            registry,
            settings: Mutex::new(Rank::Settings, Arc::new(settings)),
            guard: Mutex::new(Rank::Pins, guard),
            file,
            has_warned: AtomicBool::new(false),
            count: AtomicU64::new(0),
            replaced: Mutex::new(Rank::Replaced, HashMap::new()),
            turns: Mutex::new(Rank::Sending, HashMap::new()),
        })
    }

    /// The operator's settings, as they are now.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.lock().clone()
    }

    /// The operator has changed the settings, or says that refused PINs may be tried again. Where the server's PIN is another one
    /// than before, it is the one for every token that is not its clients'.
    pub fn reconfigure(&self, settings: Settings) {
        let settings = Arc::new(settings);
        let before = std::mem::replace(&mut *self.settings.lock(), settings.clone());
        let has_other_pin = match (&before.pin, &settings.pin) {
            (Some(old), Some(new)) => !same(old, new),
            (old, new) => old.is_some() || new.is_some(),
        };
        self.replaced.lock().retain(|_, _| !has_other_pin);
        self.change(|guard| guard.free(has_other_pin));
        if has_other_pin {
            // The token has to check the new one. A login that is being made at this moment ends with
            // the life in which it began.
            for token in self.registry.known() {
                token.invalidate(&token.life());
            }
        }
    }

    /// The module was reloaded, which may have healed what gave unclear answers.
    pub fn reloaded(&self) {
        self.guard.lock().reloaded();
    }

    /// Whether a token is logged in already so that this request may use it, in this life of it.
    ///
    /// # Errors
    /// [`Error::PinIncorrect`] where it is logged in with another PIN than the request's, [`Error::PinRequired`] where
    /// another client's PIN has opened it and the request has none, [`Error::PinGuarded`] where the user has missed
    /// too often.
    pub fn may_use(
        &self,
        client: &Client<'_>,
        token: &Token,
        life: &Opened,
        pins: Pins<'_>,
    ) -> Result<bool, Error> {
        if !token.flags().login_required() {
            return Ok(true);
        }
        let (open, by_server) = match life.login_state() {
            Login::Out => return Ok(false),
            Login::In { pin: None, .. } => return Ok(true),
            Login::In {
                pin: Some(pin),
                by_server,
            } => (pin, by_server),
        };
        match pins.own {
            None if by_server => Ok(true),
            None => Err(self.opened_by_another(token, &self.settings())),
            Some(_) if client.has_matched(token) => Ok(true),
            Some(own) => {
                let subject = self.subject(token, Role::User);
                let given = Given {
                    pin: Some(own),
                    owner: Owner::Client(client.access.user()),
                };
                let attempt = Attempt {
                    open: Some(self.digest(&subject, &open)),
                    ..self.attempt_of(&subject, client, given, Tries::default())
                };
                let settings = self.settings();
                let about = self.about(token, Role::User, given.owner, &settings);
                self.decide(&subject, client, &attempt, &about)?;
                client.set_matched(token);
                Ok(true)
            }
        }
    }

    /// Whether a request may see what the login of this moment shows, if there is one. A PIN is not compared for who may not
    /// touch the token.
    pub fn may_see_private(&self, client: &Client<'_>, token: &Token, pins: Pins<'_>) -> bool {
        let may_ask = pins.own.is_none() || client.access.check(&token.info(), None).is_ok();
        may_ask && self.may_use(client, token, &token.life(), pins).is_ok()
    }

    /// The error for a request without a PIN of its own, on a token that another client's PIN has opened.
    fn opened_by_another(&self, token: &Token, settings: &Settings) -> Error {
        match self.server_pin(token, settings) {
            Some((_, owner @ Owner::Server)) => self
                .about(token, Role::User, owner, settings)
                .of_state(State::OpenOther),
            _ => self.required(token, settings),
        }
    }

    /// Nobody has given a PIN.
    fn required(&self, token: &Token, settings: &Settings) -> Error {
        match self.is_clients(token, settings) && settings.pin.is_some() && !settings.pin_is_default
        {
            true => self
                .about(token, Role::User, Owner::Server, settings)
                .is_clients(),
            false => Error::PinRequired {
                token: token.name().into(),
                place: settings.wording.pin,
            },
        }
    }

    /// Asks the rules. Each miss is a warning.
    fn decide(
        &self,
        subject: &Subject,
        client: &Client<'_>,
        attempt: &Attempt,
        about: &About<'_>,
    ) -> Result<(), Error> {
        let (state, fate) = self.guard.lock().decide(subject, attempt);
        if fate == Fate::Miss {
            warn!(
                "{} has brought a PIN that the token {} has not accepted",
                client.access.name(),
                about.token
            );
        }
        match fate {
            Fate::Send | Fate::Use => Ok(()),
            Fate::Refuse | Fate::Miss => Err(about.of_state(state)),
        }
    }

    fn attempt_of(
        &self,
        subject: &Subject,
        client: &Client<'_>,
        given: Given<'_>,
        tries: Tries,
    ) -> Attempt {
        let pin = given.pin.map(|pin| self.digest(subject, pin));
        Attempt {
            tries,
            is_retry: client.has_reloaded(),
            ..Attempt::new(given.owner, pin)
        }
    }

    fn about<'s>(
        &self,
        token: &Token,
        role: Role,
        owner: Owner,
        settings: &'s Settings,
    ) -> About<'s> {
        let subject = self.subject(token, role);
        let is_freed = self.guard.lock().is_freed(&subject);
        About {
            token: token.name().into(),
            in_tpm: token.id().is_tpm(&token.info()),
            role,
            owner,
            settings,
            is_freed,
            was_replaced: self.was_replaced(token),
        }
    }

    fn subject(&self, token: &Token, role: Role) -> Subject {
        let in_tpm = token.id().is_tpm(&token.info());
        let subject = self.subject_of(token.id(), &token.place(), in_tpm, role);
        let settings = self.settings();
        let server = match role {
            Role::User => self.server_pin(token, &settings),
            // A token that was made with the server's PIN has it for both.
            Role::So => Self::configured(&settings),
        };
        let server = server.filter(|(_, owner)| *owner == Owner::Server);
        Subject {
            server: server.map(|(pin, _)| self.digest(&subject, &pin)),
            is_shared: role == Role::So || !self.was_replaced(token),
            ..subject
        }
    }

    fn subject_of(&self, id: &TokenId, place: &Place, in_tpm: bool, role: Role) -> Subject {
        let guard = self.guard.lock();
        let name = name_of(id, place);
        Subject {
            token: guard.salted(b"token", name.as_bytes()),
            role,
            counter: match in_tpm {
                true => guard.salted(b"TPM", id.device().as_bytes()),
                false => guard.salted(b"counter", format!("{role:?} {name}").as_bytes()),
            },
            in_tpm,
            server: None,
            is_shared: false,
        }
    }

    fn digest(&self, subject: &Subject, pin: &Pin) -> Salted {
        let role: &[u8] = match subject.role {
            Role::User => b"user",
            Role::So => b"so",
        };
        let scope = [subject.token.as_slice(), role].concat();
        self.guard.lock().salted(&scope, pin.expose().as_bytes())
    }

    /// Whose turn it is to send PINs to a token.
    fn turn(&self, subject: &Subject) -> Arc<Mutex<()>> {
        let name = match subject.in_tpm {
            true => subject.counter,
            false => subject.token,
        };
        let mut turns = self.turns.lock();
        let lock = turns.entry(name);
        let lock = lock.or_insert_with(|| Arc::new(Mutex::new(Rank::Login, ())));
        lock.clone()
    }

    /// A PIN is about to be sent: the next process knows that it was, whatever becomes of this one.
    fn sending(&self, subject: &Subject, pin: Option<Salted>, of_server: Option<Salted>) {
        if let Some(pin) = pin {
            self.change_if(|guard| guard.sending(subject, Note { pin, of_server }));
        }
    }

    /// The call with the PIN has failed before the token looked at it.
    fn not_looked_at(&self, subject: &Subject) {
        self.change_if(|guard| guard.not_looked_at(subject));
    }

    /// Changes what outlives the process.
    fn change(&self, change: impl FnOnce(&mut PinGuard)) {
        self.change_if(|guard| {
            change(guard);
            true
        });
    }

    fn change_if(&self, change: impl FnOnce(&mut PinGuard) -> bool) {
        let mut guard = self.guard.lock();
        if !change(&mut guard) {
            return;
        }
        let is_lost = match &self.file {
            Some(file) => {
                file.save(&guard);
                false
            }
            None => guard.has_refusals() && !self.has_warned.swap(true, Ordering::Relaxed),
        };
        drop(guard);
        if is_lost {
            warn!(
                "a PIN was refused, or may have been, and after a restart it may be sent once more: there is no folder \
                 to remember it. {}",
                self.settings().wording.refusals
            );
        }
    }
}

/// Waits for the turn to send PINs to a token.
fn alone<'m>(
    lock: &'m Mutex<()>,
    token: &str,
    client: &Client<'_>,
) -> Result<Locked<'m, ()>, Error> {
    let late = || Error::Timeout(format!("a login to {token} takes long; try again"));
    lock.lock_until(client.deadline).ok_or_else(late)
}

/// A token that has no name yet is told apart by its slot.
fn name_of(id: &TokenId, place: &Place) -> String {
    match id.is_named() {
        true => format!("{id:?}"),
        false => format!("{id:?} in slot {}", place.slot),
    }
}

/// What the server's PIN is remembered as, whatever the token.
fn of_server(guard: &PinGuard, pin: &Pin) -> Salted {
    guard.salted(b"server", pin.expose().as_bytes())
}
