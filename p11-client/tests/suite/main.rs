//! Tests of the client and its rustls key, against fake servers.
#![cfg(test)]

mod assertions;
mod configured;
mod connections;
mod errors;
mod fake_server;
mod fork;
mod handshake;
mod key_provider;
mod lazy_key;
mod no_common_scheme;
mod old_key;
mod old_manage;
mod paths;
mod patience;
mod protocol;
mod renewal;
mod requests;
mod resolver;
mod test_key;
mod tls;
