//! `tedge-p11 check`, against set-ups that are well and others that are not: the step that fails, the words, the exit code,
//! and that no PIN is sent.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests, which fail by panicking"
)]

mod certificates;
mod connections;
mod device;
mod files;
mod keys;
mod pins;
mod sandbox;
mod servers;
mod settings;
mod well;
