//! What is known of the PINs of all tokens, and in which [`State`] it puts one.
//!
//! **Budget.** A token may refuse two PINs of its user and one of its security officer until it accepts one.
//! What cannot be told from a refusal counts as one, also where the process has died or was restarted in between. All tokens of
//! one TPM, and both roles, count together, as they do in the TPM; there a PIN that is accepted gives nothing back, as it does not in the TPM. The second refusal of the
//! user's role is kept for who has the better claim: while the server has a PIN that this token has neither
//! accepted nor refused, or that other tokens of its TPM may want, or while the token has accepted one, clients with
//! other PINs may cause one refusal only.
//!
//! A PIN of the server that is new, after the operator's reload, may be sent once beyond the budget. So may one after a restart that
//! no token may have refused yet, since it may be new.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::attempt::{Attempt, Subject};
use super::digests::{Salted, contains, remember, same};
use super::known::{Counter, Known, Note, Since, Unclear};
use super::misses::{Misses, doubled};
use super::states::{Again, Fate, Owner, Role, State, fate};

/// How long after an unclear answer a PIN that was accepted before is sent again, where no reload came first; it doubles
/// to the longest wait.
const ACCEPTED_PAUSE: Duration = Duration::from_secs(30);

/// Where misses against the server's PIN are counted, whichever token they were at.
const OF_SERVER: Salted = [0; 32];

/// What is known of the PINs of all tokens.
pub(crate) struct PinGuard {
    salt: Salted,
    /// How long after an unclear answer another PIN is sent once more.
    pub(super) pause: Duration,
    pub(super) known: BTreeMap<(Salted, Role), Known>,
    /// In which order that has changed.
    pub(super) changed: HashMap<(Salted, Role), i64>,
    pub(super) counters: BTreeMap<Salted, Counter>,
    /// PINs of the server that some token has refused, whichever.
    pub(super) of_server: Vec<Salted>,
    /// Tokens of which clients have set the PIN.
    pub(super) clients: BTreeMap<Salted, Since>,
    misses: HashMap<Salted, Misses>,
}

impl PinGuard {
    /// A guard that has seen nothing yet. A PIN that was never accepted waits for so long after an unclear answer.
    pub fn new(salt: Salted, pause: Duration) -> PinGuard {
        PinGuard {
            salt,
            pause,
            known: BTreeMap::new(),
            changed: HashMap::new(),
            counters: BTreeMap::new(),
            of_server: Vec::new(),
            clients: BTreeMap::new(),
            misses: HashMap::new(),
        }
    }

    /// What everything is salted with.
    pub fn salt(&self) -> &Salted {
        &self.salt
    }

    /// What a text is remembered as: a PIN of this subject, or the name of a token.
    pub fn salted(&self, scope: &[u8], text: &[u8]) -> Salted {
        Sha256::new()
            .chain_update(self.salt)
            .chain_update((scope.len() as u64).to_be_bytes())
            .chain_update(scope)
            .chain_update(text)
            .finalize()
            .into()
    }

    /// What becomes of a PIN, and why. A miss is counted; where it is none, since the user has missed with the same PIN before,
    /// the PIN is refused all the same.
    pub fn decide(&mut self, subject: &Subject, attempt: &Attempt) -> (State, Fate) {
        let state = self.state(subject, attempt);
        let counted = self.counted_at(subject, attempt.open);
        let fate = match (fate(state, attempt.owner), attempt.owner, attempt.pin) {
            (Fate::Use, Owner::Client(user), _) => {
                self.misses.entry(counted).or_default().matched(user);
                Fate::Use
            }
            (Fate::Miss, Owner::Client(user), Some(pin)) => {
                let misses = self.misses.entry(counted).or_default();
                match misses.missed(user, pin, attempt.now) {
                    true => Fate::Miss,
                    false => Fate::Refuse,
                }
            }
            (fate, ..) => fate,
        };
        (state, fate)
    }

