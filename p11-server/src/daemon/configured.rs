//! What the server runs with: a configuration that was taken whole, or the reason why there is none.
//!
//! A configuration that cannot be used never takes the place of one that can.

use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use tracing::{error, info, warn};

use super::config::{self, Args, Config};
use super::files::Watch;
use super::log::TARGET;
use super::misconfigured::Misconfigured;
use super::net::{Handler, Server};
use super::notice::Notice;
use super::policy::Policy;
use super::request::Served;
use crate::engine::{Engine, Settings, Timeouts};

/// How often the module is looked after.
const TICK: Duration = Duration::from_secs(1);

/// How long a module may take to be finalised at the end.
const FINALIZE: Duration = Duration::from_secs(3);

/// A configuration with all that it names: files were read, texts were parsed.
pub(super) struct Loaded {
    pub config: Config,
    settings: Settings,
    policy: Policy,
}

/// What the server runs with.
pub(super) enum State {
    /// A configuration, and the module that it names.
    Running(Running),
    /// Why there is none, and the files that have to change.
    Misconfigured { why: String, files: Watch },
}

pub(super) struct Running {
    config: Config,
    /// Where its PIN is from.
    pin_origin: Option<String>,
    engine: Arc<Engine>,
}

/// Reads the configuration. `before` is what holds now.
///
/// # Errors
/// What cannot be used of it.
pub(super) fn load(
    args: &Args,
    inherited_socket: bool,
    before: Option<&State>,
) -> Result<Loaded, config::Error> {
    let mut warnings = Vec::new();
    let loaded = load_with(args, inherited_socket, before, &mut warnings);
    for warning in warnings {
        warn!(target: TARGET, "{warning}");
    }
    if loaded
        .as_ref()
        .is_ok_and(|loaded| loaded.config.socket_is_default)
    {
        warn!(
            target: TARGET,
            "no socket path is configured, using the default {}; set --socket-path or device.cryptoki.socket_path",
            config::DEFAULT_SOCKET
        );
    }
    loaded
}

fn load_with(
    args: &Args,
    inherited_socket: bool,
    before: Option<&State>,
    warnings: &mut Vec<Notice>,
) -> Result<Loaded, config::Error> {
    let before = match before {
        Some(State::Running(running)) => Some(running),
        _ => None,
    };
    let config = Config::load(
        args,
        inherited_socket,
        before.map(|before| &before.config),
        warnings,
    )?;
    // What runs already is shown when it is taken over.
    if before.is_none() {
        show(&config);
    }
    let settings = config.cryptoki.settings(warnings)?;
    let uri_before = before.and_then(|before| before.config.cryptoki.uri());
    if let (Some(uri), None) = (uri_before, config.cryptoki.uri()) {
        return Err(config::Error::UriGone(p11_uri::redact(uri)));
    }
    let pin_before = before.and_then(|before| before.pin_origin.as_ref());
    if let (Some(origin), None) = (pin_before, &settings.pin_origin) {
        return Err(config::Error::PinGone(origin.clone()));
    }
    Ok(Loaded {
        policy: args.load_policy(warnings)?,
        config,
        settings,
    })
}

fn show(config: &Config) {
    info!(target: TARGET, cryptoki_config = ?config.cryptoki, "Using cryptoki configuration");
}

