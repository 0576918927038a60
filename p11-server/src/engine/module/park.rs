//! Giving a module up for as long as nobody uses it.

use std::sync::Arc;
use std::time::Instant;

use tracing::warn;

use super::{Module, Phase};

impl Module {
    /// Makes the last calls and `C_Finalize`, if the module is up and ours to finalise; the next guard initialises it again.
    /// A module in which a call runs on is left as it is. `reset` is called when all sessions are gone.
    pub fn park(&self, last_calls: impl FnOnce(), reset: impl FnOnce()) {
        let mut state = self.state.lock();
        if state.reloading || state.closed {
            return;
        }
        let Phase::Up { ours } = state.phase else {
            return;
        };
        // Nobody enters meanwhile.
        state.reloading = true;
        if !self.calls.any_older_than(self.timeouts.drain) {
            self.drain(&mut state);
        }
        let is_idle = state.guards == 0;
        // These calls may hang like any other, so the lock is given back.
        drop(state);
        if is_idle {
            last_calls();
            if ours {
                self.finalize();
            }
            reset();
        } else {
            warn!("a PKCS#11 call has not returned, so the module is left as it is");
        }
        let mut state = self.state.lock();
        if is_idle {
            state.phase = Phase::Down("nobody uses it".into());
            state.life = Arc::default();
            // No failure that the next one has to wait for, and no need of a reload is left.
            state.not_before = Instant::now();
            state.needs_reload = None;
        }
        state.reloading = false;
        self.changed.notify_all();
    }
}
