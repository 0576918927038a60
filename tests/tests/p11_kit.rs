//! The server signs through p11-kit's own modules, each of which hands out a separate instance of
//! itself to everybody who asks for its functions.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, which fail by panicking"
)]

use p11_client::{Client, Config, Error, ErrorCode, SigningKey};
use p11_fault_module::{Faults, Function::*, Rule};
use p11_tests::{
    keys::{Key, KeyKind, KeySpec},
    process::Process,
    server::{Builder, Server},
    softhsm::SoftHsm,
    text::assert_contains,
    tools::{command, pkcs11_module},
    verify::verifies,
    wait::TIMEOUT,
};
use rustls::{SignatureScheme, sign::SigningKey as _};
use tempfile::TempDir;

const PIN: &str = "482915";

/// A key in SoftHSM, and a fault module that shows what p11-kit asks of it.
struct Setup {
    hsm: SoftHsm,
    key: Key,
    faults: Faults,
}

/// `p11-kit server`, which offers a token to other processes.
struct P11KitServer {
    folder: TempDir,
    _process: Process,
}

fn setup() -> Setup {
    let hsm = SoftHsm::new();
    let token = hsm.init_token("device", PIN, "771122");
    let key = hsm.generate(&token, &KeySpec::new(KeyKind::P256, "key", &[1]));
    let faults = Faults::new(hsm.module());
    Setup { hsm, key, faults }
}

impl Setup {
    fn p11_kit_server(&self) -> P11KitServer {
        let folder = tempfile::tempdir().unwrap();
        let mut server = command("p11-kit");
        server
            .envs(self.hsm.envs())
            .envs(self.faults.envs())
            .args(["server", "--foreground", "--provider"])
            .arg(Faults::module_path())
            .arg("--name")
            .arg(folder.path().join("socket"))
            .arg("pkcs11:token=device");
        let process = Process::start("p11-kit server", server);
        process.wait_for_log("P11_KIT_SERVER_ADDRESS", TIMEOUT);
        P11KitServer {
            folder,
            _process: process,
        }
    }
}

impl P11KitServer {
    /// A server of ours that is a client of p11-kit's.
    fn client(&self) -> Builder {
        let socket = self.folder.path().join("socket");
        let address = format!("unix:path={}", socket.display());
        Server::builder()
            .module(&pkcs11_module("p11-kit-client.so"))
            .envs([("P11_KIT_SERVER_ADDRESS", address)])
            .pin(PIN)
    }
}

fn open(server: &Server) -> SigningKey {
    let client = Client::new(Config::new(server.socket()));
    SigningKey::open(&client, "pkcs11:token=device;object=key", None, None).unwrap()
}

fn sign(key: &SigningKey, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
    let scheme = SignatureScheme::ECDSA_NISTP256_SHA256;
    key.choose_scheme(&[scheme]).unwrap().sign(message)
}

fn assert_signs(server: &Server, expected: &Key) {
    let key = open(server);
    assert_eq!(key.public_key().unwrap().as_ref(), expected.spki);
    for message in [b"one", b"two"] {
        let signature = sign(&key, message).unwrap();
        assert!(verifies(&expected.spki, 0x0403, message, &signature));
    }
}

#[test]
fn p11_kit_client_signs_with_a_token_of_another_process() {
    let setup = setup();
    let p11_kit = setup.p11_kit_server();
    let server = p11_kit.client().start();
    server.wait_for_log("a signature takes three calls");
    let before = setup.faults.counts();
    assert_signs(&server, &setup.key);
    let calls = setup.faults.counts().since(&before);
    // Two signatures: for each, cryptoki asks for the length first.
    assert_eq!((calls.of(C_SignInit), calls.of(C_Sign)), (2, 4), "{calls}");
    assert_eq!(calls.of(C_Login), 1, "{calls}");
}

#[test]
fn p11_kit_proxy_signs_with_the_tokens_of_all_modules() {
    let Setup { hsm, key, .. } = setup();
    // It loads what Debian's packages have registered: SoftHSM, and tpm2-pkcs11, which shall find no TPM.
    let server = Server::builder()
        .module(&pkcs11_module("p11-kit-proxy.so"))
        .envs(hsm.envs())
        .envs([("TPM2_PKCS11_TCTI", "device:/dev/null")])
        .pin(PIN)
        .start();
    assert_signs(&server, &key);
}

#[test]
fn a_key_that_wants_a_login_for_each_signature_needs_the_tokens_own_module() {
    let setup = setup();
    setup.faults.set([Rule::AlwaysAuthenticate("key".into())]);
    let p11_kit = setup.p11_kit_server();
    let server = p11_kit.client().start();
    let refused = sign(&open(&server), b"a message").unwrap_err();
    let Some(Error::Server(failure)) = Error::in_handshake(&refused) else {
        panic!("{refused}");
    };
    assert_eq!(failure.code, ErrorCode::NotSupported);
    assert_contains(&failure.message, ["the token's own module"]);
}
