//! What keeps a module from its tokens is told by the error of a request, by `Status` and by the log, with the next step.

use std::{
    fs::{self, Permissions},
    os::unix::{
        fs::{PermissionsExt, chown, symlink},
        net::UnixListener,
    },
    path::Path,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use p11_client::{ErrorCode, Pin, message::InitToken};
use p11_tests::{
    card_reader::CardReader,
    client::refused,
    keys::{KeyKind, KeySpec},
    piv_card::PivCard,
    server::{Builder, Server},
    softhsm::SoftHsm,
    text::{assert_contains, assert_in_order},
    tools::pkcs11_module,
    tpm::Tpm,
    wait::{is_soon, wait_until},
};

use crate::{PIN, SO_PIN};

/// Debian's `nobody`, whom no file of these tests belongs to.
const NOBODY: u32 = 65534;

/// A server that finds no token says so, and why.
fn assert_told(server: Builder, code: ErrorCode, parts: &[&str]) {
    let server = server.start();
    let client = server.client();
    let open = || client.open("pkcs11:token=device");
    // A card is seen a moment after it was put in.
    is_soon(|| open().is_err_and(|failure| failure.message.contains(parts[0])));
    let failure = refused(open(), code);
    assert_in_order(&failure.message, parts);
    let status = client.status();
    assert!(!status.available, "{failure}");
    assert_in_order(status.trouble.unwrap(), parts);
    let log = server.log();
    let warns =
        |line: &&str| line.contains(" WARN ") && parts.iter().all(|part| line.contains(part));
    assert!(log.lines().any(|line| warns(&line)), "{parts:?}:\n{log}");
}

fn of_nobody(hsm: &SoftHsm) -> Builder {
    Server::builder().softhsm(hsm).pin(PIN).as_user(NOBODY)
}

/// A store that all may look into, with a token, and the folders of all and of the one.
fn softhsm() -> SoftHsm {
    let hsm = SoftHsm::new();
    let token = hsm.init_token("device", PIN, SO_PIN);
    hsm.generate(&token, &KeySpec::new(KeyKind::P256, "key", &[1]));
    set_mode(hsm.folder(), 0o755);
    hsm
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Gives all files below a folder to all for reading, and to a user for changing.
fn give(folder: &Path, uid: u32) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            give(&path, uid);
        } else {
            chown(&path, Some(uid), Some(uid)).unwrap();
            set_mode(&path, 0o644);
        }
    }
    chown(folder, Some(uid), Some(uid)).unwrap();
    set_mode(folder, 0o755);
}

#[test]
fn softhsm_cannot_start_for_want_of_its_configuration_or_of_its_folder() {
    const NO_MODULE: ErrorCode = ErrorCode::ModuleUnavailable;
    let failed = "C_Initialize returned CKR_GENERAL_ERROR";
    let missing = "/nonexistent/softhsm2.conf";
    let server = of_nobody(&softhsm()).envs([("SOFTHSM2_CONF", missing)]);
    let step = "to the right file";
    assert_told(
        server,
        NO_MODULE,
        &[failed, missing, "does not exist", step],
    );

    let hsm = softhsm();
    let [(_, file)] = hsm.envs();
    set_mode(&file, 0o600);
    let parts = [
        failed,
        "softhsm2.conf may not be read",
        "nobody (65534)",
        "root:root",
    ];
    assert_told(of_nobody(&hsm), NO_MODULE, &parts);
    // So it is on Debian: its folder is the group's.
    set_mode(&file, 0o644);
    set_mode(hsm.folder(), 0o750);
    chown(hsm.folder(), None, Some(7)).unwrap();
    let parts = [
        failed,
        "softhsm2.conf may not be read",
        "nobody (65534)",
        "root:lp",
        "to the group lp",
    ];
    assert_told(of_nobody(&hsm), NO_MODULE, &parts);

    let hsm = softhsm();
    let tokens = hsm.folder().join("tokens");
    fs::rename(&tokens, hsm.folder().join("other")).unwrap();
    let parts = [
        failed,
        tokens.to_str().unwrap(),
        "does not exist",
        "directories.tokendir",
    ];
    assert_told(of_nobody(&hsm), NO_MODULE, &parts);
}

/// What is done to a store of SoftHSM, and what is told then.
type Case = (fn(&Path), &'static [&'static str]);

