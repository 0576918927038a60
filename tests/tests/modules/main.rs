//! Real PKCS#11 modules of Debian under the real server. Each plays the same life ([`life`]), and what it showed is a
//! row of `docs/modules.md` ([`page`]).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests, which fail by panicking"
)]

mod life;
mod load;
mod needs;
mod nss;
mod opencryptoki;
mod opensc;
mod p11_kit_client;
mod p11_kit_proxy;
mod page;
mod registry;
mod softhsm;
mod tpm2_pkcs11;

/// The user's PIN of each token.
const PIN: &str = "482915";
/// The security officer's.
const SO_PIN: &str = "771122";
