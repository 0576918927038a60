//! Each request of the client, and how those that change a token are sent: once.

use std::thread;

use p11_client::message::{
    ByteBuf, Certificates, ChangePin, CreateKey, DeleteKey, Deleted, GetCertificates, GetPublicKey,
    GetStatus, ImportCertificate, Imported, InitToken, KeySpec, KeyType, ListKeys, ListTokens,
    Message, Objects, OpenKey, OpenedKey, PinChanged, Ping, PublicKeyEntry, Sign, Signature,
    Status, TokenReady, Tokens,
};
use p11_client::{Client, Error, ErrorCode, Pin, Protocol};
use p11_proto::{Request, Response, Scheme, tedge1};

use crate::assertions::assert_error;
use crate::fake_server::{Reaction, SHORT, TempSocket};
use crate::test_key::{TestKey, failure, pong};

#[test]
fn each_method_sends_its_request_and_returns_the_answer() {
    let socket = TempSocket::new();
    let server = socket.serve(|request| answer_to(&request));
    let client = socket.client();
    for (request, answer) in requests() {
        assert_eq!(call(&client, request.clone()).unwrap(), answer);
        assert_eq!(server.take_requests(), [request]);
    }
}

#[test]
fn a_change_is_sent_once_whatever_becomes_of_it() {
    let reactions: [fn() -> Reaction; 3] = [
        || Reaction::Close,
        || Reaction::Bytes(&[0, 0, 0, 9, 0x81]), // half a frame
        || Reaction::Bytes(&[0, 0, 0, 1, 0xc0]), // not a message
    ];
    for reaction in reactions {
        let socket = TempSocket::new();
        let server = socket.serve(move |_| reaction());
        for change in changes() {
            assert_outcome_unknown(&call(&socket.client(), change.clone()).unwrap_err(), "");
            assert_eq!(server.take_requests(), [change]);
        }
    }
}

#[test]
fn a_change_is_sent_once_to_an_old_server_too() {
    let socket = TempSocket::new();
    let server = socket.serve_old(|request| match request {
        tedge1::Request::GetTokensUris => Some(tedge1::Response::GetTokensUris(Vec::new())),
        _ => None,
    });
    for change in changes() {
        if matches!(change, Request::ImportCertificate(_)) {
            continue; // tedge1 does not have it
        }
        assert_outcome_unknown(&call(&socket.client(), change.clone()).unwrap_err(), "");
        let mut names = server.take_old_names();
        names.retain(|name| !["Ping", "GetTokensUris"].contains(name));
        assert_eq!(names, [change.name()]);
    }
}

#[test]
fn a_change_is_sent_by_a_new_connection() {
    // What an idle one leads to is not known, and such a request has one try.
    for change in changes() {
        let socket = TempSocket::new();
        let first = socket.serve(|request| answer_to(&request));
        let client = socket.client();
        client.status().unwrap();
        drop(first);
        let second = socket.serve(|request| answer_to(&request));
        call(&client, change).unwrap();
        assert_eq!((second.probes(), second.connections()), (1, 1));
    }
}

#[test]
fn a_change_waits_for_the_server_to_be_there() {
    let socket = TempSocket::new();
    thread::scope(|scope| {
        let call = |change| scope.spawn(|| call(&socket.client(), change).unwrap());
        let calls: Vec<_> = changes().into_iter().map(call).collect();
        thread::sleep(SHORT);
        assert!(calls.iter().all(|call| !call.is_finished()));
        let _server = socket.serve(|request| answer_to(&request));
        for call in calls {
            call.join().unwrap();
        }
    });
}

#[test]
fn a_change_that_is_refused_has_changed_nothing() {
    let socket = TempSocket::new();
    let server = socket.serve(|_| failure(ErrorCode::NotAllowed, "no"));
    for change in changes() {
        let error = call(&socket.client(), change.clone()).unwrap_err();
        assert_error(&error, "NotAllowed", &[]);
        assert_eq!(server.take_requests(), [change]);
    }
}

#[test]
fn each_request_has_its_whole_deadline_and_a_new_key_or_token_a_longer_one() {
    let socket = TempSocket::new();
    let _server = socket.serve(|request| {
        thread::sleep(2 * SHORT);
        answer_to(&request)
    });
    let config = socket.config().protocol(Protocol::V1);
    let short = &Client::new(config.clone().deadline(SHORT));
    let long = &Client::new(config.long_deadline(SHORT));
    thread::scope(|scope| {
        for (request, answer) in requests() {
            let (in_time, late) = match request {
                Request::CreateKey(_) | Request::InitToken(_) => (short, long),
                _ => (long, short),
            };
            let again = request.clone();
            scope.spawn(move || assert_eq!(call(in_time, request).unwrap(), answer));
            scope.spawn(move || {
                let error = call(late, again.clone()).unwrap_err();
                let when = "did not answer within 200ms";
                match changes().contains(&again) {
                    true => assert_outcome_unknown(&error, when),
                    false => assert_error(&error, "Deadline", &[when]),
                }
            });
        }
    });
}