    /// How a token stands towards a PIN: the first that holds.
    pub fn state(&self, subject: &Subject, attempt: &Attempt) -> State {
        let none = Known::default();
        let key = (subject.token, subject.role);
        let known = self.known.get(&key).unwrap_or(&none);
        let is = |other: &Salted| attempt.pin.is_some_and(|pin| same(&pin, other));
        if let Owner::Client(user) = attempt.owner
            && let Some(misses) = self.misses.get(&self.counted_at(subject, attempt.open))
            && let Some(time) = misses.wait(user, attempt.now)
        {
            return State::Waiting(time);
        }
        if let Some(open) = &attempt.open {
            return match is(open) {
                true => State::Open,
                false => State::OpenOther,
            };
        }
        let is_locked = known.locked.is_some_and(|(_, until)| attempt.now < until);
        if attempt.tries.locked || is_locked {
            return State::Locked;
        }
        if attempt.tries.final_try {
            return State::FinalTry;
        }
        let is_accepted = known.accepted.as_ref().is_some_and(is);
        let is_spent = !is_accepted && self.is_spent(subject, known, attempt);
        // What has become of it is told to who has brought it; to others it is as any other PIN.
        if is_spent && !self.is_own(subject, attempt) {
            return State::Spent;
        }
        if attempt
            .pin
            .is_some_and(|pin| contains(&known.refused, &pin))
        {
            return State::Refused;
        }
        let mut unclear = known.unclear.iter();
        let unclear = unclear.find(|unclear| unclear.pin == attempt.pin);
        match unclear.map(|unclear| unclear.again(attempt.now)) {
            Some(Again::In(time)) => return State::Unclear(time),
            Some(Again::Never) => return State::UnclearTwice,
            Some(Again::Now) | None => {}
        }
        if is_accepted {
            return State::Accepted;
        }
        if is_spent {
            return State::Spent;
        }
        match attempt.owner {
            Owner::Default if attempt.tries.some_used => State::TryUsed,
            _ if attempt.is_retry => State::Reloaded,
            _ => State::New,
        }
    }

    /// Whether a PIN is the operator's, or its user's that was sent.
    fn is_own(&self, subject: &Subject, attempt: &Attempt) -> bool {
        let (Owner::Client(user), Some(pin)) = (attempt.owner, attempt.pin) else {
            return true;
        };
        let misses = self.misses.get(&self.counted_at(subject, attempt.open));
        misses.is_some_and(|misses| misses.was_sent(user, &pin))
    }

    /// Whether this PIN may cause no refusal any more.
    fn is_spent(&self, subject: &Subject, known: &Known, attempt: &Attempt) -> bool {
        let counter = self.counters.get(&subject.counter);
        let is_granted = counter.is_some_and(|counter| counter.granted);
        let is_unclear = |pin| known.unclear.iter().any(|unclear| unclear.pin == pin);
        let most = match (subject.role, attempt.owner) {
            (_, Owner::Server) if is_granted => return false,
            (Role::User, Owner::Client(_)) => {
                let server = subject.server;
                // Not whether it is this PIN: what becomes of that would tell.
                let server_waits = server
                    .is_some_and(|server| attempt.shares_tpm || !contains(&known.refused, &server));
                2 - u32::from(server_waits || known.accepted.is_some())
            }
            (Role::User, _) => 2,
            // Once more after a reload.
            (Role::So, _) if is_unclear(attempt.pin) => 2,
            (Role::So, _) => 1,
        };
        self.used(&subject.counter) >= most
    }

    /// How many refusals a counter may have seen.
    pub(super) fn used(&self, counter: &Salted) -> u32 {
        let counted = self.counters.get(counter);
        let of_counter = |known: &&Known| known.counter == *counter;
        let known = self.known.values().filter(of_counter);
        let unclear = known.flat_map(|known| &known.unclear);
        let unclear: u32 = unclear.map(|unclear| unclear.times).sum();
        counted.map_or(0, |counter| counter.refusals + counter.unclear) + unclear
    }

    /// Where misses are counted: at the token, but in one place for all that have the server's PIN, or may have it. `open` is
    /// the PIN with which it is logged in.
    fn counted_at(&self, subject: &Subject, open: Option<Salted>) -> Salted {
        let known = self.known.get(&(subject.token, subject.role));
        let right = open.or(known.and_then(|known| known.accepted));
        let is_right = |server: &Salted| match right {
            Some(right) => same(&right, server),
            None => !known.is_some_and(|known| contains(&known.refused, server)),
        };
        match subject.server.filter(|_| subject.is_shared) {
            Some(server) if is_right(&server) => OF_SERVER,
            _ => subject.token,
        }
    }

