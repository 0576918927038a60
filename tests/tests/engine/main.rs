//! The engine between the socket and the token, on a SoftHSM2 that misbehaves on demand: what a
//! program sees goes in, how often the module was called for it comes out.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests, which fail by panicking"
)]

mod fast_path;
mod hung_calls;
mod identity;
mod logins;
mod pin_guard;
mod public_keys;
mod recovery;
mod schemes;
mod sessions;
