//! Tokens, keys and certificates are listed and changed through the real server, on SoftHSM2: what other programs see of
//! it, and how often the module is called for it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests, which fail by panicking"
)]

mod certificates;
mod change_pin;
mod changes_under_load;
mod create_key;
mod delete_key;
mod init_token;
mod list_keys;
mod list_tokens;
mod old_server;
mod protocol_page;
mod scope;
mod tedge1;
mod tpm;
