//! A minute of random faults while four programs sign and another user does what he should not: each program gets
//! signatures or reasons, and afterwards the server is as it was before.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests, which fail by panicking"
)]

#[path = "hardening/users.rs"]
#[expect(dead_code, reason = "the tests of hardening use it all")]
mod users;

use std::{
    fs,
    io::Write,
    os::unix::net::UnixStream,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use p11_client::{ErrorCode, Failure, message::ByteBuf};
use p11_fault_module::{
    Function, Function::*, Random, Rule, cryptoki_sys::*, every_token, object, on, token,
};
use p11_proto::{
    Request, Response, frame,
    message::{CreateKey, DeleteKey, GetPublicKey, ListKeys, ListTokens, OpenKey},
};
use p11_tests::{
    client::{ClientKey, P256, TestClient},
    fixture::{Fixture, KEY, PIN},
    keys::KeyKind,
    raw_client::RawClient,
    server::Server,
    wait::StopOnDrop,
};

use users::AsUser;

/// How long things go wrong.
const MINUTE: Duration = Duration::from_secs(60);

/// Threads of the enemy.
const ENEMIES: usize = 4;

/// Where the sequence of faults begins.
const SEED: u64 = 0x70_6b_63_73_11;

/// The longest back-off of the server, and a second.
const BACK_OFF: Duration = Duration::from_secs(31);

#[test]
fn a_minute_of_faults_of_every_kind() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.add_token("other");
    // A second key that the URI matches, and that is never the one which was opened.
    fixture.add_key(KeyKind::P256, "second", 2);
    let builder = fixture.server().pin(PIN);
    let server = builder.args(["--log-level", "warn"]).start();
    let uris = ["pkcs11:token=device", "pkcs11:token=other"];
    let programs: Vec<(TestClient, ClientKey)> = (0..4)
        .map(|number| {
            let client = server.client();
            let key = client.open(uris[number % 2]).unwrap();
            (client, key)
        })
        .collect();
    all_sign(&programs);
    let enemy = AsUser::new(&server, 2000, 2000);
    // What it costs that there is an enemy is no leak.
    thread::scope(|scope| {
        for number in 0..ENEMIES {
            let socket = enemy.socket();
            scope.spawn(move || {
                let mut random = Random::new(SEED + number as u64);
                (0..300).for_each(|_| harm(socket, &mut random));
            });
        }
    });
    let before = Usage::of(&server);

    let over = AtomicBool::new(false);
    let (signed, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        let _over = StopOnDrop(&over);
        for (client, key) in &programs {
            scope.spawn(|| {
                let mut turn = 0;
                while !over.load(Relaxed) {
                    turn += 1;
                    match work(client, key, turn) {
                        Ok(()) => signed.fetch_add(1, Relaxed),
                        Err(failure) => {
                            is_well_formed(&failure);
                            failed.fetch_add(1, Relaxed)
                        }
                    };
                    thread::sleep(Duration::from_millis(2));
                }
            });
        }
        for number in 0..ENEMIES {
            let (over, socket) = (&over, enemy.socket());
            scope.spawn(move || {
                let mut random = Random::new(SEED + number as u64);
                while !over.load(Relaxed) {
                    harm(socket, &mut random);
                    thread::sleep(Duration::from_millis(5));
                }
            });
        }
        let mut faults = RandomFaults(Random::new(SEED));
        let end = Instant::now() + MINUTE;
        while Instant::now() < end {
            fixture.faults.set(faults.faults());
            thread::sleep(Duration::from_millis(faults.0.below(300)));
            // In between it is well, or nothing would ever come into being that could break.
            fixture.faults.clear();
            thread::sleep(Duration::from_millis(faults.0.below(300)));
        }
    });
    let injected = fixture.faults.counts().injected();
    let (signed, failed) = (signed.into_inner(), failed.into_inner());
    assert!(
        injected > 100 && signed > 1000 && failed > 10,
        "this was no soak: {injected} faults, {signed} signatures, {failed} failures"
    );

    for (_, key) in &programs {
        signs_after_the_back_off(key);
    }
    all_sign(&programs);
    Usage::of(&server).is_no_more_than(&before);
    // Nine for each token at most, whatever was lost on the way.
    let open = fixture.faults.counts().open_sessions();
    assert!(open <= 2 * 9, "{open} sessions are open");
}

