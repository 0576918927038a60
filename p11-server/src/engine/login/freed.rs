//! What lets PINs be sent again: the operator's reload, one of the module, and a start of the process.

use std::time::Instant;

use super::digests::{Salted, contains};
use super::known::{Known, Since};
use super::pin_guard::PinGuard;

impl PinGuard {
    /// The module was reloaded.
    pub fn reloaded(&mut self) {
        let known = self.known.values_mut();
        for unclear in known.flat_map(|known| &mut known.unclear) {
            unclear.reloaded = true;
        }
    }

    /// The operator says that the PINs may be tried again, perhaps after setting another one.
    pub fn free(&mut self, has_other_pin: bool) {
        self.known
            .values_mut()
            .for_each(|known| known.locked = None);
        self.clients
            .values_mut()
            .for_each(|since| *since = Since::Before);
        for (name, counter) in &mut self.counters {
            let of_counter = |known: &&mut Known| known.counter == *name;
            let mut known: Vec<_> = self.known.values_mut().filter(of_counter).collect();
            let mut has_any = known
                .iter()
                .map(|known| !known.refused.is_empty() || !known.unclear.is_empty());
            let spent = counter.refusals + counter.unclear;
            let anything = spent > 0 || has_any.any(|any| any);
            if anything && !counter.freed {
                counter.freed = true;
                counter.granted = false;
                (counter.refusals, counter.unclear) = (0, 0);
                for known in &mut known {
                    known.refused.clear();
                    known.unclear.clear();
                }
            } else if has_other_pin {
                counter.granted = spent > 0;
            }
        }
    }

    /// The process has started anew with this PIN of the server. One that no token may have refused yet may be new, and may be
    /// sent once. What was unclear waits from now on: no clock tells how long it has waited.
    pub fn restarted(&mut self, server: Option<Salted>, now: Instant) {
        let known = self.known.values_mut();
        let unclear = known.flat_map(|known| &mut known.unclear);
        let mut sent = self.of_server.clone();
        for unclear in unclear {
            unclear.until = now + self.pause;
            sent.extend(unclear.of_server);
        }
        let is_new = server.is_some_and(|server| !contains(&sent, &server));
        let names: Vec<_> = self.counters.keys().copied().collect();
        for name in names {
            let is_granted = is_new && self.used(&name) > 0;
            self.counters.entry(name).or_default().granted = is_granted;
        }
    }
}
