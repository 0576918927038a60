//! What a kind of module needs beside it, files, devices and sockets, and what keeps the server's account from them.
//!
//! Modules tell that by `CKR_GENERAL_ERROR` or by an empty list of slots. So the server looks itself.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::fs::{self, DirEntry};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::access;

use super::obstacle::{
    CHANGE, CHANGE_FOLDER, READ, account, folder_obstacle, obstacle, socket_obstacle,
};
use crate::files;

/// A kind of module, as its file or its manufacturer tells.
#[derive(Clone, Copy, Default)]
pub(crate) enum Needs {
    SoftHsm,
    Tpm,
    CardReader,
    P11KitServer,
    OpenCryptoki,
    Nss,
    #[default]
    Unknown,
}

const TPM_STORE: &str = "TPM2_PKCS11_STORE";
const TPM_DATABASE: &str = "tpm2_pkcs11.sqlite3";

/// Bytes of the file of a token that SoftHSM has given its label and its serial number.
const SMALLEST_TOKEN: u64 = 100;

impl Needs {
    /// Those of the module in this file, made by this manufacturer, as far as that is known.
    pub fn of(file: &Path, manufacturer: Option<&str>) -> Needs {
        let file = file.file_name().unwrap_or_default().to_string_lossy();
        let kinds = [
            ("libsofthsm", "SoftHSM", Needs::SoftHsm),
            ("libtpm2_pkcs11", "tpm2-", Needs::Tpm),
            ("opensc-pkcs11", "OpenSC", Needs::CardReader),
            ("onepin-opensc-pkcs11", "OpenSC", Needs::CardReader),
            ("libykcs11", "Yubico", Needs::CardReader),
            ("p11-kit-client", "", Needs::P11KitServer),
            ("libopencryptoki", "", Needs::OpenCryptoki),
            ("PKCS11_API", "", Needs::OpenCryptoki),
            ("libsoftokn", "", Needs::Nss),
        ];
        let is_made_by = |maker: &str| {
            !maker.is_empty() && manufacturer.is_some_and(|name| name.starts_with(maker))
        };
        let mut kinds = kinds.into_iter();
        let kind = kinds.find(|(name, maker, _)| file.starts_with(name) || is_made_by(maker));
        kind.map_or(Needs::Unknown, |(_, _, kind)| kind)
    }

    /// Why `C_Initialize` fails, and what to do.
    pub fn why_not_started(self) -> Option<String> {
        self.obstacle().or_else(|| match self {
            Needs::SoftHsm => softhsm_backend(),
            Needs::Tpm => tpm_obstacle(),
            Needs::Nss => {
                Some("NSS wants to be told where its database is: set x-init-reserved in the configured URI".into())
            }
            _ => None,
        })
    }

    /// What is certainly wrong, and what to do.
    pub fn obstacle(self) -> Option<String> {
        match self {
            Needs::SoftHsm => softhsm_obstacle(),
            Needs::Tpm => tpm_store_obstacle(),
            Needs::CardReader => socket_obstacle(
                "pcscd's socket",
                &pcscd_socket(),
                "start pcscd (systemctl start pcscd.socket), and let a sandbox see it (drop-in pcscd.conf)",
            ),
            Needs::P11KitServer => p11_kit_obstacle(),
            Needs::OpenCryptoki => socket_obstacle(
                "the socket of pkcsslotd",
                Path::new("/run/pkcsslotd.socket"),
                "start pkcsslotd",
            ),
            Needs::Nss | Needs::Unknown => None,
        }
    }

    /// What works, and should not stay so.
    pub fn warning(self) -> Option<String> {
        let Needs::Tpm = self else { return None };
        let is_set = env::var_os(TPM_STORE).is_some();
        let store = tpm_store();
        (!is_set && env::current_dir().is_ok_and(|folder| folder == store)).then(|| {
            format!(
                "{TPM_STORE} is not set, so the keys of the TPM are kept in {}, where the program was started; set it to a \
                 folder of its own",
                store.display()
            )
        })
    }

    /// What to do where no slot has a token and nothing is certainly wrong.
    pub fn without_slot(self) -> String {
        match self {
            Needs::CardReader => format!(
                "pcscd shows no reader; is one plugged in, and does polkit let this account, {}, use it \
                 (journalctl -u pcscd)?",
                account()
            ),
            _ => "is the device there, does the service behind it run (pcscd, pkcsslotd, a TPM's resource manager), and \
                  may this account use it?"
                .into(),
        }
    }

