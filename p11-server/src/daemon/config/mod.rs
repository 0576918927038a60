//! The configuration: flags, environment, credential and `tedge.toml`, in this order, and the defaults.

mod args;
mod error;
mod origin;
mod pin;
mod tedge_toml;

use std::fmt;
use std::path::{Path, PathBuf};

use p11_proto::Pin;
use p11_proto::message::Setting;
use p11_uri::Uri;

use crate::daemon::files;
use crate::daemon::notice::Notice;
use crate::engine::{Settings, Wording};

pub(crate) use self::args::Args;
pub(crate) use self::error::Error;
use self::origin::Origin;
use self::pin::ConfiguredPin;
use self::tedge_toml::TedgeToml;
#[cfg(fuzzing)]
pub use self::tedge_toml::check_tedge_toml;

/// The settings that take a restart.
const SOCKET_PATH: &str = "socket-path";
const MODULE_PATH: &str = "module-path";

/// Where to listen if nobody says it.
pub(crate) const DEFAULT_SOCKET: &str = "./tedge-p11-server.sock";
const DEFAULT_PIN: &str = "123456";

/// All that is configured.
pub(crate) struct Config {
    /// Where to listen, unless the socket is inherited.
    pub(crate) socket_path: PathBuf,
    /// What the start-up line shows.
    pub(crate) cryptoki: CryptokiConfigDirect,
    /// All of it as `Status` tells of it.
    pub(crate) report: Vec<Setting>,
    /// Whether nobody has said where to listen.
    pub(crate) socket_is_default: bool,
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
    /// The server's URI as given, and where.
    uri: Option<(String, Origin)>,
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
            .field(
                "uri",
                &self.uri.as_ref().map(|(uri, _)| p11_uri::redact(uri)),
            )
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
        warnings: &mut Vec<Notice>,
    ) -> Result<Config, Error> {
        let mut pins = pin::given(args, warnings)?;
        let file_path = args.tedge_toml();
        let file = read_file(args, before)?;
        let has_file = file.is_some();
        let mut in_file = file.unwrap_or_default();
        warnings.append(&mut in_file.warnings);
        let from = |key| in_file.origin(&file_path, key);
        let socket_of_file = || Some((in_file.socket_path.clone()?, from("socket_path")));
        let module_of_file = || Some((in_file.module_path.clone()?, from("module_path")));
        let uri_of_file = || Some((in_file.uri.clone()?, from("uri")));

        let socket = match inherited_socket {
            true => None,
            false => args.socket_path().or_else(socket_of_file),
        };
        let uri = args.uri().or_else(uri_of_file);
        if let Some(pin) = &in_file.pin {
            pins.push(ConfiguredPin::new(pin.expose().as_bytes(), from("pin"))?);
        }

        // A URI that does not parse is refused later, after it was logged.
        let parsed = uri.as_ref().and_then(|(uri, _)| Uri::parse(uri).ok());
        let named_by_uri = || {
            let path = parsed.as_ref()?.module_path()?;
            Some((path.into(), Origin::uri("module-path")))
        };
        let module = args.module_path().or_else(module_of_file);
        let Some(module) = module.or_else(named_by_uri) else {
            return Err(Error::NoModule(file_path));
        };
        let takes_default_pin = pins.is_empty() && !args.pin_is_empty && !in_file.pin_is_empty;
        let pin_of_uri = parsed.as_ref().and_then(origin_of_pin);
        let pin = pin_of_uri.or_else(|| pins.first().map(|first| first.origin.clone()));
        if takes_default_pin && pin.is_none() {
            let text =
                "no PIN is configured, using the default one; set --pin or device.cryptoki.pin";
            warnings.push(text.into());
        }
        let pin = pin.or_else(|| takes_default_pin.then(Origin::default));
        let report = report(args, inherited_socket, &socket, &module, &uri, &pin);
        Ok(Config {
            has_file,
            report,
            socket_is_default: socket.is_none() && !inherited_socket,
            socket_path: socket.map_or_else(|| DEFAULT_SOCKET.into(), |(path, _)| path),
            cryptoki: CryptokiConfigDirect {
                module_path: module.0,
                pins,
                takes_default_pin,
                reload_for_new_tokens: args.reload_for_new_tokens,
                uri,
            },
        })
    }
}

/// Where the URI says that the PIN is, if it does.
fn origin_of_pin(uri: &Uri) -> Option<Origin> {
    match (uri.pin_value(), uri.pin_source_path()) {
        (Some(_), _) => Some(Origin::uri("pin-value")),
        (None, Ok(Some(path))) => Some(Origin::pin_source(&path)),
        // It is refused later.
        (None, Err(_)) => Some(Origin::uri("pin-source")),
        (None, Ok(None)) => None,
    }
}

