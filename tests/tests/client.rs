//! What programs that use `p11-client` meet with the real server: many at once, and keys that are replaced under them.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, which fail by panicking"
)]

use std::{
    env,
    fs::{Permissions, set_permissions},
    io::{Read, Write, pipe},
    os::unix::fs::PermissionsExt,
    process::{self, Command},
    sync::Barrier,
    thread,
};

use nix::{
    sys::{
        signal::{Signal, kill},
        wait::waitpid,
    },
    unistd::{ForkResult, Group, chown, fork, getpid},
};
use p11_client::{
    Client, Config, Error, Scheme, SigningKey,
    message::{CreateKey, DeleteKey, KeySpec, KeyType},
};
use p11_tests::{
    fixture::{Fixture, KEY, PIN},
    process::become_user,
    verify::verifies,
};
use rustls::{SignatureScheme, sign::SigningKey as _};

const CLIENTS: usize = 200;
const SIGNATURES: usize = 3;

#[test]
fn of_two_hundred_clients_at_once_none_is_turned_away() {
    let (fixture, server) = Fixture::started();
    let start = Barrier::new(CLIENTS);
    let sign = || {
        start.wait();
        let client = Client::new(Config::new(server.socket()));
        let key = SigningKey::open(&client, KEY, None, None)?;
        for _ in 0..SIGNATURES {
            let signature = key.sign(Scheme::EcdsaP256Sha256, b"message")?;
            let scheme = Scheme::EcdsaP256Sha256.number();
            assert!(verifies(&fixture.key.spki, scheme, b"message", &signature));
        }
        Ok(())
    };
    let failed: Vec<Error> = thread::scope(|scope| {
        let all: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(sign)).collect();
        let ended = all.into_iter().map(|client| client.join().unwrap());
        ended.filter_map(Result::err).collect()
    });
    assert!(failed.is_empty(), "{} failed: {failed:?}", failed.len());
}

#[test]
fn parent_and_child_of_a_fork_sign_their_own_messages() {
    let (fixture, server) = Fixture::started();
    let client = Client::new(Config::new(server.socket()));
    let key = SigningKey::open(&client, KEY, None, None).unwrap();
    let scheme = Scheme::EcdsaP256Sha256;
    let wrong = |who: &str| {
        let is_wrong = |number: &usize| {
            let message = format!("{who} {number}").into_bytes();
            let signature = key.sign(scheme, &message).unwrap();
            !verifies(&fixture.key.spki, scheme.number(), &message, &signature)
        };
        (0..100).filter(is_wrong).count()
    };
    assert_eq!(wrong("before"), 0);
    let (mut told, mut tell) = pipe().unwrap();
    // SAFETY: the child signs, tells and ends; what glibc's malloc needs is made good by its fork().
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let _ = tell.write_all(&[wrong("child") as u8]);
            kill(getpid(), Signal::SIGKILL).unwrap();
            process::abort()
        }
        ForkResult::Parent { child } => {
            drop(tell);
            let of_parent = wrong("parent");
            let mut of_child = Vec::new();
            told.read_to_end(&mut of_child).unwrap();
            waitpid(child, None).unwrap();
            assert_eq!((of_parent, &of_child[..]), (0, &[0][..]));
        }
    }
}

#[test]
fn who_may_not_use_the_socket_is_told_whose_group_to_join() {
    let (_fixture, server) = Fixture::started();
    let group = "join its group \"daemon\" and log in again";
    let folder = server.folder().to_str().unwrap();
    for (file, mode, parts) in [
        (server.socket(), 0o660, &[group][..]),
        (
            server.socket(),
            0o600,
            &["only its owner \"root\" may use it"],
        ),
        (
            server.folder(),
            0o750,
            &["its folder", folder, "is closed", group],
        ),
    ] {
        let open = |path, mode| set_permissions(path, Permissions::from_mode(mode)).unwrap();
        open(server.folder(), 0o755);
        open(file, mode);
        chown(
            file,
            None,
            Some(Group::from_name("daemon").unwrap().unwrap().gid),
        )
        .unwrap();
        let test = "program_of_another_user";
        let output = Command::new(env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", test])
            .env(SOCKET, server.socket())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{output:?}");
        for part in parts {
            assert!(said.contains(part), "{part:?} is not in: {said}");
        }
    }
}

/// Says to the process of another user where the socket is.
const SOCKET: &str = "SOCKET";

#[test]
#[ignore = "run by another test"]
#[expect(clippy::print_stdout, reason = "read by the other test")]
fn program_of_another_user() {
    become_user(12345, 12345);
    let socket = env::var_os(SOCKET).unwrap();
    let error = Client::new(Config::new(socket)).ping().unwrap_err();
    assert_eq!(error.code(), "PermissionDenied");
    println!("{error}");
}

/// The recipe of the crate's documentation.
fn key_changed(error: &(dyn std::error::Error + 'static)) -> bool {
    Error::in_handshake(error).is_some_and(Error::is_key_changed)
}

#[test]
fn a_program_that_follows_the_recipe_goes_on_with_the_key_that_replaced_its_own() {
    let (_fixture, server) = Fixture::started();
    let client = Client::new(Config::new(server.socket()).pin(p11_client::Pin::from(PIN)));
    server.secrets().add(PIN);
    let open = || SigningKey::open(&client, KEY, None, None).unwrap();
    let sign = |key: &SigningKey| {
        let signer = key.choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256]);
        signer.unwrap().sign(b"message")
    };
    let before = open();
    sign(&before).unwrap();
    // Under a random id, as CreateKey gives it.
    client.delete_key(DeleteKey::new(KEY)).unwrap();
    let kind = KeySpec::new(KeyType::Ec, 256);
    let create = CreateKey::new("pkcs11:token=device", kind, "key");
    let created = client.create_key(create).unwrap();

    let error = sign(&before).unwrap_err();
    assert!(key_changed(&error), "{error}");
    let after = open();
    assert_eq!(after.identity(), created.identity);
    let signature = sign(&after).unwrap();
    let scheme = Scheme::EcdsaP256Sha256.number();
    assert!(verifies(&created.spki, scheme, b"message", &signature));
}
