//! Keys and certificates: `ListKeys` to `DeleteKey`.

use p11_proto::message::{
    Certificate, Certificates, Class, CreateKey, DeleteKey, Deleted, GetCertificates, GetPublicKey,
    ImportCertificate, Imported, KeySpec, KeyType, ListKeys, Object, Objects, PublicKey,
};
use p11_proto::{Pin, Request, Response};
use serde_bytes::ByteBuf;

use crate::notation::{assert_golden, body, wire};
use crate::signing::{IDENTITY, SPKI, identity};

pub fn requests() -> Vec<(Request, String)> {
    vec![
        (
            Request::ListKeys(ListKeys {
                uri: "pkcs11:object=k".into(),
                pin: None,
            }),
            "81 a8 'ListKeys' 81 a3 'uri' af 'pkcs11:object=k'".to_owned(),
        ),
        (
            Request::ListKeys(ListKeys {
                uri: "pkcs11:object=k?pin-value=1234".into(),
                pin: Some(Pin::from("1234")),
            }),
            "81 a8 'ListKeys' 82 a3 'uri' be 'pkcs11:object=k?pin-value=1234'
             a3 'pin' a4 '1234'"
                .to_owned(),
        ),
        (
            Request::GetPublicKey(GetPublicKey {
                uri: "pkcs11:object=k".into(),
                pin: None,
            }),
            "81 ac 'GetPublicKey' 81 a3 'uri' af 'pkcs11:object=k'".to_owned(),
        ),
        (
            Request::GetPublicKey(GetPublicKey {
                uri: "pkcs11:object=k?pin-value=1234".into(),
                pin: Some(Pin::from("1234")),
            }),
            "81 ac 'GetPublicKey' 82 a3 'uri' be 'pkcs11:object=k?pin-value=1234'
             a3 'pin' a4 '1234'"
                .to_owned(),
        ),
        (
            Request::GetCertificates(GetCertificates {
                uri: "pkcs11:object=k".into(),
                pin: None,
            }),
            "81 af 'GetCertificates' 81 a3 'uri' af 'pkcs11:object=k'".to_owned(),
        ),
        (
            Request::GetCertificates(GetCertificates {
                uri: "pkcs11:object=k?pin-value=1234".into(),
                pin: Some(Pin::from("1234")),
            }),
            "81 af 'GetCertificates' 82 a3 'uri' be 'pkcs11:object=k?pin-value=1234'
             a3 'pin' a4 '1234'"
                .to_owned(),
        ),
        (
            Request::DeleteKey(DeleteKey {
                uri: "pkcs11:object=k".into(),
                pin: None,
            }),
            "81 a9 'DeleteKey' 81 a3 'uri' af 'pkcs11:object=k'".to_owned(),
        ),
        (
            Request::DeleteKey(DeleteKey {
                uri: "pkcs11:object=k?pin-value=1234".into(),
                pin: Some(Pin::from("1234")),
            }),
            "81 a9 'DeleteKey' 82 a3 'uri' be 'pkcs11:object=k?pin-value=1234'
             a3 'pin' a4 '1234'"
                .to_owned(),
        ),
        (
            Request::ImportCertificate(ImportCertificate {
                uri: "pkcs11:object=k".into(),
                pin: None,
                certificate: ByteBuf::from([0x30, 0x00]),
            }),
            "81 b1 'ImportCertificate' 82 a3 'uri' af 'pkcs11:object=k'
             ab 'certificate' c4 02 30 00"
                .to_owned(),
        ),
        (
            Request::ImportCertificate(ImportCertificate {
                uri: "pkcs11:object=k?pin-value=1234".into(),
                pin: Some(Pin::from("1234")),
                certificate: ByteBuf::from([0x30, 0x00]),
            }),
            "81 b1 'ImportCertificate' 83 a3 'uri' be 'pkcs11:object=k?pin-value=1234'
             a3 'pin' a4 '1234' ab 'certificate' c4 02 30 00"
                .to_owned(),
        ),
        (
            Request::CreateKey(CreateKey {
                uri: "pkcs11:object=k".into(),
                pin: None,
                key: KeySpec {
                    key_type: KeyType::Rsa,
                    bits: 2048,
                },
                label: "k".to_owned(),
                id: None,
            }),
            "81 a9 'CreateKey' 83 a3 'uri' af 'pkcs11:object=k'
             a3 'key' 82 a8 'key_type' a3 'RSA' a4 'bits' cd 08 00 a5 'label' a1 'k'"
                .to_owned(),
        ),
        (
            Request::CreateKey(CreateKey {
                uri: "pkcs11:object=k?pin-value=1234".into(),
                pin: Some(Pin::from("1234")),
                key: KeySpec {
                    key_type: KeyType::Ec,
                    bits: 256,
                },
                label: "k".to_owned(),
                id: Some(ByteBuf::from([1, 2])),
            }),
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
            Response::Objects(Objects {
                objects: Vec::new(),
                truncated: true,
            }),
            "81 a7 'Objects' 82 a7 'objects' 90 a9 'truncated' c3".to_owned(),
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
            Response::PublicKey(PublicKey {
                uri: "pkcs11:object=k".to_owned(),
                key_type: KeyType::Ed25519,
                bits: 255,
                spki: ByteBuf::from(wire(SPKI)),
                identity: identity(),
            }),
            format!(
                "81 a9 'PublicKey' 85 a3 'uri' af 'pkcs11:object=k' a8 'key_type' a7 'Ed25519'
                 a4 'bits' cc ff a4 'spki' c4 2c {SPKI} a8 'identity' c4 20 {IDENTITY}"
            ),
        ),
        (
            Response::Certificates(Certificates {
                certificates: vec![Certificate {
                    uri: "pkcs11:object=c".to_owned(),
                    certificate: ByteBuf::from([0x30, 0x00]),
                }],
                truncated: false,
            }),
            "81 ac 'Certificates' 82 ac 'certificates' 91 82 a3 'uri' af 'pkcs11:object=c'
             ab 'certificate' c4 02 30 00 a9 'truncated' c2"
                .to_owned(),
        ),
        (
            Response::Imported(Imported {
                uri: "pkcs11:object=c".to_owned(),
            }),
            "81 a8 'Imported' 81 a3 'uri' af 'pkcs11:object=c'".to_owned(),
        ),
        (
            Response::Deleted(Deleted {
                deleted: Vec::new(),
            }),
            "81 a7 'Deleted' 81 a7 'deleted' 90".to_owned(),
        ),
        (
            Response::Deleted(Deleted {
                deleted: vec!["pkcs11:object=k".to_owned()],
            }),
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
    let object = Object {
        class,
        key_type: KeyType::Ec,
        bits: 256,
        label: "k".to_owned(),
        id: ByteBuf::from([1, 2]),
        uri: "pkcs11:object=k".to_owned(),
        can_sign: flag,
        extractable: flag,
        always_authenticate: flag,
    };
    Response::Objects(Objects {
        objects: vec![object],
        truncated: false,
    })
}

/// From the number of its fields and its class to its flags.
fn bytes_of_object(class: &str, flags: &str) -> String {
    format!(
        "81 a7 'Objects' 82 a7 'objects' 91 {class} a8 'key_type' a2 'EC' a4 'bits' cd 01 00
         a5 'label' a1 'k' a2 'id' c4 02 01 02 a3 'uri' af 'pkcs11:object=k' {flags}
         a9 'truncated' c2"
    )
}
