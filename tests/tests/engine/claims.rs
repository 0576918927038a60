//! Counts and lengths that no module can mean, and searches that never end: a reason, little memory, and the server goes on.

use std::thread;

use p11_client::{ErrorCode, Failure};
use p11_fault_module::{Function::*, Rule, cryptoki_sys::*, object, on, token};
use p11_tests::{
    client::TestClient,
    fixture::{Fixture, KEY, PIN},
    keys::KeyKind,
    proc,
    server::Server,
};

/// A count or length.
const HUGE: CK_ULONG = 1 << 40;

/// What the memory of the server may grow by.
const MOST_KIB: u64 = 64 * 1024;

const OTHER: &str = "pkcs11:token=other;object=key";

/// The most memory that a process has had so far.
fn peak_kib(server: &Server) -> u64 {
    proc::status(server.pid(), "VmHWM").unwrap()
}

fn opens_and_signs(client: &TestClient, uri: &str) -> Result<(), Failure> {
    client.open(uri)?.sign()
}

/// Asks on a new server while the rules are in force: an answer in time, whatever it is, no memory, and afterwards all is
/// well. `reaches_other`: whether the module lies about this token alone.
fn bears(rules: Vec<Rule>, reaches_other: bool) -> Result<(), Failure> {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.add_token("other");
    let mut server = fixture.start_quick();
    let client = server.client();
    client.list_tokens();
    let before = peak_kib(&server);
    fixture.faults.set(rules);
    let told = opens_and_signs(&client, KEY);
    let _ = client.list_keys("pkcs11:token=device");
    if reaches_other {
        opens_and_signs(&client, OTHER).unwrap();
    }
    let grown = peak_kib(&server) - before;
    assert!(server.is_running() && grown < MOST_KIB, "{grown} KiB");
    fixture.faults.clear();
    if let Err(failure) = &told {
        let code = failure.code;
        assert_ne!(code, ErrorCode::PinIncorrect, "{failure}");
        assert!(failure.message.len() > 20, "{code}: {failure}");
    }
    // A module that was taken for a broken one may have its pause.
    thread::sleep(std::time::Duration::from_millis(500));
    opens_and_signs(&client, KEY).unwrap();
    told
}

#[test]
fn a_count_of_objects_that_cannot_be() {
    bears(vec![on(C_FindObjects).at("device").counts(HUGE)], true).unwrap_err();
}

#[test]
fn lengths_of_attributes_that_cannot_be() {
    for attribute in [CKA_LABEL, CKA_ID, CKA_EC_PARAMS, CKA_KEY_TYPE, CKA_SIGN] {
        let claims = |class| object(class, "key").claims_length(attribute, HUGE);
        let claims = [CKO_PRIVATE_KEY, CKO_PUBLIC_KEY].map(claims);
        // Without the label and the like nothing may be found, or the other half tells it.
        let _ = bears(claims.into(), false);
    }
}

#[test]
fn a_length_of_a_signature_that_cannot_be() {
    let _ = bears(vec![on(C_Sign).at("device").counts(HUGE)], true);
    let too_small = on(C_Sign).at("device");
    let rules = vec![
        on(C_Sign).at("device").counts(HUGE),
        too_small.returns(CKR_BUFFER_TOO_SMALL),
    ];
    bears(rules, true).unwrap_err();
}

#[test]
fn a_count_of_mechanisms_that_cannot_be() {
    let _ = bears(vec![on(C_GetMechanismList).at("device").counts(HUGE)], true);
}

#[test]
fn a_count_of_slots_that_cannot_be() {
    let _ = bears(vec![on(C_GetSlotList).counts(HUGE)], false);
}

#[test]
fn a_search_that_never_ends() {
    bears(vec![token("device").endless_search()], true).unwrap_err();
}

/// All that the engine reads of keys and certificates.
const READ: [CK_ATTRIBUTE_TYPE; 16] = [
    CKA_LABEL,
    CKA_ID,
    CKA_KEY_TYPE,
    CKA_PRIVATE,
    CKA_SIGN,
    CKA_DECRYPT,
    CKA_ALWAYS_AUTHENTICATE,
    CKA_EXTRACTABLE,
    CKA_SENSITIVE,
    CKA_ALLOWED_MECHANISMS,
    CKA_MODULUS,
    CKA_PUBLIC_EXPONENT,
    CKA_EC_PARAMS,
    CKA_EC_POINT,
    CKA_PUBLIC_KEY_INFO,
    CKA_VALUE,
];

/// A module that writes back a greater length than its buffer has would be given what lies behind it: cryptoki
/// believes it, and a label held the PIN.
#[test]
fn no_attribute_brings_bytes_from_behind_its_buffer() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.store_certificate();
    let server = fixture.start();
    let client = server.client();
    let honest = client.list_keys("pkcs11:token=device").unwrap();
    let of_honest = format!("{honest:?}").len();
    for attribute in READ {
        for length in [5000, 60_000, 1 << 20, HUGE, CK_ULONG::MAX - 1] {
            let claims = |class| object(class, "key").claims_length(attribute, length);
            let classes = [CKO_PRIVATE_KEY, CKO_PUBLIC_KEY, CKO_CERTIFICATE];
            fixture.faults.set(classes.map(claims));
            let told = match client.list_keys("pkcs11:token=device") {
                Ok(objects) => format!("{objects:?}"),
                Err(failure) => format!("{failure:?}"),
            };
            assert!(!told.contains(PIN), "{attribute:#x}, {length}: {told}");
            let most = of_honest + 3 * 255 * 4;
            assert!(told.len() < most, "{attribute:#x}, {length}: {told}");
        }
    }
    fixture.faults.clear();
    assert_eq!(client.list_keys("pkcs11:token=device").unwrap(), honest);
}
