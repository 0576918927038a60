//! The engine behind the socket, with a SoftHSM2 that misbehaves on demand: what programs get, and how often the
//! module is called for it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests, which fail by panicking"
)]

mod claims;
mod deadlines;
mod fast_path;
mod hangs;
mod hung_calls;
mod identity;
mod linear;
mod logins;
mod nss;
mod one_key;
mod pin_guard;
mod public_keys;
mod recovery;
mod schemes;
mod sessions;
mod status;
mod trouble;
