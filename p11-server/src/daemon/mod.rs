//! The daemon: starts in the order that operators rely on, serves, and stops on a signal.
//!
//! Each module imports only modules below it.
//!
//! | module | what it does |
//! |---|---|
//! | `check` | what a configuration is worth, without a start |
//! | `configured` | what the server runs with, or why it cannot |
//! | `supervise` | what the service manager is told |
//! | `signals` | SIGTERM, SIGINT and SIGHUP |
//! | `config` | flags, environment, `tedge.toml` and credentials |
//! | `net` | the socket and its connections, with limits and deadlines |
//! | `protocol1`, `tedge1` | a request of either protocol, and its response |
//! | `request` | who asks, may they, what the audit says of it |
//! | `policy` | who may do what |
//! | `process` | as which user the server runs, and since when |
//! | `notice` | what an operator should know of a configuration |
//! | `files` | files of the configuration |
//! | `toml_table` | the tables of a TOML file, and where an error in them is |
//! | `misconfigured` | what is answered while the configuration cannot be used |
//! | `audit`, `log` | what was done, and what is said |
//! | `peer` | who is at the other end of a connection |

mod audit;
mod check;
mod config;
mod configured;
mod files;
mod log;
mod misconfigured;
mod net;
mod notice;
mod peer;
mod policy;
mod process;
mod protocol1;
mod request;
mod signals;
mod supervise;
mod tedge1;
mod toml_table;

#[cfg(fuzzing)]
pub use config::check_tedge_toml;
#[cfg(fuzzing)]
pub use net::checks::exchange;
#[cfg(fuzzing)]
pub use policy::check_policy;

use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use signal_hook::low_level::exit;
use tracing::{error, info, warn};

use self::config::Args;
use self::configured::State;
use self::log::TARGET;
use self::net::{Server, Socket};
use self::supervise::Supervisor;
use crate::engine::Timeouts;

/// How long running requests may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

/// How often we look whether an operation is overdue.
const TICK: Duration = Duration::from_secs(1);

/// Runs the program `tedge-p11-server` with the arguments and the environment of this process, until a
/// signal ends it. With `--check-config` it judges the configuration alone.
///
/// The process ends by `_exit`. exit(3) would run the destructors of the module, which may hang, and which
/// take away what a call that has not returned still uses.
pub fn run(timeouts: Timeouts) -> ! {
    let args = Args::read();
    if args.check_config {
        std::process::exit(check::run(&args));
    }
    // The log and modules start threads, which must not take these signals.
    let blocked = signals::block();
    let log = log::init(args.log_level);
    // A panic ends one connection. Its place in the source tells enough; its message may tell too much.
    std::panic::set_hook(Box::new(|panic| match panic.location() {
        Some(place) => {
            error!(target: TARGET, "a defect of the server, please report it: panic at {place}")
        }
        None => error!(target: TARGET, "a defect of the server, please report it: panic"),
    }));
    // PINs are in this memory: no core dumps of it, and no other process may trace us.
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        warn!(target: TARGET, "core dumps and ptrace cannot be switched off: {error}");
    }
    info!(target: TARGET, "Starting tedge-p11-server {}", env!("CARGO_PKG_VERSION"));
    let socket: Arc<OnceLock<Arc<Socket>>> = Arc::default();
    let signals = blocked.and_then(|blocked| signals::listen(blocked, Arc::clone(&socket)));
    let signals = signals.map_err(|error| format!("cannot wait for signals: {error}").into());
    let status = signals.and_then(|signals| serve(&args, &signals, &socket, timeouts));
    let status = status.unwrap_or_else(|error| {
        error!(target: TARGET, "{error}");
        1
    });
    if let Some(socket) = socket.get() {
        socket.remove();
    }
    log.end();
    exit(status)
}

/// Serves until a signal says to stop, or until that is of no use any more. Answers the exit status.
///
/// # Errors
/// Why it could not start.
fn serve(
    args: &Args,
    signals: &Receiver<Signal>,
    socket_to_remove: &OnceLock<Arc<Socket>>,
    timeouts: Timeouts,
) -> Result<i32, Box<dyn std::error::Error>> {
    let inherited = Socket::inherited()?;
    let is_inherited = inherited.is_some();
    let loaded = configured::load(args, is_inherited, None);
    let socket = match (inherited, loaded.as_ref()) {
        (Some(socket), _) => socket,
        (None, Ok(loaded)) => Socket::bind(&loaded.config.socket_path)?,
        (None, Err(_)) => return Ok(loaded.map(|_| 1)?),
    };
    let socket = Arc::new(socket);
    let _ = socket_to_remove.set(socket.clone());
    info!(target: TARGET, listener = ?socket.path(), "Server listening");

    let (state, handler) = State::start(args, loaded, is_inherited, timeouts)?;
    let mut daemon = Daemon {
        args,
        timeouts,
        server: Server::new(socket, handler, args.limits()),
        state,
        supervisor: Supervisor::ready(),
    };
    let ended = daemon.wait_for_signals(signals);
    if let Err(error) = &ended {
        error!(target: TARGET, "{error}");
    }
    daemon.stop();
    Ok(i32::from(ended.is_err()))
}

/// A server that has started.
struct Daemon<'a> {
    args: &'a Args,
    timeouts: Timeouts,
    server: Arc<Server>,
    state: State,
    supervisor: Supervisor,
}

impl Daemon<'_> {
    /// Serves until a signal says to stop.
    fn wait_for_signals(
        &mut self,
        signals: &Receiver<Signal>,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let (stop, stopped) = UnixStream::pair()?;
        let accepting = {
            let server = self.server.clone();
            thread::Builder::new()
                .name("accept".into())
                .spawn(move || server.accept(&stopped))?
        };
        loop {
            let is_due = match signals.recv_timeout(TICK) {
                Ok(Signal::SIGHUP) => true,
                Ok(_) => break,
                Err(RecvTimeoutError::Timeout) => self.state.is_worth_a_try(),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err("signals are not heard any more".into());
                }
            };
            if is_due {
                self.state.reload(self.args, &self.server, self.timeouts);
            }
            self.server.close_overdue();
            if accepting.is_finished() {
                return Err(match accepting.join() {
                    Ok(Err(error)) => format!("accepting connections failed: {error}").into(),
                    _ => "accepting connections ended unexpectedly".into(),
                });
            }
            self.supervisor.tick(&self.server, self.state.engine())?;
        }
        info!(target: TARGET, "stopping");
        drop(stop);
        let _ = accepting.join();
        Ok(())
    }

    /// Gives running requests some time, and finalises the module.
    fn stop(self) {
        self.supervisor.stopping();
        if let Ok(engine) = self.state.engine() {
            engine.stop_reloads();
        }
        let left = self.server.drain(GRACE);
        if left > 0 {
            warn!(target: TARGET, "{left} requests did not end in time");
        }
        if !self.state.shut_down() {
            warn!(target: TARGET, "the PKCS#11 module does not end in time; the process does");
        }
    }
}
