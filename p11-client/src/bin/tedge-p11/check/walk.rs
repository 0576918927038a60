//! What the walk knows: the command line, the server's answer, and what the steps have found so far.

use std::env;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use p11_client::message::{LoginState, OpenedKey, Setting, Status, StatusDetails, TokenStatus};
use p11_client::rustls::pki_types::CertificateDer;
use p11_client::{Client, CryptokiConfig, Error, Mode};

use super::arguments::Check;
use super::judgement::Judgement;
use super::process::Process;
use super::units::Units;
use crate::exit::Refusal;
use crate::inventory::{Inventory, Key, Token};
use crate::session::{Options, Session};
use crate::socket;

/// A server that hangs is not waited for.
const STATUS_DEADLINE: Duration = Duration::from_secs(5);

pub struct Walk<'a> {
    pub check: &'a Check,
    pub config_dir: PathBuf,
    /// Why what is in `session.config` is not what tedge.toml says.
    pub config_trouble: Option<Error>,
    pub socket: PathBuf,
    pub session: Session,
    pub status: Result<Status, Error>,
    pub process: Option<Process>,
    pub units: Option<Units>,
    pub judgement: Option<Judgement>,

    /// From the step `module` on.
    pub inventory: Inventory,
    pub may_list: bool,
    /// From the step `token` on.
    pub token: Option<Token>,
    /// Whether the server may log in to that token: it has had its PIN accepted, or --login was given.
    pub may_log_in: bool,
    /// From the step `key` on.
    pub key: Option<(Key, OpenedKey)>,
    /// The certificates in the file, its own first.
    pub chain: Vec<CertificateDer<'static>>,
    /// From the step `certificate` on: who issued it.
    pub issuer: String,
}

impl<'a> Walk<'a> {
    pub fn new(check: &'a Check, options: &Options) -> Result<Walk<'a>, Refusal> {
        let config_dir = options.config_dir().to_owned();
        let (config, config_trouble) = match CryptokiConfig::load(&config_dir, None) {
            Ok(config) => (config, None),
            Err(error) => {
                let mut config = CryptokiConfig::default();
                let usual = config_dir.join("device-certs/tedge-certificate.pem");
                config.cert_path = Some(usual);
                (config, Some(error))
            }
        };
        let told = options.socket_path();
        let told = told.or_else(|| config.socket_path.clone());
        let is_told = told.is_some();
        let socket = socket::choose(told);
        let client = socket::config(&socket, is_told).retry_for(Duration::ZERO);
        let client = Client::new(client);
        let given_pin = options.given_pin()?.filter(|_| check.login);
        let of_file = config.key_pin.clone().filter(|_| check.login);
        // By this, systemd starts the server, whose process is looked for next.
        let status = client.clone().within(STATUS_DEADLINE).status();
        let process = Process::at(&socket);
        let units = Units::read();
        let of_units = units.as_ref().and_then(|units| units.process());
        let process = process.or(of_units);
        Ok(Walk {
            check,
            status,
            judgement: Judgement::ask(process.as_ref(), units.as_ref(), &config_dir),
            process,
            units,
            config_dir,
            config_trouble,
            socket,
            session: Session {
                client: client.pin(given_pin.clone().or(of_file)),
                given_pin,
                output: options.output(),
                config,
            },
            inventory: Inventory::default(),
            may_list: true,
            token: None,
            may_log_in: check.login,
            key: None,
            chain: Vec::new(),
            issuer: String::new(),
        })
    }

    /// Whether it is thin-edge that shall use the key: it is configured to, or it is installed.
    pub fn is_for_tedge(&self) -> bool {
        let path = env::var_os("PATH").unwrap_or_default();
        let is_installed = || env::split_paths(&path).any(|folder| folder.join("tedge").is_file());
        self.session.config.mode != Mode::Off || is_installed()
    }

    /// Whether a server answers that has its module.
    pub fn server_works(&self) -> bool {
        self.status.as_ref().is_ok_and(|status| status.available)
    }

    /// Whether a server answers at all, be it an old one.
    pub fn server_answers(&self) -> bool {
        let answer = &self.status;
        matches!(answer, Ok(_) | Err(Error::TooOld { .. } | Error::Server(_)))
    }

    /// Asks again: what the server has seen may have changed.
    pub fn renew_status(&mut self) {
        let client = self.session.client.clone().within(STATUS_DEADLINE);
        self.status = client.status();
    }

    pub fn details(&self) -> Option<&StatusDetails> {
        self.status.as_ref().ok()?.details.as_deref()
    }

    /// A setting as the server runs with it, else as it would start with it.
    pub fn setting(&self, name: &str) -> Option<&Setting> {
        let running = self.details().map(|details| details.settings.as_slice());
        let judged = self
            .judgement
            .as_ref()
            .map(|judgement| judgement.settings.as_slice());
        let mut settings = running.or(judged)?.iter();
        settings.find(|setting| setting.name == name)
    }

    /// The module's file, as far as anybody tells.
    pub fn module_path(&self) -> Option<PathBuf> {
        let loaded = self
            .details()
            .map(|details| PathBuf::from(&details.module.path));
        let set = || {
            self.setting("module-path")?
                .value
                .as_ref()
                .map(PathBuf::from)
        };
        let found = loaded.filter(|path| path != Path::new("")).or_else(set);
        found.or_else(|| self.session.config.module_path.clone())
    }

    /// A variable of the server's environment, else of this one.
    pub fn server_variable(&self, name: &str) -> Option<String> {
        let of_units = || self.units.as_ref()?.variable(name);
        match &self.process {
            Some(process) if !process.environment().is_empty() => process.variable(name),
            _ => of_units().or_else(|| env::var(name).ok()),
        }
    }

    /// How the server's PIN stands with a token.
    pub fn token_status(&self, uri: &str) -> Option<&TokenStatus> {
        let mut tokens = self.details()?.tokens.iter();
        tokens.find(|token| token.uri == uri)
    }

    /// Whether the token wants no PIN, or has accepted it.
    pub fn is_open(&self, uri: &str) -> bool {
        let status = self.token_status(uri);
        status.is_some_and(|status| {
            matches!(status.pin, LoginState::Accepted | LoginState::NotNeeded)
        })
    }
}

/// "3 h", of a time in seconds.
pub fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// "3 h ago", of a time in seconds since 1970.
pub fn ago(then: u64) -> String {
    format!("{} ago", span(now().saturating_sub(then)))
}

/// In seconds since 1970.
pub fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}
