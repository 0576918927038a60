//! Certificates that are missing, of another key, out of their time, or for something else.

use std::fs;

use p11_tests::{
    keys::KeyKind,
    pki::{CLIENT, Version, to_der},
    server::Server,
    tools::{command, run},
};

use super::device::Device;

fn in_use() -> (Device, Server) {
    let device = Device::new();
    let server = device.in_use();
    (device, server)
}

#[test]
fn a_certificate_that_is_missing_is_asked_for_or_taken_from_the_token() {
    let (device, server) = in_use();
    fs::remove_file(device.certificate()).unwrap();
    let missing = "there is no certificate ";
    device.check(&server, &[]).fails(
        "certificate",
        1,
        &[
            missing,
            "tedge-p11 csr 'pkcs11:token=device;object=key' --subject CN=NAME",
        ],
    );
    device.fixture.store_certificate();
    let told = device.check(&server, &[]);
    told.fails(
        "certificate",
        1,
        &[
            missing,
            "The token has one of this key.",
            "tedge-p11 certificate show 'pkcs11:token=device;object=key' >",
        ],
    );
}

#[test]
fn a_file_that_is_no_certificate_is_told() {
    let (device, server) = in_use();
    let pem = fs::read_to_string(device.certificate()).unwrap();
    let der = to_der(&device.certificate());
    let broken = pem.replace("MII", "!!!").into_bytes();
    let cases: [(&[u8], &[&str]); 4] = [
        (b"no certificate\n", &["is no PEM of a certificate"]),
        (
            &der,
            &["is DER, and has to be PEM", "openssl x509 -inform DER"],
        ),
        (&broken, &["is broken"]),
        (
            b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n",
            &["the certificate cannot be read"],
        ),
    ];
    for (content, words) in cases {
        fs::write(device.certificate(), content).unwrap();
        device.check(&server, &[]).fails("certificate", 1, words);
    }
}

#[test]
fn a_certificate_of_another_key_is_told_by_both_keys() {
    let device = Device::new();
    let other = device.fixture.add_key(KeyKind::P256, "other", 2);
    let server = device.in_use();
    device.certify(&other.spki, &["-days", "90"], CLIENT);
    device.check(&server, &[]).fails(
        "certificate",
        1,
        &[
            "(CN=gw-0001) is of another key",
            "its public key  ",
            "(SHA-256)",
            "key  ",
            "tedge-p11 keys",
            "tedge-p11 csr",
        ],
    );
}

#[test]
fn a_certificate_out_of_its_time_is_told_with_the_day() {
    let (device, server) = in_use();
    let spki = device.fixture.key.spki.clone();
    device.certify(&spki, &["-days", "-1"], CLIENT);
    let words = ["CN=gw-0001 expired on 20", " ago)", "tedge-p11 csr"];
    device.check(&server, &[]).fails("certificate", 1, &words);
    device.certify(&spki, &["-days", "12"], CLIENT);
    device
        .check(&server, &[])
        .warns("certificate", &["expires in 1"]);

    // openssl makes none of the future; the year of the first UTCTime is that of `notBefore`.
    let mut der = to_der(&device.certificate());
    let year = der
        .windows(2)
        .position(|bytes| bytes == [0x17, 13])
        .unwrap()
        + 2;
    der[year..year + 2].copy_from_slice(b"49");
    let file = device.folder.path().join("future.der");
    fs::write(&file, der).unwrap();
    let mut openssl = command("openssl");
    openssl.args(["x509", "-inform", "DER", "-in"]).arg(&file);
    fs::write(device.certificate(), run(&mut openssl)).unwrap();
    device.check(&server, &[]).fails(
        "certificate",
        1,
        &[
            "CN=gw-0001 is not valid before 2049-",
            "is the clock of this machine right?",
        ],
    );
}

#[test]
fn a_certificate_for_something_else_is_told() {
    let (device, server) = in_use();
    let spki = device.fixture.key.spki.clone();
    device.certify(&spki, &["-days", "90"], "extendedKeyUsage = serverAuth\n");
    device.check(&server, &[]).fails(
        "certificate",
        1,
        &["CN=gw-0001 is not for clients", "clientAuth"],
    );
    device.certify(&spki, &["-days", "90"], "basicConstraints = CA:TRUE\n");
    device
        .check(&server, &[])
        .warns("certificate", &["it is that of an authority (CA:TRUE)"]);
    device.set_certificate(&device.pki.issue("gw-0001", &spki, &["-days", "90"], None));
    let told = device.check(&server, &[]);
    assert_eq!(
        told.result("certificate"),
        "ok",
        "of X.509 version 1: {}",
        told.text
    );
}

#[test]
fn a_chain_in_another_order_is_told() {
    let (device, server) = in_use();
    let own = fs::read_to_string(device.certificate()).unwrap();
    let authority = fs::read_to_string(device.pki.authority()).unwrap();
    fs::write(device.certificate(), format!("{own}{authority}")).unwrap();
    let told = device.check(&server, &[]);
    assert_eq!(told.result("certificate"), "ok", "{}", told.text);
    fs::write(device.certificate(), format!("{authority}{own}")).unwrap();
    device.check(&server, &[]).fails(
        "certificate",
        1,
        &[
            "certificate 2 in ",
            "is that of the key, and has to be the first",
        ],
    );
    let other = device
        .pki
        .client("somebody", &device.fixture.key.spki, Version::V3);
    fs::write(
        device.certificate(),
        format!("{own}{}", fs::read_to_string(other).unwrap()),
    )
    .unwrap();
    device.check(&server, &[]).warns(
        "certificate",
        &["certificate 2 in the file (CN=somebody) is not that of the issuer"],
    );
}

#[test]
fn a_device_of_another_name_is_warned_of() {
    let (device, server) = in_use();
    device.set_toml(
        "[device]\nid = \"gw-0002\"\nkey_uri = \"pkcs11:token=device;object=key\"\n",
        "",
    );
    device
        .check(&server, &[])
        .warns("certificate", &["CN=gw-0001", "device.id is \"gw-0002\""]);
    device.set_toml(
        "[device]\nid = \"gw-0001\"\nkey_uri = \"pkcs11:token=device;object=key\"\n",
        "",
    );
    let told = device.check(&server, &[]);
    assert_eq!(told.result("certificate"), "ok", "{}", told.text);
}