impl State {
    /// Loads the module, if there is a configuration. With a socket of the service manager the server listens
    /// without, too.
    ///
    /// # Errors
    /// The reason, where it was started by hand.
    pub fn start(
        args: &Args,
        loaded: Result<Loaded, config::Error>,
        inherited_socket: bool,
        timeouts: Timeouts,
    ) -> Result<(State, Handler), Box<dyn std::error::Error>> {
        let (why, named): (Box<dyn std::error::Error>, _) = match loaded {
            Ok(loaded) => {
                let path = loaded.config.cryptoki.module_path.clone();
                match Engine::load_with(&path, loaded.settings.clone(), timeouts) {
                    Ok(engine) => return Ok(Running::start(loaded, engine.into(), timeouts)?),
                    Err(error) => (error.into(), Some(path)),
                }
            }
            Err(error) => {
                let named = error.file().map(PathBuf::from);
                (error.into(), named)
            }
        };
        if !inherited_socket {
            return Err(why);
        }
        error!(target: TARGET, "{why}; answering Ping and Status alone until this is mended");
        let why = why.to_string();
        let service = Arc::new(Misconfigured(why.clone()));
        let files = Watch::new(args.files().into_iter().chain(named).collect());
        let handler = Handler::new(Served::new(service, Policy::default()), timeouts);
        Ok((State::Misconfigured { why, files }, handler))
    }

    /// Whether there is no configuration, and its files have changed since that was found.
    pub fn is_worth_a_try(&mut self) -> bool {
        match self {
            State::Misconfigured { files, .. } => files.is_due(),
            State::Running(_) => false,
        }
    }

    /// Takes over what can change while we run. A configuration that cannot be used changes nothing.
    pub fn reload(&mut self, args: &Args, server: &Server, timeouts: Timeouts) {
        let inherited = server.is_inherited();
        let loaded = load(args, inherited, Some(self));
        match self {
            State::Running(running) => match loaded {
                Ok(loaded) => running.take_over(loaded, server),
                Err(error) => {
                    error!(target: TARGET, "the configuration is left as it was: {error}");
                }
            },
            State::Misconfigured { .. } => match State::start(args, loaded, inherited, timeouts) {
                Ok((state, handler)) => {
                    server.handler().serve_as(&handler);
                    *self = state;
                }
                Err(error) => error!(target: TARGET, "{error}"),
            },
        }
    }

    /// The module, or why there is none.
    pub fn engine(&self) -> Result<&Engine, &str> {
        match self {
            State::Running(running) => Ok(&running.engine),
            State::Misconfigured { why, .. } => Err(why),
        }
    }

    /// Closes the sessions and finalises the module. False if that takes too long.
    pub fn shut_down(self) -> bool {
        let State::Running(Running { engine, .. }) = self else {
            return true;
        };
        let (done, ended) = mpsc::channel();
        let thread = thread::Builder::new().name("shutdown".into());
        let thread = thread.spawn(move || {
            engine.shut_down();
            let _ = done.send(());
        });
        thread.is_ok() && ended.recv_timeout(FINALIZE).is_ok()
    }
}

impl Running {
    fn start(
        loaded: Loaded,
        engine: Arc<Engine>,
        timeouts: Timeouts,
    ) -> std::io::Result<(State, Handler)> {
        supervise_module(engine.clone())?;
        let handler = Handler::new(served(&engine, &loaded.config, loaded.policy), timeouts);
        let running = Running {
            config: loaded.config,
            pin_origin: loaded.settings.pin_origin,
            engine,
        };
        Ok((State::Running(running), handler))
    }

    fn take_over(&mut self, loaded: Loaded, server: &Server) {
        let (before, new) = (&mut self.config, loaded.config);
        for (what, before, now) in [
            (
                "module",
                &before.cryptoki.module_path,
                &new.cryptoki.module_path,
            ),
            ("socket", &before.socket_path, &new.socket_path),
        ] {
            if before != now {
                warn!(target: TARGET, "another {what} is configured, {now:?}; restart the server to use it");
            }
        }
        self.pin_origin = loaded.settings.pin_origin.clone();
        self.engine.reconfigure(loaded.settings);
        show(&new);
        before.take_over(new);
        let served = served(&self.engine, before, loaded.policy);
        server.handler().serve(served);
    }
}

fn served(engine: &Arc<Engine>, config: &Config, policy: Policy) -> Served {
    Served {
        settings: config.report.clone(),
        ..Served::new(engine.clone(), policy)
    }
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