    /// What to do where there are only tokens that nobody has initialised, and nothing is certainly wrong.
    pub fn without_token(self) -> String {
        const MAKE: &str = "InitToken makes a token";
        match self {
            Needs::SoftHsm => {
                let (configuration, _) = softhsm_configuration();
                let folder = softhsm_tokens(&configuration);
                let shown = folder.display();
                match softhsm_token_files(&folder).is_empty() {
                    true => format!("there is no token in {shown}; {MAKE}"),
                    false => format!(
                        "there are files of tokens in {shown} which SoftHSM does not show: SIGHUP has it read them anew; \
                         where that changes nothing they are damaged, or no token's yet"
                    ),
                }
            }
            Needs::Tpm => format!(
                "there is no token in the store {}; {MAKE}, or set TPM2_PKCS11_STORE to the store that it is in",
                tpm_store().display()
            ),
            _ => format!(
                "{MAKE}; if one should be there, may this account, {}, read its files?",
                account()
            ),
        }
    }
}

/// The configuration, the folder of the tokens, and the folder of each: SoftHSM leaves out what it cannot use.
fn softhsm_obstacle() -> Option<String> {
    let (file, is_set) = softhsm_configuration();
    let (name, step) = match is_set {
        true => (
            "SoftHSM's configuration (SOFTHSM2_CONF)",
            "set the variable to the right file",
        ),
        false => (
            "SoftHSM's configuration",
            "install it, or set SOFTHSM2_CONF",
        ),
    };
    obstacle(name, &file, READ, step).or_else(|| {
        let folder = softhsm_tokens(&file);
        let step = format!("set directories.tokendir in {}", file.display());
        let name = "SoftHSM's folder of tokens";
        folder_obstacle(name, &folder, &step).or_else(|| {
            let tokens = fs::read_dir(&folder).ok()?.flatten();
            let mut tokens = tokens.filter(|token| token.path().is_dir());
            tokens.find_map(|token| softhsm_token_obstacle(&token.path()))
        })
    })
}

fn softhsm_token_obstacle(token: &Path) -> Option<String> {
    obstacle("the token in", token, CHANGE_FOLDER, "").or_else(|| {
        let files = ["token.object", "token.lock"].map(|file| token.join(file));
        let mut there = files.iter().filter(|file| file.exists());
        there.find_map(|file| obstacle("the token's file", file, CHANGE, ""))
    })
}

/// The folders of the tokens. One that another program has just begun has no token yet.
pub(super) fn softhsm_token_folders() -> Option<BTreeSet<OsString>> {
    let (configuration, _) = softhsm_configuration();
    let folder = softhsm_tokens(&configuration);
    fs::metadata(&folder).ok()?;
    let mut files = softhsm_token_files(&folder);
    files.retain(|(_, length)| *length >= SMALLEST_TOKEN);
    Some(files.into_iter().map(|(name, _)| name).collect())
}

/// The folders with a file of a token, and its length.
fn softhsm_token_files(folder: &Path) -> Vec<(OsString, u64)> {
    let folders = fs::read_dir(folder).into_iter().flatten().flatten();
    let file = |folder: DirEntry| {
        let file = fs::metadata(folder.path().join("token.object")).ok()?;
        Some((folder.file_name(), file.len()))
    };
    folders.filter_map(file).collect()
}

/// Where SoftHSM reads its configuration, and whether that was set.
fn softhsm_configuration() -> (PathBuf, bool) {
    if let Some(file) = env::var_os("SOFTHSM2_CONF") {
        return (file.into(), true);
    }
    let of_user = env::home_dir().map(|home| home.join(".config/softhsm2/softhsm2.conf"));
    let of_user = of_user.filter(|file| file.exists());
    let of_system = || "/etc/softhsm/softhsm2.conf".into();
    (of_user.unwrap_or_else(of_system), false)
}

fn softhsm_tokens(configuration: &Path) -> PathBuf {
    let folder = softhsm_setting(configuration, "directories.tokendir");
    folder.map_or_else(|| "/var/lib/softhsm/tokens".into(), PathBuf::from)
}

