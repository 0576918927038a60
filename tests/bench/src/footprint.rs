//! What the server costs when it does nothing much: memory, size, time to its first signature.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use p11_tests::tools::pkcs11_module;

use crate::pkcs11::Module;
use crate::signers::{Ours, PIN, binary};

/// The figures of the server itself.
pub struct Footprint {
    /// Its resident memory after some signatures, in KiB.
    pub resident: u64,
    /// That of a bare process with the same module and one session, in KiB.
    pub bare: u64,
    /// Bytes of the release binary.
    pub size: u64,
    /// From exec to the first signature, in milliseconds: the median of several starts.
    pub first_signature: f64,
}

/// Measures a server that has signed.
pub fn measure(configuration: &Path) -> Footprint {
    let mut idle = Command::new(std::env::current_exe().unwrap())
        .arg("idle-process")
        .arg(pkcs11_module("libsofthsm2.so"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(idle.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let bare = resident(idle.id());
    idle.kill().unwrap();
    idle.wait().unwrap();

    let ours = Ours::on_softhsm(configuration, 0);
    let mut sign = (ours.candidate("ours").open)();
    (0..100).for_each(|_| sign());
    let resident = resident(ours.pid());

    let mut starts: Vec<f64> = (0..11)
        .map(|_| {
            let began = Instant::now();
            let ours = Ours::on_softhsm(configuration, 0);
            (ours.candidate("ours").open)()();
            began.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    starts.sort_by(f64::total_cmp);
    Footprint {
        resident,
        bare,
        size: fs::metadata(binary()).unwrap().len(),
        first_signature: starts[starts.len() / 2],
    }
}

/// A process that holds the module and one session, and waits to be killed.
pub fn idle(module: &Path) {
    let mut signer = Module::load(module).signer(PIN);
    signer.sign(&[7; 32]);
    println!("ready");
    let _ = std::io::stdin().read(&mut [0]);
}

/// `VmRSS` of a process (proc(5)), in KiB.
fn resident(pid: u32) -> u64 {
    p11_tests::proc::status(pid, "VmRSS").unwrap()
}
