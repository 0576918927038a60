//! A login only where a token or key wants one, and in the way it wants it.

use nix::sys::signal::Signal;
use p11_client::{
    ErrorCode,
    message::{Class, ListTokens},
};
use p11_fault_module::{
    Faults,
    Function::{C_Finalize, C_Initialize, C_Login, C_Logout, C_OpenSession},
    Rule,
    cryptoki_sys::*,
    every_token, on, token,
};
use p11_proto::{Request, Response};
use p11_tests::{
    client::refused,
    fixture::{Fixture, KEY, PIN},
    keys::KeyKind,
    server::Server,
    tools::{pkcs11_module, run},
    wait::TIMEOUT,
};

#[test]
fn no_login_on_tokens_that_ask_for_none() {
    let faults = Faults::new(pkcs11_module("p11-kit-trust.so"));
    let server = Server::builder()
        .module(&Faults::module_path())
        .envs(faults.envs())
        .pin(PIN)
        .start();
    let client = server.client();
    let listed = match client.ask(&Request::ListTokens(ListTokens::default())) {
        Response::Tokens(tokens) => tokens,
        other => panic!("no tokens but {other:?}"),
    };
    assert!(!listed.tokens.is_empty());
    refused(client.open("pkcs11:"), ErrorCode::KeyNotFound);
    let calls = faults.counts();
    assert!(calls.of(C_OpenSession) > 0, "it was searched: {calls}");
    assert_eq!(calls.of(C_Login), 0, "{calls}");
}

#[test]
fn a_key_on_a_token_that_asks_for_no_login_signs_without() {
    let fixture = Fixture::new(KeyKind::P256);
    run(fixture
        .hsm
        .p11tool(&fixture.token)
        .args(["--generate-privkey=ecdsa", "--curve=secp256r1"])
        .args(["--no-mark-private", "--label=open", "--id=02"])
        .arg(fixture.token.uri()));
    fixture.faults.set([token("device").asks_no_login()]);
    let server = fixture.start();
    let key = server.client().open("pkcs11:object=open").unwrap();
    key.sign().unwrap();
    let calls = fixture.faults.counts();
    assert_eq!(calls.of(C_Login), 0, "{calls}");
}

#[test]
fn no_login_on_a_token_that_the_request_is_not_about() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.add_token("other");
    let server = fixture.start();
    let client = server.client();
    // The PIN would be right there too.
    fixture.faults.set([on(C_Login).at("other").delays(0)]);
    client.open(KEY).unwrap().sign().unwrap();
    let calls = fixture.faults.counts();
    assert_eq!((calls.of(C_Login), calls.injected()), (1, 0), "{calls}");
    // Nor where another token shows the public half.
    fixture.add_key(KeyKind::P256, "alone", 9);
    client.open("pkcs11:object=alone").unwrap().sign().unwrap();
    let calls = fixture.faults.counts();
    assert_eq!((calls.of(C_Login), calls.injected()), (1, 0), "{calls}");
}

#[test]
fn a_pin_pad_is_asked_with_no_pin() {
    let fixture = Fixture::new(KeyKind::P256);
    let always = Rule::AlwaysAuthenticate("key".into());
    fixture.faults.set([token("device").pin_pad(PIN), always]);
    // The fault module takes no other than a null PIN.
    let server = fixture.server().pin("wrong-pin-1").start();
    let client = server.client();
    client.open(KEY).unwrap().sign().unwrap();
    assert_eq!(fixture.faults.count(C_Login), 2, "the second for the key");
    let with_pin = client.with_pin("wrong-pin-2").open(KEY).unwrap();
    with_pin.sign().unwrap();
    assert_eq!(fixture.faults.count(C_Login), 3);
}

#[test]
fn a_login_for_each_signature_only_where_the_key_wants_it() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.add_key(KeyKind::P256, "careful", 2);
    fixture
        .faults
        .set([Rule::AlwaysAuthenticate("careful".into())]);
    let server = fixture.start();
    let client = server.client();
    let plain = client.open(KEY).unwrap();
    let careful = client.open("pkcs11:object=careful").unwrap();
    let logins = || fixture.faults.count(C_Login);
    let before = logins();
    plain.sign().unwrap();
    assert_eq!(logins(), before);
    careful.sign().unwrap();
    assert_eq!(logins(), before + 1);
    plain.sign().unwrap();
    assert_eq!(logins(), before + 1);
}

#[test]
fn a_login_by_somebody_else_in_the_process_is_replaced_by_one_that_checks_the_pin() {
    let fixture = Fixture::new(KeyKind::P256);
    let already = on(C_Login).next(1);
    fixture
        .faults
        .set([already.after().returns(CKR_USER_ALREADY_LOGGED_IN)]);
    let server = fixture.start();
    server.client().open(KEY).unwrap().sign().unwrap();
    let calls = fixture.faults.counts();
    assert_eq!((calls.of(C_Logout), calls.of(C_Login)), (1, 2), "{calls}");
}

#[test]
fn a_module_that_somebody_else_has_initialised_is_used_and_not_finalised() {
    let fixture = Fixture::new(KeyKind::P256);
    let already = on(C_Initialize).next(1);
    fixture
        .faults
        .set([already.after().returns(CKR_CRYPTOKI_ALREADY_INITIALIZED)]);
    let mut server = fixture.start();
    let client = server.client();
    client.open(KEY).unwrap().sign().unwrap();
    assert!(client.status().available);
    server.signal(Signal::SIGTERM);
    assert!(server.wait(TIMEOUT).success());
    assert_eq!(fixture.faults.count(C_Finalize), 0);
}

#[test]
fn a_module_of_our_own_is_finalised_in_the_end() {
    let (fixture, mut server) = Fixture::started();
    server.client().open(KEY).unwrap().sign().unwrap();
    assert!(server.terminate().success());
    assert_eq!(fixture.faults.count(C_Finalize), 1);
}

#[test]
fn a_listing_after_a_lost_login_is_whole() {
    let (fixture, server, _key) = Fixture::steady();
    let client = server.client();
    let whole = client.list_keys("pkcs11:token=device").unwrap();
    assert!(whole.iter().any(|object| object.class == Class::Private));
    fixture.faults.set([every_token().logged_out()]);
    assert_eq!(client.list_keys("pkcs11:token=device").unwrap(), whole);
}
