//! The configuration: flags, environment, credential and `tedge.toml`, in this order, and the defaults.

mod args;
mod pin;
mod tedge_toml;

use std::cell::OnceCell;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use p11_proto::Pin;
use p11_uri::Uri;

use crate::daemon::policy;
use crate::engine::Settings;

pub(crate) use self::args::Args;
use self::tedge_toml::TedgeToml;

const DEFAULT_SOCKET: &str = "./tedge-p11-server.sock";
const DEFAULT_PIN: &str = "123456";
const DEFAULT_CONFIG_DIR: &str = "/etc/tedge";

/// Why the server cannot start (or not go on with a new configuration).
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
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
    /// PKCS#11 has PINs in UTF-8. The value is not shown.
    #[error("the PIN of {0} is not UTF-8 text")]
    PinEncoding(&'static str),
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
pub(crate) struct Config {
    /// Where to listen, unless the socket is inherited.
    pub(crate) socket_path: PathBuf,
    /// What the start-up line shows.
    pub(crate) cryptoki: CryptokiConfigDirect,
}

/// Which module, PIN and URI are used. Its `Debug` is the line that the reference page shows.
pub(crate) struct CryptokiConfigDirect {
    /// The module to load.
    pub(crate) module_path: PathBuf,
    /// The PIN of flag, environment, credential or file.
    pub(crate) pin: Pin,
    /// Which of these it is; `None` for the default.
    pub(crate) pin_origin: Option<String>,
    /// The server's URI, as given.
    pub(crate) uri: Option<String>,
    /// Whether a token that is not there is looked for by a reload.
    pub reload_for_new_tokens: bool,
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
    /// Reads the configuration; an inherited socket needs no path. What the operator should know about
    /// it is added to `warnings`, whatever the result.
    ///
    /// # Errors
    /// [`Error::NoModule`], [`Error::PinEncoding`]
    pub(crate) fn load(
        args: &Args,
        inherited_socket: bool,
        warnings: &mut Vec<String>,
    ) -> Result<Config, Error> {
        let pin = given_pin(args, warnings)?;
        let dir = args.config_dir.as_deref();
        let file_path = Path::new(dir.unwrap_or(DEFAULT_CONFIG_DIR.as_ref())).join("tedge.toml");
        // Read when a value is first wanted.
        let file = OnceCell::new();
        let in_file = || file.get_or_init(|| TedgeToml::read(&file_path));
        let path = |value: &Option<OsString>| value.clone().map(PathBuf::from);

        let socket_path = match inherited_socket {
            true => None,
            false => path(&args.socket_path).or_else(|| in_file().socket_path.clone()),
        };
        let module_path = path(&args.module_path).or_else(|| in_file().module_path.clone());
        // What is not UTF-8 is no URI, with or without the replacement characters.
        let uri = args.uri.as_ref().map(|uri| uri.to_string_lossy().into());
        let uri: Option<String> = uri.or_else(|| in_file().uri.clone());
        let pin = pin.or_else(|| {
            let origin = format!("device.cryptoki.pin in {}", file_path.display());
            Some((in_file().pin.clone()?, origin))
        });
        warnings.extend(file.into_inner().into_iter().flat_map(|file| file.warnings));

        // A URI that does not parse is refused later, after it was logged.
        let named_by_uri = || Some(Uri::parse(uri.as_deref()?).ok()?.module_path()?.into());
        let module_path = module_path.or_else(named_by_uri);
        let module_path = module_path.ok_or(Error::NoModule(file_path))?;
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
        let (pin, pin_origin) = pin.unzip();
        Ok(Config {
            socket_path: socket_path.unwrap_or_else(|| DEFAULT_SOCKET.into()),
            cryptoki: CryptokiConfigDirect {
                module_path,
                pin: pin.unwrap_or_else(|| DEFAULT_PIN.into()),
                pin_origin,
                reload_for_new_tokens: args.reload_for_new_tokens,
                uri,
            },
        })
    }
}

/// The PIN of flag, environment or credential, and which of these it is.
fn given_pin(args: &Args, warnings: &mut Vec<String>) -> Result<Option<(Pin, String)>, Error> {
    let Some(pin) = &args.pin else {
        return Ok(pin::credential(warnings).map(|pin| (pin, "the credential pin".into())));
    };
    let mut origin = args::PIN;
    if args.pin_is_flag {
        origin = "--pin";
        warnings.push(
            "the PIN was given on the command line, where every user of this machine can read \
             it in the process list; TEDGE_DEVICE_CRYPTOKI_PIN or a systemd credential hides it"
                .into(),
        );
    }
    let pin = pin.to_str().ok_or(Error::PinEncoding(origin))?;
    Ok(Some((pin.into(), origin.into())))
}

impl CryptokiConfigDirect {
    /// What the engine needs: parses the URI and reads the PIN that it may name.
    ///
    /// # Errors
    /// [`Error::Uri`], [`Error::PinSource`]
    pub(crate) fn settings(&self) -> Result<Settings, Error> {
        let scope = Uri::parse(self.uri.as_deref().unwrap_or("pkcs11:"))?;
        let (pin, pin_origin) = match (scope.pin_value(), scope.pin_source_path()?) {
            (Some(pin), _) => {
                let origin = "pin-value of the server's URI".to_owned();
                (Pin::from(pin.clone()), Some(origin))
            }
            (None, Some(path)) => {
                let origin = format!("{}, the pin-source of the server's URI", path.display());
                let pin =
                    pin::read_file(&path).map_err(|cause| Error::PinSource { path, cause })?;
                (pin, Some(origin))
            }
            (None, None) => (self.pin.clone(), self.pin_origin.clone()),
        };
        Ok(Settings {
            pin: Some(pin),
            pin_origin,
            scope,
            reload_for_new_tokens: self.reload_for_new_tokens,
        })
    }
}