/// One request of the enemy on a connection of its own, of which it may not wait for the answer.
fn harm(socket: &Path, random: &mut Random) {
    let device = "pkcs11:token=device";
    let wrong_pin = || Some("not-it".into());
    let request = match random.below(50) {
        // There is at most one of this id.
        0 => Request::CreateKey(CreateKey::new(device, P256, "enemy").id(Some(ByteBuf::from([9])))),
        1..5 => Request::DeleteKey(DeleteKey::new("pkcs11:token=device;object=enemy")),
        5..15 => Request::ListKeys(ListKeys::new(device)),
        15..25 => Request::OpenKey(OpenKey::new("pkcs11:token=device;object=missing")),
        25..30 => Request::OpenKey(OpenKey::new("pkcs11:token=missing")),
        30..35 => Request::OpenKey(OpenKey::new(KEY).pin(wrong_pin())),
        35..40 => Request::GetPublicKey(GetPublicKey::new(device)),
        _ => Request::OpenKey(OpenKey::new("pkcs11:token=device;object=second")),
    };
    // Where the proxy or the server has no place, it comes again.
    let Ok(stream) = UnixStream::connect(socket) else {
        return;
    };
    let mut raw = RawClient(stream);
    if raw.0.write_all(&frame::PREAMBLE).is_err() || raw.send(&request).is_err() {
        return;
    }
    if random.below(4) > 0 {
        let _ = raw.answer();
    }
}

/// Mostly a signature, and now and then what else a program may ask.
fn work(client: &TestClient, key: &ClientKey, turn: u64) -> Result<(), Failure> {
    match turn % 20 {
        0 => client.open(&key.told().uri)?.sign(),
        7 => client.open(KEY).map(drop),
        13 => match client.ask(&Request::ListTokens(ListTokens::default())) {
            Response::Error(failure) => Err(failure),
            _ => Ok(()),
        },
        17 => {
            let status = client.status();
            assert_eq!(status.available, status.trouble.is_none());
            Ok(())
        }
        _ => key.sign(),
    }
}

/// Trouble that passes, with a reason; never that the key is another one, that the PIN is wrong, or a
/// defect of the server.
fn is_well_formed(failure: &Failure) {
    let code = failure.code;
    match code {
        // A count that cannot be.
        ErrorCode::Module if failure.message.contains("an unusable answer") => {}
        ErrorCode::Module => {
            let function = failure.function.as_deref().unwrap_or_default();
            let ckr = failure.ckr.as_deref().unwrap_or_default();
            assert!(function.starts_with("C_"), "{failure}");
            assert!(ckr.starts_with("CKR_"), "{failure}");
            assert!(failure.message.contains(ckr), "{failure}");
        }
        ErrorCode::ModuleUnavailable => assert!(failure.message.contains(" s"), "{failure}"),
        ErrorCode::TokenNotFound | ErrorCode::KeyNotFound | ErrorCode::Busy => {}
        _ => panic!("{code}: {failure}"),
    }
    assert!(failure.message.len() > 20, "{failure}");
}

/// The next request works; where the module is down, the next one after the time that it names.
fn signs_after_the_back_off(key: &ClientKey) {
    let Err(failure) = key.sign() else { return };
    assert_eq!(failure.code, ErrorCode::ModuleUnavailable, "{failure}");
    let words: Vec<_> = failure.message.split_whitespace().collect();
    let seconds = words.windows(2).find(|pair| pair[1] == "s").unwrap()[0];
    let wait = Duration::from_secs(seconds.parse().unwrap());
    assert!(wait <= BACK_OFF, "{failure}");
    thread::sleep(wait);
    key.sign().unwrap();
}

fn all_sign(programs: &[(TestClient, ClientKey)]) {
    thread::scope(|scope| {
        for (_, key) in programs {
            scope.spawn(|| (0..200).for_each(|_| key.sign().unwrap()));
        }
    });
}

/// What the server takes of the machine.
#[derive(Debug)]
struct Usage {
    threads: usize,
    files: usize,
    memory_kib: usize,
}

