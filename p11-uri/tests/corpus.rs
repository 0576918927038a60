//! Replays what the fuzz targets have collected, through the same checks.

#![allow(clippy::expect_used, clippy::indexing_slicing)] // A helper that fails fails the test.

mod checks;

use std::fs;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;

#[test]
fn uri_parse() {
    replay("uri_parse", checks::parse);
}

#[test]
fn uri_roundtrip() {
    replay("uri_roundtrip", checks::roundtrip);
}

#[test]
fn uri_redact() {
    replay("uri_redact", checks::planted);
}

fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_planted_pin_is_shown(input in vec(any::<u8>(), 0..60), text in "[a-z0-9%;=?&:-]{0,60}") {
        checks::planted(&input);
        let spelling = input.iter().copied().chain([0, 0]).take(2);
        checks::planted(&spelling.chain(text.bytes()).collect::<Vec<_>>());
    }
}
