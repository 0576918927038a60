//! Command line and environment.

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, CommandFactory, FromArgMatches, Parser};
use p11_proto::message::Setting;
use tracing::Level;

use super::origin::Origin;
use crate::daemon::files;
use crate::daemon::net::ConnectionLimits;
use crate::daemon::notice::Notice;
use crate::daemon::policy::{self, Policy};

const SOCKET_PATH: &str = "TEDGE_DEVICE_CRYPTOKI_SOCKET_PATH";
const MODULE_PATH: &str = "TEDGE_DEVICE_CRYPTOKI_MODULE_PATH";
pub(super) const PIN: &str = "TEDGE_DEVICE_CRYPTOKI_PIN";
const URI: &str = "TEDGE_DEVICE_CRYPTOKI_URI";
const CONFIG_DIR: &str = "TEDGE_CONFIG_DIR";
const POLICY: &str = "TEDGE_P11_POLICY";

const DEFAULT_CONFIG_DIR: &str = "/etc/tedge";

/// The flags that stand for a setting.
const FLAGS: [&str; 11] = [
    "socket-path",
    "module-path",
    "pin",
    "uri",
    "log-level",
    "config-dir",
    "policy",
    "sign-only",
    "reload-for-new-tokens",
    "max-connections",
    "max-connections-per-user",
];

const LOG_LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// What flags and variables say.
#[derive(Parser)]
#[command(
    name = "tedge-p11-server",
    version,
    about = "thin-edge.io service for passing PKCS#11 cryptographic tokens"
)]
pub(crate) struct Args {
    /// A path where the UNIX socket listener will be created
    #[arg(long, env = SOCKET_PATH, hide_env_values = true)]
    socket_path: Option<OsString>,

    /// The path to the PKCS#11 module
    #[arg(long, env = MODULE_PATH, hide_env_values = true)]
    module_path: Option<OsString>,

    /// The PIN for the PKCS#11 token
    #[arg(long, env = PIN, hide_env_values = true)]
    pub(super) pin: Option<OsString>,

    /// A URI of the token/object to use.
    ///
    /// See RFC #7512.
    #[arg(long, env = URI, hide_env_values = true, verbatim_doc_comment)]
    uri: Option<OsString>,

    /// Configures the logging level.
    ///
    /// One of error/warn/info/debug/trace. Logs with verbosity lower or equal to the selected level
    /// will be printed, i.e. warn prints ERROR and WARN logs and trace prints logs of all levels.
    #[arg(
        long,
        default_value = "info",
        hide_default_value = true,
        hide_possible_values = true
    )]
    #[arg(value_parser = PossibleValuesParser::new(LOG_LEVELS).try_map(|level| level.parse::<Level>()))]
    pub(crate) log_level: Level,

    /// [env: TEDGE_CONFIG_DIR, default: /etc/tedge]
    #[arg(long, env = CONFIG_DIR, hide_env = true)]
    config_dir: Option<OsString>,

    /// A file that says which users may do what; without one, all who can connect may do everything
    #[arg(long, env = POLICY, hide_env_values = true)]
    policy: Option<OsString>,

    /// Refuse every request that changes a token, whatever the policy says
    #[arg(long)]
    sign_only: bool,

    /// Initialise the module again, at most every 30 s, when a token is asked for that is not there: for modules
    /// that show tokens of other programs by that alone, as SoftHSM is known to
    #[arg(long)]
    pub(super) reload_for_new_tokens: bool,

    /// How many connections are served at the same time
    #[arg(long, value_name = "COUNT", default_value_t = ConnectionLimits::default().all)]
    max_connections: usize,

    /// How many of them one user may have
    #[arg(long, value_name = "COUNT", default_value_t = ConnectionLimits::default().per_user)]
    max_connections_per_user: usize,

    /// Judge the configuration and the policy, say what is wrong and where, and end: 0 if they can be used, 1 if not.
    /// Nothing is loaded, and no PIN is shown
    #[arg(long)]
    pub(crate) check_config: bool,

    /// Say it in JSON
    #[arg(long, requires = "check_config")]
    pub(crate) json: bool,

    /// The long names of the flags that are given, and not empty.
    #[arg(skip)]
    flags: Vec<&'static str>,

    /// Whether flag or variable is there and empty, and no PIN is in either.
    #[arg(skip)]
    pub(super) pin_is_empty: bool,
}

impl Args {
    /// Reads flags and variables. Ends the process after `--help`, and after an error that clap finds.
    pub(crate) fn read() -> Args {
        let matches = Args::command().try_get_matches();
        let matches = matches.unwrap_or_else(|error| end(&error));
        let mut args = Args::from_arg_matches(&matches).unwrap_or_else(|error| end(&error));
        let is_flag = |long: &&str| {
            let id = long.replace('-', "_");
            matches.value_source(&id) == Some(ValueSource::CommandLine)
        };
        args.flags = FLAGS.into_iter().filter(is_flag).collect();
        let is_given = args.pin.is_some();
        for (value, flag, variable) in [
            (&mut args.socket_path, "socket-path", SOCKET_PATH),
            (&mut args.module_path, "module-path", MODULE_PATH),
            (&mut args.pin, "pin", PIN),
            (&mut args.uri, "uri", URI),
            (&mut args.config_dir, "config-dir", CONFIG_DIR),
            (&mut args.policy, "policy", POLICY),
        ] {
            // An empty value is the same as none. After an empty flag clap has not read the variable.
            if value.as_ref().is_some_and(|value| value.is_empty()) {
                *value = env::var_os(variable).filter(|value| !value.is_empty());
                args.flags.retain(|given| *given != flag);
            }
        }
        args.pin_is_empty = is_given && args.pin.is_none();
        args
    }

