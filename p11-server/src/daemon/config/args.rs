//! A command line enters; what was asked for leaves.

use std::ffi::OsString;

use clap::{Parser, ValueEnum};
use p11_proto::Pin;

use super::{Error, path};
use crate::daemon::net::ConnectionLimits;
use crate::daemon::policy::Policy;

/// The command line.
#[derive(Clone, Parser)]
#[command(
    name = "tedge-p11-server",
    version,
    about = "thin-edge.io service for passing PKCS#11 cryptographic tokens"
)]
pub struct Args {
    /// A path where the UNIX socket listener will be created
    ///
    /// [env: TEDGE_DEVICE_CRYPTOKI_SOCKET_PATH]
    #[arg(long)]
    pub(super) socket_path: Option<OsString>,

    /// The path to the PKCS#11 module
    ///
    /// [env: TEDGE_DEVICE_CRYPTOKI_MODULE_PATH]
    #[arg(long)]
    pub(super) module_path: Option<OsString>,

    /// The PIN for the PKCS#11 token
    ///
    /// [env: TEDGE_DEVICE_CRYPTOKI_PIN]
    #[arg(long)]
    pub(super) pin: Option<Pin>,

    /// A URI of the token/object to use.
    ///
    /// See RFC #7512.
    ///
    /// [env: TEDGE_DEVICE_CRYPTOKI_URI]
    #[arg(long, verbatim_doc_comment)]
    pub(super) uri: Option<String>,

    /// Configures the logging level.
    ///
    /// One of error/warn/info/debug/trace. Logs with verbosity lower or equal to the selected level
    /// will be printed, i.e. warn prints ERROR and WARN logs and trace prints logs of all levels.
    #[arg(long, hide_possible_values = true)]
    log_level: Option<LogLevel>,

    /// [env: TEDGE_CONFIG_DIR, default: /etc/tedge]
    #[arg(long)]
    pub(super) config_dir: Option<OsString>,

    /// A file that says which users may do what; without one, all who can connect may do everything
    ///
    /// [env: TEDGE_P11_POLICY]
    #[arg(long)]
    policy: Option<OsString>,

    /// Refuse every request that changes a token, whatever the policy says
    #[arg(long)]
    sign_only: bool,

    /// How many connections are served at the same time
    #[arg(long, value_name = "COUNT", default_value_t = ConnectionLimits::default().all)]
    max_connections: usize,

    /// How many of them one user may have
    #[arg(long, value_name = "COUNT", default_value_t = ConnectionLimits::default().per_user)]
    max_connections_per_user: usize,
}

/// How much is logged.
#[derive(Clone, Copy, ValueEnum)]
enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl Args {
    /// The most detailed level that is logged.
    pub fn log_level(&self) -> tracing::Level {
        match self.log_level.unwrap_or(LogLevel::Info) {
            LogLevel::Error => tracing::Level::ERROR,
            LogLevel::Warn => tracing::Level::WARN,
            LogLevel::Info => tracing::Level::INFO,
            LogLevel::Debug => tracing::Level::DEBUG,
            LogLevel::Trace => tracing::Level::TRACE,
        }
    }

    /// How many connections there may be.
    pub fn limits(&self) -> ConnectionLimits {
        ConnectionLimits {
            all: self.max_connections.max(1),
            per_user: self.max_connections_per_user.max(1),
            ..ConnectionLimits::default()
        }
    }

    /// The policy, read anew.
    ///
    /// # Errors
    /// [`Error::Policy`]
    pub fn load_policy(&self) -> Result<Policy, Error> {
        let file = path(&self.policy, "TEDGE_P11_POLICY");
        Ok(Policy::load(file.as_deref(), self.sign_only)?)
    }
}
