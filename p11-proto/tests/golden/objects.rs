//! Keys and certificates: `ListKeys` to `DeleteKey`.

use p11_proto::message::{
    CertificateEntry, Certificates, Class, CreateKey, DeleteCertificate, DeleteKey, Deleted,
    GetCertificates, GetPublicKey, ImportCertificate, Imported, KeySpec, KeyType, ListKeys,
    ObjectEntry, Objects, PublicKeyEntry,
};
use p11_proto::{Pin, Request, Response};
use serde_bytes::ByteBuf;

use crate::notation::{assert_golden, body};
use crate::signing::{IDENTITY, SPKI, public};

pub fn requests() -> Vec<(Request, String)> {
    vec![
        (
            Request::ListKeys(ListKeys::new("pkcs11:object=k")),
            "81 a8 'ListKeys' 81 a3 'uri' af 'pkcs11:object=k'".to_owned(),
        ),
        (
            Request::ListKeys(
                ListKeys::new("pkcs11:object=k?pin-value=1234").pin(Pin::from("1234")),
            ),
            "81 a8 'ListKeys' 82 a3 'uri' be 'pkcs11:object=k?pin-value=1234'
             a3 'pin' a4 '1234'"
                .to_owned(),
        ),
        (
            Request::GetPublicKey(GetPublicKey::new("pkcs11:object=k")),
            "81 ac 'GetPublicKey' 81 a3 'uri' af 'pkcs11:object=k'".to_owned(),
        ),
        (
            Request::GetPublicKey(
                GetPublicKey::new("pkcs11:object=k?pin-value=1234").pin(Pin::from("1234")),
            ),
            "81 ac 'GetPublicKey' 82 a3 'uri' be 'pkcs11:object=k?pin-value=1234'
             a3 'pin' a4 '1234'"
                .to_owned(),
        ),
        (
            Request::GetCertificates(GetCertificates::new("pkcs11:object=k")),
            "81 af 'GetCertificates' 81 a3 'uri' af 'pkcs11:object=k'".to_owned(),
        ),
        (
            Request::GetCertificates(
                GetCertificates::new("pkcs11:object=k?pin-value=1234").pin(Pin::from("1234")),
            ),
            "81 af 'GetCertificates' 82 a3 'uri' be 'pkcs11:object=k?pin-value=1234'
             a3 'pin' a4 '1234'"
                .to_owned(),
        ),
        (
            Request::DeleteKey(DeleteKey::new("pkcs11:object=k")),
            "81 a9 'DeleteKey' 81 a3 'uri' af 'pkcs11:object=k'".to_owned(),
        ),
        (
            Request::DeleteKey(
                DeleteKey::new("pkcs11:object=k?pin-value=1234").pin(Pin::from("1234")),
            ),
            "81 a9 'DeleteKey' 82 a3 'uri' be 'pkcs11:object=k?pin-value=1234'
             a3 'pin' a4 '1234'"
                .to_owned(),
        ),
        (
            Request::DeleteCertificate(DeleteCertificate::new("pkcs11:object=k")),
            "81 b1 'DeleteCertificate' 81 a3 'uri' af 'pkcs11:object=k'".to_owned(),
        ),
        (
            Request::DeleteCertificate(
                DeleteCertificate::new("pkcs11:object=k")
                    .pin(Pin::from("1234"))
                    .certificate(ByteBuf::from([0x30, 0x00])),
            ),
            "81 b1 'DeleteCertificate' 83 a3 'uri' af 'pkcs11:object=k' a3 'pin' a4 '1234'
             ab 'certificate' c4 02 30 00"
                .to_owned(),
        ),
        (
            Request::ImportCertificate(ImportCertificate::new(
                "pkcs11:object=k",
                ByteBuf::from([0x30, 0x00]),
            )),
            "81 b1 'ImportCertificate' 82 a3 'uri' af 'pkcs11:object=k'
             ab 'certificate' c4 02 30 00"
                .to_owned(),
        ),
        (
            Request::ImportCertificate(
                ImportCertificate::new(
                    "pkcs11:object=k?pin-value=1234",
                    ByteBuf::from([0x30, 0x00]),
                )
                .pin(Pin::from("1234")),
            ),
            "81 b1 'ImportCertificate' 83 a3 'uri' be 'pkcs11:object=k?pin-value=1234'
             a3 'pin' a4 '1234' ab 'certificate' c4 02 30 00"
                .to_owned(),
        ),
        (
            Request::CreateKey(CreateKey::new(
                "pkcs11:object=k",
                KeySpec::new(KeyType::Rsa, 2048),
                "k",
            )),
            "81 a9 'CreateKey' 83 a3 'uri' af 'pkcs11:object=k'
             a3 'key' 82 a8 'key_type' a3 'RSA' a4 'bits' cd 08 00 a5 'label' a1 'k'"
                .to_owned(),
        ),
        (
            Request::CreateKey(
                CreateKey::new(
                    "pkcs11:object=k?pin-value=1234",
                    KeySpec::new(KeyType::Ec, 256),
                    "k",
                )
                .pin(Pin::from("1234"))
                .id(ByteBuf::from([1, 2])),
            ),
            "81 a9 'CreateKey' 85 a3 'uri' be 'pkcs11:object=k?pin-value=1234' a3 'pin' a4 '1234'
             a3 'key' 82 a8 'key_type' a2 'EC' a4 'bits' cd 01 00 a5 'label' a1 'k'
             a2 'id' c4 02 01 02"
                .to_owned(),
        ),
    ]
}

