//! A test that is a program of its own, since a module is told by the environment where its tokens are.

use std::{env, path::Path, process::Command};

use p11_fault_module::Faults;

use crate::fixture::Fixture;

/// Says to the process that is the program where its faults are.
const FAULTS: &str = "EMBEDDING_FAULTS";

/// Runs a test that is ignored otherwise, in a process of its own whose module has the tokens and faults of a fixture.
pub fn run(fixture: &Fixture, test: &str) {
    run_with(fixture, test, &[]);
}

/// The same with more variables in the environment.
pub fn run_with(fixture: &Fixture, test: &str, variables: &[(&str, &Path)]) {
    let [_, (_, folder)] = fixture.faults.envs();
    let output = Command::new(env::current_exe().unwrap())
        .args(["--ignored", "--exact", test])
        .envs(fixture.hsm.envs())
        .envs(fixture.faults.envs())
        .env(FAULTS, folder)
        .env_remove("RUNTIME_DIRECTORY")
        .env_remove("XDG_RUNTIME_DIR")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{output:?}"
    );
}

/// The faults of the module in this program.
pub fn faults() -> Faults {
    let folder = env::var_os(FAULTS).expect("this is run by another test");
    Faults::attach(folder, "unused")
}
