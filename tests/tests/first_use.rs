//! The first use as README tells it: the commands that stand there, in their order, print what stands there.
//!
//! `UPDATE_DOCS=1` writes their output into README, with one test at a time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests, which fail by panicking"
)]

use std::{env, fs, path::Path, process::Command};

use p11_tests::{
    binary,
    fixture::PIN,
    server::Server,
    softhsm::SoftHsm,
    tools::{self, command, run},
    tpm::Tpm,
};

const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");

/// In front of a command.
const PROMPT: &str = "$ ";

#[test]
fn from_a_blank_softhsm_to_all_is_well() {
    let hsm = SoftHsm::new();
    let server = Server::builder().softhsm(&hsm).pin(PIN).start();
    plays("softhsm", &server);
}

#[test]
fn from_a_blank_tpm_to_all_is_well() {
    let tpm = Tpm::new();
    let module = tools::pkcs11_module("libtpm2_pkcs11.so");
    let server = Server::builder()
        .module(&module)
        .envs(tpm.envs())
        .pin(PIN)
        .start();
    plays("tpm", &server);
}

/// Runs the commands of a block of README in a folder of a new user, and compares what they print.
fn plays(block: &str, server: &Server) {
    let readme = fs::read_to_string(README).unwrap();
    let start = format!("<!-- {block} -->\n```console\n");
    let (before, rest) = readme.split_once(&start).expect("the block is in README");
    let (told, after) = rest.split_once("```\n").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut played = String::new();
    for line in told.lines().filter(|line| line.starts_with(PROMPT)) {
        if line.contains("certificate import") {
            sign_requests(folder.path());
        }
        let output = shell(&line[PROMPT.len()..], folder.path(), server);
        played.push_str(&format!("{line}\n{output}"));
    }
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(README, format!("{before}{start}{played}```\n{after}")).unwrap();
        return;
    }
    assert_eq!(constant(&played), constant(told), "UPDATE_DOCS=1 writes it");
}

/// What a terminal shows of a command.
fn shell(line: &str, folder: &Path, server: &Server) -> String {
    let program = binary::tedge_p11();
    let path = Path::new(program.get_program()).parent().unwrap();
    let output = Command::new("sh")
        .args(["-c", &format!("{line} 2>&1")])
        .current_dir(folder)
        .env("PATH", format!("{}:/usr/bin:/bin", path.display()))
        .env("TEDGE_CONFIG_DIR", server.folder())
        .env("TEDGE_DEVICE_CRYPTOKI_SOCKET_PATH", server.socket())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{line}:\n{text}");
    // As it is where the server was installed.
    let here = [server.socket(), server.folder()].map(|path| path.display().to_string());
    let installed = ["/run/tedge-p11-server/tedge-p11-server.sock", "/etc/tedge"];
    let pairs = here.iter().zip(installed);
    pairs.into_iter().fold(text, |text, (here, installed)| {
        text.replace(here, installed)
    })
}

/// What the authority does with the request.
fn sign_requests(folder: &Path) {
    let openssl = |line: &str| {
        run(command("openssl").current_dir(folder).args(line.split(' ')));
    };
    openssl(
        "req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -days 99 -subj /CN=CA -keyout ca.key -out ca.pem",
    );
    openssl("x509 -req -in gw-0001.csr -CA ca.pem -CAkey ca.key -days 90 -out gw-0001.pem");
}

/// Without what is another one each day: times, and how long things took.
fn constant(text: &str) -> String {
    let mut constant = String::new();
    for letter in text.chars() {
        match letter.is_ascii_digit() {
            true if constant.ends_with('0') => {}
            true => constant.push('0'),
            false => constant.push(letter),
        }
    }
    constant
}
