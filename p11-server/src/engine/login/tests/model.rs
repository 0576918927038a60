//! A model of tokens that count tries, of who asks for them, and of time.
//!
//! What decides is the real thing: [`PinGuard`] with the table, the file of refusals, and [`order`]. [`World`] stands for what calls
//! the module: [`ask`](World::ask) for `Logins::log_in_alone`, [`send`](World::send) for `Logins::attempt` and `Logins::failed`,
//! [`change_pin`](World::change_pin) and `Step::Reset` for those of `change`, `Step::InitToken` for that of `init`. Whoever
//! changes what these ask the guard, or tell it, changes it here too.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::super::attempt::{Attempt, Subject};
use super::super::digests::Salted;
use super::super::known::Note;
use super::super::pin_guard::PinGuard;
use super::super::refusals;
use super::super::server_pin::order;
use super::super::states::{Fate, Owner, Role, State, Tries};
use super::{PAUSE, attempt, pin};

/// A token, or, where it is one of a TPM's, what it holds.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) right: u8,
    /// Whether the PIN is typed at it.
    pub(super) has_pad: bool,
    /// With which PIN it is logged in, and whether that is the server's.
    pub(super) open: Option<(u8, bool)>,
    pub(super) replaced: Replaced,
    /// Whether another program has changed the PIN since one was accepted.
    pub(super) is_stale: bool,
    /// What it has refused since it accepted a PIN, or the operator has freed it.
    pub(super) refused: HashSet<u8>,
}

/// What took the place of the server's PIN on a token whose PIN was changed through us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replaced {
    Nothing,
    Servers(u8),
    Clients,
}

/// What counts wrong tries, and says so where it has flags.
#[derive(Clone, Debug)]
pub(super) struct Counter {
    pub(super) tries: u32,
    pub(super) has_flags: bool,
    pub(super) wrong: u32,
    /// Since one was accepted, where that counts, or the operator did something.
    pub(super) refusals: u32,
    /// How many of them were of a PIN whose answer was unclear, and that was accepted later. A restart forgets them.
    pub(super) unclear: u32,
    /// Whether the security officer's PIN may be sent once more, since the answer was unclear.
    pub(super) once_more: bool,
    /// How many of them were of PINs that were accepted before, and changed elsewhere since.
    pub(super) stale: u32,
}

impl Counter {
    /// Those that were are held against nobody any more.
    fn invalidate(&mut self) {
        (self.refusals, self.unclear, self.stale, self.once_more) = (0, 0, 0, false);
    }
}

/// What a PIN is of: the user or the security officer.
const ROLES: [Role; 2] = [Role::User, Role::So];

/// The security officer's PIN of every token.
pub(super) const SO: u8 = 200;

/// What one device is: tokens of a TPM have one counter, others one for each role.
pub(super) struct World {
    guard: PinGuard,
    pub(super) tokens: Vec<Token>,
    pub(super) counters: Vec<Counter>,
    is_tpm: bool,
    server: Option<u8>,
    now: Instant,
    /// PINs that were told to be wrong, by the token or by comparison, to users that never had the right one.
    guesses: Vec<Guess>,
    matched: HashSet<(usize, u32)>,
    /// PINs of the server that some token has refused.
    refused: HashSet<u8>,
    /// How often PINs were wrong, and nobody was told; and whether they were the server's.
    unclear: HashMap<(usize, Role, u8), (u32, bool)>,
    /// Whether a restart may have brought a new PIN of the server, which may be sent once.
    is_new: bool,
    /// What has been done against the rules.
    broken: Option<String>,
}

/// A wrong PIN of a user.
#[derive(Clone, Copy)]
struct Guess {
    token: usize,
    user: u32,
    number: u8,
    at: Instant,
}

/// The PIN that a request brings, and its user.
pub(super) type Own = Option<(u32, u8)>;