    /// Whether the operator has freed what was refused, and no PIN was accepted since.
    pub fn is_freed(&self, subject: &Subject) -> bool {
        let counter = self.counters.get(&subject.counter);
        counter.is_some_and(|counter| counter.freed)
    }

    /// Whether any token has refused a PIN, or may have.
    pub fn has_refusals(&self) -> bool {
        self.counters.keys().any(|name| self.used(name) > 0)
    }

    /// Whether a token has refused this PIN.
    pub fn is_refused(&self, subject: &Subject, pin: &Salted) -> bool {
        let known = self.known.get(&(subject.token, subject.role));
        known.is_some_and(|known| contains(&known.refused, pin))
    }

    /// Whether it is the PIN that a token has accepted last.
    pub fn is_accepted(&self, subject: &Subject, pin: &Salted) -> bool {
        let known = self.known.get(&(subject.token, subject.role));
        let accepted = known.and_then(|known| known.accepted);
        accepted.is_some_and(|accepted| same(&accepted, pin))
    }

    /// Whether the server's PIN goes before a request's: the one that the token has accepted last does. `None` where that is neither.
    pub fn servers_first(
        &self,
        subject: &Subject,
        server: Option<Salted>,
        own: Option<Salted>,
    ) -> Option<bool> {
        let is_accepted =
            |pin: Option<Salted>| pin.is_some_and(|pin| self.is_accepted(subject, &pin));
        match (is_accepted(server), is_accepted(own)) {
            (true, _) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        }
    }

    /// A PIN is about to be sent. Answers whether the next process has to know: not of the PIN that was accepted last.
    pub fn sending(&mut self, subject: &Subject, note: Note) -> bool {
        let is_accepted = self.is_accepted(subject, &note.pin);
        let (known, _) = self.known(subject);
        known.in_flight = (!is_accepted).then_some(note);
        !is_accepted
    }

    /// An answer says that the PIN was not looked at. Answers whether what outlives the process has changed.
    pub fn not_looked_at(&mut self, subject: &Subject) -> bool {
        self.known(subject).0.in_flight.take().is_some()
    }

    /// The token says that it is locked, which its flags have not said. It may have been unlocked meanwhile, so it is asked again, with
    /// pauses.
    pub fn locked(&mut self, subject: &Subject, now: Instant) {
        let known = self.known(subject).0;
        known.in_flight = None;
        // A TPM in its lockout looks at no PIN, and may have left it a moment later.
        if subject.in_tpm {
            return;
        }
        let times = known.locked.map_or(0, |(times, _)| times.saturating_add(1));
        known.locked = Some((times, now + doubled(ACCEPTED_PAUSE, times)));
    }

    /// The token has accepted a PIN. Answers whether what outlives the process has changed.
    pub fn accepted(&mut self, subject: &Subject, owner: Owner, pin: Option<Salted>) -> bool {
        if let Owner::Client(user) = owner {
            let counted = self.counted_at(subject, pin);
            self.misses.entry(counted).or_default().matched(user);
        }
        let (known, counter) = self.known(subject);
        let was_in_flight = known.in_flight.take().is_some();
        known.locked = None;
        let before = (counter.refusals, counter.freed, known.refused.len());
        counter.freed = false;
        if !subject.in_tpm {
            (counter.refusals, counter.unclear) = (0, 0);
            counter.granted = false;
        }
        known.accepted = pin;
        match subject.in_tpm {
            // Another program may have set it meanwhile, and its TPM has counted what was unclear. Of a PIN that was accepted
            // before and after, nobody believes that.
            true => {
                let of_it = known.unclear.extract_if(.., |unclear| unclear.pin == pin);
                let may_count = of_it.filter(|unclear| !unclear.was_accepted);
                counter.unclear += may_count.map(|unclear| unclear.times).sum::<u32>();
            }
            false => known.unclear.clear(),
        }
        // Another program may change it to one of these, and nobody could tell.
        known.refused.clear();
        was_in_flight || before != (counter.refusals, counter.freed, known.refused.len())
    }

