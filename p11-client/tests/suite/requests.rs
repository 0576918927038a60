//! Every request that the client has a method for, and how those that change a token are sent: once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use p11_client::message::{
    Certificates, ChangePin, CreateKey, DeleteKey, Deleted, GetCertificates, GetPublicKey,
    GetStatus, ImportCertificate, Imported, InitToken, KeySpec, KeyType, ListKeys, ListTokens,
    Objects, PinChanged, PublicKeyEntry, Status, TokenReady, Tokens,
};
use p11_client::{Client, Error, ErrorCode, Failure, Pin, Protocol};
use p11_proto::{Request, Response, tedge1};

use crate::fake_server::{FakeServer, Reaction};
use crate::fake_token::TestKey;
use crate::old_server::OldServer;
use crate::place::Place;

const SHORT: Duration = Duration::from_millis(300);

#[test]
fn each_method_sends_its_request_and_returns_the_answer() {
    let place = Place::new();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let asking = asked.clone();
    let _server = FakeServer::start(&place.socket, move |request| {
        asking.lock().unwrap().push(request.clone());
        Reaction::Answer(answer_to(&request))
    });
    let client = place.client();
    assert!(client.status().unwrap().available);
    assert!(client.list_tokens().unwrap().truncated);
    assert!(client.list_keys(list_keys()).unwrap().truncated);
    assert_eq!(
        client.get_public_key(get_public_key()).unwrap(),
        public_key()
    );
    assert!(
        client
            .get_certificates(get_certificates())
            .unwrap()
            .truncated
    );
    let imported = client.import_certificate(import_certificate()).unwrap();
    assert_eq!(imported.uri, "pkcs11:object=c");
    assert_eq!(client.create_key(create_key()).unwrap(), public_key());
    let deleted = client.delete_key(delete_key()).unwrap().deleted;
    assert_eq!(deleted, ["pkcs11:object=k"]);
    assert!(client.init_token(init_token()).unwrap().created);
    assert_eq!(
        client.change_pin(change_pin()).unwrap().uri,
        "pkcs11:token=t"
    );

    let expected = [
        Request::Status(GetStatus::default()),
        Request::ListTokens(ListTokens::default()),
        Request::ListKeys(list_keys()),
        Request::GetPublicKey(get_public_key()),
        Request::GetCertificates(get_certificates()),
        Request::ImportCertificate(import_certificate()),
        Request::CreateKey(create_key()),
        Request::DeleteKey(delete_key()),
        Request::InitToken(init_token()),
        Request::ChangePin(change_pin()),
    ];
    assert_eq!(*asked.lock().unwrap(), expected);
}

#[test]
fn an_answer_to_another_request_is_nonsense() {
    let place = Place::new();
    let _server = FakeServer::start(&place.socket, |_| {
        Reaction::Answer(Response::Imported(Imported::new("")))
    });
    let error = place.client().list_tokens().unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
    assert!(error.to_string().contains("\"Imported\""), "{error}");
}

#[test]
fn a_change_is_sent_once_whatever_becomes_of_it() {
    let reactions: [fn() -> Reaction; 3] = [
        || Reaction::Close,
        // Half a frame, and an answer that is none.
        || Reaction::Bytes(vec![0, 0, 0, 9, 0x81]),
        || Reaction::Bytes(vec![0, 0, 0, 1, 0xc0]),
    ];
    for reaction in reactions {
        for change in changes() {
            let place = Place::new();
            let tries = Arc::new(AtomicUsize::new(0));
            let counter = tries.clone();
            let _server = FakeServer::start(&place.socket, move |_| {
                counter.fetch_add(1, Ordering::SeqCst);
                reaction()
            });
            let error = change(&place.client()).unwrap_err();
            assert_outcome_unknown(&error);
            assert_eq!(tries.load(Ordering::SeqCst), 1, "{error}");
        }
    }
}

#[test]
fn a_change_is_sent_once_to_an_old_server_too() {
    for change in old_changes() {
        let place = Place::new();
        let server = OldServer::start(&place.socket, |request| match request {
            tedge1::Request::GetTokensUris => Some(tedge1::Response::GetTokensUris(Vec::new())),
            _ => None,
        });
        let error = change(&place.client()).unwrap_err();
        assert_outcome_unknown(&error);
        let requests = server.take_requests();
        let last = requests.last().unwrap();
        let sent = requests.iter().filter(|request| *request == last).count();
        assert_eq!(sent, 1, "{requests:?}");
    }
}

#[test]
fn a_change_is_sent_by_a_new_connection() {
    // What a kept one would lead to is not known, and such a request has one try.
    for change in changes() {
        let place = Place::new();
        let first = FakeServer::start(&place.socket, |request| {
            Reaction::Answer(answer_to(&request))
        });
        let client = place.client();
        client.status().unwrap();
        drop(first);
        let second = FakeServer::start(&place.socket, |request| {
            Reaction::Answer(answer_to(&request))
        });
        change(&client).unwrap();
        assert_eq!((second.probes(), second.connections()), (1, 1));
    }
}