#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Ask(usize, Own),
    /// The same, whose login is answered with what tells nothing.
    Unclear(usize, Own),
    /// The same, whose login kills the process.
    Dies(usize, Own),
    /// The security officer logs in, and it goes like that.
    Officer(usize, u8, How),
    /// A request that has had the module reloaded, and tries once more.
    Retry(usize, Own),
    /// A signature with a key that wants a login for each.
    SignAgain(usize, u32),
    /// Somebody types at the PIN pad.
    Type(usize, u8),
    /// The login is lost: a reinsertion, or a session that ended.
    Lost(usize),
    /// The module is initialised anew.
    Reload,
    Restart,
    Sighup(Option<u8>),
    /// Another program changes the PIN; what is logged in stays so.
    ChangedElsewhere(usize, u8),
    ChangePin(usize, Own, u8),
    Reset(usize, u8, u8),
    InitToken(usize, u8, u8),
    Time(u64),
}

impl World {
    pub(super) fn new(
        tokens: Vec<Token>,
        counter: Counter,
        is_tpm: bool,
        server: Option<u8>,
    ) -> World {
        World {
            guard: PinGuard::new(pin(0), PAUSE),
            counters: vec![counter; tokens.len() * ROLES.len()],
            tokens,
            is_tpm,
            server,
            now: Instant::now(),
            guesses: Vec::new(),
            matched: HashSet::new(),
            refused: HashSet::new(),
            unclear: HashMap::new(),
            is_new: false,
            broken: None,
        }
    }

    fn counter_of(&self, token: usize, role: Role) -> usize {
        match self.is_tpm {
            true => 0,
            false => token * ROLES.len() + usize::from(role == Role::So),
        }
    }

    fn subject(&self, token: usize, role: Role) -> Subject {
        Subject {
            token: pin(100 + token as u8),
            role,
            counter: pin(150 + self.counter_of(token, role) as u8),
            in_tpm: self.is_tpm,
        }
    }

    fn server_pin(&self, token: usize) -> Option<u8> {
        match self.tokens[token].replaced {
            Replaced::Nothing => self.server,
            Replaced::Servers(pin) => Some(pin),
            Replaced::Clients => None,
        }
    }

    /// Whether a request may use the login that is there, as [`super::super::Logins::may_use`] tells it.
    fn may_use(&mut self, token: usize, own: Own) -> Option<bool> {
        let (_, by_server) = self.tokens[token].open?;
        Some(match own {
            _ if self.tokens[token].has_pad => true,
            Some((user, number)) => self.compare(token, user, number),
            None => by_server,
        })
    }

    /// One request, as [`super::super::Logins::log_in`] goes about it on a token that the server's URI singles out.
    pub(super) fn ask(&mut self, token: usize, own: Own, how: How) -> bool {
        if let Some(answer) = self.may_use(token, own) {
            return answer;
        }
        if self.tokens[token].has_pad {
            return false;
        }
        let subject = self.subject(token, Role::User);
        // It is the only one that the server's URI means.
        let servers_first = |(_, server): &(Owner, u8), (_, own): &(Owner, u8)| {
            let (server, own) = (Some(pin(*server)), Some(pin(*own)));
            let told = self.guard.servers_first(&subject, server, own);
            told.unwrap_or(true)
        };
        let server = self.server_pin(token).map(|number| (Owner::Server, number));
        let of_request = own.map(|(user, number)| (Owner::Client(user), number));
        let Some((first, then)) = order(server, of_request, servers_first) else {
            return false;
        };
        match (self.send(token, Role::User, first, how), then) {
            (Sent::Accepted, Some(_)) => self.may_use(token, own) == Some(true),
            // `PinIncorrect`.
            (Sent::Refused | Sent::Not(State::Refused), Some(then)) => {
                self.send(token, Role::User, then, how) == Sent::Accepted
            }
            (sent, _) => sent == Sent::Accepted,
        }
    }

    fn compare(&mut self, token: usize, user: u32, number: u8) -> bool {
        let subject = self.subject(token, Role::User);
        let open = self.tokens[token].open.unwrap().0;
        let attempt = Attempt {
            open: Some(pin(open)),
            ..attempt(Owner::Client(user), number, self.now)
        };
        let (_, fate) = self.guard.decide(&subject, &attempt);
        match fate {
            Fate::Use => {
                assert_eq!(open, number);
                self.matched.insert((token, user));
                true
            }
            Fate::Miss => {
                self.note_miss(token, user, number);
                false
            }
            Fate::Refuse => false,
            Fate::Send => panic!("a PIN is sent to a token that is logged in"),
        }
    }

