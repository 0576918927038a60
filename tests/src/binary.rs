//! Builds the programs under test and finds them.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use crate::tools::run;

/// A command that runs the server with no argument, and with no variable of its own in the environment.
pub fn server() -> Command {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    let binary = BINARY.get_or_init(|| built("p11-server", "tedge-p11-server", None, &[]));
    without_variables(Command::new(binary))
}

/// The same for the command line, which stands behind a feature.
pub fn tedge_p11() -> Command {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    let features = ["--features", "cli"];
    let binary = BINARY.get_or_init(|| built("p11-client", "tedge-p11", None, &features));
    without_variables(Command::new(binary))
}

/// A command that runs an example, which is built with what it needs itself and no more.
pub fn example(name: &str) -> Command {
    let features = ["--no-default-features", "--features", name];
    without_variables(Command::new(built("p11-examples", name, None, &features)))
}

/// The same example as a static program, which needs nothing of the system but its kernel.
pub fn static_example(name: &str) -> PathBuf {
    let features = ["--no-default-features", "--features", name];
    let target = format!("{}-unknown-linux-musl", env::consts::ARCH);
    built("p11-examples", name, Some(&target), &features)
}

/// The same for the server that waits seconds for what takes the real one half a minute.
pub fn quick_server() -> Command {
    without_variables(of_tests("quick-server"))
}

/// A command that runs a program of this crate, which cargo has built beside the test.
pub(crate) fn of_tests(program: &str) -> Command {
    Command::new(folder().join(program))
}

fn without_variables(mut command: Command) -> Command {
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("TEDGE_") {
            command.env_remove(name);
        }
    }
    command
}

/// Builds a binary of this workspace beside the test that runs, and returns its path.
///
/// Cargo builds the libraries that a test depends on but not their binaries, and a stale binary
/// would test yesterday's code. So cargo is asked once: in each test process under `cargo test`, in
/// each run under nextest, which starts a process for every test. Neither holds cargo's lock while
/// tests run.
fn built(package: &str, binary: &str, target: Option<&str>, features: &[&str]) -> PathBuf {
    let profile = folder();
    let folder = match target {
        None => profile.clone(),
        Some(target) => {
            let name = profile.file_name().expect("a profile lies in a folder");
            profile.with_file_name(target).join(name)
        }
    };
    let path = folder.join(binary);
    let this_run = env::var("NEXTEST_RUN_ID").ok();
    let built_for = folder.join(format!("{binary}.built-for"));
    if this_run.is_some() && this_run == fs::read_to_string(&built_for).ok() {
        return path;
    }
    let mut cargo = cargo_build(package, binary, &profile);
    if let Some(target) = target {
        cargo.args(["--target", target]);
    }
    run(cargo.args(features));
    if let Some(this_run) = this_run {
        fs::write(built_for, this_run).expect("cargo's target folder is writable");
    }
    path
}

/// The one in cargo's target folder that programs are built in.
fn folder() -> PathBuf {
    // target/debug/deps/this-test, or target/debug/this-test
    let test = env::current_exe().expect("the path of this test");
    let mut folders = test.ancestors();
    let folder = folders.find(|folder| folder.join(".fingerprint").is_dir());
    folder.expect("tests run from cargo's target folder").into()
}

fn cargo_build(package: &str, binary: &str, folder: &Path) -> Command {
    let profile = match folder.file_name().and_then(OsStr::to_str) {
        Some("debug") => "dev",
        Some(profile) => profile,
        None => panic!("no profile in {}", folder.display()),
    };
    let target = folder
        .parent()
        .expect("a profile lies in the target folder");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What the test was told of its own package would have cargo build ring anew each time.
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&*name);
        }
    }
    cargo
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["build", "--quiet", "--package", package, "--bin", binary])
        .args(["--profile", profile, "--target-dir"])
        .arg(target);
    cargo
}
