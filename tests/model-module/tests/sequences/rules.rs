//! The rules for PINs as SECURITY.md has them, held against what was sent to the tokens and what users were told.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use p11_model_module::{Answer, Role, Sent};

const HOUR: Duration = Duration::from_secs(60 * 60);

/// What has happened, as far as the rules are about it.
pub struct Rules {
    in_tpm: bool,
    /// By what counts: a TPM, or each token's user and security officer.
    counters: HashMap<(usize, Role), Counter>,
    /// What each token has refused since it accepted a PIN, or the operator has freed it.
    refused: HashSet<(usize, Role, u8)>,
    /// How often PINs were wrong, and nobody was told; and whether they were the server's.
    unclear: HashMap<(usize, Role, u8), (u32, bool)>,
    /// Tokens whose PIN another program has changed since one was accepted.
    stale: HashSet<usize>,
    /// PINs of the server that some token has refused.
    of_server: HashSet<u8>,
    /// Whether a restart may have brought a new PIN of the server, which may be sent once.
    is_new: bool,
    /// PINs that were told to be wrong to users that never had the right one.
    guesses: Vec<Guess>,
    matched: HashSet<(usize, u32)>,
    /// Whether the request at work has had the module reloaded, and tries once more.
    is_retry: bool,
    broken: Option<String>,
}

/// What counts wrong tries.
#[derive(Default)]
struct Counter {
    /// Since one was accepted, where that counts, or the operator did something.
    refusals: u32,
    /// How many of them were of a PIN whose answer was unclear, and that was accepted later. A restart forgets them.
    unclear: u32,
    /// How many of them were of PINs that were accepted before, and changed elsewhere since.
    stale: u32,
    /// Whether the security officer's PIN may be sent once more, since the answer was unclear.
    once_more: bool,
}

/// A wrong PIN of a user.
struct Guess {
    token: usize,
    user: u32,
    pin: u8,
    at: Instant,
}

impl Rules {
    /// Nothing has happened yet.
    pub fn new(in_tpm: bool) -> Rules {
        Rules {
            in_tpm,
            counters: HashMap::new(),
            refused: HashSet::new(),
            unclear: HashMap::new(),
            stale: HashSet::new(),
            of_server: HashSet::new(),
            is_new: false,
            guesses: Vec::new(),
            matched: HashSet::new(),
            is_retry: false,
            broken: None,
        }
    }

    /// A PIN was sent to a token, of which the server's is this one.
    pub fn sent(&mut self, sent: &Sent, server: Option<u8>) {
        let Sent {
            token, role, pin, ..
        } = *sent;
        let which = (token, role, pin);
        let is_servers = role == Role::User && !sent.is_typed && server == Some(pin);
        // One that was accepted a moment ago is sent for each signature without a look at the flags.
        if sent.was_final && !(sent.is_for_signature && sent.was_accepted) {
            self.breaks(format!("the last try of token {token}"));
        }
        if sent.was_locked {
            return;
        }
        let is_clients = role == Role::User && !sent.is_typed && !is_servers;
        if self.is_retry && is_clients && !sent.was_accepted {
            self.breaks(format!("a client's {pin} after a reload to token {token}"));
        }
        if !sent.is_typed && self.refused.contains(&which) {
            self.breaks(format!("{pin} once more to token {token}"));
        }
        let counter = self.counter(token, role);
        if sent.answer != Answer::Plainly {
            counter.once_more |= role == Role::So;
            // The worst: it has counted. Of what was accepted before, nobody believes that.
            if !sent.is_right && !sent.was_accepted {
                counter.refusals += 1;
                let unclear = self.unclear.entry(which).or_default();
                *unclear = (unclear.0 + 1, unclear.1 || is_servers);
            }
            return;
        }
        let unclear = self.unclear.remove(&which).unwrap_or_default().0;
        let counter = self.counter(token, role);
        if sent.is_right {
            counter.unclear += unclear;
            self.gives_back(token, role);
            if role == Role::User {
                self.stale.remove(&token);
            }
            self.refused
                .retain(|(of, whose, _)| (*of, *whose) != (token, role));
            return;
        }
        counter.refusals += 1;
        counter.stale += u32::from(sent.was_accepted);
        if sent.was_accepted && !self.stale.contains(&token) {
            self.breaks(format!("token {token} has accepted {pin}, and it is wrong"));
        }
        if !sent.is_typed {
            self.refused.insert(which);
        }
        if is_servers {
            self.of_server.insert(pin);
        }
    }