    /// The same PIN again tells its user nothing.
    fn note_miss(&mut self, token: usize, user: u32, number: u8) {
        let is_known =
            |guess: &Guess| (guess.token, guess.user, guess.number) == (token, user, number);
        if !self.matched.contains(&(token, user)) && !self.guesses.iter().any(is_known) {
            let at = self.now;
            self.guesses.push(Guess {
                token,
                user,
                number,
                at,
            });
        }
    }

    fn attempt(&self, token: usize, role: Role, owner: Owner, number: Option<u8>) -> Attempt {
        let counter = &self.counters[self.counter_of(token, role)];
        let left = counter.tries.saturating_sub(counter.wrong);
        Attempt {
            pin: number.map(pin),
            tries: Tries {
                locked: counter.has_flags && left == 0,
                final_try: counter.has_flags && left == 1,
                some_used: counter.has_flags && counter.wrong > 0,
            },
            server: self.server_pin(token).map(pin),
            shares_tpm: self.is_tpm && self.tokens.len() > 1,
            ..attempt(owner, 0, self.now)
        }
    }

    fn send(&mut self, token: usize, role: Role, (owner, number): (Owner, u8), how: How) -> Sent {
        let has_pad = self.tokens[token].has_pad && role == Role::User;
        let (owner, known) = match has_pad {
            true => (Owner::PinPad, None),
            false => (owner, Some(number)),
        };
        let subject = self.subject(token, role);
        let attempt = Attempt {
            is_retry: how == How::Retry,
            ..self.attempt(token, role, owner, known)
        };
        let was_accepted = known.is_some_and(|pin_| self.guard.is_accepted(&subject, &pin(pin_)));
        match (self.guard.decide(&subject, &attempt), owner) {
            ((_, Fate::Send), _) => {}
            ((state, Fate::Miss), Owner::Client(user)) => {
                self.note_miss(token, user, number);
                return Sent::Not(state);
            }
            // It is told that this is not the one that would be sent.
            ((state @ (State::Spent | State::Refused), _), Owner::Client(user)) => {
                self.note_miss(token, user, number);
                return Sent::Not(state);
            }
            ((state, _), _) => return Sent::Not(state),
        }
        if attempt.tries.final_try || attempt.tries.locked {
            self.broken = Some(format!("the last try of token {token}"));
        }
        let is_right = self.right(token, role) == number;
        let at = self.counter_of(token, role);
        let is_users = role == Role::User && !has_pad;
        if is_users && self.tokens[token].refused.contains(&number) {
            self.broken = Some(format!("{number} once more to token {token}"));
        }
        let known = known.map(pin);
        let is_servers = role == Role::User && self.server_pin(token) == Some(number);
        if let Some(pin) = known {
            let of_server = is_servers.then_some(pin);
            self.guard.sending(&subject, Note { pin, of_server });
        }
        let counter = &mut self.counters[at];
        if how == How::Unclear || how == How::Dies {
            // The worst: it was wrong and has counted. Of what was accepted before, nobody believes that.
            if !is_right && !was_accepted {
                counter.wrong += 1;
                counter.refusals += 1;
                let unclear = self.unclear.entry((token, role, number)).or_default();
                *unclear = (unclear.0 + 1, unclear.1 || is_servers);
            }
            counter.once_more |= role == Role::So;
            match how {
                How::Dies => self.restart(),
                _ => self.guard.unclear(&subject, owner, known, self.now),
            }
            return Sent::Unclear;
        }
        let unclear = self.unclear.remove(&(token, role, number));
        if !is_right {
            counter.wrong += 1;
            counter.refusals += 1;
            if was_accepted {
                assert!(
                    self.tokens[token].is_stale,
                    "accepted and wrong without a reason"
                );
                counter.stale += 1;
            }
            self.refused(token, &subject, owner, number, known);
            return Sent::Refused;
        }
        counter.unclear += unclear.map_or(0, |(times, _)| times);
        self.gave_back(at);
        self.accepted(token, &subject, owner, number, known);
        Sent::Accepted
    }

    fn right(&self, token: usize, role: Role) -> u8 {
        match role {
            Role::User => self.tokens[token].right,
            Role::So => SO,
        }
    }