#[test]
fn what_is_wrong_with_softhsms_folder_and_its_configuration_is_told() {
    let failed = "C_Initialize returned CKR_GENERAL_ERROR";
    let cases: [Case; 4] = [
        (
            |folder| fs::write(folder.join("tokens"), "").unwrap(),
            &["tokens is no folder", "directories.tokendir"],
        ),
        (
            |folder| symlink(folder.join("none"), folder.join("tokens")).unwrap(),
            &["tokens is a link to", "none, which does not exist"],
        ),
        (
            |folder| {
                fs::rename(folder.join("whole"), folder.join("tokens")).unwrap();
                add_line(folder, "directories.tokendir = /nonexistent/tokens");
            },
            &["/nonexistent/tokens does not exist"],
        ),
        (
            |folder| {
                fs::rename(folder.join("whole"), folder.join("tokens")).unwrap();
                add_line(folder, "objectstore.backend = db");
            },
            &["kind db", "objectstore.backend = file"],
        ),
    ];
    for (change, parts) in cases {
        let hsm = softhsm();
        let tokens = hsm.folder().join("tokens");
        fs::rename(&tokens, hsm.folder().join("whole")).unwrap();
        change(hsm.folder());
        let server = Server::builder().softhsm(&hsm).pin(PIN);
        let parts = [&[failed], parts].concat();
        assert_told(server, ErrorCode::ModuleUnavailable, &parts);
    }
}

fn add_line(folder: &Path, line: &str) {
    let file = folder.join("softhsm2.conf");
    let before = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{before}\n{line}\n")).unwrap();
}

#[test]
fn a_token_of_softhsm_that_another_account_has_made_is_told_by_its_folder() {
    let hsm = softhsm();
    give(&hsm.folder().join("tokens"), NOBODY);
    let mine = of_nobody(&hsm).start();
    mine.client()
        .open("pkcs11:token=device")
        .unwrap()
        .sign()
        .unwrap();
    drop(mine);

    let folders: Vec<_> = fs::read_dir(hsm.folder().join("tokens")).unwrap().collect();
    let token = folders[0].as_ref().unwrap().path();
    give(&token, 0);
    set_mode(&token, 0o700);
    let parts = [
        "there is none",
        token.to_str().unwrap(),
        "nobody (65534)",
        "root:root",
        "chown",
    ];
    assert_told(of_nobody(&hsm), ErrorCode::TokenNotFound, &parts[1..]);

    // Just after that was done, and SoftHSM was asked anew for nothing, nobody is advised to make another one.
    let server = of_nobody(&hsm).start();
    let open = || server.client().open("pkcs11:token=device");
    refused(open(), ErrorCode::TokenNotFound);
    thread::sleep(Duration::from_millis(1100));
    refused(open(), ErrorCode::TokenNotFound);
    give(&token, NOBODY);
    if let Err(failure) = open() {
        assert!(!failure.message.contains("InitToken"), "{failure}");
    }
    assert!(is_soon(|| open().is_ok()));
}

#[test]
fn files_of_a_token_that_softhsm_does_not_show_are_no_reason_to_make_another() {
    let hsm = softhsm();
    let folders: Vec<_> = fs::read_dir(hsm.folder().join("tokens")).unwrap().collect();
    let token = folders[0].as_ref().unwrap().path().join("token.object");
    let whole = fs::read(&token).unwrap();
    fs::write(&token, "").unwrap();
    let server = Server::builder().softhsm(&hsm).pin(PIN).start();
    let open = || server.client().open("pkcs11:token=device");
    let failure = refused(open(), ErrorCode::TokenNotFound);
    let folder = hsm.folder().join("tokens");
    assert_contains(&failure.message, [folder.to_str().unwrap(), "SIGHUP"]);
    assert!(!failure.message.contains("InitToken"), "{failure}");
    fs::write(&token, whole).unwrap();
    open().unwrap().sign().unwrap();
}

#[test]
fn a_token_that_is_made_in_a_tpm_which_has_none_is_found_without_a_reload_by_the_operator() {
    let tpm = Tpm::new();
    let server = Server::builder().module(&tpm.module()).envs(tpm.envs());
    let server = server.pin(PIN).start();
    let client = server.client();
    let uri = "pkcs11:token=device";
    refused(client.open(uri), ErrorCode::TokenNotFound);
    tpm.init_token("device", PIN, SO_PIN);
    tpm.generate("device", PIN, "ecc256", "key");
    assert!(is_soon(|| client.open(uri).is_ok()));
    client.open(uri).unwrap().sign().unwrap();

    // A second one is not looked for while the first is in use.
    let failure = refused(client.open("pkcs11:token=second"), ErrorCode::TokenNotFound);
    assert_contains(&failure.message, ["SIGHUP", "--reload-for-new-tokens"]);
}