#[test]
fn a_change_waits_for_the_server_to_be_there() {
    for change in changes() {
        let place = Place::new();
        let client = place.client();
        let changing = thread::spawn(move || change(&client));
        thread::sleep(SHORT);
        assert!(!changing.is_finished(), "it gave up early");
        let _server = FakeServer::start(&place.socket, |request| {
            Reaction::Answer(answer_to(&request))
        });
        changing.join().unwrap().unwrap();
    }
}

#[test]
fn a_change_that_is_refused_has_changed_nothing() {
    let place = Place::new();
    let _server = FakeServer::start(&place.socket, |_| {
        Reaction::Answer(Response::Error(Failure::new(ErrorCode::NotAllowed, "no")))
    });
    for change in changes() {
        let error = change(&place.client()).unwrap_err();
        assert!(matches!(error, Error::Server(_)), "{error:?}");
    }
}

#[test]
fn to_create_a_key_or_to_initialise_a_token_may_take_longer() {
    let place = Place::new();
    let _server = FakeServer::start(&place.socket, |request| {
        thread::sleep(2 * SHORT);
        Reaction::Answer(answer_to(&request))
    });
    let short = Client::new(place.config().deadline(SHORT));
    let long = Client::new(place.config().long_deadline(SHORT));
    thread::scope(|scope| {
        for (change, is_long) in changes().into_iter().zip([false, true, false, true, false]) {
            let (in_time, late) = if is_long {
                (&short, &long)
            } else {
                (&long, &short)
            };
            scope.spawn(move || change(in_time).unwrap());
            scope.spawn(move || {
                let error = change(late).unwrap_err();
                assert_outcome_unknown(&error);
                assert!(
                    error.to_string().contains("not answer within 300ms"),
                    "{error}"
                );
            });
        }
    });
}

#[test]
fn a_forced_protocol_costs_no_probe() {
    let place = Place::new();
    let server = FakeServer::start(&place.socket, |request| {
        Reaction::Answer(answer_to(&request))
    });
    let client = Client::new(place.config().protocol(Protocol::V1));
    client.status().unwrap();
    client.delete_key(delete_key()).unwrap();
    assert_eq!(server.probes(), 0);
}

type Change = fn(&Client) -> Result<(), Error>;

/// All requests that change a token.
fn changes() -> [Change; 5] {
    [
        |client| client.import_certificate(import_certificate()).map(drop),
        |client| client.create_key(create_key()).map(drop),
        |client| client.delete_key(delete_key()).map(drop),
        |client| client.init_token(init_token()).map(drop),
        |client| client.change_pin(change_pin()).map(drop),
    ]
}

/// Those of them that old servers know.
fn old_changes() -> Vec<Change> {
    changes().into_iter().skip(1).collect()
}

fn assert_outcome_unknown(error: &Error) {
    assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("look before you try again"), "{text}");
}

fn list_keys() -> ListKeys {
    ListKeys::new("pkcs11:token=t").pin(pin())
}

fn get_public_key() -> GetPublicKey {
    GetPublicKey::new("pkcs11:object=k")
}

fn get_certificates() -> GetCertificates {
    GetCertificates::new("pkcs11:object=c")
}

fn import_certificate() -> ImportCertificate {
    ImportCertificate::new("pkcs11:token=t", vec![0x30, 0x00]).pin(pin())
}

fn create_key() -> CreateKey {
    CreateKey::new("pkcs11:token=t", KeySpec::new(KeyType::Rsa, 2048), "k").pin(pin())
}

fn delete_key() -> DeleteKey {
    DeleteKey::new("pkcs11:object=k")
}

fn init_token() -> InitToken {
    InitToken::new("t").pin(pin())
}

fn change_pin() -> ChangePin {
    ChangePin::new("5678").old_pin(pin())
}

fn pin() -> Option<Pin> {
    Some(Pin::from("1234"))
}

/// The answer of a server to which each request is new.
fn answer_to(request: &Request) -> Response {
    match request {
        Request::Status(_) => Response::Status(Status::new("fake 1", true)),
        Request::ListTokens(_) => Response::Tokens(Tokens::new(Vec::new()).truncated(true)),
        Request::ListKeys(_) => Response::Objects(Objects::new(Vec::new()).truncated(true)),
        Request::GetPublicKey(_) | Request::CreateKey(_) => Response::PublicKey(public_key()),
        Request::GetCertificates(_) => {
            Response::Certificates(Certificates::new(Vec::new()).truncated(true))
        }
        Request::ImportCertificate(_) => Response::Imported(Imported::new("pkcs11:object=c")),
        Request::DeleteKey(_) => {
            Response::Deleted(Deleted::new(vec!["pkcs11:object=k".to_owned()]))
        }
        Request::InitToken(_) => Response::TokenReady(TokenReady::new("pkcs11:token=t", true)),
        Request::ChangePin(_) => Response::PinChanged(PinChanged::new("pkcs11:token=t")),
        other => panic!("{other:?} is not asked here"),
    }
}

fn public_key() -> PublicKeyEntry {
    PublicKeyEntry::new("pkcs11:object=k", &TestKey::with_v1_certificate().public)
}
