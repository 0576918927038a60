//! The socket side of the server over a service without a token.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests, which fail by panicking"
)]

mod corpus;
mod fixture;
pub(in crate::daemon) mod frames;
mod input;
mod limits;
mod panics;
mod timeouts;