impl Usage {
    fn of(server: &Server) -> Self {
        let proc = format!("/proc/{}", server.pid());
        let entries = |folder| fs::read_dir(format!("{proc}/{folder}")).unwrap().count();
        let status = fs::read_to_string(format!("{proc}/status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.unwrap().trim().trim_end_matches(" kB");
        Self {
            threads: entries("task"),
            files: entries("fd"),
            memory_kib: resident.parse().unwrap(),
        }
    }

    /// A program that asked two things at the same time has two connections by now, each with a thread.
    fn is_no_more_than(&self, before: &Self) {
        // Those of the enemy are kept for a minute.
        let threads = before.threads + 4 + 2 * ENEMIES;
        assert!(self.threads <= threads, "{before:?}, {self:?}");
        assert!(self.files <= before.files + 8, "{before:?}, {self:?}");
        let grown = self.memory_kib.saturating_sub(before.memory_kib);
        assert!(grown <= 6 * 1024, "{before:?}, {self:?}");
    }
}

/// Faults that are chosen at random.
struct RandomFaults(Random);

impl RandomFaults {
    fn faults(&mut self) -> Vec<Rule> {
        (0..1 + self.0.below(2)).map(|_| self.fault()).collect()
    }

    fn fault(&mut self) -> Rule {
        match self.0.below(23) {
            0 => every_token().sessions_closed(),
            1 => every_token().logged_out(),
            2 => Rule::RenumberObjects,
            3 => token(self.one_of(&["device", "other"])).hidden(),
            4 => every_token().hidden(),
            5 => Rule::SlotOffset(self.0.below(1000)),
            6 => Rule::SwapSlots("device".into(), "other".into()),
            7 => every_token().session_limit(1 + self.0.below(3) as u32),
            8 => Rule::AlwaysAuthenticate("key".into()),
            9 => on(self.any_call()).delays(self.0.below(50) as u32),
            10 => on(self.any_call()).next(2).hangs(),
            11 => on(C_Initialize).next(1).returns(self.trouble()),
            12 => on(self.any_call())
                .next(1)
                .returns(CKR_CRYPTOKI_NOT_INITIALIZED),
            13 => on(C_OpenSession).next(2).returns(CKR_SESSION_COUNT),
            14 => on(self.any_call()).next(1).after().returns(self.trouble()),
            15 => on(self.any_call()).every(3).returns(self.trouble()),
            16 => on(self.any_call()).returns(self.trouble()),
            17 => Rule::FailsToSign(self.one_of(&["key", "second"]).into(), self.trouble()),
            18 => token("device").logged_out(),
            19 => on(self.one_of(&[C_FindObjects, C_Sign, C_GetSlotList, C_GetMechanismList]))
                .next(3)
                .counts(1 << 40),
            20 => object(CKO_CERTIFICATE, "key").claims_length(CKA_VALUE, 1 << 40),
            21 => on(self.one_of(&[C_GenerateKeyPair, C_DestroyObject])).returns(self.trouble()),
            _ => {
                let seed = self.0.number();
                on(self.any_call())
                    .random(0.2, seed)
                    .returns(self.trouble())
            }
        }
    }

    fn any_call(&mut self) -> Function {
        self.one_of(&[
            C_Sign,
            C_Sign,
            C_SignInit,
            C_SignInit,
            C_Login,
            C_OpenSession,
            C_CloseSession,
            C_GetSessionInfo,
            C_GetSlotList,
            C_GetSlotInfo,
            C_GetTokenInfo,
            C_FindObjectsInit,
            C_FindObjects,
            C_FindObjectsFinal,
            C_GetAttributeValue,
            C_GetMechanismList,
            C_GetMechanismInfo,
            C_GetInfo,
            C_Logout,
        ])
    }

    fn trouble(&mut self) -> CK_RV {
        self.one_of(&[
            CKR_DEVICE_ERROR,
            CKR_GENERAL_ERROR,
            CKR_FUNCTION_FAILED,
            CKR_DEVICE_REMOVED,
            CKR_DEVICE_MEMORY,
            CKR_HOST_MEMORY,
            CKR_TOKEN_NOT_PRESENT,
            CKR_SESSION_HANDLE_INVALID,
            CKR_SESSION_CLOSED,
            CKR_OPERATION_ACTIVE,
            CKR_USER_NOT_LOGGED_IN,
        ])
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.0.below(all.len() as u64) as usize]
    }
}