    /// Whether a flag is given, and not empty.
    pub(super) fn is_flag(&self, long: &str) -> bool {
        self.flags.contains(&long)
    }

    /// The socket's path, and where it is set.
    pub(super) fn socket_path(&self) -> Option<(PathBuf, Origin)> {
        let path = self.socket_path.as_ref()?;
        Some((path.into(), self.origin("socket-path", SOCKET_PATH)))
    }

    /// The module's path, and where it is set.
    pub(super) fn module_path(&self) -> Option<(PathBuf, Origin)> {
        let path = self.module_path.as_ref()?;
        Some((path.into(), self.origin("module-path", MODULE_PATH)))
    }

    /// The server's URI, and where it is set. What is not UTF-8 is no URI, with or without the replacement characters.
    pub(super) fn uri(&self) -> Option<(String, Origin)> {
        let uri = self.uri.as_ref()?.to_string_lossy();
        Some((uri.into(), self.origin("uri", URI)))
    }

    /// Where a value is set that has a flag and a variable.
    fn origin(&self, flag: &str, variable: &str) -> Origin {
        match self.is_flag(flag) {
            true => Origin::flag(flag),
            false => Origin::variable(variable),
        }
    }

    /// What is set by flags and variables alone, as `Status` tells of it.
    pub(crate) fn settings(&self) -> Vec<Setting> {
        let path = |path: &Option<OsString>| Some(path.as_ref()?.to_string_lossy().into_owned());
        let flag = |name: &str, value: String| match self.is_flag(name) {
            true => Origin::flag(name).setting(name, value),
            false => Origin::default().setting(name, value),
        };
        let dir = match path(&self.config_dir) {
            Some(dir) => self
                .origin("config-dir", CONFIG_DIR)
                .setting("config-dir", dir),
            None => Origin::default().setting("config-dir", DEFAULT_CONFIG_DIR.to_owned()),
        };
        let policy = match path(&self.policy) {
            Some(file) => self.origin("policy", POLICY).setting("policy", file),
            None => Origin::default().setting("policy", None),
        };
        let reload = self.reload_for_new_tokens.to_string();
        vec![
            dir,
            policy,
            flag("sign-only", self.sign_only.to_string()),
            flag("reload-for-new-tokens", reload),
            flag("max-connections", self.max_connections.to_string()),
            flag(
                "max-connections-per-user",
                self.max_connections_per_user.to_string(),
            ),
            flag("log-level", self.log_level.to_string().to_lowercase()),
        ]
    }

    /// How many connections there may be.
    pub(crate) fn limits(&self) -> ConnectionLimits {
        ConnectionLimits {
            all: self.max_connections.max(1),
            per_user: self.max_connections_per_user.max(1),
            ..ConnectionLimits::default()
        }
    }

    /// Where thin-edge's configuration is.
    pub(super) fn tedge_toml(&self) -> PathBuf {
        let dir = self.config_dir.as_deref();
        Path::new(dir.unwrap_or(DEFAULT_CONFIG_DIR.as_ref())).join("tedge.toml")
    }

    /// The files that the configuration is in.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let policy = self.policy.as_ref().map(PathBuf::from);
        let module = self.module_path.as_ref().map(PathBuf::from);
        [Some(self.tedge_toml()), policy, module]
            .into_iter()
            .flatten()
            .collect()
    }

    /// Reads the policy.
    ///
    /// # Errors
    /// [`policy::Error`]
    pub(crate) fn load_policy(&self, warnings: &mut Vec<Notice>) -> Result<Policy, policy::Error> {
        let file = self.policy.as_deref().map(Path::new);
        warnings.extend(file.and_then(files::warn_of_writers));
        Policy::load(file, self.sign_only)
    }
}

/// Prints what was asked for, or what is wrong: by the name of a flag alone, since clap shows values, which may be
/// PINs.
fn end(error: &clap::Error) -> ! {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        error.exit();
    }
    let what = what_is_wrong(error);
    let _ = writeln!(
        io::stderr(),
        "error: {what}\n\nFor more information, try '--help'."
    );
    process::exit(2)
}

fn what_is_wrong(error: &clap::Error) -> String {
    let command = Args::command();
    let longs = || command.get_arguments().filter_map(Arg::get_long);
    let given = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(text)) => text.strip_prefix("--"),
        _ => None,
    };
    let given = given.and_then(|text| text.split([' ', '=']).next());
    let named = given.and_then(|given| longs().find(|long| *long == given));
    match (error.kind(), named) {
        (ErrorKind::ArgumentConflict, Some(flag)) => format!("--{flag} is given more than once"),
        (ErrorKind::InvalidValue | ErrorKind::ValueValidation, Some("log-level")) => {
            format!("--log-level is one of {}", LOG_LEVELS.join(", "))
        }
        (ErrorKind::InvalidValue, Some(flag)) => format!("--{flag} needs a value"),
        (ErrorKind::MissingRequiredArgument, _) => "--json is for --check-config".into(),
        (ErrorKind::TooManyValues, Some(flag)) => format!("--{flag} takes no value"),
        (_, Some(flag)) => format!("the value of --{flag} cannot be used"),
        (_, None) => {
            let is_near = |long: &&str| {
                let distance = given.map(|given| strsim::osa_distance(given, long));
                distance.is_some_and(|distance| distance <= long.len() / 3)
            };
            let meant = longs().find(is_near);
            let meant = meant.map(|flag| format!("; did you mean --{flag}?"));
            format!(
                "an argument is not known, and not shown, since it may be a PIN{}",
                meant.unwrap_or_default()
            )
        }
    }
}
