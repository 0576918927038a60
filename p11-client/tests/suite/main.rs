//! The client and its rustls key, against a server and a token that are played.
#![cfg(test)]

mod client;
mod fake_server;
mod fake_token;
mod handshake;
mod place;
mod resolver;
mod tls;