    fn accepted(
        &mut self,
        token: usize,
        subject: &Subject,
        owner: Owner,
        number: u8,
        known: Option<Salted>,
    ) {
        self.guard.accepted(subject, owner, known);
        if let Owner::Client(user) = owner {
            self.matched.insert((token, user));
        }
        if subject.role == Role::User {
            let is_servers = known.is_none() || self.server_pin(token) == Some(number);
            let token = &mut self.tokens[token];
            token.is_stale = false;
            token.refused.clear();
            token.open = Some((number, is_servers));
        }
    }

    fn refused(
        &mut self,
        token: usize,
        subject: &Subject,
        owner: Owner,
        number: u8,
        known: Option<Salted>,
    ) {
        let is_servers =
            subject.role == Role::User && known.is_some() && self.server_pin(token) == Some(number);
        self.guard.refused(subject, owner, known, self.now);
        if subject.role == Role::User && known.is_some() {
            self.tokens[token].refused.insert(number);
        }
        if is_servers {
            self.guard.servers_refused(pin(number));
            self.refused.insert(number);
            self.tokens[token].replaced = Replaced::Nothing;
        }
        if let Owner::Client(user) = owner {
            self.note_miss(token, user, number);
        }
    }

    /// What an accepted PIN gives back: the tries of a card.
    fn gave_back(&mut self, counter: usize) {
        if !self.is_tpm {
            let counter = &mut self.counters[counter];
            counter.wrong = 0;
            counter.invalidate();
        }
    }

    /// The security officer logs in. Answers whether.
    fn officer(&mut self, token: usize, number: u8, how: How) -> bool {
        let owner = Owner::Client(1);
        self.send(token, Role::So, (owner, number), how) == Sent::Accepted
    }

    fn invalidate(&mut self, token: usize) {
        for role in ROLES {
            self.gave_back(self.counter_of(token, role));
        }
        self.unclear.retain(|(of, ..), _| *of != token);
        self.matched.retain(|(of, _)| *of != token);
        self.guesses.retain(|guess| guess.token != token);
        self.tokens[token].is_stale = false;
        self.tokens[token].refused.clear();
        self.guard.invalidate(&self.subject(token, Role::User));
    }

    fn change_pin(&mut self, token: usize, own: Own, new: u8) {
        let server = self.server_pin(token);
        if own.is_some() && server.is_some() {
            if !self.ask(token, own, How::Plainly) {
                return;
            }
        } else if self.may_use(token, own) == Some(false) {
            return;
        }
        let (owner, old) = match (own, server) {
            (Some((user, own)), _) => (Owner::Client(user), own),
            (None, Some(server)) => (Owner::Server, server),
            (None, None) => return,
        };
        let subject = self.subject(token, Role::User);
        let open = self.tokens[token].open;
        let sent = self.send(token, Role::User, (owner, old), How::Plainly);
        self.tokens[token].open = open;
        if sent == Sent::Accepted {
            self.guard.changed(&subject, pin(old), pin(new));
            let is_its = |of: usize, role: Role| of == token && role == Role::User;
            self.unclear.retain(|(of, role, _), _| !is_its(*of, *role));
            let token = &mut self.tokens[token];
            token.right = new;
            token.refused.extend((old != new).then_some(old));
            token.replaced = match server == Some(old) {
                true => Replaced::Servers(new),
                false => Replaced::Clients,
            };
            token.open = open.map(|(_, by_server)| (new, by_server));
        }
    }

