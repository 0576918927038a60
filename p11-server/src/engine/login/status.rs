//! How a token stands towards the PIN of a request that brings none, as `Status` tells of it. Sends nothing, and counts
//! nothing as a miss.

use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use p11_proto::Pin;
use p11_proto::message::{LoginState, PinOwner, TokenStatus};

use super::Logins;
use super::attempt::Attempt;
use super::checks::check_len;
use super::states::{Fate, Owner, Role, State, Tries, fate};
use crate::engine::settings::Settings;
use crate::engine::token::{Login, Outcome, PinDigest, Token};
use crate::error::Error;

/// How a PIN stands, and why a request without one would fail.
struct Standing {
    state: LoginState,
    owner: Option<PinOwner>,
    since: Option<SystemTime>,
    error: Option<Error>,
}

impl Logins {
    /// How many logins have succeeded.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// How a token stands towards the PIN that a request without one would use. Calls no token.
    pub fn status_of(&self, token: &Token) -> TokenStatus {
        let settings = self.settings();
        let info = token.info();
        let label = info.label.as_str();
        if !token.flags().login_required() {
            return TokenStatus::new(token.name(), label, LoginState::NotNeeded);
        }
        let standing = self.standing(token, &settings);
        let origin = match standing.owner {
            Some(PinOwner::Server) if self.was_replaced(token) => Some("ChangePin".into()),
            Some(PinOwner::Server) => settings.pin_origin.clone(),
            _ => None,
        };
        let unix = |time: SystemTime| Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs());
        TokenStatus::new(token.name(), label, standing.state)
            .since(standing.since.and_then(unix))
            .pin_owner(standing.owner)
            .pin_origin(origin)
            .reason(standing.error.map(|error| error.to_string()))
    }

    fn standing(&self, token: &Token, settings: &Settings) -> Standing {
        let has_pin_pad = token.flags().protected_authentication_path();
        let server = self.server_pin(token, settings);
        let (pin, owner) = match &server {
            _ if has_pin_pad => (None, Owner::PinPad),
            Some((pin, owner)) => (Some(pin.as_ref()), *owner),
            None => return self.standing_of_clients(token, settings),
        };
        let subject = self.subject(token, Role::User);
        let digest = |pin: &Pin| self.digest(&subject, pin);
        let login = token.life().login_state();
        let open = match &login {
            Login::In { pin, .. } => pin.as_ref().map(digest),
            Login::Out => None,
        };
        let attempt = Attempt {
            open,
            tries: Tries::of(&token.flags(), Role::User),
            ..Attempt::new(owner, pin.map(digest))
        };
        let state = self.guard.lock().state(&subject, &attempt);
        let about = self.about(token, Role::User, owner, settings);
        let refusal = || (fate(state, owner) == Fate::Refuse).then(|| about.of_state(state));
        let outcomes = token.outcomes();
        match login {
            Login::In { by_server, .. } => Standing {
                state: LoginState::Accepted,
                owner: Some(match by_server {
                    true => owner.into(),
                    false => PinOwner::Client,
                }),
                since: since(&outcomes, |one| {
                    one.pin == open && one.state == LoginState::Accepted
                }),
                error: (!by_server).then(refusal).flatten(),
            },
            Login::Out => {
                let misfit = || check_len(&token.flags(), pin?, &about).err();
                let error = refusal().or_else(misfit);
                let state = match (state, &error) {
                    // What was typed before is not known to be typed again.
                    (State::New, _) if has_pin_pad => outcome_of(&outcomes, attempt.pin),
                    (State::New | State::Accepted, Some(_)) => LoginState::Guarded,
                    _ => login_state(state),
                };
                Standing {
                    state,
                    owner: Some(owner.into()),
                    since: since(&outcomes, |one| match state {
                        LoginState::Accepted | LoginState::Refused => {
                            one.pin == attempt.pin && one.state == state
                        }
                        LoginState::NotTried => false,
                        _ => one.state != LoginState::Accepted,
                    }),
                    error,
                }
            }
        }
    }

    /// The server has no PIN for the token: what the clients' last one has met.
    fn standing_of_clients(&self, token: &Token, settings: &Settings) -> Standing {
        let tries = Tries::of(&token.flags(), Role::User);
        let outcomes = token.outcomes();
        let last = outcomes.last();
        let state = match (tries.locked, tries.final_try, last) {
            _ if token.life().is_logged_in() => LoginState::Accepted,
            (true, ..) => LoginState::Locked,
            (_, true, _) => LoginState::Guarded,
            (.., last) => last.map_or(LoginState::NotTried, |outcome| outcome.state),
        };
        Standing {
            state,
            owner: last.map(|_| PinOwner::Client),
            since: last
                .filter(|last| last.state == state)
                .map(|last| last.since),
            error: Some(self.required(token, settings)),
        }
    }
}

/// Since when the latest of these answers has been the token's.
fn since(outcomes: &[Outcome], is_of_these: impl Fn(&Outcome) -> bool) -> Option<SystemTime> {
    let last = outcomes.iter().rev().find(|outcome| is_of_these(outcome))?;
    Some(last.since)
}

/// What the token has answered to this PIN last.
fn outcome_of(outcomes: &[Outcome], pin: Option<PinDigest>) -> LoginState {
    let last = outcomes.iter().rev().find(|outcome| outcome.pin == pin);
    last.map_or(LoginState::NotTried, |outcome| outcome.state)
}

fn login_state(state: State) -> LoginState {
    match state {
        State::Open | State::Accepted => LoginState::Accepted,
        State::Refused => LoginState::Refused,
        State::Locked => LoginState::Locked,
        State::FinalTry
        | State::Unclear(_)
        | State::UnclearTwice
        | State::Spent
        | State::TryUsed
        | State::OpenOther => LoginState::Guarded,
        State::Waiting(_) | State::Reloaded | State::New => LoginState::NotTried,
    }
}

impl From<Owner> for PinOwner {
    fn from(owner: Owner) -> PinOwner {
        match owner {
            Owner::Server => PinOwner::Server,
            Owner::Default => PinOwner::Default,
            Owner::Client(_) => PinOwner::Client,
            Owner::PinPad => PinOwner::PinPad,
        }
    }
}
