//! Keys in a token behind the traits of RustCrypto; ring and openssl verify what they sign.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, which fail by panicking"
)]

use std::{error::Error as _, time::Duration};

use p11_client::{
    Client, Config, Error, FixedSignature, Scheme, SigningKey, X509Signature,
    signature::{Keypair, SignatureEncoding, Signer},
};
use p11_tests::{
    keys::{KeyKind, KeySpec},
    server::Server,
    softhsm::SoftHsm,
    verify::verifies,
};
use ring::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
use spki::{
    EncodePublicKey,
    der::{Any, Encode, Tag, asn1::UintRef},
};

const PIN: &str = "482915";

const KINDS: [KeyKind; 5] = [
    KeyKind::P256,
    KeyKind::P384,
    KeyKind::P521,
    KeyKind::Rsa2048,
    KeyKind::Ed25519,
];

fn serve(kind: KeyKind) -> (SoftHsm, Server) {
    let hsm = SoftHsm::new();
    let token = hsm.init_token("device", PIN, "771122");
    hsm.generate(&token, &KeySpec::new(kind, "key", &[1]));
    let server = Server::builder().softhsm(&hsm).pin(PIN).start();
    (hsm, server)
}

fn open(client: &Client) -> SigningKey {
    SigningKey::open(client, "pkcs11:token=device", None, None).unwrap()
}

#[test]
fn each_kind_of_key_signs_through_the_traits_of_rustcrypto() {
    for kind in KINDS {
        let (_hsm, server) = serve(kind);
        let key = open(&Client::new(Config::new(server.socket())));
        for scheme in key.schemes() {
            let scheme = Scheme::from_number(u16::from(*scheme)).unwrap();
            let signer = key.with_scheme(scheme).unwrap();
            let public = signer.verifying_key().to_public_key_der().unwrap();
            let signature: X509Signature = signer.try_sign(b"a message").unwrap();
            let bytes = signature.to_bytes();
            let is_good = verifies(public.as_bytes(), scheme.number(), b"a message", &bytes);
            assert!(is_good, "{scheme}");
            let signature: FixedSignature = signer.try_sign(b"a message").unwrap();
            assert_verifies_fixed(&key, scheme, &signature.to_vec());
        }
    }
}

#[track_caller]
fn assert_verifies_fixed(key: &SigningKey, scheme: Scheme, signature: &[u8]) {
    let spki = key.public_key_info().spki().to_vec();
    let point = key.public_key_info().key();
    let is_good = match scheme {
        Scheme::EcdsaP256Sha256 => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
            .verify(b"a message", signature)
            .is_ok(),
        Scheme::EcdsaP384Sha384 => UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point)
            .verify(b"a message", signature)
            .is_ok(),
        Scheme::EcdsaP521Sha512 => {
            // ring knows no P-521, and openssl no other form than DER.
            assert_eq!(signature.len(), 2 * 66);
            let (r, s) = signature.split_at(66);
            let halves = [r, s].map(|half| UintRef::new(half).unwrap().to_der().unwrap());
            let der = Any::new(Tag::Sequence, halves.concat()).unwrap().to_der();
            verifies(&spki, scheme.number(), b"a message", &der.unwrap())
        }
        _ => verifies(&spki, scheme.number(), b"a message", signature),
    };
    assert!(is_good, "{scheme}");
}

#[test]
fn an_error_of_the_traits_has_ours_as_its_source() {
    let (_hsm, server) = serve(KeyKind::P256);
    let config = Config::new(server.socket()).retry_for(Duration::ZERO);
    let signer = open(&Client::new(config)).with_scheme(Scheme::EcdsaP256Sha256);
    let signer = signer.unwrap();
    drop(server);
    let signed: Result<X509Signature, _> = signer.try_sign(b"a message");
    let error = signed.unwrap_err();
    let source = error
        .source()
        .and_then(|source| source.downcast_ref::<Error>());
    assert!(matches!(source, Some(Error::NoSocket(_))), "{error:?}");
}
