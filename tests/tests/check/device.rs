//! A device as thin-edge sets it up: tedge.toml, a key with its certificate, and a server whose module counts logins.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use p11_fault_module::Function::C_Login;
use p11_tests::{
    binary,
    fixture::{Fixture, KEY, PIN},
    keys::KeyKind,
    pki::{CLIENT, Pki},
    server::{Builder, Server},
    text::assert_in_order,
    tools::command,
};

/// A folder with a tedge.toml, and what the walk is started with.
pub struct Device {
    pub fixture: Fixture,
    pub pki: Pki,
    pub folder: tempfile::TempDir,
}

/// What `tedge-p11 check` said.
pub struct Told {
    pub code: i32,
    pub text: String,
    pub json: serde_json::Value,
}

impl Device {
    /// A P-256 key and its certificate, for a server that does not run yet.
    pub fn new() -> Self {
        // Built before anything runs that has a time.
        binary::tedge_p11();
        Self::with_key(KeyKind::P256)
    }

    pub fn with_key(kind: KeyKind) -> Self {
        let device = Self {
            fixture: Fixture::new(kind),
            pki: Pki::new(),
            folder: tempfile::tempdir().unwrap(),
        };
        device.set_toml(&format!("[device]\nkey_uri = \"{KEY}\"\n"), "");
        let spki = device.fixture.key.spki.clone();
        device.certify(&spki, &["-days", "90"], CLIENT);
        device
    }

    /// Writes tedge.toml: what stands before, and in, `[device.cryptoki]`.
    pub fn set_toml(&self, before: &str, cryptoki: &str) {
        self.write_toml(&format!(
            "{before}\n[device.cryptoki]\nmode = \"socket\"\n{cryptoki}\n"
        ));
    }

    pub fn write_toml(&self, text: &str) {
        let file = self.toml();
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
    }

    pub fn toml(&self) -> PathBuf {
        self.folder.path().join("tedge.toml")
    }

    /// Where thin-edge keeps it.
    pub fn certificate(&self) -> PathBuf {
        self.folder
            .path()
            .join("device-certs/tedge-certificate.pem")
    }

    /// Puts a certificate for a key there.
    pub fn certify(&self, spki: &[u8], arguments: &[&str], extensions: &str) {
        let pem = self.pki.issue("gw-0001", spki, arguments, Some(extensions));
        self.set_certificate(&pem);
    }

    pub fn set_certificate(&self, pem: &Path) {
        fs::create_dir_all(self.certificate().parent().unwrap()).unwrap();
        fs::copy(pem, self.certificate()).unwrap();
    }

    /// A server of this configuration, with the right PIN.
    pub fn server(&self) -> Builder {
        let folder = self.folder.path();
        self.fixture
            .server()
            .envs([("TEDGE_CONFIG_DIR", folder)])
            .pin(PIN)
    }

    /// The same, running and logged in, as after a signature for tedge.
    pub fn in_use(&self) -> Server {
        let server = self.server().start();
        server.client().open(KEY).unwrap().sign().unwrap();
        server
    }

    /// Checks a set-up whose server listens at this socket, or is to.
    pub fn check_at(&self, socket: &Path, arguments: &[&str]) -> Told {
        check(&[], |check| {
            check.arg("--socket-path").arg(socket);
            check.arg("--config-dir").arg(self.folder.path());
            check.args(arguments);
        })
    }

    /// Checks the set-up, without and with JSON. No PIN is sent by it.
    #[track_caller]
    pub fn check(&self, server: &Server, arguments: &[&str]) -> Told {
        let before = self.fixture.faults.count(C_Login);
        let told = self.check_at(server.socket(), arguments);
        // A token that has accepted the PIN may be opened anew: SoftHSM is reloaded to show what others have made.
        if !["ok", "warning"].contains(&told.result("token").as_str()) {
            let after = self.fixture.faults.count(C_Login);
            assert_eq!(before, after, "a PIN was sent: {}", told.text);
        }
        told
    }
}

/// Runs `tedge-p11 check`, for its text and for its JSON.
pub fn check(variables: &[(&str, &Path)], arguments: impl Fn(&mut Command)) -> Told {
    let run = |more: &[&str]| {
        let mut check = binary::tedge_p11();
        check.arg("check").envs(variables.iter().copied());
        arguments(&mut check);
        let output = check.args(more).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().expect("it was not killed"), text, said)
    };
    let (code, text, said) = run(&[]);
    assert!(!text.contains(PIN) && !said.contains(PIN), "{text}{said}");
    assert!(!text.is_empty(), "{said}");
    let (_, json, _) = run(&["--json"]);
    let json = serde_json::from_str(&json).unwrap();
    Told { code, text, json }
}

/// The program as another user, whom the folders of cargo may be closed to.
pub fn check_as_nobody(device: &Device, socket: &Path) -> Told {
    let program = device.folder.path().join("tedge-p11");
    fs::copy(binary::tedge_p11().get_program(), &program).unwrap();
    fs::set_permissions(device.folder.path(), Permissions::from_mode(0o755)).unwrap();
    let run = |json: bool| {
        let mut setpriv = command("setpriv");
        setpriv
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&program);
        setpriv
            .arg("check")
            .arg("--config-dir")
            .arg(device.folder.path())
            .arg("--socket-path")
            .arg(socket);
        if json {
            setpriv.arg("--json");
        }
        let output = setpriv.output().unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    let (code, text) = run(false);
    let (_, json) = run(true);
    Told {
        code,
        text,
        json: serde_json::from_str(&json).unwrap(),
    }
}

impl Told {
    /// The results of the steps as JSON has them: `configuration`, `ok`.
    pub fn results(&self) -> Vec<(String, String)> {
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let steps = self.json["steps"].as_array().unwrap().iter();
        steps
            .map(|step| (text(&step["step"]), text(&step["result"])))
            .collect()
    }

    pub fn result(&self, step: &str) -> String {
        let results = self.results();
        let found = results.iter().find(|(name, _)| name == step);
        found
            .unwrap_or_else(|| panic!("no {step} in {}", self.text))
            .1
            .clone()
    }

    /// It fails at this step, with this code, in these words, and the later steps are not looked at.
    #[track_caller]
    pub fn fails(&self, step: &str, code: i32, words: &[&str]) {
        assert_eq!(self.result(step), "failed", "{}", self.text);
        assert_eq!(self.code, code, "{}", self.text);
        let later = self
            .results()
            .into_iter()
            .skip_while(|(name, _)| name != step)
            .skip(1);
        for (name, result) in later {
            assert_eq!(result, "not-looked-at", "{name} in {}", self.text);
        }
        assert_in_order(&self.text, [&format!("{step} ")]);
        assert_in_order(&self.text, ["FAILED: "].iter().chain(words));
    }

    /// It warns at this step, in these words, and nothing fails.
    #[track_caller]
    pub fn warns(&self, step: &str, words: &[&str]) {
        assert_eq!(self.result(step), "warning", "{}", self.text);
        assert_eq!(self.code, 0, "{}", self.text);
        assert_in_order(&self.text, [step, "warning: "].iter().chain(words));
    }
}