fn assert_outcome_unknown(error: &Error, part: &str) {
    assert_error(
        error,
        "OutcomeUnknown",
        &[part, "look before you try again"],
    );
}

/// Sends a request by the method that the client has for it.
pub fn call(client: &Client, request: Request) -> Result<Response, Error> {
    Ok(match request {
        Request::Ping(_) => Response::Pong(client.ping()?),
        Request::Status(_) => Response::Status(client.status()?),
        Request::OpenKey(r) => Response::Key(client.open_key(r)?),
        Request::Sign(r) => Response::Signature(Signature::new(client.sign(r)?)),
        Request::ListTokens(_) => Response::Tokens(client.list_tokens()?),
        Request::ListKeys(r) => Response::Objects(client.list_keys(r)?),
        Request::GetPublicKey(r) => Response::PublicKey(client.get_public_key(r)?),
        Request::GetCertificates(r) => Response::Certificates(client.get_certificates(r)?),
        Request::ImportCertificate(r) => Response::Imported(client.import_certificate(r)?),
        Request::CreateKey(r) => Response::PublicKey(client.create_key(r)?),
        Request::DeleteKey(r) => Response::Deleted(client.delete_key(r)?),
        Request::InitToken(r) => Response::TokenReady(client.init_token(r)?),
        Request::ChangePin(r) => Response::PinChanged(client.change_pin(r)?),
        other => panic!("there is no method for {other:?}"),
    })
}

/// All requests that change a token.
fn changes() -> Vec<Request> {
    let names = [
        "ImportCertificate",
        "CreateKey",
        "DeleteKey",
        "InitToken",
        "ChangePin",
    ];
    let requests = requests().into_iter().map(|(request, _)| request);
    requests
        .filter(|request| names.contains(&request.name()))
        .collect()
}

pub fn answer_to(request: &Request) -> Response {
    let mut requests = requests().into_iter();
    requests.find(|(known, _)| known == request).unwrap().1
}

/// Each request, and an answer to it.
pub fn requests() -> Vec<(Request, Response)> {
    let key = TestKey::with_v1_certificate();
    let opened = OpenedKey::new(
        "pkcs11:object=k;id=%01",
        &key.public,
        [Scheme::EcdsaP256Sha256],
    );
    let public = PublicKeyEntry::new("pkcs11:object=k", &key.public);
    let uri = "pkcs11:token=t;object=k";
    let spki = ByteBuf::from(key.public.spki());
    let create = CreateKey::new(uri, KeySpec::new(KeyType::Rsa, 2048), "k");
    vec![
        (Request::Ping(Ping::default()), pong()),
        (
            Request::Status(GetStatus::default()),
            Response::Status(Status::new("fake 1", true)),
        ),
        (
            Request::OpenKey(OpenKey::new(uri).pin(pin()).spki(spki)),
            Response::Key(opened),
        ),
        (
            Request::Sign(sign()),
            Response::Signature(Signature::new(vec![1])),
        ),
        (
            Request::ListTokens(ListTokens::default()),
            Response::Tokens(Tokens::new(Vec::new()).truncated(true)),
        ),
        (
            Request::ListKeys(ListKeys::new(uri).pin(pin())),
            Response::Objects(Objects::new(Vec::new()).truncated(true)),
        ),
        (
            Request::GetPublicKey(GetPublicKey::new(uri)),
            Response::PublicKey(public.clone()),
        ),
        (
            Request::GetCertificates(GetCertificates::new(uri)),
            Response::Certificates(Certificates::new(Vec::new()).truncated(true)),
        ),
        (
            Request::ImportCertificate(ImportCertificate::new(uri, vec![0x30, 0x00]).pin(pin())),
            Response::Imported(Imported::new("pkcs11:object=c")),
        ),
        (
            Request::CreateKey(create.pin(pin())),
            Response::PublicKey(public),
        ),
        (
            Request::DeleteKey(DeleteKey::new(uri)),
            Response::Deleted(Deleted::new(vec!["pkcs11:object=k".to_owned()])),
        ),
        (
            Request::InitToken(InitToken::new("t").pin(pin())),
            Response::TokenReady(TokenReady::new("pkcs11:token=t", true)),
        ),
        (
            Request::ChangePin(ChangePin::new("5678").old_pin(pin())),
            Response::PinChanged(PinChanged::new("pkcs11:token=t")),
        ),
    ]
}

pub fn sign() -> Sign {
    let identity = TestKey::with_v1_certificate().public.identity();
    Sign::new(
        "pkcs11:",
        Scheme::EcdsaP256Sha256.number(),
        b"message".to_vec(),
        identity,
    )
}

pub fn pin() -> Pin {
    Pin::from("1234")
}