    pub(super) fn step(&mut self, step: &Step) {
        match *step {
            Step::Ask(token, own) => drop(self.ask(token, own, How::Plainly)),
            Step::Unclear(token, own) => drop(self.ask(token, own, How::Unclear)),
            Step::Dies(token, own) => drop(self.ask(token, own, How::Dies)),
            Step::Officer(token, so, how) => {
                if self.officer(token, so, how) {
                    self.close(token);
                }
            }
            Step::Retry(token, own) => drop(self.ask(token, own, How::Retry)),
            Step::SignAgain(token, user) => {
                if let Some((number, by_server)) = self.tokens[token].open {
                    let owner = match by_server {
                        true => Owner::Server,
                        false => Owner::Client(user),
                    };
                    self.send(token, Role::User, (owner, number), How::Plainly);
                }
            }
            Step::Type(token, number) => {
                if self.tokens[token].has_pad && self.tokens[token].open.is_none() {
                    self.send(token, Role::User, (Owner::PinPad, number), How::Plainly);
                }
            }
            Step::Lost(token) => self.tokens[token].open = None,
            Step::Reload => {
                self.close_all();
                self.guard.reloaded();
            }
            Step::Restart => self.restart(),
            Step::Sighup(server) => self.sighup(server),
            Step::ChangedElsewhere(token, new) => {
                self.gave_back(self.counter_of(token, Role::User));
                let token = &mut self.tokens[token];
                token.is_stale |= token.right != new;
                token.right = new;
            }
            Step::ChangePin(token, own, new) => {
                if !self.tokens[token].has_pad {
                    self.change_pin(token, own, new);
                }
            }
            Step::Reset(token, so, new) => {
                if self.officer(token, so, How::Plainly) {
                    self.invalidate(token);
                    let subject = self.subject(token, Role::User);
                    self.guard.accepted(&subject, Owner::Server, Some(pin(new)));
                    // As where the old one was not the server's.
                    let token = &mut self.tokens[token];
                    (token.right, token.replaced) = (new, Replaced::Clients);
                    token.open = Some((new, false));
                }
            }
            Step::InitToken(token, so, new) => {
                if self.officer(token, so, How::Plainly) {
                    self.invalidate(token);
                    let token = &mut self.tokens[token];
                    (token.right, token.open) = (new, None);
                    token.replaced = Replaced::Clients;
                }
            }
            Step::Time(seconds) => self.now += Duration::from_secs(seconds),
        }
    }

    fn close_all(&mut self) {
        (0..self.tokens.len()).for_each(|token| self.close(token));
    }

    fn close(&mut self, token: usize) {
        self.tokens[token].open = None;
    }

    fn restart(&mut self) {
        self.guard = refusals::read(&refusals::write(&self.guard), PAUSE).unwrap();
        self.guard.restarted(self.server.map(pin), self.now);
        let of_server = self
            .unclear
            .iter()
            .filter(|(_, (_, is_servers))| *is_servers);
        let unclear: HashSet<u8> = of_server.map(|((_, _, number), _)| *number).collect();
        let is_new = |pin: &u8| !self.refused.contains(pin) && !unclear.contains(pin);
        self.is_new |= self.server.as_ref().is_some_and(is_new);
        self.close_all();
        self.matched.clear();
        self.guesses.clear();
        for token in &mut self.tokens {
            token.replaced = Replaced::Nothing;
        }
        for counter in &mut self.counters {
            counter.refusals -= std::mem::take(&mut counter.unclear);
        }
    }

    fn sighup(&mut self, server: Option<u8>) {
        let has_other_pin = server != self.server;
        self.server = server;
        if has_other_pin {
            self.close_all();
        }
        for token in &mut self.tokens {
            if has_other_pin || token.replaced == Replaced::Clients {
                token.replaced = Replaced::Nothing;
            }
        }
        self.guard.free(has_other_pin);
        // The operator may use up tries.
        self.is_new = false;
        self.unclear.clear();
        self.counters.iter_mut().for_each(Counter::invalidate);
        self.tokens
            .iter_mut()
            .for_each(|token| token.refused.clear());
    }

    /// Whether the rules hold, after a step.
    pub(super) fn check(&self, step: &Step) -> Result<(), String> {
        let hour = Duration::from_secs(60 * 60);
        for index in 0..self.tokens.len() {
            for role in ROLES {
                let Counter {
                    refusals,
                    stale,
                    once_more,
                    ..
                } = self.counters[self.counter_of(index, role)];
                // One more than two only where a PIN that was accepted was changed elsewhere.
                let most = match (role, self.is_tpm) {
                    (Role::So, false) => 1 + u32::from(once_more),
                    _ => 2 + stale + u32::from(self.is_new),
                };
                if refusals > most {
                    return Err(format!(
                        "{refusals} refusals of token {index} after {step:?}"
                    ));
                }
            }
            let recent = |guess: &&Guess| guess.token == index && guess.at + hour > self.now;
            let guesses = self.guesses.iter().filter(recent).count();
            if guesses > 10 {
                return Err(format!("{guesses} guesses an hour at token {index}"));
            }
        }
        self.broken.clone().map_or(Ok(()), Err)
    }
}

/// How a request's login goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Plainly,
    Unclear,
    Dies,
    Retry,
}

/// What became of a PIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    Accepted,
    Refused,
    Unclear,
    Not(State),
}
