//! Every TLS scheme that key and token can do together, by whichever mechanism the token has. What a
//! token with all mechanisms signs is in `signing.rs`.

use p11_client::ErrorCode;
use p11_fault_module::{
    Function::{C_GetMechanismInfo, C_Login, C_SignInit},
    cryptoki_sys::*,
    on, token,
};
use p11_tests::{
    client::refused,
    fixture::{Fixture, KEY},
    keys::KeyKind,
    tools::{command, run},
};

const PSS: [u16; 3] = [0x0804, 0x0805, 0x0806];
const PKCS1: [u16; 3] = [0x0401, 0x0501, 0x0601];

/// The mechanisms by which SoftHSM signs with RSA and a hash that TLS uses.
const RSA: [CK_MECHANISM_TYPE; 9] = [
    CKM_RSA_X_509,
    CKM_RSA_PKCS,
    CKM_RSA_PKCS_PSS,
    CKM_SHA256_RSA_PKCS,
    CKM_SHA384_RSA_PKCS,
    CKM_SHA512_RSA_PKCS,
    CKM_SHA256_RSA_PKCS_PSS,
    CKM_SHA384_RSA_PKCS_PSS,
    CKM_SHA512_RSA_PKCS_PSS,
];

fn all_but(kept: &[CK_MECHANISM_TYPE]) -> Vec<CK_MECHANISM_TYPE> {
    let stripped = RSA.into_iter().filter(|how| !kept.contains(how));
    stripped.collect()
}

#[test]
fn a_key_offers_and_makes_the_schemes_of_those_mechanisms_that_its_token_has() {
    let all = [PSS, PKCS1].concat();
    for (kind, mechanisms, schemes) in [
        // A token that hashes by itself alone, raw RSA alone, the padding of PKCS #1 alone, some hashes alone.
        (KeyKind::Rsa2048, &RSA[3..], &all[..]),
        (KeyKind::Rsa2048, &[CKM_RSA_X_509], &all),
        (KeyKind::Rsa3072, &[CKM_RSA_X_509], &all),
        (KeyKind::Rsa2048, &[CKM_RSA_PKCS], &PKCS1),
        (
            KeyKind::Rsa2048,
            &[CKM_SHA384_RSA_PKCS, CKM_SHA512_RSA_PKCS_PSS],
            &[0x0806, 0x0501],
        ),
    ] {
        let fixture = Fixture::new(kind);
        let without = token("device").without_mechanisms(all_but(mechanisms));
        fixture.faults.set([without]);
        let server = fixture.start();
        let key = server.client().open(KEY).unwrap();
        assert_eq!(key.told().spki.as_ref(), fixture.key.spki);
        assert_eq!(key.told().schemes, schemes);
        for scheme in schemes {
            key.sign_with(*scheme).unwrap();
        }
    }
}

#[test]
fn a_mechanism_that_is_listed_and_refused_gives_way_to_the_next_and_the_last_takes_its_scheme_along()
 {
    for refusal in [
        CKR_MECHANISM_INVALID,
        CKR_MECHANISM_PARAM_INVALID,
        CKR_KEY_FUNCTION_NOT_PERMITTED,
    ] {
        let fixture = Fixture::new(KeyKind::Rsa2048);
        let server = fixture.start();
        let client = server.client();
        let key = client.open(KEY).unwrap();
        let refuses = |calls| on(C_SignInit).next(calls).returns(refusal);
        fixture.faults.set([refuses(1)]);
        let before = fixture.faults.counts();
        key.sign_with(PSS[0]).unwrap();
        key.sign_with(PSS[0]).unwrap();
        let calls = fixture.faults.counts().since(&before);
        assert_eq!(calls.of(C_SignInit), 3, "it is remembered: {calls}");
        assert_eq!(calls.of(C_Login), 0, "{calls}");

        fixture.faults.set([refuses(2)]);
        refused(key.sign_with(PSS[0]), ErrorCode::UnsupportedScheme);
        refused(key.sign_with(PSS[0]), ErrorCode::UnsupportedScheme);
        let left = client.open(KEY).unwrap();
        assert_eq!(left.told().schemes, [&PSS[1..], &PKCS1].concat());
        left.sign_with(PSS[1]).unwrap();
        let log = server.wait_for_log("signed with in another way");
        assert!(!log.contains("reloading"), "{log}");
    }
}

