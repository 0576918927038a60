//! Each fault, as an application sees it that loads the module around SoftHSM2.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests, too, end the test with the reason"
)]

mod calls;
mod fixture;
mod login;
mod objects;
mod sessions;
mod slots;
mod token;
