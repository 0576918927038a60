//! The server among hostile clients, several users, changing configurations and systemd, and what its log says of them.

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
mod ending;
mod lifecycle;
mod limits;
mod memory;
mod notify;
mod pin_attacks;
mod pin_oracles;
mod pin_restarts;
mod pin_sources;
mod pins;
mod places;
mod policy;
mod policy_filter;
mod stderr;
mod systemd;
mod turns;