#[test]
fn a_key_without_a_mechanism_is_none_and_the_error_says_why() {
    for (kind, mechanisms) in [
        (KeyKind::Rsa2048, all_but(&[])),
        (KeyKind::P256, vec![CKM_ECDSA]),
        (KeyKind::Ed25519, vec![CKM_EDDSA]),
    ] {
        let fixture = Fixture::new(kind);
        fixture
            .faults
            .set([token("device").without_mechanisms(mechanisms)]);
        let server = fixture.start();
        let failure = refused(server.client().open(KEY), ErrorCode::KeyNotFound);
        assert!(
            failure.message.contains("no mechanism that signs"),
            "{failure}"
        );
        // The key beside it can sign, though its label comes later.
        let beside = match kind {
            KeyKind::P256 => KeyKind::Ed25519,
            _ => KeyKind::P256,
        };
        let beside = fixture.add_key(beside, "zzz", 2);
        for uri in ["pkcs11:", "pkcs11:token=device"] {
            let opened = server.client().open(uri).unwrap();
            assert_eq!(opened.told().spki.as_ref(), beside.spki);
            opened.sign().unwrap();
            let told = server.client().get_public_key(uri).unwrap();
            assert_eq!(told.spki.as_ref(), beside.spki);
        }
    }
}

#[test]
fn a_key_of_which_the_token_refuses_every_mechanism_is_opened_no_more() {
    let (fixture, server) = Fixture::started();
    let key = server.client().open(KEY).unwrap();
    fixture
        .faults
        .set([on(C_SignInit).returns(CKR_MECHANISM_INVALID)]);
    refused(key.sign(), ErrorCode::UnsupportedScheme);
    let failure = refused(server.client().open(KEY), ErrorCode::NotSupported);
    assert!(failure.message.contains("cannot sign"), "{failure}");
}

#[test]
fn a_scheme_of_another_kind_of_key_is_refused_with_the_names_of_its_own() {
    let (fixture, server) = Fixture::started();
    let key = server.client().open(KEY).unwrap();
    let before = fixture.faults.count(C_SignInit);
    // ECDSA on another curve, RSA, Ed25519, and a number that is no scheme.
    for scheme in [0x0503, 0x0804, 0x0807, 0x0000] {
        let failure = refused(key.sign_with(scheme), ErrorCode::UnsupportedScheme);
        let says = &failure.message;
        assert!(says.contains("ecdsa_secp256r1_sha256"), "{failure}");
        assert!(says.contains(&format!("{scheme:#06x}")), "{failure}");
    }
    assert_eq!(fixture.faults.count(C_SignInit), before);
}

#[test]
fn a_key_that_allows_some_mechanisms_signs_with_no_other() {
    let fixture = Fixture::new(KeyKind::P256);
    run(fixture
        .hsm
        .pkcs11_tool(&fixture.token)
        .args(["--keypairgen", "--key-type", "rsa:2048"])
        .args(["--label", "strict", "--id", "02"])
        .args(["--allowed-mechanisms", "SHA256-RSA-PKCS,RSA-PKCS-PSS"]));
    let server = fixture.start();
    let key = server.client().open("pkcs11:object=strict").unwrap();
    assert_eq!(key.told().schemes, [&PSS[..], &[0x0401]].concat());
    // SoftHSM itself refuses what its key does not allow.
    for scheme in &key.told().schemes {
        key.sign_with(*scheme).unwrap();
    }
}

/// The highest bit of the padded message may lie in a byte of its own (RFC 8017, section 9.1.1).
#[test]
fn raw_rsa_signs_with_a_modulus_of_no_whole_number_of_bytes() {
    let fixture = Fixture::new(KeyKind::P256);
    let raw = all_but(&[CKM_RSA_X_509]);
    fixture
        .faults
        .set([token("device").without_mechanisms(raw)]);
    let server = fixture.start();
    let folder = tempfile::tempdir().unwrap();
    for bits in [2049, 2050, 2055] {
        let (made, pem) = (
            folder.path().join("made.pem"),
            folder.path().join("key.pem"),
        );
        // openssl makes keys of even sizes only.
        run(command("certtool")
            .args([
                "--generate-privkey",
                "--key-type",
                "rsa",
                "--no-text",
                "--bits",
            ])
            .arg(bits.to_string())
            .arg("--outfile")
            .arg(&made));
        run(command("openssl")
            .args(["pkcs8", "-topk8", "-nocrypt", "-in"])
            .arg(&made)
            .arg("-out")
            .arg(&pem));
        let label = format!("rsa-{bits}");
        run(fixture
            .hsm
            .command("softhsm2-util")
            .args(["--slot", &fixture.token.slot.to_string()])
            .args(["--pin", &fixture.token.pin, "--id", &format!("{bits:04x}")])
            .args(["--label", &label, "--import"])
            .arg(&pem));
        let uri = format!("pkcs11:object={label}");
        let key = server.client().open(&uri).unwrap();
        assert_eq!(key.told().bits, bits);
        for scheme in [PSS, PKCS1].concat() {
            key.sign_with(scheme).unwrap();
        }
    }
}

#[test]
fn a_token_that_fails_while_it_is_asked_for_its_mechanisms_is_asked_again() {
    let fixture = Fixture::new(KeyKind::P256);
    let fails = |call| on(call).next(1).returns(CKR_DEVICE_ERROR);
    fixture.faults.set([fails(C_GetMechanismInfo)]);
    let server = fixture.start();
    let key = server.client().open(KEY).unwrap();
    assert_eq!(key.told().schemes, [0x0403]);
    key.sign().unwrap();
}
