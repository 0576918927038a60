//! What the service manager is told (sd_notify(3)): ready, how the module is doing, and that we are
//! alive, as long as we are of use.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tracing::warn;

use super::net::Server;
use crate::engine::Engine;

/// The end of the wire to the service manager, which need not be there.
pub(super) struct Supervisor {
    /// How often it wants a sign of life, if it does.
    interval: Option<Duration>,
    last: Instant,
    heartbeat: u64,
    status: Option<String>,
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
        }
    }

    /// Gives a sign of life when one is due, while the accept loop moves and no token is stuck.
    ///
    /// # Errors
    /// Unsupervised, what is stuck: the process should end. Supervised, silence sees to that.
    pub fn tick(&mut self, server: &Server, engine: &Engine) -> Result<(), String> {
        let trouble = engine.trouble();
        let status = trouble.unwrap_or_else(|| "the PKCS#11 module is ready".into());
        if self.status.as_ref() != Some(&status) {
            notify(NotifyState::Status(&status));
            self.status = Some(status);
        }
        match (engine.stuck(), self.interval) {
            (Some(token), None) => {
                return Err(format!("no PKCS#11 call returns on {token}; giving up"));
            }
            (None, Some(interval)) if self.last.elapsed() >= interval => {
                self.last = Instant::now();
                let heartbeat = server.heartbeat();
                if heartbeat != self.heartbeat {
                    self.heartbeat = heartbeat;
                    notify(NotifyState::Watchdog);
                }
            }
            _ => {}
        }
        Ok(())
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
