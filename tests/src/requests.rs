//! One request of each kind.

use p11_client::Identity;
use p11_proto::{
    Request, UriText,
    message::{
        ChangePin, CreateKey, DeleteKey, GetCertificates, GetPublicKey, GetStatus,
        ImportCertificate, InitToken, ListKeys, ListTokens, Message, OpenKey, Ping, Sign,
    },
};

use crate::client::P256;

/// One request of each kind, for a token that does not exist.
pub fn every_request() -> Vec<Request> {
    let uri = "pkcs11:token=nowhere;object=nothing";
    let bytes = || vec![7; 32];
    let nobody = Identity::of(NOBODYS_KEY).unwrap();
    let all = vec![
        Request::Ping(Ping::default()),
        Request::Status(GetStatus::default()),
        Request::OpenKey(OpenKey::new(uri)),
        Request::Sign(Sign::new(uri, 0x0403, bytes(), nobody)),
        Request::ListTokens(ListTokens::default()),
        Request::ListKeys(ListKeys::new(uri)),
        Request::GetPublicKey(GetPublicKey::new(uri)),
        Request::GetCertificates(GetCertificates::new(uri)),
        Request::ImportCertificate(ImportCertificate::new(uri, bytes())),
        Request::CreateKey(CreateKey::new(uri, P256, "new")),
        Request::DeleteKey(DeleteKey::new(uri)),
        Request::InitToken(InitToken::new("new").uri(UriText::from(uri))),
        Request::ChangePin(ChangePin::new("13579135").uri(UriText::from(uri))),
    ];
    assert_eq!(all.len(), Request::NAMES.len(), "one is missing");
    all
}

/// An Ed25519 public key (RFC 8410 section 4) of which nobody has the private half.
const NOBODYS_KEY: &[u8] =
    b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00a public key of some 32 bytes...";
