//! Replays what the fuzz target has collected, through the same check.

#![allow(clippy::expect_used, clippy::indexing_slicing)] // A helper that fails fails the test.

#[allow(dead_code, reason = "the tests of the socket use more of it")]
mod checks;

use std::fs;
use std::path::Path;

#[test]
fn exchange() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/exchange");
    let files: Vec<_> = fs::read_dir(&folder)
        .expect("the corpus")
        .map(|entry| entry.expect("a file").path())
        .collect();
    assert!(files.len() >= 10, "{} files", files.len());
    let mut messages = 0;
    for file in files {
        messages += checks::exchange(&fs::read(file).expect("a file of the corpus"));
    }
    assert!(messages > 40, "{messages} messages are no corpus");
}
