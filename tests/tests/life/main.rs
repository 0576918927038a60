//! The life of tokens, keys and certificates through the real server, on SoftHSM2: what other
//! programs see of it, and how often the module was called for it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests, which fail by panicking"
)]

mod admin;
mod certificates;
mod create;
mod delete;
mod inventory;
mod tokens;
