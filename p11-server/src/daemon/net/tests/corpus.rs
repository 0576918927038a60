//! Replays what the fuzz target `exchange` has collected, through the same check.

use std::fs;
use std::path::Path;

use super::super::checks;

#[test]
fn exchange() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/exchange");
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
