//! One request of each kind.

use p11_client::{Identity, Pin};
use p11_proto::{
    Request, UriText,
    message::{
        ChangePin, CreateKey, DeleteCertificate, DeleteKey, GetCertificates, GetPublicKey,
        GetStatus, ImportCertificate, InitToken, ListKeys, ListTokens, Message, OpenKey, Ping,
        Sign,
    },
};

use crate::client::P256;

/// One request of each kind, for a token that does not exist; those that are about no token first.
pub fn every_request() -> Vec<Request> {
    let nowhere = "pkcs11:token=nowhere;object=nothing";
    let mut all = vec![
        Request::Ping(Ping::default()),
        Request::Status(GetStatus::default()),
        Request::ListTokens(ListTokens::default()),
    ];
    all.extend(requests_about(nowhere, None, &[7; 32]));
    assert_eq!(all.len(), Request::NAMES.len(), "one is missing");
    all
}

/// One request of each kind that is about a token or key.
pub fn requests_about(uri: &str, pin: Option<Pin>, certificate: &[u8]) -> Vec<Request> {
    let nobody = Identity::of(NOBODYS_KEY).unwrap();
    let pin = || pin.clone();
    let new_pin = ChangePin::new("13579135").uri(UriText::from(uri));
    vec![
        Request::OpenKey(OpenKey::new(uri).pin(pin())),
        Request::Sign(Sign::new(uri, 0x0403, vec![7; 32], nobody).pin(pin())),
        Request::ListKeys(ListKeys::new(uri).pin(pin())),
        Request::GetPublicKey(GetPublicKey::new(uri).pin(pin())),
        Request::GetCertificates(GetCertificates::new(uri).pin(pin())),
        Request::ImportCertificate(ImportCertificate::new(uri, certificate.to_vec()).pin(pin())),
        Request::CreateKey(CreateKey::new(uri, P256, "new").pin(pin())),
        Request::DeleteKey(DeleteKey::new(uri).pin(pin())),
        Request::DeleteCertificate(DeleteCertificate::new(uri).pin(pin())),
        Request::InitToken(InitToken::new("new").uri(UriText::from(uri)).pin(pin())),
        Request::ChangePin(new_pin.old_pin(pin())),
    ]
}

/// An Ed25519 public key (RFC 8410 section 4) of which nobody has the private half.
const NOBODYS_KEY: &[u8] =
    b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00a public key of some 32 bytes...";
