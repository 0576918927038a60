//! `make bench`: signatures and handshakes, ours beside others, in one run.
//!
//! - [`measure`]: rounds of all candidates in turn, so that what the machine does meanwhile hits all
//! - [`signers`]: the candidates; [`bare`]: the least that a signer in another process costs; [`pkcs11`]: the
//!   shortest way to a signature, in process
//! - [`connections`]: requests over a new connection each
//! - [`fairness`]: a user's signatures while another one disturbs
//! - [`searches`]: searches and listings on tokens of many key pairs
//! - [`handshake`]: whole TLS 1.3 handshakes with a client certificate
//! - [`footprint`]: memory, size, time to the first signature
//! - [`report`]: the table and the picture
#![deny(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark stops where something is amiss, and prints what it measured"
)]

mod bare;
mod connections;
mod fairness;
mod footprint;
mod handshake;
mod measure;
mod pkcs11;
mod report;
mod searches;
mod signers;

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use p11_tests::{
    fixture::{Fixture, PIN, SO_PIN},
    keys::KeyKind,
    tools,
    tpm::Tpm,
    wait::wait_for_listener,
};

use crate::measure::Figures;
use crate::pkcs11::Module;
use crate::report::Report;
use crate::signers::{Ours, Setup};

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        ["bare-server", socket, module] => bare::serve(socket.as_ref(), module.as_ref()),
        ["idle-process", module] => footprint::idle(module.as_ref()),
        ["measure-tpm"] => measure_tpm(),
        ["generate", pairs] => generate(pairs.parse().unwrap()),
        ["disturb", socket, name, rate] => {
            fairness::disturb(socket.as_ref(), name, rate.parse().unwrap());
        }
        ["measure", few, many, tpm, fair, ten, hundred, thousand] => {
            let pairs = [ten, hundred, thousand].map(PathBuf::from);
            measure_all(few.as_ref(), many.as_ref(), tpm, fair.as_ref(), &pairs);
        }
        [] => set_the_stage(),
        _ => panic!("run me by `make bench`"),
    }
}

/// Makes the tokens, then starts over in a process that sees them: SoftHSM and p11-kit look for their
/// configuration in the environment.
fn set_the_stage() {
    let small = Fixture::new(KeyKind::P256);
    small.fill(10);
    let large = Fixture::new(KeyKind::P256);
    large.fill(1_000);
    let [(variable, small_configuration)] = small.hsm.envs();
    let large_configuration = configuration(&large);
    let fair = with_key_pairs(fairness::PAIRS);
    let pairs = searches::PAIRS.map(with_key_pairs);

    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("p11-kit");
    let mut p11_kit = tools::command("p11-kit")
        .env(variable, &small_configuration)
        .args(["server", "--foreground", "--provider"])
        .arg(tools::pkcs11_module("libsofthsm2.so"))
        .arg("--name")
        .arg(&socket)
        .arg("pkcs11:token=device")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_for_listener(&socket);
    let status = Command::new(env::current_exe().unwrap())
        .arg("measure")
        .args([&small_configuration, &large_configuration])
        .arg(on_a_tpm())
        .args([&fair].into_iter().chain(&pairs).map(configuration))
        .env(variable, &small_configuration)
        .env(
            "P11_KIT_SERVER_ADDRESS",
            format!("unix:path={}", socket.display()),
        )
        .status();
    let _ = p11_kit.kill();
    let _ = p11_kit.wait();
    assert!(status.unwrap().success(), "the measurements failed");
}

/// A token with so many key pairs.
fn with_key_pairs(pairs: usize) -> Fixture {
    let fixture = Fixture::new(KeyKind::P256);
    let status = Command::new(env::current_exe().unwrap())
        .args(["generate", &pairs.to_string()])
        .envs(fixture.hsm.envs())
        .status();
    assert!(status.unwrap().success(), "generating key pairs failed");
    fixture
}

fn generate(pairs: usize) {
    let module = Module::load(&tools::pkcs11_module("libsofthsm2.so"));
    module.generate(PIN, searches::labels(pairs));
}

fn configuration(fixture: &Fixture) -> PathBuf {
    let [(_, configuration)] = fixture.hsm.envs();
    configuration
}

/// The figures of a software TPM, whose driver needs an environment of its own.
fn on_a_tpm() -> String {
    let tpm = Tpm::new();
    tpm.init_token("device", PIN, SO_PIN);
    tpm.generate("device", PIN, "ecc256", "key");
    let output = Command::new(env::current_exe().unwrap())
        .arg("measure-tpm")
        .envs(tpm.envs())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "the measurements on a TPM failed");
    String::from_utf8(output.stdout).unwrap()
}

fn measure_tpm() {
    eprintln!("a software TPM …");
    let module = tools::pkcs11_module("libtpm2_pkcs11.so");
    let ours = Ours::start(&module, &[], 0);
    let candidates = [
        signers::in_process("raw C_Sign", Module::load(&module)),
        ours.candidate("ours"),
    ];
    for figures in measure::latencies(&candidates, 1) {
        println!("{}", figures.to_line());
    }
}

fn measure_all(few: &Path, many: &Path, tpm: &str, fair: &Path, pairs: &[PathBuf; 3]) {
    let setup = Setup::new(few);
    eprintln!("one client …");
    let one = measure::latencies(&setup.candidates(), 1);
    eprintln!("four clients …");
    let four = measure::latencies(&setup.candidates(), 4);

    eprintln!("1,000 objects, 200 idle connections …");
    let (full, busy) = (Ours::on_softhsm(many, 0), Ours::on_softhsm(few, 200));
    let burden = measure::latencies(
        &[
            setup.ours.candidate("ten objects, no idle connection"),
            full.candidate("1,000 objects"),
            busy.candidate("200 idle connections"),
        ],
        1,
    );
    drop((full, busy));

    eprintln!("new connections …");
    let mut candidates = vec![signers::in_process("raw C_Sign", setup.raw)];
    candidates.extend(setup.bare_connections());
    candidates.extend(connections::candidates(&setup.ours));
    let connections = measure::latencies(&candidates, 1);
    let fairness = fairness::measure(fair);
    eprintln!("searches …");
    let searches = searches::measure(pairs);

    eprintln!("handshakes …");
    let handshakes = handshake::compare(&setup);
    eprintln!("memory, size, start …");
    let footprint = footprint::measure(few);
    let report = Report {
        one,
        four,
        burden,
        connections,
        fairness,
        searches,
        handshakes,
        tpm: tpm.lines().map(Figures::from_line).collect(),
        footprint,
    };
    report.print();
    report.draw("docs/performance.svg".as_ref());
}
