//! The client and its rustls key, against a server and a token that are played.
#![cfg(test)]

mod client;
mod fake_server;
mod fake_token;
mod handshake;
mod old_errors;
mod old_key;
mod old_manage;
mod old_server;
mod place;
mod protocol;
mod requests;
mod resolver;
mod restart;
mod tls;
