//! Builds the programs under test and finds them.

use std::{env, ffi::OsStr, path::PathBuf, process::Command, sync::OnceLock};

use crate::tools::run;

/// A command that runs the server with no argument, and with no variable of its own in the environment.
pub fn server() -> Command {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    let binary = BINARY.get_or_init(|| built("p11-server", "tedge-p11-server"));
    let mut command = Command::new(binary);
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
/// would test yesterday's code. So cargo is asked once in each test process; where nothing changed
/// that takes 50 ms. It works alike under `cargo test` and nextest, neither of which holds cargo's
/// lock while tests run.
fn built(package: &str, binary: &str) -> PathBuf {
    // target/debug/deps/this-test, or target/debug/this-test
    let test = env::current_exe().expect("the path of this test");
    let folder = test
        .ancestors()
        .find(|folder| folder.join(".fingerprint").is_dir())
        .expect("tests run from cargo's target folder");
    let profile = match folder.file_name().and_then(OsStr::to_str) {
        Some("debug") => "dev",
        Some(profile) => profile,
        None => panic!("no profile in {}", folder.display()),
    };
    run(
        Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["build", "--quiet", "--package", package, "--bin", binary])
            .args(["--profile", profile, "--target-dir"])
            .arg(
                folder
                    .parent()
                    .expect("a profile lies in the target folder"),
            ),
    );
    folder.join(binary)
}
