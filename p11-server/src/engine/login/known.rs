//! What is remembered of the PINs of a token, and of what counts its wrong tries.

use std::time::Instant;

use super::digests::Salted;
use super::states::{Again, again};

/// What is known of the PINs of one role on one token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    pub counter: Salted,
    /// What the token has refused since it accepted one.
    pub refused: Vec<Salted>,
    /// Whether it has ever refused one of the server's.
    pub was_servers: bool,
    /// What it has accepted last.
    pub accepted: Option<Salted>,
    pub unclear: Vec<Unclear>,
    /// How often it has said that it is locked, and how long nothing is sent.
    pub locked: Option<(u32, Instant)>,
    /// What is on its way to it: the process may die before the answer.
    pub in_flight: Option<Note>,
}

/// When a client has set the PIN of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Since {
    /// Since the process was started and the operator has reloaded it last.
    Now,
    Before,
}

/// A PIN that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub pin: Salted,
    /// What it is remembered as whatever the token, where it is the server's.
    pub of_server: Option<Salted>,
}

/// What counts wrong tries: a token for one role, or a TPM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counter {
    /// How many PINs were refused, or may have been, since one was accepted.
    pub refusals: u32,
    /// How many more were, if another program has set a PIN whose answer was unclear before it was accepted. A restart
    /// forgets that.
    pub unclear: u32,
    /// Whether the operator has freed what was refused, since a PIN was accepted.
    pub freed: bool,
    /// The operator has set another PIN since then, or may have: that one may be sent once. Where nothing was refused, the
    /// budget is enough for it.
    pub granted: bool,
}

/// A PIN of which the token has not told whether it is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unclear {
    pub pin: Option<Salted>,
    /// As in [`Note`].
    pub of_server: Option<Salted>,
    pub times: u32,
    /// Whether the token had accepted it before.
    pub was_accepted: bool,
    /// Whether the module was reloaded since, or the process started.
    pub reloaded: bool,
    pub until: Instant,
}

impl Known {
    /// Whether the server's PIN was refused, or may have been.
    pub fn was_servers(&self) -> bool {
        let unclear = self.unclear.iter().map(|unclear| unclear.of_server);
        let in_flight = self.in_flight.map(|note| note.of_server);
        self.was_servers
            || in_flight
                .into_iter()
                .chain(unclear)
                .any(|pin| pin.is_some())
    }

    /// What an earlier process has left: a PIN that was unclear so often.
    pub fn add(&mut self, note: Note, times: u32, until: Instant) {
        let Note { pin, of_server } = note;
        let mut known = self.unclear.iter_mut();
        match known.find(|unclear| unclear.pin == Some(pin)) {
            Some(unclear) => unclear.times = unclear.times.saturating_add(times),
            None => self.unclear.push(Unclear {
                pin: Some(pin),
                of_server,
                times,
                was_accepted: false,
                reloaded: true,
                until,
            }),
        }
    }
}

impl Counter {
    /// What an earlier process has left.
    pub fn new(refusals: u32, freed: bool) -> Counter {
        Counter {
            refusals,
            unclear: 0,
            freed,
            granted: false,
        }
    }
}

impl Unclear {
    /// Whether it may be sent again.
    pub fn again(&self, now: Instant) -> Again {
        let pause = self.until.saturating_duration_since(now);
        again(self.was_accepted, self.times, self.reloaded, pause)
    }

    /// What is written for the next process. Of what was accepted, nobody believes that it is wrong; of what was typed at a PIN pad,
    /// nothing is known.
    pub fn note(&self) -> Option<(Note, u32)> {
        let pin = self.pin.filter(|_| !self.was_accepted)?;
        let of_server = self.of_server;
        Some((Note { pin, of_server }, self.times))
    }
}