    /// A request has had the module reloaded.
    pub fn reloaded(&mut self) {
        self.is_retry = true;
    }

    /// A request has ended.
    pub fn answered(&mut self) {
        self.is_retry = false;
    }

    /// A user was told that a PIN is not the one of a token. The same again tells nothing.
    pub fn told_wrong(&mut self, token: usize, user: u32, pin: u8) {
        let is_known = |guess: &Guess| (guess.token, guess.user, guess.pin) == (token, user, pin);
        if !self.matched.contains(&(token, user)) && !self.guesses.iter().any(is_known) {
            let at = Instant::now();
            self.guesses.push(Guess {
                token,
                user,
                pin,
                at,
            });
        }
    }

    /// A user has had the right PIN of a token.
    pub fn told_right(&mut self, token: usize, user: u32) {
        self.matched.insert((token, user));
    }

    /// The user's PIN was changed through the server.
    pub fn changed(&mut self, token: usize, old: u8, new: u8) {
        self.unclear
            .retain(|(of, role, _), _| (*of, *role) != (token, Role::User));
        if old != new {
            self.refused.insert((token, Role::User, old));
        }
    }

    /// A token was made blank or initialised, or its security officer has set the user's PIN.
    pub fn reset(&mut self, token: usize) {
        for role in [Role::User, Role::So] {
            self.gives_back(token, role);
        }
        self.unclear.retain(|(of, ..), _| *of != token);
        self.refused.retain(|(of, ..)| *of != token);
        self.matched.retain(|(of, _)| *of != token);
        self.guesses.retain(|guess| guess.token != token);
        self.stale.remove(&token);
    }

    /// Another program has changed the user's PIN of a token, or has entered the right one.
    pub fn changed_elsewhere(&mut self, token: usize, is_another: bool) {
        self.gives_back(token, Role::User);
        if is_another {
            self.stale.insert(token);
        }
    }

    /// The operator has freed what was refused, and may use up tries.
    pub fn freed(&mut self) {
        self.counters.clear();
        self.unclear.clear();
        self.refused.clear();
        self.is_new = false;
    }

    /// The process has begun anew, with this PIN of the server.
    pub fn restarted(&mut self, server: Option<u8>) {
        let of_server = self
            .unclear
            .iter()
            .filter(|(_, (_, is_servers))| *is_servers);
        let unclear: HashSet<u8> = of_server.map(|((_, _, pin), _)| *pin).collect();
        let is_new = |pin: u8| !self.of_server.contains(&pin) && !unclear.contains(&pin);
        self.is_new |= server.is_some_and(is_new);
        self.matched.clear();
        self.guesses.clear();
        for counter in self.counters.values_mut() {
            counter.refusals -= std::mem::take(&mut counter.unclear);
        }
    }

    /// How many PINs a token has refused that counted.
    pub fn refusals(&self, token: usize, role: Role) -> u32 {
        let counter = self.counters.get(&self.name(token, role));
        counter.map_or(0, |counter| counter.refusals)
    }

    /// Whether the rules hold.
    pub fn check(&self) -> Result<(), String> {
        for ((token, role), counter) in &self.counters {
            // One more than two only where a PIN that was accepted was changed elsewhere.
            let most = match (role, self.in_tpm) {
                (Role::So, false) => 1 + u32::from(counter.once_more),
                _ => 2 + counter.stale + u32::from(self.is_new),
            };
            if counter.refusals > most {
                return Err(format!(
                    "{} refusals of token {token}, {role:?}",
                    counter.refusals
                ));
            }
        }
        for guess in &self.guesses {
            let recent =
                |other: &&Guess| other.token == guess.token && other.at + HOUR > Instant::now();
            let count = self.guesses.iter().filter(recent).count();
            if count > 10 {
                return Err(format!("{count} guesses an hour at token {}", guess.token));
            }
        }
        self.broken.clone().map_or(Ok(()), Err)
    }

    /// What counts for a token: all of a TPM are one.
    fn name(&self, token: usize, role: Role) -> (usize, Role) {
        match self.in_tpm {
            true => (0, Role::User),
            false => (token, role),
        }
    }

    fn counter(&mut self, token: usize, role: Role) -> &mut Counter {
        self.counters.entry(self.name(token, role)).or_default()
    }

    /// A card forgets what it has counted.
    fn gives_back(&mut self, token: usize, role: Role) {
        if !self.in_tpm {
            self.counters.remove(&(token, role));
        }
    }

    fn breaks(&mut self, what: String) {
        self.broken.get_or_insert(what);
    }
}
