//! The daemon: starts in the order that operators rely on, serves, and stops on a signal.
//!
//! Each module imports only modules below it.
//!
//! | module | what it does |
//! |---|---|
//! | `supervise` | what the service manager is told |
//! | `signals` | SIGTERM, SIGINT and SIGHUP |
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
mod signals;
mod supervise;
mod tedge1;
mod toml_table;

#[cfg(fuzzing)]
pub use net::checks::exchange;

use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use signal_hook::low_level::exit;
use tracing::{error, info, warn};

use self::config::{Args, Config};
use self::net::{Handler, Server, Socket};
use self::supervise::Supervisor;
use crate::engine::{Engine, Timeouts};

/// The target of log lines as the reference page shows them.
const TARGET: &str = "tedge_p11_server";

/// How long running requests may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

/// How long the module may take afterwards to be finalised.
const FINALIZE: Duration = Duration::from_secs(3);

/// How often we look whether an operation is overdue.
const TICK: Duration = Duration::from_secs(1);

/// Runs the program `tedge-p11-server` with the arguments and the environment of this process, until a
/// signal ends it.
///
/// The process ends by `_exit`. exit(3) would run the destructors of the module, which may hang, and which
/// take away what a call that has not returned still uses.
pub fn run(timeouts: Timeouts) -> ! {
    let args = Args::read();
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
    // Waits for the lines that are not written yet, but not for a reader of them that hangs.
    drop(log);
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
    let config = load_config(args, inherited.is_some())?;
    info!(target: TARGET, cryptoki_config = ?config.cryptoki, "Using cryptoki configuration");

    let socket = match inherited {
        Some(socket) => socket,
        None => Socket::bind(&config.socket_path)?,
    };
    let socket = Arc::new(socket);
    let _ = socket_to_remove.set(socket.clone());
    info!(target: TARGET, listener = ?socket.path(), "Server listening");

    let policy = args.load_policy()?;
    let settings = config.cryptoki.settings()?;
    let engine = Engine::load_with(&config.cryptoki.module_path, settings, timeouts)?;
    let engine = Arc::new(engine);
    supervise_module(engine.clone())?;
    let handler = Handler::new(engine.clone(), policy, timeouts);
    let server = Server::new(socket, handler, args.limits());
    let mut supervisor = Supervisor::ready();
    let ended = wait_for_signals(args, &config, signals, &server, &engine, &mut supervisor);
    if let Err(error) = &ended {
        error!(target: TARGET, "{error}");
    }
    supervisor.stopping();
    engine.stop_reloads();
    let left = server.drain(GRACE);
    if left > 0 {
        warn!(target: TARGET, "{left} requests did not end in time");
    }
    if !shut_down(engine) {
        warn!(target: TARGET, "the PKCS#11 module does not end in time; the process does");
    }
    Ok(i32::from(ended.is_err()))
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

/// Closes the sessions and finalises the module. False if that takes too long.
fn shut_down(engine: Arc<Engine>) -> bool {
    let (done, ended) = mpsc::channel();
    let thread = thread::Builder::new().name("shutdown".into());
    let thread = thread.spawn(move || {
        engine.shut_down();
        let _ = done.send(());
    });
    thread.is_ok() && ended.recv_timeout(FINALIZE).is_ok()
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
    signals: &Receiver<Signal>,
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
        match signals.recv_timeout(TICK) {
            Ok(Signal::SIGHUP) => reconfigure(args, running, server, engine),
            Ok(_) => break,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err("signals are not heard any more".into());
            }
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
