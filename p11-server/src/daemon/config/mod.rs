//! The configuration: flags, environment, credential and `tedge.toml`, in this order, and the defaults.

mod args;
mod error;
mod pin;
mod tedge_toml;

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use p11_proto::Pin;
use p11_uri::Uri;

use crate::daemon::files;
use crate::engine::Settings;

pub(crate) use self::args::Args;
pub(crate) use self::error::Error;
use self::pin::ConfiguredPin;
use self::tedge_toml::TedgeToml;
#[cfg(fuzzing)]
pub use self::tedge_toml::check_tedge_toml;

const DEFAULT_SOCKET: &str = "./tedge-p11-server.sock";
const DEFAULT_PIN: &str = "123456";

/// All that is configured.
pub(crate) struct Config {
    /// Where to listen, unless the socket is inherited.
    pub(crate) socket_path: PathBuf,
    /// What the start-up line shows.
    pub(crate) cryptoki: CryptokiConfigDirect,
    /// Whether there was a tedge.toml.
    has_file: bool,
}

/// Which module, PIN and URI are used. Its `Debug` is the line that the reference page shows.
pub(crate) struct CryptokiConfigDirect {
    /// The module to load.
    pub(crate) module_path: PathBuf,
    /// The PINs of flag, environment, credential and file, the one that is used first.
    pins: Vec<ConfiguredPin>,
    /// Whether the default PIN is used where there is none.
    takes_default_pin: bool,
    /// The server's URI, as given.
    pub(crate) uri: Option<String>,
    /// Whether a token that is not there is looked for by a reload.
    pub reload_for_new_tokens: bool,
}

impl fmt::Debug for CryptokiConfigDirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let default = self.takes_default_pin.then(|| Pin::from(DEFAULT_PIN));
        let first = self.pins.first().map(|first| &first.pin);
        let pin = first.or(default.as_ref());
        f.debug_struct("CryptokiConfigDirect")
            .field("module_path", &self.module_path)
            .field("pin", pin.map_or(&"none", |pin| pin as &dyn fmt::Debug))
            .field("uri", &self.uri.as_deref().map(p11_uri::redact))
            .finish()
    }
}

impl Config {
    /// Reads the configuration; an inherited socket needs no path. `before` is what holds now. What the operator
    /// should know about it is added to `warnings`, whatever the result.
    ///
    /// # Errors
    /// [`Error`], where any of it cannot be used.
    pub(crate) fn load(
        args: &Args,
        inherited_socket: bool,
        before: Option<&Config>,
        warnings: &mut Vec<String>,
    ) -> Result<Config, Error> {
        let mut pins = pin::given(args, warnings)?;
        let file_path = args.tedge_toml();
        let file = read_file(args, before)?;
        let has_file = file.is_some();
        let in_file = file.unwrap_or_default();
        let path = |value: &Option<OsString>| value.clone().map(PathBuf::from);

        let socket_path = match inherited_socket {
            true => None,
            false => path(&args.socket_path).or(in_file.socket_path),
        };
        let module_path = path(&args.module_path).or(in_file.module_path);
        // What is not UTF-8 is no URI, with or without the replacement characters.
        let uri = args.uri.as_ref().map(|uri| uri.to_string_lossy().into());
        let uri: Option<String> = uri.or(in_file.uri);
        let line = in_file.pin_line;
        pins.extend(in_file.pin.map(|pin| ConfiguredPin {
            pin,
            origin: format!("device.cryptoki.pin in {} line {line}", file_path.display()),
        }));
        warnings.extend(in_file.warnings);

        // A URI that does not parse is refused later, after it was logged.
        let parsed = uri.as_deref().and_then(|uri| Uri::parse(uri).ok());
        let named_by_uri = || Some(parsed.as_ref()?.module_path()?.into());
        let module_path = module_path.or_else(named_by_uri);
        let module_path = module_path.ok_or(Error::NoModule(file_path))?;
        if socket_path.is_none() && !inherited_socket {
            warnings.push(format!(
                "no socket path is configured, using the default {DEFAULT_SOCKET}; \
                 set --socket-path or device.cryptoki.socket_path"
            ));
        }
        let takes_default_pin = pins.is_empty() && !args.pin_is_empty && !in_file.pin_is_empty;
        let brings_pin = |uri: &Uri| uri.pin_value().is_some() || uri.pin_source_path() != Ok(None);
        if takes_default_pin && !parsed.as_ref().is_some_and(brings_pin) {
            warnings.push(
                "no PIN is configured, using the default one; set --pin or device.cryptoki.pin"
                    .into(),
            );
        }
        Ok(Config {
            has_file,
            socket_path: socket_path.unwrap_or_else(|| DEFAULT_SOCKET.into()),
            cryptoki: CryptokiConfigDirect {
                module_path,
                pins,
                takes_default_pin,
                reload_for_new_tokens: args.reload_for_new_tokens,
                uri,
            },
        })
    }
}

impl Config {
    /// Another configuration holds from now on, but for what takes a restart.
    pub(crate) fn take_over(&mut self, new: Config) {
        self.has_file = new.has_file;
        self.cryptoki = CryptokiConfigDirect {
            module_path: std::mem::take(&mut self.cryptoki.module_path),
            ..new.cryptoki
        };
    }
}

/// The tedge.toml, if there is one; whether there may be none depends on what the operator has said, and on what was there before.
fn read_file(args: &Args, before: Option<&Config>) -> Result<Option<TedgeToml>, Error> {
    let path = args.tedge_toml();
    let file = TedgeToml::read(&path)?;
    let why = match &file {
        Some(_) => return Ok(file),
        None if args.config_dir_is_flag => {
            "where --config-dir leads; make it, or leave out the flag"
        }
        None if before.is_some_and(|before| before.has_file) => {
            "which was read before; put it back, or restart the server to do without"
        }
        None => return Ok(None),
    };
    Err(Error::Missing { path, why })
}

impl CryptokiConfigDirect {
    /// What the engine needs: parses the URI and reads the PIN that it may name.
    ///
    /// # Errors
    /// [`Error::Uri`], [`Error::PinSource`]
    pub(crate) fn settings(&self, warnings: &mut Vec<String>) -> Result<Settings, Error> {
        let scope = Uri::parse(self.uri.as_deref().unwrap_or("pkcs11:"))?;
        let of_uri = match (scope.pin_value(), scope.pin_source_path()?) {
            (Some(pin), _) => Some(ConfiguredPin {
                pin: Pin::from(pin.clone()),
                origin: "pin-value of the server's URI".into(),
            }),
            (None, Some(path)) => {
                warnings.extend(files::warn_of_readers(&path));
                let origin = format!("{}, the pin-source of the server's URI", path.display());
                let pin =
                    pin::read_file(&path).map_err(|cause| Error::PinSource { path, cause })?;
                Some(ConfiguredPin { pin, origin })
            }
            (None, None) => None,
        };
        let mut pins = of_uri.into_iter().chain(self.pins.iter().cloned());
        let first = pins.next();
        let pin_is_default = first.is_none() && self.takes_default_pin;
        let (pin, pin_origin) = match first {
            Some(first) => (Some(first.pin), Some(first.origin)),
            None => (pin_is_default.then(|| DEFAULT_PIN.into()), None),
        };
        Ok(Settings {
            pin,
            pin_origin,
            pin_is_default,
            other_pins: pins.map(|other| (other.origin, other.pin)).collect(),
            refusals: pin::refusals(),
            scope,
            reload_for_new_tokens: self.reload_for_new_tokens,
        })
    }
}
