//! The daemon: starts in the order that operators rely on, serves, and stops on a signal.
//!
//! Each module imports only modules below it.
//!
//! | module | what it does |
//! |---|---|
//! | `supervise` | what the service manager is told |
//! | `config` | flags, environment, `tedge.toml` and credentials |
//! | `net` | the socket and its connections, with limits and deadlines |
//! | `protocol1`, `tedge1` | a request of either protocol, and its response |
//! | `request` | who asks, may they, what the audit says of it |
//! | `policy` | who may do what |
//! | `toml_table` | the tables of a TOML file, and where an error in them is |
//! | `audit`, `log` | what was done, and what is said |
//! | `peer` | who is at the other end of a connection |

mod audit;
mod config;
mod log;
mod net;
mod peer;
mod policy;
mod protocol1;
mod request;
mod supervise;
mod tedge1;
mod toml_table;

#[cfg(fuzzing)]
pub use net::checks::exchange;

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tracing::{error, info, warn};

use self::config::{Args, Config};
use self::net::{Handler, Server, Socket};
use self::supervise::Supervisor;
use crate::engine::{Engine, Timeouts};

/// The target of log lines as the reference page shows them.
const TARGET: &str = "tedge_p11_server";

/// How long running requests may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

/// How often we look whether an operation is overdue.
const TICK: Duration = Duration::from_secs(1);

/// Runs the program `tedge-p11-server` with the arguments and the environment of this process, until a
/// signal ends it.
pub fn run(timeouts: Timeouts) -> ExitCode {
    let args = Args::read();
    // The log and modules start threads, which must not take these signals.
    let signals = block_signals();
    let _log = log::init(args.log_level);
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
    let signals = signals.map_err(|error| format!("cannot wait for signals: {error}").into());
    match signals.and_then(|signals| serve(&args, &signals, timeouts)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(target: TARGET, "{error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(
    args: &Args,
    signals: &SignalFd,
    timeouts: Timeouts,
) -> Result<(), Box<dyn std::error::Error>> {
    let inherited = Socket::inherited()?;
    let config = load_config(args, inherited.is_some())?;
    info!(target: TARGET, cryptoki_config = ?config.cryptoki, "Using cryptoki configuration");

    let socket = match inherited {
        Some(socket) => socket,
        None => Socket::bind(&config.socket_path)?,
    };
    info!(target: TARGET, listener = ?socket.path(), "Server listening");

    let policy = args.load_policy()?;
    let settings = config.cryptoki.settings()?;
    let engine = Engine::load_with(&config.cryptoki.module_path, settings, timeouts)?;
    let engine = Arc::new(engine);
    supervise_module(engine.clone())?;
    let handler = Handler::new(engine.clone(), policy, timeouts);
    let server = Server::new(socket, handler, args.limits());
    let mut supervisor = Supervisor::ready();
    let result = wait_for_signals(args, &config, signals, &server, &engine, &mut supervisor);
    supervisor.stopping();
    let left = server.drain(GRACE);
    if left > 0 {
        warn!(target: TARGET, "{left} requests did not end in time");
    }
    engine.shut_down();
    server.remove_socket();
    result
}

/// Initialises the module, and does so again whenever it is down and the next try is due. Where that
/// takes long or hangs, clients are answered and signals heard meanwhile.
fn supervise_module(engine: Arc<Engine>) -> std::io::Result<()> {
    let (tried, first_try) = mpsc::channel();
    let supervise = move || {
        if let Err(error) = engine.start() {
            warn!(target: TARGET, "listening all the same: {error}");
        }
        drop(tried);
        loop {
            thread::sleep(TICK);
            // What becomes of a try is logged where it is made.
            let _ = engine.start();
        }
    };
    let thread = thread::Builder::new().name("module".into());
    thread.spawn(supervise)?;
    let _: Result<(), _> = first_try.recv_timeout(TICK);
    Ok(())
}

/// The configuration, with what is to be said about it.
fn load_config(args: &Args, inherited_socket: bool) -> Result<Config, config::Error> {
    let mut warnings = Vec::new();
    let config = Config::load(args, inherited_socket, &mut warnings);
    for warning in warnings {
        warn!(target: TARGET, "{warning}");
    }
    config
}

/// Serves until a signal says to stop.
fn wait_for_signals(
    args: &Args,
    running: &Config,
    signals: &SignalFd,
    server: &Arc<Server>,
    engine: &Engine,
    supervisor: &mut Supervisor,
) -> Result<(), Box<dyn std::error::Error>> {
    let (stop, stopped) = UnixStream::pair()?;
    let accepting = {
        let server = server.clone();
        thread::Builder::new()
            .name("accept".into())
            .spawn(move || server.accept(&stopped))?
    };
    loop {
        let mut ready = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, PollTimeout::try_from(TICK)?) {
            Err(nix::errno::Errno::EINTR) => {}
            other => drop(other?),
        }
        match signals.read_signal()?.map(|signal| signal.ssi_signo as i32) {
            Some(number) if number == Signal::SIGHUP as i32 => {
                reconfigure(args, running, server, engine);
            }
            Some(_) => break,
            None => {}
        }
        server.close_overdue();
        if accepting.is_finished() {
            return Err(match accepting.join() {
                Ok(Err(error)) => format!("accepting connections failed: {error}").into(),
                _ => "accepting connections ended unexpectedly".into(),
            });
        }
        supervisor.tick(server, engine)?;
    }
    info!(target: TARGET, "stopping");
    drop(stop);
    let _ = accepting.join();
    Ok(())
}

/// SIGHUP: takes over what can change while we run. A bad configuration changes nothing.
fn reconfigure(args: &Args, running: &Config, server: &Server, engine: &Engine) {
    let new = load_config(args, server.is_inherited()).and_then(|config| {
        let settings = config.cryptoki.settings()?;
        Ok((config, settings, args.load_policy()?))
    });
    match new {
        Ok((config, settings, policy)) => {
            for (what, before, now) in [
                (
                    "module",
                    &running.cryptoki.module_path,
                    &config.cryptoki.module_path,
                ),
                ("socket", &running.socket_path, &config.socket_path),
            ] {
                if before != now {
                    warn!(target: TARGET, "another {what} is configured, {now:?}; restart the server to use it");
                }
            }
            engine.reconfigure(settings);
            server.handler().set_policy(policy);
            info!(target: TARGET, cryptoki_config = ?config.cryptoki, "Using cryptoki configuration");
        }
        Err(error) => error!(target: TARGET, "the configuration is left as it was: {error}"),
    }
}

fn block_signals() -> nix::Result<SignalFd> {
    let set = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}
