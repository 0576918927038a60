//! The server, as the command line and tedge.toml lead to it.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use p11_client::{Client, CryptokiConfig, Error, ErrorCode, Pin, Uri};

use crate::exit::{Exit, Refusal};
use crate::output::{Output, say};
use crate::pin;
use crate::progress::during;
use crate::socket;

/// What every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of all commands")]
pub struct Options {
    /// The server's socket; else that of tedge.toml, of the service, or your own in this folder
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "TEDGE_DEVICE_CRYPTOKI_SOCKET_PATH",
        hide_env_values = true
    )]
    socket_path: Option<PathBuf>,
    /// The folder of tedge.toml
    #[arg(
        long,
        global = true,
        value_name = "FOLDER",
        env = "TEDGE_CONFIG_DIR",
        hide_env_values = true,
        default_value = "/etc/tedge"
    )]
    config_dir: PathBuf,
    /// A file with the PIN alone (- for stdin), where it is not the server's own
    #[arg(long, global = true, value_name = "FILE")]
    pin_file: Option<PathBuf>,
    /// An environment variable that holds the PIN
    #[arg(long, global = true, value_name = "NAME", conflicts_with = "pin_file")]
    pin_env: Option<String>,
    /// For how many seconds a server that is away is waited for
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 10)]
    wait: u64,
    /// Answer in JSON, as docs/command.md describes it
    #[arg(long, global = true)]
    json: bool,
    /// Print full URIs, and more words
    #[arg(short, long, global = true)]
    verbose: bool,
}

/// A server that has answered.
pub struct Session {
    pub client: Client,
    /// What --pin-file or --pin-env brought.
    pub given_pin: Option<Pin>,
    pub output: Output,
    /// thin-edge's configuration, as far as this user may read it.
    pub config: CryptokiConfig,
}

impl Options {
    /// The folder of tedge.toml.
    pub fn config_dir(&self) -> &Path {
        &self.config_dir
    }

    /// The socket, where the command line or the environment names one.
    pub fn socket_path(&self) -> Option<PathBuf> {
        let told = self.socket_path.clone();
        told.filter(|path| !path.as_os_str().is_empty())
    }

    /// What --pin-file or --pin-env brings.
    pub fn given_pin(&self) -> Result<Option<Pin>, Refusal> {
        pin::read(self.pin_file.as_deref(), self.pin_env.as_deref())
    }

    pub fn output(&self) -> Output {
        Output {
            json: self.json,
            verbose: self.verbose,
        }
    }
}

impl Session {
    /// Reaches the server, and says so if that takes a while.
    pub fn open(options: &Options) -> Result<Session, Refusal> {
        let config = configuration(options)?;
        let told = options.socket_path();
        let told = told.or_else(|| config.socket_path.clone());
        let is_told = told.is_some();
        let socket_path = socket::choose(told);
        let of_socket = || socket::config(&socket_path, is_told);
        let given_pin = options.given_pin()?;
        let pin = given_pin.clone().or_else(|| configured_pin(&config));

        let once = of_socket().retry_for(Duration::ZERO);
        let wait = Duration::from_secs(options.wait);
        let patient = Client::new(of_socket().retry_for(wait));
        match Client::new(once).ping() {
            Err(Error::NoSocket(_) | Error::Refused(_) | Error::ConnectionLost(_))
                if !wait.is_zero() =>
            {
                say(format_args!(
                    "waiting for the server at {}, {} s ...",
                    socket_path.display(),
                    options.wait
                ));
                during("waiting for the server", || patient.ping())?;
            }
            answer => {
                answer?;
            }
        }
        Ok(Session {
            client: patient.pin(pin),
            given_pin,
            output: options.output(),
            config,
        })
    }

    /// Sends a request, shows that it takes long, and asks for a PIN where the server knows none. `what` says what the
    /// token does, for example "looking for the key".
    pub fn ask<T>(
        &mut self,
        what: &str,
        request: impl Fn(&Client) -> Result<T, Error>,
    ) -> Result<T, Refusal> {
        match during(what, || request(&self.client)) {
            Err(Error::Server(failure))
                if failure.code == ErrorCode::PinRequired && pin::can_ask() =>
            {
                say(&failure.message);
                let pin = pin::ask("PIN of the token: ", pin::USER_PIN_FLAGS)?;
                self.client = self.client.clone().pin(pin);
                Ok(during(what, || request(&self.client))?)
            }
            answer => Ok(answer?),
        }
    }
}

/// The PIN that tedge sends with its requests.
fn configured_pin(config: &CryptokiConfig) -> Option<Pin> {
    let of_uri = || {
        let uri = Uri::parse(config.key_uri.as_deref()?).ok()?;
        uri.pin_value().cloned().map(Pin::from)
    };
    of_uri().or_else(|| config.key_pin.clone())
}

/// What tedge.toml and the environment say. Who may not read the file goes on without it.
fn configuration(options: &Options) -> Result<CryptokiConfig, Refusal> {
    let file = options.config_dir.join("tedge.toml");
    match File::open(&file) {
        Err(e) if e.kind() == ErrorKind::PermissionDenied => {
            if options.verbose {
                say(format_args!(
                    "{} is not for you to read: {e}",
                    file.display()
                ));
            }
            Ok(CryptokiConfig::default())
        }
        _ => CryptokiConfig::load(&options.config_dir, None).map_err(|e| Refusal {
            exit: Exit::Usage,
            ..e.into()
        }),
    }
}