/// The configuration, as `Status` tells of it.
fn report(
    args: &Args,
    inherited_socket: bool,
    socket: &Option<(PathBuf, Origin)>,
    (module, module_origin): &(PathBuf, Origin),
    uri: &Option<(String, Origin)>,
    pin: &Option<Origin>,
) -> Vec<Setting> {
    let shown = |path: &Path| path.display().to_string();
    let mut report = vec![
        match socket {
            Some((path, origin)) => origin.setting(SOCKET_PATH, shown(path)),
            None if inherited_socket => Origin::service_manager().setting(SOCKET_PATH, None),
            None => Origin::default().setting(SOCKET_PATH, DEFAULT_SOCKET.to_owned()),
        },
        module_origin.setting(MODULE_PATH, shown(module)),
    ];
    report.extend(pin.as_ref().map(|origin| origin.setting("pin", None)));
    let uri = uri.as_ref();
    report.extend(uri.map(|(uri, origin)| origin.setting("uri", p11_uri::redact(uri))));
    report.extend(args.settings());
    report
}

impl Config {
    /// Another configuration holds from now on, but for what takes a restart.
    pub(crate) fn take_over(&mut self, new: Config) {
        self.has_file = new.has_file;
        let stays = |setting: &Setting| [SOCKET_PATH, MODULE_PATH].contains(&&*setting.name);
        self.report.retain(stays);
        self.report
            .extend(new.report.into_iter().filter(|setting| !stays(setting)));
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
        None if args.is_flag("config-dir") => {
            "where --config-dir leads; make it, or leave out the flag"
        }
        None if before.is_some_and(|before| before.has_file) => {
            "which was read before; put it back, or restart the server to do without"
        }
        None => return Ok(None),
    };
    Err(Error::Missing { path, why })
}

/// The server's URI, and the file that it names as the source of the PIN.
fn scope(
    uri: &str,
    origin: &Origin,
    warnings: &mut Vec<Notice>,
) -> Result<(Uri, Option<PathBuf>), Error> {
    let unusable = |cause| Error::Uri {
        origin: origin.clone(),
        cause,
    };
    let uri = Uri::parse(uri).map_err(unusable)?;
    let pin_source = uri.pin_source_path().map_err(unusable)?;
    if let Some(hint) = uri.hint() {
        let shown = uri.shown();
        warnings.push(Notice {
            text: format!(
                "the server's URI {shown}, of {origin}, matches nothing, or nearly nothing: {hint}"
            ),
            place: origin.place_in_file(),
        });
    }
    Ok((uri, pin_source))
}

impl CryptokiConfigDirect {
    /// The server's URI, as given.
    pub(crate) fn uri(&self) -> Option<&str> {
        self.uri.as_ref().map(|(uri, _)| uri.as_str())
    }

    /// What the engine needs: parses the URI and reads the PIN that it may name.
    ///
    /// # Errors
    /// [`Error::Uri`], [`Error::PinSource`]
    pub(crate) fn settings(&self, warnings: &mut Vec<Notice>) -> Result<Settings, Error> {
        let (scope, pin_source) = match &self.uri {
            Some((uri, origin)) => scope(uri, origin, warnings)?,
            None => (Uri::default(), None),
        };
        let of_uri = match (scope.pin_value(), pin_source) {
            (Some(pin), _) => Some(ConfiguredPin::of_uri(&Pin::from(pin.clone()))?),
            (None, Some(path)) => {
                warnings.extend(files::warn_of_readers(&path));
                let origin = Origin::pin_source(&path);
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
            Some(first) => (Some(first.pin), Some(first.origin.to_string())),
            None => (pin_is_default.then(|| DEFAULT_PIN.into()), None),
        };
        Ok(Settings {
            pin,
            pin_origin,
            pin_is_default,
            other_pins: pins
                .map(|other| (other.origin.to_string(), other.pin))
                .collect(),
            refusals: pin::refusals(),
            scope,
            reload_for_new_tokens: self.reload_for_new_tokens,
            wording: wording(),
        })
    }
}

/// How the engine's texts name what is configured here.
fn wording() -> Wording {
    Wording {
        owner: "the server",
        pin: "--pin or device.cryptoki.pin",
        reload: "reload the server (SIGHUP, systemctl reload tedge-p11-server)",
        refusals: "Set RuntimeDirectory= in the systemd unit, as the one of the package does, or the variable \
                   RUNTIME_DIRECTORY to a folder of this user alone that is gone after a boot",
    }
}