#[test]
fn a_store_of_softhsm_that_cannot_be_written_is_told() {
    let hsm = softhsm();
    let tokens = hsm.folder().join("tokens");
    give(&tokens, 0);
    let server = of_nobody(&hsm).start();
    let client = server.client();
    // SoftHSM notes the login in the token's file, and then does without the token.
    client.open("pkcs11:token=device").unwrap();
    let open = || client.open("pkcs11:token=device").map(drop);
    wait_until(|| client.list_tokens().len() == 1);
    let why = [
        tokens.to_str().unwrap(),
        "may not be changed",
        "nobody (65534)",
    ];
    let failure = refused(open(), ErrorCode::TokenNotFound);
    assert_contains(
        &failure.message,
        ["C_GetTokenInfo returned CKR_GENERAL_ERROR"],
    );
    assert_in_order(&failure.message, why);
    let status = client.status();
    assert!(!status.available);
    assert_in_order(status.trouble.unwrap(), why);
    assert_in_order(server.wait_for_log("no token is there"), why);
    // So are no tokens made, by whatever PIN.
    for pin in [PIN, "other-sesame"] {
        server.secrets().add(pin);
        let request = InitToken::new("new").pin(Pin::from(pin));
        let failure = refused(client.init_token(request), ErrorCode::Module);
        assert_contains(&failure.message, ["C_InitToken returned"]);
        assert_in_order(&failure.message, why);
    }
}

#[test]
fn a_tpm_that_is_not_there_and_a_store_that_cannot_be_used_are_told_apart() {
    const NO_MODULE: ErrorCode = ErrorCode::ModuleUnavailable;
    let failed = "C_Initialize returned CKR_GENERAL_ERROR";
    let folder = tempfile::tempdir().unwrap();
    set_mode(folder.path(), 0o755);
    let store = folder.path().join("store");
    let server = |way: Option<&str>| {
        let server = Server::builder().module(&pkcs11_module("libtpm2_pkcs11.so"));
        let server = server
            .envs([("TPM2_PKCS11_STORE", &store)])
            .envs([("TPM2_PKCS11_BACKEND", "esysdb")]);
        server
            .envs(way.map(|way| ("TPM2_PKCS11_TCTI", way)))
            .pin(PIN)
            .as_user(NOBODY)
    };
    let shown = store.to_str().unwrap();
    let parts = [failed, "TPM2_PKCS11_STORE", shown, "does not exist"];
    assert_told(server(None), NO_MODULE, &parts);
    fs::create_dir(&store).unwrap();
    let parts = [
        failed,
        "TPM2_PKCS11_STORE",
        shown,
        "may not be changed",
        "root:root",
    ];
    assert_told(server(None), NO_MODULE, &parts);

    give(&store, NOBODY);
    let parts = [failed, "TPM", "/dev/tpmrm0 does not exist"];
    assert_told(server(None), NO_MODULE, &parts);
    let device = folder.path().join("tpm");
    fs::write(&device, "").unwrap();
    set_mode(&device, 0o660);
    chown(&device, None, Some(7)).unwrap();
    let way = format!("device:{}", device.display());
    let parts = [
        failed,
        device.to_str().unwrap(),
        "may not be changed",
        "to the group lp",
    ];
    assert_told(server(Some(&way)), NO_MODULE, &parts);
    let parts = [failed, "is /dev/null a TPM"];
    assert_told(server(Some("device:/dev/null")), NO_MODULE, &parts);
    let way = "swtpm:host=127.0.0.1,port=1";
    assert_told(server(Some(way)), NO_MODULE, &[failed, "TPM", way]);
}

#[test]
fn a_tpm_whose_store_is_empty_tells_of_its_store() {
    let tpm = Tpm::new();
    let server = Server::builder().module(&tpm.module()).envs(tpm.envs());
    let server = server.pin(PIN).start();
    let failure = refused(
        server.client().open("pkcs11:token=device"),
        ErrorCode::TokenNotFound,
    );
    let parts = [
        "there is none",
        "not initialised",
        "no token in the store",
        "InitToken",
    ];
    assert_in_order(&failure.message, parts);
}

