//! What the service manager is told (sd_notify(3)): ready, how the module is doing, and that we are
//! alive, as long as we are of use.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tracing::{info, warn};

use super::net::Server;
use crate::engine::Engine;

/// The end of the wire to the service manager, which need not be there.
pub(super) struct Supervisor {
    /// How often it wants a sign of life, if it does.
    interval: Option<Duration>,
    last: Instant,
    heartbeat: u64,
    status: Option<String>,
    hangs: bool,
}

impl Supervisor {
    /// Says that we serve from now on.
    pub fn ready() -> Supervisor {
        notify(NotifyState::Ready);
        Supervisor {
            interval: sd_notify::watchdog_enabled().map(|timeout| timeout / 3),
            last: Instant::now(),
            heartbeat: 0,
            status: None,
            hangs: false,
        }
    }

    /// Tells how the module is doing, or why there is none, and gives a sign of life when one is due and the accept loop moves.
    ///
    /// # Errors
    /// What hangs for good, so that the process should end.
    pub fn tick(&mut self, server: &Server, engine: Result<&Engine, &str>) -> Result<(), String> {
        let hung = engine.ok().and_then(Engine::hung);
        let status = match (&hung, engine) {
            (Some(call), _) => format!("{} does not return", call.what()),
            (None, Ok(engine)) => engine
                .trouble()
                .unwrap_or_else(|| "the PKCS#11 module is ready".into()),
            (None, Err(misconfigured)) => misconfigured.into(),
        };
        if self.status.as_ref() != Some(&status) {
            notify(NotifyState::Status(&status));
            self.status = Some(status);
        }
        match &hung {
            Some(call) if call.for_good => {
                return Err(format!("{call}; ending, so that systemd starts me anew"));
            }
            Some(call) if !self.hangs => warn!("{call}"),
            None if self.hangs => info!("no PKCS#11 call hangs any more"),
            _ => {}
        }
        self.hangs = hung.is_some();
        if self.lives(|| server.heartbeat()) {
            notify(NotifyState::Watchdog);
        }
        Ok(())
    }

    /// Whether a sign of life is due, and the accept loop has moved since the last one.
    fn lives(&mut self, heartbeat: impl Fn() -> u64) -> bool {
        let due = |interval| self.last.elapsed() >= interval;
        if !self.interval.is_some_and(due) {
            return false;
        }
        self.last = Instant::now();
        let heartbeat = heartbeat();
        std::mem::replace(&mut self.heartbeat, heartbeat) != heartbeat
    }

    /// Says that we are about to end.
    pub fn stopping(&self) {
        notify(NotifyState::Stopping);
    }
}

fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        warn!("cannot notify the service manager: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_no_sign_of_life_while_the_accept_loop_stands_still() {
        let mut supervisor = Supervisor {
            interval: Some(Duration::ZERO),
            last: Instant::now(),
            heartbeat: 0,
            status: None,
            hangs: false,
        };
        assert!(supervisor.lives(|| 1));
        assert!(!supervisor.lives(|| 1));
        assert!(supervisor.lives(|| 2));
        supervisor.interval = Some(Duration::from_secs(60));
        assert!(!supervisor.lives(|| 3), "not yet");
        supervisor.interval = None;
        assert!(!supervisor.lives(|| 4), "nobody wants one");
    }
}
