//! Requests over a new connection each, as released `tedge` makes them.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use p11_client::message::{ByteBuf, OpenKey, Ping, Sign};
use p11_client::{Client, Config};
use p11_proto::tedge1::{self, SigScheme, SignWithSigScheme, ToSign};
use p11_proto::{Request, Response, UriText, frame};
use p11_tests::raw_client::{RawClient, exchange_bytes};

use crate::signers::{Candidate, KEY, MESSAGE, Ours};

/// A Ping and a signature in both protocols.
pub fn candidates(ours: &Ours) -> [Candidate; 4] {
    let client = Client::new(Config::new(ours.socket()));
    let key = client.open_key(OpenKey::new(KEY)).unwrap();
    let sign = Sign::new(key.uri.as_str(), 0x0403, MESSAGE.to_vec(), key.identity);
    let old_sign = SignWithSigScheme {
        to_sign: ToSign(ByteBuf::from(MESSAGE)),
        uri: Some(UriText::from(KEY)),
        sigscheme: Some(SigScheme::EcdsaP256Sha256),
        pin: None,
    };
    [
        protocol1("Ping, protocol 1", ours, &Request::Ping(Ping::default())),
        protocol1("signature, protocol 1", ours, &Request::Sign(sign)),
        tedge1("Ping, tedge1", ours, &tedge1::Request::Ping),
        tedge1(
            "signature, tedge1",
            ours,
            &tedge1::Request::SignWithSigScheme(old_sign),
        ),
    ]
}

fn protocol1(name: &'static str, ours: &Ours, request: &Request) -> Candidate {
    let bytes = [&frame::PREAMBLE, &frame::encode(request).unwrap()[..]].concat();
    requests(name, ours.socket(), move |socket| {
        let mut raw = RawClient::connect(socket);
        raw.0.write_all(&bytes).unwrap();
        let answer = raw.answer();
        assert!(matches!(
            answer,
            Some(Response::Pong(_) | Response::Signature(_))
        ));
    })
}

fn tedge1(name: &'static str, ours: &Ours, request: &tedge1::Request) -> Candidate {
    let bytes = request.encode().unwrap();
    requests(name, ours.socket(), move |socket| {
        let reply = exchange_bytes(socket, &bytes);
        let answer = tedge1::Response::decode(&reply);
        assert!(matches!(
            answer,
            Ok(tedge1::Response::Pong | tedge1::Response::Sign(_))
        ));
    })
}

fn requests(
    name: &'static str,
    socket: PathBuf,
    request: impl Fn(&std::path::Path) + Send + Sync + 'static,
) -> Candidate {
    let (socket, request) = (Arc::new(socket), Arc::new(request));
    Candidate {
        name,
        open: Box::new(move || {
            let (socket, request) = (socket.clone(), request.clone());
            Box::new(move || request(&socket))
        }),
    }
}
