//! The server as a fortress: what hostile clients, operators and systemd do goes in; that others are
//! served all the same, and what the log tells of it, comes out.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests, which fail by panicking"
)]

mod attacks;
mod audit;
mod connections;
mod lifecycle;
mod limits;
mod notify;
mod pin_sources;
mod policy;
mod systemd;
mod users;