    /// The token has refused a PIN.
    pub fn refused(&mut self, subject: &Subject, owner: Owner, pin: Option<Salted>, now: Instant) {
        let (known, counter) = self.known(subject);
        known.in_flight = None;
        // What was unclear was a refusal.
        let unclear = known.unclear.iter().filter(|unclear| unclear.pin == pin);
        counter.refusals += unclear.map(|unclear| unclear.times).sum::<u32>() + 1;
        known.unclear.retain(|unclear| unclear.pin != pin);
        if known.accepted == pin {
            known.accepted = None;
        }
        if owner == Owner::Server {
            counter.granted = false;
            known.was_servers = true;
        }
        let Some(pin) = pin else { return };
        remember(&mut known.refused, pin);
        if let Owner::Client(user) = owner {
            let counted = self.counted_at(subject, None);
            let misses = self.misses.entry(counted).or_default();
            misses.missed(user, pin, now);
            misses.sent(user, pin, now);
        }
    }

    /// The token has given an answer that tells nothing of the PIN.
    pub fn unclear(&mut self, subject: &Subject, owner: Owner, pin: Option<Salted>, now: Instant) {
        let pause = self.pause;
        let (known, counter) = self.known(subject);
        let of_server = known.in_flight.take().and_then(|note| note.of_server);
        if owner == Owner::Server && subject.in_tpm {
            // The next one could be of another token, and one refusal too many.
            counter.granted = false;
        }
        let was_accepted = known.accepted.is_some() && known.accepted == pin;
        let before = known.unclear.iter().position(|unclear| unclear.pin == pin);
        let before = before.map(|at| known.unclear.remove(at));
        let times = before.map_or(0, |before| before.times) + 1;
        let pause = match was_accepted {
            true => doubled(ACCEPTED_PAUSE, times - 1),
            false => pause,
        };
        known.unclear.push(Unclear {
            pin,
            of_server,
            times,
            was_accepted,
            reloaded: false,
            until: now + pause,
        });
        if let (Owner::Client(user), Some(pin)) = (owner, pin) {
            let counted = self.counted_at(subject, None);
            let misses = self.misses.entry(counted).or_default();
            misses.sent(user, pin, now);
        }
    }

    /// The user's PIN was changed by us: the old one, where it is known, needs not be tried to know that it is wrong.
    pub fn changed(&mut self, subject: &Subject, old: Salted, new: Salted) {
        self.accepted(subject, Owner::Server, Some(old));
        let (known, counter) = self.known(subject);
        // What else was unclear was about the old one.
        let unclear = std::mem::take(&mut known.unclear).into_iter();
        counter.refusals += unclear.map(|unclear| unclear.times).sum::<u32>();
        known.accepted = Some(new);
        if !same(&old, &new) {
            remember(&mut self.known(subject).0.refused, old);
        }
    }

    /// The token was initialised anew, or the security officer has set the user's PIN. What its TPM has counted, it has
    /// counted.
    pub fn invalidate(&mut self, subject: &Subject) {
        self.known.retain(|(token, _), known| {
            let is_its = *token == subject.token;
            match self.counters.get_mut(&known.counter) {
                Some(counter) if is_its && subject.in_tpm => {
                    let times = known.unclear.iter().map(|unclear| unclear.times);
                    counter.refusals += times.sum::<u32>();
                }
                _ if is_its => drop(self.counters.remove(&known.counter)),
                _ => {}
            }
            !is_its
        });
        self.changed.retain(|(token, _), _| *token != subject.token);
        self.misses.remove(&subject.token);
    }

    /// Some token has refused the server's PIN.
    pub fn servers_refused(&mut self, server: Salted) {
        remember(&mut self.of_server, server);
    }

    fn known(&mut self, subject: &Subject) -> (&mut Known, &mut Counter) {
        let key = (subject.token, subject.role);
        let latest = self.changed.values().max().map_or(0, |latest| latest + 1);
        self.changed.insert(key, latest);
        let known = self.known.entry(key).or_default();
        known.counter = subject.counter;
        (known, self.counters.entry(subject.counter).or_default())
    }
}
