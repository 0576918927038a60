//! systemd's units of the server, as systemctl(1) shows them.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::unistd::User;

use super::process::Process;

pub const SERVICE: &str = "tedge-p11-server.service";
pub const SOCKET: &str = "tedge-p11-server.socket";

const PROPERTIES: &str = "Id,LoadState,ActiveState,SubState,Result,NRestarts,MainPID,User,ExecStart,FragmentPath,\
    DropInPaths,Environment,EnvironmentFiles,Listen,SocketMode,SocketUser,SocketGroup,Accept,PrivateDevices,\
    ProtectSystem,DeviceAllow,ReadWritePaths,BindPaths,UnitFileState,ActiveEnterTimestamp";

/// The properties of both units, by their names.
#[derive(Debug, Default)]
pub struct Unit(HashMap<String, String>);

#[derive(Debug)]
pub struct Units {
    pub service: Unit,
    pub socket: Unit,
}

impl Units {
    /// None where no systemd runs, as in a container.
    pub fn read() -> Option<Units> {
        if !Path::new("/run/systemd/system").is_dir() {
            return None;
        }
        let mut systemctl = Command::new("systemctl");
        systemctl.args([
            "show",
            "--no-pager",
            "--property",
            PROPERTIES,
            SERVICE,
            SOCKET,
        ]);
        let shown = systemctl
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .ok()?;
        Units::parse(&String::from_utf8_lossy(&shown.stdout))
    }

    pub fn parse(text: &str) -> Option<Units> {
        let mut units = text.split("\n\n").map(Unit::parse);
        let (service, socket) = (units.next()?, units.next()?);
        Some(Units { service, socket })
    }

    pub fn is_installed(&self) -> bool {
        self.service.is_loaded() || self.socket.is_loaded()
    }

    /// As which user the service runs: root where none is named.
    pub fn account(&self) -> Option<u32> {
        if !self.service.is_loaded() {
            return None;
        }
        match self.service.get("User") {
            "" => Some(0),
            name => Some(User::from_name(name).ok()??.uid.as_raw()),
        }
    }

    pub fn process(&self) -> Option<Process> {
        let pid = self
            .service
            .get("MainPID")
            .parse()
            .ok()
            .filter(|pid| *pid > 0)?;
        Process::of(pid)
    }

    pub fn variable(&self, name: &str) -> Option<String> {
        self.environment().remove(name)
    }

    /// What the service is started with.
    pub fn environment(&self) -> HashMap<String, String> {
        let mut variables = HashMap::new();
        let set = self.service.get("Environment").split_whitespace();
        variables.extend(set.filter_map(variable));
        for file in self.environment_files() {
            let text = fs::read_to_string(file).unwrap_or_default();
            let lines = text.lines().map(str::trim);
            let lines = lines.filter(|line| !line.starts_with(['#', ';']));
            variables.extend(lines.filter_map(variable));
        }
        variables
    }

    /// Whether this user can read all of that.
    pub fn shows_environment(&self) -> bool {
        let is_open = |file: &str| !Path::new(file).exists() || fs::File::open(file).is_ok();
        self.environment_files().all(is_open)
    }

    /// Of `/etc/tedge/plugins/tedge-p11-server.conf (ignore_errors=yes)` the path.
    fn environment_files(&self) -> impl Iterator<Item = &str> {
        let words = self.service.get("EnvironmentFiles").split(['\n', ' ']);
        words.filter(|word| word.starts_with('/'))
    }

    /// Those of its command line.
    pub fn arguments(&self) -> Vec<String> {
        // { path=/usr/bin/tedge-p11-server ; argv[]=/usr/bin/tedge-p11-server --sign-only ; ignore_errors=no ; ... }
        let line = self.service.get("ExecStart").split("argv[]=").nth(1);
        let line = line
            .and_then(|line| line.split(" ;").next())
            .unwrap_or_default();
        line.split_whitespace().skip(1).map(str::to_owned).collect()
    }
}

impl Unit {
    fn parse(text: &str) -> Unit {
        let lines = text.lines().filter_map(|line| line.split_once('='));
        let mut properties: HashMap<String, String> = HashMap::new();
        for (name, value) in lines {
            // One line for each environment file, and for each path that is listened on.
            let all = properties.entry(name.to_owned()).or_default();
            if !all.is_empty() {
                all.push('\n');
            }
            all.push_str(value);
        }
        Unit(properties)
    }

    /// A property, empty where it is not there.
    pub fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    pub fn is_loaded(&self) -> bool {
        self.get("LoadState") == "loaded"
    }
}

/// `NAME=value`, or `NAME="value"`
fn variable(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=')?;
    let value = value.trim_matches(['"', '\'']);
    Some((name.trim_matches(['"', '\'']).to_owned(), value.to_owned()))
}
