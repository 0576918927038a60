//! `csr`

use p11_tests::{
    fixture::Fixture,
    keys::KeyKind,
    tools::{command, run},
};

use super::{json, tedge_p11};

#[test]
fn a_request_of_every_kind_of_key_is_one_that_openssl_takes() {
    for kind in [
        KeyKind::P256,
        KeyKind::P384,
        KeyKind::P521,
        KeyKind::Rsa2048,
        KeyKind::Rsa3072,
        KeyKind::Rsa4096,
        KeyKind::Ed25519,
    ] {
        let fixture = Fixture::new(kind);
        let server = fixture.start();
        let file = server.folder().join("gw-0001.csr");
        let out = file.to_str().unwrap();
        let arguments = [
            "csr",
            "key",
            "--subject",
            "CN=gw-0001,O=Maker",
            "--out",
            out,
            "--san",
            "DNS:gw-0001.local",
            "--san",
            "IP:fe80::1",
            "--key-usage",
            "digitalSignature",
            "--extended-key-usage",
            "clientAuth",
            "--extension",
            "1.3.6.1.4.1.99999.1=critical:0c026869",
        ];
        let ended = tedge_p11(&server, &arguments);
        assert_eq!(ended.done(), "", "{kind:?}");
        ended.says(&[
            "Signed by key (",
            ") on token \"device\"; checked.",
            "Send it to your CA, then: tedge-p11 certificate import ",
            "gw-0001.pem",
        ]);
        let openssl = |arguments: &[&str]| {
            let out = run(command("openssl")
                .args(["req", "-noout", "-in", out])
                .args(arguments));
            String::from_utf8_lossy(&out).into_owned()
        };
        openssl(&["-verify"]);
        let text = openssl(&["-text"]);
        for part in [
            "O = Maker, CN = gw-0001",
            "DNS:gw-0001.local, IP Address:FE80:0:0:0:0:0:0:1",
            "Digital Signature",
            "TLS Web Client Authentication",
            "1.3.6.1.4.1.99999.1: critical",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        // Nothing is overwritten.
        tedge_p11(&server, &arguments).refused(2, &["is there already", "not overwritten"]);
    }
}

#[test]
fn without_a_file_the_request_is_on_stdout_as_pem_or_der_and_in_json() {
    let (_fixture, server) = Fixture::started();
    let subject = ["csr", "--subject", "CN=gw-0001"];
    let ended = tedge_p11(&server, &subject);
    assert!(
        ended
            .done()
            .starts_with("-----BEGIN CERTIFICATE REQUEST-----\n")
    );
    assert!(!ended.stderr.contains("Wrote"), "{ended:?}");
    let der = tedge_p11(
        &server,
        &["csr", "--subject", "CN=gw-0001", "--out", "-", "--der"],
    );
    assert_eq!((der.code, &der.stdout[..1]), (0, "0"));
    let (code, answer) = json(&server, &subject);
    assert_eq!((code, &answer["verified"]), (0, &true.into()));
    assert_eq!(answer["scheme"], "ecdsa_secp256r1_sha256");
}

#[test]
fn what_cannot_be_asked_for_is_said_before_anything_is_signed() {
    let (fixture, server) = Fixture::started();
    tedge_p11(&server, &["csr", "key"]).refused(
        2,
        &[
            "whose certificate",
            "tedge-p11 csr key --subject CN=gw-0001",
        ],
    );
    for (flag, value, words) in [
        ("--san", "gw-0001.local", "DNS:"),
        ("--key-usage", "signing", "digitalSignature"),
        ("--extended-key-usage", "client", "clientAuth"),
        ("--extension", "1.2.3", "OID=HEX"),
        ("--extension", "1.2.3=0c0", "two for each byte"),
        (
            "--scheme",
            "rsa_pss_rsae_sha256",
            "it makes ecdsa_secp256r1_sha256",
        ),
    ] {
        tedge_p11(&server, &["csr", "key", "--subject", "CN=x", flag, value]).refused(2, &[words]);
    }
    tedge_p11(&server, &["csr", "key", "--subject", "gw-0001"]).refused(2, &["gw-0001"]);
    // Of several keys none is guessed.
    tedge_p11(&server, &["create-key", "other"]).done();
    tedge_p11(&server, &["csr", "--subject", "CN=x"]).refused(
        3,
        &[
            "2 keys",
            "  tedge-p11 csr --subject CN=x key   # ",
            "  tedge-p11 csr --subject CN=x other   # ",
        ],
    );
    drop(fixture);
}