pub fn responses() -> Vec<(Response, String)> {
    vec![
        (
            Response::Objects(Objects::new(Vec::new()).truncated(true)),
            "81 a7 'Objects' 82 a7 'objects' 90 a9 'truncated' c3".to_owned(),
        ),
        (
            Response::Objects(Objects::new(Vec::new()).note("no login".to_owned())),
            "81 a7 'Objects' 83 a7 'objects' 90 a9 'truncated' c2 a4 'note' a8 'no login'"
                .to_owned(),
        ),
        (
            object(Class::Public, None),
            bytes_of_object("86 a5 'class' a6 'public'", ""),
        ),
        (
            object(Class::Private, Some(false)),
            bytes_of_object(
                "89 a5 'class' a7 'private'",
                "a8 'can_sign' c2 ab 'extractable' c2 b3 'always_authenticate' c2",
            ),
        ),
        (
            Response::PublicKey(PublicKeyEntry::new("pkcs11:object=k", &public())),
            format!(
                "81 a9 'PublicKey' 85 a3 'uri' af 'pkcs11:object=k' a8 'key_type' a7 'Ed25519'
                 a4 'bits' cc ff a4 'spki' c4 2c {SPKI} a8 'identity' c4 20 {IDENTITY}"
            ),
        ),
        (
            Response::Certificates(Certificates::new(vec![CertificateEntry::new(
                "pkcs11:object=c",
                ByteBuf::from([0x30, 0x00]),
            )])),
            "81 ac 'Certificates' 82 ac 'certificates' 91 82 a3 'uri' af 'pkcs11:object=c'
             ab 'certificate' c4 02 30 00 a9 'truncated' c2"
                .to_owned(),
        ),
        (
            Response::Imported(Imported::new("pkcs11:object=c")),
            "81 a8 'Imported' 81 a3 'uri' af 'pkcs11:object=c'".to_owned(),
        ),
        (
            Response::Deleted(Deleted::new(Vec::new())),
            "81 a7 'Deleted' 81 a7 'deleted' 90".to_owned(),
        ),
        (
            Response::Deleted(Deleted::new(vec!["pkcs11:object=k".to_owned()])),
            "81 a7 'Deleted' 81 a7 'deleted' 91 af 'pkcs11:object=k'".to_owned(),
        ),
    ]
}

#[test]
fn classes() {
    for (class, name) in [
        (Class::Private, "a7 'private'"),
        (Class::Public, "a6 'public'"),
        (Class::Certificate, "ab 'certificate'"),
        (Class::Unknown, "a7 'unknown'"),
    ] {
        let bytes = bytes_of_object(&format!("86 a5 'class' {name}"), "");
        assert_golden(&object(class, None), &bytes);
    }
}

#[test]
fn a_class_of_a_newer_peer_is_unknown() {
    assert_eq!(
        body::<Response>(&bytes_of_object("86 a5 'class' a4 'data'", "")).unwrap(),
        object(Class::Unknown, None)
    );
}

#[test]
fn sizes_and_ends_of_listings_may_be_left_out() {
    let key = "81 a9 'CreateKey' 83 a3 'uri' a0 a3 'key' 81 a8 'key_type' a7 'Ed25519'
               a5 'label' a1 'k'";
    assert!(matches!(body(key), Ok(Request::CreateKey(create)) if create.key.bits == 0));
    let object = "81 a7 'Objects' 81 a7 'objects' 91 85 a5 'class' a7 'private'
                  a8 'key_type' a2 'EC' a5 'label' a1 'k' a2 'id' c4 00 a3 'uri' a0";
    assert!(matches!(
        body(object),
        Ok(Response::Objects(listing)) if listing.objects[0].bits == 0 && !listing.truncated
    ));
    let certificates = "81 ac 'Certificates' 81 ac 'certificates' 90";
    assert!(matches!(
        body(certificates),
        Ok(Response::Certificates(listing)) if !listing.truncated
    ));
}

fn object(class: Class, flag: Option<bool>) -> Response {
    let object = ObjectEntry::new(
        class,
        KeyType::Ec,
        "k",
        ByteBuf::from([1, 2]),
        "pkcs11:object=k",
    )
    .bits(256)
    .can_sign(flag)
    .extractable(flag)
    .always_authenticate(flag);
    Response::Objects(Objects::new(vec![object]))
}

/// From the number of its fields and its class to its flags.
fn bytes_of_object(class: &str, flags: &str) -> String {
    format!(
        "81 a7 'Objects' 82 a7 'objects' 91 {class} a8 'key_type' a2 'EC' a4 'bits' cd 01 00
         a5 'label' a1 'k' a2 'id' c4 02 01 02 a3 'uri' af 'pkcs11:object=k' {flags}
         a9 'truncated' c2"
    )
}
