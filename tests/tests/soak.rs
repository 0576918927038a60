//! A minute of random faults while four programs sign, an operator changes tokens and PINs and sends SIGHUP, and another
//! user does what he should not: each gets what he asks for or a reason, and afterwards the server is as it was before.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests, which fail by panicking"
)]

use std::{
    io::Write,
    ops::Range,
    os::unix::net::UnixStream,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use p11_client::{
    ErrorCode, Failure, UriText,
    message::{
        ByteBuf, ChangePin, CreateKey, DeleteKey, GetPublicKey, InitToken, ListKeys, OpenKey,
    },
};
use p11_fault_module::{
    Function, Function::*, Random, Rule, cryptoki_sys::*, every_token, object, on, token,
};
use p11_proto::{Request, Response, frame, message::ListTokens};
use p11_tests::{
    as_user::AsUser,
    client::{ClientKey, P256, TestClient},
    fixture::{Fixture, KEY, PIN, SO_PIN, TROUBLE},
    keys::KeyKind,
    proc,
    raw_client::RawClient,
    server::Server,
    wait::{StopOnDrop, wait_until},
};

/// How long things go wrong.
const MINUTE: Duration = Duration::from_secs(60);

/// Threads of the enemy.
const ENEMIES: u64 = 4;

/// The tokens that the operator makes.
const NEW_TOKENS: Range<u64> = 0..3;

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
    let enemy = AsUser::new(&server, 2000, 2000);
    // What it costs that there are clients and an enemy is no leak.
    let programs = programs(&server);
    all_sign(&programs);
    enemies(
        |socket, random| (0..300).for_each(|_| harm(socket, random)),
        &enemy,
    );
    drop(programs);
    let before = Usage::at_rest(&server);

    let programs = self::programs(&server);
    let over = AtomicBool::new(false);
    let did = Did::default();
    thread::scope(|scope| {
        let _over = StopOnDrop(&over);
        for (client, key) in &programs {
            scope.spawn(|| {
                let mut turn = 0;
                until(&over, Duration::from_millis(2), || {
                    turn += 1;
                    did.count(&did.signed, work(client, key, turn));
                });
            });
        }
        scope.spawn(|| {
            let mut operator = Operator::of(&server, &fixture);
            until(&over, Duration::from_millis(20), || {
                match operator.change() {
                    // It was made before, or the slot that is free is pulled out.
                    Some(Err(failure)) if failure.code == ErrorCode::AlreadyExists => {}
                    Some(Err(failure)) if failure.code == ErrorCode::AmbiguousToken => {}
                    Some(outcome) => did.count(&did.changed, outcome),
                    None => {}
                }
            });
        });
        scope.spawn(|| {
            let harm = |socket: &Path, random: &mut Random| {
                until(&over, Duration::from_millis(5), || harm(socket, random));
            };
            enemies(harm, &enemy);
        });
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
    did.were_enough(injected);

    for (_, key) in &programs {
        signs_after_the_back_off(key);
    }
    all_sign(&programs);
    // Nine for each token at most, whatever was lost on the way.
    let open = fixture.faults.counts().open_sessions();
    let tokens = 2 + NEW_TOKENS.end;
    assert!(open <= tokens * 9, "{open} sessions are open");
    drop(programs);
    Usage::at_rest(&server).is_no_more_than(&before);
    no_thread_is_lost(&server, &enemy);
}

/// Four programs, each with a client and a key of its own.
fn programs(server: &Server) -> Vec<(TestClient, ClientKey)> {
    let uris = ["pkcs11:token=device", "pkcs11:token=other"];
    let program = |number: usize| {
        let client = server.client();
        let key = client.open(uris[number % 2]).unwrap();
        (client, key)
    };
    (0..4).map(program).collect()
}

/// Does something again and again, with pauses.
fn until(over: &AtomicBool, pause: Duration, mut work: impl FnMut()) {
    while !over.load(Relaxed) {
        work();
        thread::sleep(pause);
    }
}

/// What was done and what failed.
#[derive(Debug, Default)]
struct Did {
    signed: AtomicU64,
    changed: AtomicU64,
    failed: AtomicU64,
}

impl Did {
    fn count(&self, done: &AtomicU64, outcome: Result<(), Failure>) {
        let count = if let Err(failure) = outcome {
            is_well_formed(&failure);
            &self.failed
        } else {
            done
        };
        count.fetch_add(1, Relaxed);
    }

    fn were_enough(self, injected: u64) {
        let Self {
            signed,
            changed,
            failed,
        } = self;
        let [signed, changed, failed] = [signed, changed, failed].map(AtomicU64::into_inner);
        assert!(
            injected > 100 && signed > 1000 && changed > 50 && failed > 10,
            "this was no soak: {injected} faults, {signed} signatures, {changed} changes, {failed} failures"
        );
    }
}

/// Has all enemies do something at the same time, each with random numbers of its own.
fn enemies(harm: impl Fn(&Path, &mut Random) + Sync, enemy: &AsUser) {
    thread::scope(|scope| {
        for number in 0..ENEMIES {
            let harm = &harm;
            scope.spawn(move || harm(enemy.socket(), &mut Random::new(SEED + number)));
        }
    });
}

/// Who changes what is on the tokens, so that all is again as it was, whatever becomes of it, and the configuration.
struct Operator<'a> {
    client: TestClient,
    server: &'a Server,
    certificate: Vec<u8>,
    random: Random,
}

impl<'a> Operator<'a> {
    fn of(server: &'a Server, fixture: &Fixture) -> Self {
        Self {
            client: server.client(),
            server,
            certificate: fixture.certificate(),
            random: Random::new(SEED),
        }
    }

    /// One change; no outcome where it is a signal.
    fn change(&mut self) -> Option<Result<(), Failure>> {
        let client = &self.client;
        let token = ["pkcs11:token=device", "pkcs11:token=other"][self.random.below(2) as usize];
        // The PIN that it has.
        let pin = || ChangePin::new(PIN).uri(UriText::from(token));
        Some(match self.random.below(7) {
            0 => client.change_pin(pin().old_pin(Some(PIN.into()))).map(drop),
            1 => {
                let reset = pin().reset(true).so_pin(Some(SO_PIN.into()));
                client.change_pin(reset).map(drop)
            }
            2 => {
                let number = self.random.below(NEW_TOKENS.end);
                let new = InitToken::new(format!("new-{number}"));
                let new = new.so_pin(Some(SO_PIN.into())).pin(Some(PIN.into()));
                client.init_token(new).map(drop)
            }
            // There is at most one of this id.
            3 => client.create_key(token, P256, "made", Some(&[8])).map(drop),
            4 => {
                let made = format!("{token};object=made");
                client.delete_key(&made).map(drop)
            }
            5 => client.import_certificate(KEY, &self.certificate).map(drop),
            _ => {
                self.server.signal(Signal::SIGHUP);
                return None;
            }
        })
    }
}

/// One request of the enemy on a connection of its own, of which it may not wait for the answer.
fn harm(socket: &Path, random: &mut Random) {
    let device = "pkcs11:token=device";
    let wrong_pin = || Some("not-it".into());
    let request = match random.below(52) {
        // There is at most one of this id.
        0 => Request::CreateKey(CreateKey::new(device, P256, "enemy").id(Some(ByteBuf::from([9])))),
        1..5 => Request::DeleteKey(DeleteKey::new("pkcs11:token=device;object=enemy")),
        5..15 => Request::ListKeys(ListKeys::new(device)),
        15..25 => Request::OpenKey(OpenKey::new("pkcs11:token=device;object=missing")),
        25..30 => Request::OpenKey(OpenKey::new("pkcs11:token=missing")),
        30..35 => Request::OpenKey(OpenKey::new(KEY).pin(wrong_pin())),
        35..40 => Request::GetPublicKey(GetPublicKey::new(device)),
        40..42 => Request::ChangePin(
            ChangePin::new("no-PIN")
                .uri(UriText::from(device))
                .old_pin(wrong_pin()),
        ),
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
        // No answer comes from a server that has no place for it.
        if let Some(Response::Error(failure)) = raw.answer() {
            assert_ne!(failure.code, ErrorCode::Internal, "{failure}");
        }
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

/// What fails without a code of the module: a count that cannot be, a new key or token that cannot be read back.
const WITHOUT_CODE: [&str; 4] = [
    "an unusable answer",
    "is left on the token",
    "tells no public key of the new key",
    "the token is initialised but cannot be found again",
];

/// Trouble that passes, with a reason; never that the key is another one, that the PIN is wrong, or a
/// defect of the server.
fn is_well_formed(failure: &Failure) {
    let code = failure.code;
    match code {
        ErrorCode::Module
            if WITHOUT_CODE
                .iter()
                .any(|what| failure.message.contains(what)) => {}
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

/// What the server takes of the machine while it has no connection.
#[derive(Debug)]
struct Usage {
    /// Beside those that are kept for connections.
    threads: usize,
    files: usize,
    memory_kib: u64,
}

/// What a thread is called that is kept for connections.
const KEPT: &str = "connection";

impl Usage {
    fn at_rest(server: &Server) -> Self {
        let pid = server.pid();
        // What a client left behind ends before its next call.
        let mut files = 0;
        wait_until(|| {
            thread::sleep(Duration::from_millis(300));
            std::mem::replace(&mut files, proc::files(pid)) == files
        });
        let mut threads = proc::threads(pid);
        threads.retain(|name| name != KEPT);
        Self {
            threads: threads.len(),
            files,
            memory_kib: proc::status(pid, "VmRSS").unwrap(),
        }
    }

    fn is_no_more_than(&self, before: &Self) {
        assert!(self.threads <= before.threads, "{before:?}, {self:?}");
        assert!(self.files <= before.files, "{before:?}, {self:?}");
        let grown = self.memory_kib.saturating_sub(before.memory_kib);
        assert!(grown <= 6 * 1024, "{before:?}, {self:?}");
    }
}

/// All threads of former connections serve as many new ones: none waits for ever for something else.
fn no_thread_is_lost(server: &Server, enemy: &AsUser) {
    let kept = || {
        let threads = proc::threads(server.pid());
        threads.iter().filter(|name| *name == KEPT).count()
    };
    // Those whose connection has ended just now look for another.
    thread::sleep(Duration::from_millis(200));
    let before = kept();
    // No user has more than 64 connections.
    assert!((1..=2 * 64).contains(&before), "{before} threads");
    let sockets = [server.socket(), enemy.socket()];
    let connect = |number: usize| RawClient::admitted(sockets[number % 2]);
    let connections: Vec<_> = (0..before).map(connect).collect();
    assert!(kept() <= before, "{before}, then {} threads", kept());
    drop(connections);
}

/// Faults that are chosen at random.
struct RandomFaults(Random);

impl RandomFaults {
    fn faults(&mut self) -> Vec<Rule> {
        (0..1 + self.0.below(2)).map(|_| self.fault()).collect()
    }

    fn fault(&mut self) -> Rule {
        match self.0.below(26) {
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
            21 => on(self.any_change()).returns(self.trouble()),
            22 => on(self.any_change()).delays(self.0.below(200) as u32),
            23 => on(self.any_change()).hangs(),
            24 => on(self.one_of(&[C_Initialize, C_Finalize])).hangs(),
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

    fn any_change(&mut self) -> Function {
        self.one_of(&[
            C_GenerateKeyPair,
            C_CreateObject,
            C_DestroyObject,
            C_SetPIN,
            C_InitPIN,
            C_InitToken,
        ])
    }

    fn trouble(&mut self) -> CK_RV {
        self.one_of(&[&TROUBLE[..], &[CKR_TOKEN_NOT_PRESENT]].concat())
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.0.below(all.len() as u64) as usize]
    }
}