#[test]
fn keys_of_a_tpm_that_would_lie_where_the_server_was_started_are_warned_of() {
    let tpm = Tpm::new();
    let server = || {
        let server = Server::builder().module(&tpm.module()).envs(tpm.envs());
        server.pin(PIN).without_env("TPM2_PKCS11_STORE")
    };
    let of_user = server();
    let home = of_user.folder().to_owned();
    let of_user = of_user.envs([("HOME", &home)]).start();
    let list = |server: &Server| server.client().open("pkcs11:token=device").map(drop);
    let told = refused(list(&of_user), ErrorCode::TokenNotFound);
    let store = home.join(".tpm2_pkcs11");
    assert!(store.join("tpm2_pkcs11.sqlite3").exists());
    assert_contains(&told.message, [format!("store {};", store.display())]);
    assert!(!of_user.log().contains("is not set"), "{}", of_user.log());

    let here = server().without_env("HOME").start();
    refused(list(&here), ErrorCode::TokenNotFound);
    assert!(here.folder().join("tpm2_pkcs11.sqlite3").exists());
    let warning = here.wait_for_log("TPM2_PKCS11_STORE is not set");
    assert_in_order(&warning, ["WARN", here.folder().to_str().unwrap()]);
}

#[test]
fn no_pcscd_no_reader_no_card_and_an_unknown_one_are_told_apart() {
    const NO_TOKEN: ErrorCode = ErrorCode::TokenNotFound;
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("pcscd.comm");
    let server = || {
        let server = Server::builder().module(&pkcs11_module("opensc-pkcs11.so"));
        server.pin(PIN)
    };
    let parts = [
        "pcscd's socket",
        socket.to_str().unwrap(),
        "does not exist",
        "start pcscd",
    ];
    let seeing = || server().envs([("PCSCLITE_CSOCK_NAME", &socket)]);
    assert_told(seeing(), NO_TOKEN, &parts);

    // What a daemon has left that was killed, and what is no socket at all.
    drop(UnixListener::bind(&socket).unwrap());
    let parts = ["nobody listens", socket.to_str().unwrap(), "start pcscd"];
    assert_told(seeing(), NO_TOKEN, &parts);
    fs::remove_file(&socket).unwrap();
    fs::write(&socket, "").unwrap();
    let parts = [socket.to_str().unwrap(), "is no socket", "start pcscd"];
    assert_told(seeing(), NO_TOKEN, &parts);
    fs::remove_file(&socket).unwrap();

    // Everybody is turned away, as by polkit, which Debian's pcscd is built without.
    let listener = UnixListener::bind(&socket).unwrap();
    thread::spawn(move || listener.incoming().for_each(drop));
    let parts = ["no slot", "no reader", "polkit"];
    assert_told(seeing(), NO_TOKEN, &parts);

    let mut reader = CardReader::new();
    let parts = ["none of these slots", "Virtual PCD", "put in"];
    assert_told(server().within(reader.namespace()), NO_TOKEN, &parts);

    reader.insert(&Arc::new(Mutex::new(PivCard::of_another_kind())));
    let parts = ["CKR_TOKEN_NOT_RECOGNIZED", "the right card"];
    assert_told(server().within(reader.namespace()), NO_TOKEN, &parts);
}

#[test]
fn the_server_of_p11_kit_and_the_daemon_of_opencryptoki_are_named_where_they_do_not_run() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("pkcs11");
    let address = format!("unix:path={}", socket.display());
    let server = || {
        let server = Server::builder().module(&pkcs11_module("p11-kit-client.so"));
        server.envs([("P11_KIT_SERVER_ADDRESS", &address)]).pin(PIN)
    };
    let parts = [
        "p11-kit",
        socket.to_str().unwrap(),
        "does not exist",
        "start",
    ];
    assert_told(server(), ErrorCode::TokenNotFound, &parts);
    drop(UnixListener::bind(&socket).unwrap());
    let parts = ["nobody listens", "p11-kit", "start"];
    assert_told(server(), ErrorCode::TokenNotFound, &parts);

    let server = Server::builder().module(&pkcs11_module("libopencryptoki.so"));
    let server = server.pin(PIN).start();
    let told = server
        .client()
        .open("pkcs11:token=device")
        .map(drop)
        .unwrap_err();
    assert_contains(told.message, ["pkcsslotd", "does not exist"]);
}
