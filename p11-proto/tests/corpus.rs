//! Replays what the fuzz targets have collected, through the same checks.

#![allow(clippy::expect_used, clippy::indexing_slicing)] // A helper that fails fails the test.

mod checks;

use std::fs;
use std::path::Path;

#[test]
fn frame_decode() {
    replay("frame_decode", checks::frames);
}

#[test]
fn tedge1_decode() {
    replay("tedge1_decode", checks::tedge1);
}

fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    let files: Vec<_> = fs::read_dir(&folder)
        .expect("the corpus")
        .map(|entry| entry.expect("a file"))
        .collect();
    assert!(
        files.len() >= 10,
        "{} files in {}",
        files.len(),
        folder.display()
    );
    for file in files {
        check(&fs::read(file.path()).expect("a file of the corpus"));
    }
}
