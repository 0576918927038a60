//! `tedge-p11-server`: starts in the order that operators rely on, then waits for signals.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use clap::Parser;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use p11_server::Engine;
use p11_server::config::{self, Args, Config};
use p11_server::log;
use p11_server::net::{Server, Socket};
use tracing::{error, info, warn};

mod supervise;

use supervise::Supervisor;

/// How long running requests may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

/// How often we look whether an operation is overdue.
const TICK: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let args = Args::parse();
    log::init(args.log_level());
    // A panic ends one connection. Its place in the source tells enough; its message may tell too much.
    std::panic::set_hook(Box::new(|panic| match panic.location() {
        Some(place) => error!("a defect of the server, please report it: panic at {place}"),
        None => error!("a defect of the server, please report it: panic"),
    }));
    // PINs are in this memory: no core dumps of it, and no other process may trace us.
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        warn!("core dumps and ptrace cannot be switched off: {error}");
    }
    info!("Starting tedge-p11-server {}", env!("CARGO_PKG_VERSION"));
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    let inherited = Socket::inherited()?;
    let config = gather(args, inherited.is_some())?;
    info!(cryptoki_config = ?config.cryptoki, "Using cryptoki configuration");

    // Modules start threads of their own, which must not take these signals.
    let signals = block_signals()?;
    let socket = match inherited {
        Some(socket) => socket,
        None => Socket::bind(&config.socket_path)?,
    };
    info!(listener = ?socket.path(), "Server listening");

    let policy = args.load_policy()?;
    let engine = Engine::load(&config.cryptoki.module_path, config.cryptoki.settings()?)?;
    let engine = Arc::new(engine);
    keep_up(engine.clone())?;
    let server = Server::new(socket, engine.clone(), policy, args.limits());
    let mut supervisor = Supervisor::ready();
    let result = serve(args, &config, &signals, &server, &engine, &mut supervisor);
    supervisor.stopping();
    let left = server.drain(GRACE);
    if left > 0 {
        warn!("{left} requests did not end in time");
    }
    server.audit().flush();
    engine.shut_down();
    server.remove_socket();
    result
}

/// Initialises the module, and does so again whenever it is down and the next try is due. Where that
/// takes long or hangs, clients are answered and signals heard meanwhile.
fn keep_up(engine: Arc<Engine>) -> std::io::Result<()> {
    let (tried, first_try) = mpsc::channel();
    let keep_up = move || {
        if let Err(error) = engine.start() {
            warn!("listening all the same: {error}");
        }
        drop(tried);
        loop {
            thread::sleep(TICK);
            // What becomes of a try is logged where it is made.
            let _ = engine.start();
        }
    };
    let thread = thread::Builder::new().name("module".into());
    thread.spawn(keep_up)?;
    let _: Result<(), _> = first_try.recv_timeout(TICK);
    Ok(())
}

/// The configuration, with what is to be said about it.
fn gather(args: &Args, inherited_socket: bool) -> Result<Config, config::Error> {
    let mut warnings = Vec::new();
    let config = Config::gather(args, inherited_socket, &mut warnings);
    for warning in warnings {
        warn!("{warning}");
    }
    config
}

/// Serves until a signal says to stop.
fn serve(
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
    info!("stopping");
    drop(stop);
    let _ = accepting.join();
    Ok(())
}

/// SIGHUP: takes over what can change while we run. A bad configuration changes nothing.
fn reconfigure(args: &Args, running: &Config, server: &Server, engine: &Engine) {
    let new = gather(args, server.is_inherited()).and_then(|config| {
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
                    warn!("another {what} is configured, {now:?}; restart the server to use it");
                }
            }
            engine.reconfigure(settings);
            server.set_policy(policy);
            info!(cryptoki_config = ?config.cryptoki, "Using cryptoki configuration");
        }
        Err(error) => error!("the configuration is left as it was: {error}"),
    }
}

fn block_signals() -> nix::Result<SignalFd> {
    let set = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}