/// The last line of a name is the one that SoftHSM takes.
fn softhsm_setting(configuration: &Path, wanted: &str) -> Option<String> {
    let text = files::read(configuration, OFlag::empty()).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines = text.lines().filter_map(|line| line.split('#').next());
    let settings = lines.filter_map(|line| line.split_once('='));
    let mut last_first = settings.rev();
    let found = last_first.find(|(name, _)| name.trim() == wanted);
    found.map(|(_, value)| value.trim().into())
}

/// Debian's SoftHSM is built without a database.
fn softhsm_backend() -> Option<String> {
    let (file, _) = softhsm_configuration();
    let backend = softhsm_setting(&file, "objectstore.backend")?;
    (backend != "file").then(|| {
        format!(
            "this SoftHSM may have no store of the kind {backend}: set objectstore.backend = file in {}",
            file.display()
        )
    })
}

fn tpm_store_obstacle() -> Option<String> {
    let store = PathBuf::from(env::var_os(TPM_STORE)?);
    let step = "make it, or set TPM2_PKCS11_STORE to the folder of the TPM's keys";
    let name = "the TPM's store (TPM2_PKCS11_STORE)";
    folder_obstacle(name, &store, step).or_else(|| {
        let database = store.join(TPM_DATABASE);
        let is_there = database.exists();
        is_there.then(|| obstacle("the TPM's store", &database, CHANGE, ""))?
    })
}

/// Where tpm2-pkcs11 keeps the keys: in the first of these folders that has a database, else in the first that can get one.
fn tpm_store() -> PathBuf {
    if let Some(store) = env::var_os(TPM_STORE) {
        return store.into();
    }
    let of_system = PathBuf::from("/etc/tpm2_pkcs11");
    let of_user = env::var_os("HOME").map(|home| PathBuf::from(home).join(".tpm2_pkcs11"));
    let folders = [Some(&of_system), of_user.as_ref()].into_iter().flatten();
    let here = env::current_dir().unwrap_or_default();
    let mut folders = folders.chain([&here]);
    let found = folders
        .clone()
        .find(|folder| folder.join(TPM_DATABASE).exists());
    let free =
        || folders.find(|folder| **folder != of_system || access(*folder, CHANGE_FOLDER).is_ok());
    found.or_else(free).unwrap_or(&here).clone()
}

/// The device, unless another way to a TPM is configured.
fn tpm_obstacle() -> Option<String> {
    let way = env::var("TPM2_PKCS11_TCTI")
        .ok()
        .filter(|way| !way.is_empty());
    let device = match &way {
        None => "/dev/tpmrm0",
        Some(way) => match way.strip_prefix("device:") {
            Some(device) => device,
            None => {
                return Some(format!(
                    "is there a TPM where TPM2_PKCS11_TCTI={way} leads (tpm2-abrmd: does it run?)"
                ));
            }
        },
    };
    let is_hidden = Path::new("/sys/class/tpm/tpm0").exists();
    let step = match is_hidden {
        true => "the machine has a TPM, so let the sandbox see it (drop-in tpm.conf)",
        false => "switch the TPM on in the firmware, or set TPM2_PKCS11_TCTI to where one is",
    };
    let none = || format!("is {device} a TPM, and does no other program use it?");
    obstacle("the TPM's device", Path::new(device), CHANGE, step).or_else(|| Some(none()))
}

fn pcscd_socket() -> PathBuf {
    let set = env::var_os("PCSCLITE_CSOCK_NAME");
    set.map_or_else(|| "/run/pcscd/pcscd.comm".into(), PathBuf::from)
}

fn p11_kit_obstacle() -> Option<String> {
    let address =
        env::var_os("P11_KIT_SERVER_ADDRESS").map(|text| text.to_string_lossy().into_owned());
    let folder = || env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let socket = match address {
        // Others are no files.
        Some(address) => PathBuf::from(address.strip_prefix("unix:path=")?.split(';').next()?),
        None => match folder() {
            Some(folder) => folder.join("p11-kit/pkcs11"),
            None => {
                let why =
                    "P11_KIT_SERVER_ADDRESS is not set; set it to where p11-kit's server listens";
                return Some(why.into());
            }
        },
    };
    let step = "start p11-kit server, or set P11_KIT_SERVER_ADDRESS to where it listens";
    socket_obstacle("the socket of p11-kit's server", &socket, step)
}
