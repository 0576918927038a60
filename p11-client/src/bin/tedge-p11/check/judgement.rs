//! What `tedge-p11-server --check-config` says of the configuration: the rules are the server's, and stand there once.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use p11_client::message::Setting;
use serde::Deserialize;

use super::process::Process;
use super::units::Units;

#[derive(Debug, Deserialize)]
pub struct Judgement {
    #[serde(default)]
    errors: Vec<Remark>,
    #[serde(default)]
    pub warnings: Vec<Remark>,
    #[serde(default)]
    pub settings: Vec<Setting>,
    /// Whether the server's own flags and variables are known, so that what is not set is not set.
    #[serde(skip)]
    pub is_whole: bool,
}

#[derive(Debug, Deserialize)]
pub struct Remark {
    pub message: String,
    pub line: Option<u32>,
}

impl Judgement {
    /// Runs the server's own check with what the server has, or would have. None where this user cannot run it.
    pub fn ask(
        process: Option<&Process>,
        units: Option<&Units>,
        config_dir: &Path,
    ) -> Option<Judgement> {
        let mut command = Command::new(server()?);
        command.args(["--check-config", "--json"]);
        let mut is_whole = true;
        match (process, units) {
            (Some(process), _) if !process.environment().is_empty() => {
                command
                    .env_clear()
                    .envs(process.environment().iter().filter(is_setting));
                command
                    .args(process.arguments())
                    .current_dir(process.current_dir());
            }
            // What another user's process has is not known.
            (Some(_), _) => return None,
            (None, Some(units)) if units.is_installed() => {
                command
                    .env_clear()
                    .envs(units.environment().iter().filter(is_setting));
                command.args(units.arguments());
                is_whole = units.shows_environment();
            }
            _ => {
                command.env("TEDGE_CONFIG_DIR", config_dir);
                is_whole = false;
            }
        }
        let output = command.stdin(Stdio::null()).output().ok()?;
        let judgement: Judgement = serde_json::from_slice(&output.stdout).ok()?;
        Some(Judgement {
            is_whole,
            ..judgement
        })
    }
}

/// Whether the server reads it for its configuration. A process can write anything into its environment, and root runs this
/// program: LD_PRELOAD for one may not come from there.
fn is_setting<T: AsRef<OsStr>>((name, _): &(T, T)) -> bool {
    let name = name.as_ref().to_string_lossy();
    name.starts_with("TEDGE_") || name == "CREDENTIALS_DIRECTORY"
}

impl Judgement {
    /// What cannot be used. Of a server whose flags are not known, only what stands in a line of a file.
    pub fn errors(&self) -> impl Iterator<Item = &Remark> {
        let errors = self.errors.iter();
        errors.filter(|error| self.is_whole || error.line.is_some())
    }
}

/// The server's program: beside this one, or where programs are.
fn server() -> Option<PathBuf> {
    const NAME: &str = "tedge-p11-server";
    let beside = env::current_exe().ok()?.with_file_name(NAME);
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).map(|folder| folder.join(NAME));
    let usual = ["/usr/bin", "/usr/sbin", "/usr/local/bin"];
    let usual = usual.iter().map(|folder| Path::new(folder).join(NAME));
    let mut places = [beside].into_iter().chain(folders).chain(usual);
    places.find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_another_process_only_what_configures_the_server_is_taken() {
        let taken = |name: &'static str| is_setting(&(name, "x"));
        assert!(taken("TEDGE_DEVICE_CRYPTOKI_PIN") && taken("CREDENTIALS_DIRECTORY"));
        assert!(
            ["LD_PRELOAD", "PATH", "XTEDGE_"]
                .into_iter()
                .all(|name| !taken(name))
        );
    }
}
