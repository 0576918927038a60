//! `Ping` and `Status`: whether the server runs, whether it can use its module, and how it fares.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::failure::ErrorCode;

/// Asks whether the server runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Ping {}

/// The server runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Pong {
    /// Name and version of the server, for people.
    pub server: String,
    /// The highest version of the protocol that it speaks.
    pub protocol: u8,
}

/// Asks whether the module can be used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GetStatus {}

/// Whether the module can be used, and how the server fares.
///
/// Older servers tell the first three alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Status {
    /// Name and version of the server, for people.
    pub server: String,
    /// Whether the module is initialised and no call of it hangs.
    pub available: bool,
    /// What is wrong if it is not, and when it is tried again, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// The version of the server alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// For how many seconds it has run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uptime: Option<u64>,
    /// As which user it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<Account>,
    /// What the policy lets the user who asks do (absent while the server is misconfigured), be it with one token or key alone, by the names that a policy has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<Vec<String>>,
    /// The rest, for who may list all tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Box<StatusDetails>>,
}

/// How a server with a module fares.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StatusDetails {
    /// Which module it has loaded.
    pub module: ModuleStatus,
    /// What was done since the start.
    pub counters: Counters,
    /// How its PINs stand with each initialised token that it has seen, at most 256.
    pub tokens: Vec<TokenStatus>,
    /// The calls of the module that have not returned within their limit, those that are the furthest past it first.
    pub hung: Vec<HungCall>,
    /// What is configured, and where. Empty in a program that has the module in its process.
    pub settings: Vec<Setting>,
    /// The request that failed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
}

/// The user of a process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Account {
    /// Its number.
    pub uid: u32,
    /// Its name, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// A module, and what it says of itself (PKCS#11 section 3.1, `CK_INFO`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ModuleStatus {
    /// The file that was loaded.
    pub path: String,
    /// `libraryDescription`, once tokens were listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// `manufacturerID`, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manufacturer: Option<String>,
    /// `libraryVersion`, likewise: `2.6`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// How a token stands towards the PIN of a request that brings none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TokenStatus {
    /// Its URI.
    pub uri: String,
    /// Its label.
    pub label: String,
    /// How the PIN stands.
    pub pin: LoginState,
    /// Since when, in seconds of Unix time. Absent where it was so before the server was started, or nothing has happened yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// Whose PIN that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin_owner: Option<PinOwner>,
    /// Where the server's PIN is set, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin_origin: Option<String>,
    /// Why the PIN is not sent, and what to do, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How a token stands towards a PIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum LoginState {
    /// The token wants no login.
    NotNeeded,
    /// It was not sent yet.
    NotTried,
    /// The token has accepted it.
    Accepted,
    /// The token has refused it.
    Refused,
    /// It is not sent: it could be the last try, or too many were refused, or the answer was unclear.
    Guarded,
    /// The token takes no PIN.
    Locked,
    /// One that a newer peer knows.
    #[serde(other)]
    Unknown,
}

impl fmt::Display for LoginState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// Who has given a PIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PinOwner {
    /// The operator has configured it.
    Server,
    /// It is thin-edge's default one, since none is configured.
    Default,
    /// A request has brought it.
    Client,
    /// It was typed at the token.
    PinPad,
    /// One that a newer peer knows.
    #[serde(other)]
    Unknown,
}

impl fmt::Display for PinOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// A call of the module that has not returned within its limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HungCall {
    /// The PKCS#11 function.
    pub function: String,
    /// For how many seconds it has run.
    pub seconds: u64,
    /// The URI of the token that was called, unless it is the module itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// A request that failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LastError {
    /// When, in seconds of Unix time.
    pub at: u64,
    /// As in [`Failure`](super::Failure).
    pub code: ErrorCode,
    /// Likewise.
    pub message: String,
    /// Likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// Likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ckr: Option<String>,
}

/// What was done since the start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Counters {
    /// Signatures that were made.
    pub signatures: u64,
    /// Requests that failed, whatever the reason.
    pub failures: u64,
    /// Logins to tokens that succeeded.
    pub logins: u64,
    /// How often the module was initialised again.
    pub reloads: u64,
    /// Connections that were accepted. Absent without a socket, as in a module in the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<u64>,
    /// When the last signature was made, in seconds of Unix time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_at: Option<u64>,
    /// How long it took on the server, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_us: Option<u64>,
}

/// One setting of the configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Setting {
    /// Its name: that of the flag, without the dashes.
    pub name: String,
    /// What kind of place it is set in.
    pub source: Source,
    /// Its value, for people. Absent where it is secret; a URI is cut at its `?`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The place: the flag, the variable or the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// The line in the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
}

/// Where a setting comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Source {
    /// A flag of the command line.
    Flag,
    /// A variable of the environment.
    Variable,
    /// A credential of systemd.
    Credential,
    /// A file.
    File,
    /// The server's own URI.
    Uri,
    /// The socket that the service manager has made.
    ServiceManager,
    /// Nobody has set it.
    Default,
    /// One that a newer peer knows.
    #[serde(other)]
    Unknown,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}
