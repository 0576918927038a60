//! The socket side of the server over a service that is played: what clients send goes in, what they
//! are told comes out.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests, which fail by panicking"
)]

#[path = "../checks/mod.rs"]
mod checks;

mod frames;
mod input;
mod panics;
mod patience;
mod places;
mod stage;
