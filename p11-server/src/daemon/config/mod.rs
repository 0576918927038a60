//! Flags, environment, `tedge.toml` and credentials enter; one [`Config`] leaves, with what to warn about.

mod args;
mod tedge_toml;

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use p11_proto::Pin;
use p11_uri::Uri;
use zeroize::Zeroizing;

use crate::daemon::policy;
use crate::engine::Settings;

pub use args::Args;
use tedge_toml::TedgeToml;

const DEFAULT_SOCKET: &str = "./tedge-p11-server.sock";
const PIN_VARIABLE: &str = "TEDGE_DEVICE_CRYPTOKI_PIN";
const DEFAULT_PIN: &str = "123456";
const DEFAULT_CONFIG_DIR: &str = "/etc/tedge";

/// Why the server cannot start (or not go on with a new configuration).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nothing to load.
    #[error(
        "no PKCS#11 module is configured; set it with --module-path, \
         TEDGE_DEVICE_CRYPTOKI_MODULE_PATH, or device.cryptoki.module_path in {}",
        .0.display()
    )]
    NoModule(PathBuf),
    /// The policy file is unusable.
    #[error(transparent)]
    Policy(#[from] policy::Error),
    /// The server's own URI is unusable.
    #[error("the server's URI cannot be used: {0}")]
    Uri(#[from] p11_uri::Error),
    /// The file that the URI names as the source of the PIN.
    #[error("cannot read the PIN from {}, the pin-source of the server's URI: {cause}", path.display())]
    PinSource {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

/// All that is configured.
pub struct Config {
    /// Where to listen, unless the socket is inherited.
    pub socket_path: PathBuf,
    /// What the start-up line shows.
    pub cryptoki: CryptokiConfigDirect,
}

/// Which module, PIN and URI are used. Its `Debug` is the line that the reference page shows.
pub struct CryptokiConfigDirect {
    /// The module to load.
    pub module_path: PathBuf,
    /// The PIN of flag, environment, credential or file.
    pub pin: Pin,
    /// Which of these it is; `None` for the default.
    pub pin_origin: Option<String>,
    /// The server's URI, as given.
    pub uri: Option<String>,
}

impl fmt::Debug for CryptokiConfigDirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CryptokiConfigDirect")
            .field("module_path", &self.module_path)
            .field("pin", &self.pin)
            .field("uri", &self.uri.as_deref().map(p11_uri::redact))
            .finish()
    }
}

impl Config {
    /// Gathers the configuration; an inherited socket needs no path. What the operator should know
    /// about how it came to be is added to `warnings`, whatever comes of it.
    ///
    /// # Errors
    /// [`Error::NoModule`]
    pub fn load(
        args: &Args,
        inherited_socket: bool,
        warnings: &mut Vec<String>,
    ) -> Result<Config, Error> {
        let dir = args.config_dir.clone().filter(|dir| !dir.is_empty());
        let dir = dir.or_else(|| from_env("TEDGE_CONFIG_DIR"));
        let dir = dir.map_or_else(|| DEFAULT_CONFIG_DIR.into(), PathBuf::from);
        let mut file = TedgeToml::at(dir.join("tedge.toml"));

        let socket_path = match inherited_socket {
            true => None,
            false => path(&args.socket_path, "TEDGE_DEVICE_CRYPTOKI_SOCKET_PATH")
                .or_else(|| file.get(|section| &mut section.socket_path)),
        };
        let module_path = path(&args.module_path, "TEDGE_DEVICE_CRYPTOKI_MODULE_PATH")
            .or_else(|| file.get(|section| &mut section.module_path));
        let uri = args.uri.clone().filter(|uri| !uri.is_empty());
        let uri = uri
            .or_else(|| text_from_env("TEDGE_DEVICE_CRYPTOKI_URI"))
            .or_else(|| file.get(|section| &mut section.uri));
        let flag_pin = args.pin.clone().filter(|pin| !pin.expose().is_empty());
        if flag_pin.is_some() {
            warnings.push(
                "the PIN was given on the command line, where every user of this machine can read \
                 it in the process list; TEDGE_DEVICE_CRYPTOKI_PIN or a systemd credential hides it"
                    .into(),
            );
        }
        let from = |origin: &str| {
            let origin = origin.to_owned();
            move |pin: Pin| (pin, origin)
        };
        let in_file = format!("device.cryptoki.pin in {}", file.path.display());
        let pin = flag_pin.map(from("--pin"));
        let pin = pin
            .or_else(|| {
                text_from_env(PIN_VARIABLE)
                    .map(Pin::from)
                    .map(from(PIN_VARIABLE))
            })
            .or_else(|| credential(warnings).map(from("the credential pin")))
            .or_else(|| file.get(|section| &mut section.pin).map(from(&in_file)));

        warnings.extend(file.warning());
        // A URI that does not parse is refused later, after it was logged.
        let named_by_uri = || {
            Uri::parse(uri.as_deref()?)
                .ok()?
                .module_path()
                .map(PathBuf::from)
        };
        let module_path = module_path.or_else(named_by_uri);
        let module_path = module_path.ok_or_else(|| Error::NoModule(file.path.clone()))?;
        if socket_path.is_none() && !inherited_socket {
            warnings.push(format!(
                "no socket path is configured, using the default {DEFAULT_SOCKET}; \
                 set --socket-path or device.cryptoki.socket_path"
            ));
        }
        if pin.is_none() {
            warnings.push(
                "no PIN is configured, using the default one; set --pin or device.cryptoki.pin"
                    .into(),
            );
        }
        Ok(Config {
            socket_path: socket_path.unwrap_or_else(|| DEFAULT_SOCKET.into()),
            cryptoki: CryptokiConfigDirect {
                module_path,
                pin_origin: pin.as_ref().map(|(_, origin)| origin.clone()),
                pin: pin.map_or_else(|| DEFAULT_PIN.into(), |(pin, _)| pin),
                uri,
            },
        })
    }
}

impl CryptokiConfigDirect {
    /// What the engine needs: parses the URI and reads the PIN that it may name.
    ///
    /// # Errors
    /// [`Error::Uri`], [`Error::PinSource`]
    pub fn settings(&self) -> Result<Settings, Error> {
        let scope = Uri::parse(self.uri.as_deref().unwrap_or("pkcs11:"))?;
        let (pin, pin_origin) = match (scope.pin_value(), scope.pin_source_path()?) {
            (Some(pin), _) => {
                let origin = "pin-value of the server's URI".to_owned();
                (Pin::from(pin.clone()), Some(origin))
            }
            (None, Some(path)) => {
                let origin = format!("{}, the pin-source of the server's URI", path.display());
                let pin = read_pin(&path).map_err(|cause| Error::PinSource { path, cause })?;
                (pin, Some(origin))
            }
            (None, None) => (self.pin.clone(), self.pin_origin.clone()),
        };
        Ok(Settings {
            pin: Some(pin),
            pin_origin,
            scope,
        })
    }
}

fn path(flag: &Option<OsString>, variable: &str) -> Option<PathBuf> {
    let flag = flag.clone().filter(|value| !value.is_empty());
    flag.or_else(|| from_env(variable)).map(PathBuf::from)
}

fn from_env(variable: &str) -> Option<OsString> {
    env::var_os(variable).filter(|value| !value.is_empty())
}

fn text_from_env(variable: &str) -> Option<String> {
    from_env(variable).map(|value| value.to_string_lossy().into_owned())
}

/// The systemd credential named `pin` (systemd.exec(5), `LoadCredential=`).
fn credential(warnings: &mut Vec<String>) -> Option<Pin> {
    let path = PathBuf::from(from_env("CREDENTIALS_DIRECTORY")?).join("pin");
    match read_pin(&path) {
        Ok(pin) => Some(pin).filter(|pin| !pin.expose().is_empty()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            warnings.push(format!("Failed to read {}: {error}", path.display()));
            None
        }
    }
}

/// A file that holds a PIN; one newline at its end is not part of it.
fn read_pin(path: &Path) -> io::Result<Pin> {
    let text = Zeroizing::new(fs::read_to_string(path)?);
    Ok(Pin::from(text.strip_suffix('\n').unwrap_or(&text)))
}
