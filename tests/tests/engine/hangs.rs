//! A call that hangs in any function: who waits is told so and costs no thread, other tokens go on, `Status` names it,
//! and the process ends.

use std::{
    io::Write,
    os::unix::net::UnixStream,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use p11_client::{ErrorCode, Pin, UriText};
use p11_fault_module::{
    Function::{self, *},
    Rule,
    cryptoki_sys::*,
    on,
};
use p11_proto::{
    Request, Response, frame,
    message::{ChangePin, CreateKey, DeleteKey, ImportCertificate, InitToken, OpenKey},
};
use p11_tests::{
    client::P256,
    fixture::{Fixture, KEY, SO_PIN},
    keys::KeyKind,
    proc,
    raw_client::RawClient,
    server::Server,
    text::assert_in_order,
    wait::{StopOnDrop, TIMEOUT, wait_until},
};

/// How long a call of `quick-server` may take, and one that makes a key or token.
const LIMIT: Duration = Duration::from_secs(2);
const LONG_LIMIT: Duration = Duration::from_secs(6);

/// Clients that ask again as soon as they have an answer, each on a new connection.
const CLIENTS: u64 = 20;

/// Sessions of one token, in each of which a call may hang.
const SESSIONS: u64 = 9;

const OTHER: &str = "pkcs11:token=other;object=key";

/// A function that hangs, and what a client asks for that calls it.
struct Row {
    function: Function,
    request: Asks,
    /// What else happens, so that it is called.
    with: Vec<Rule>,
    /// Whether the call names no token, so that nothing new is found on any.
    of_module: bool,
}

#[derive(Clone, Copy)]
enum Asks {
    OpenKey,
    Sign,
    CreateKey,
    ImportCertificate,
    DeleteKey,
    ChangePin,
    ResetPin,
    InitToken,
}

fn row(function: Function, request: Asks) -> Row {
    Row {
        function,
        request,
        with: Vec::new(),
        of_module: false,
    }
}

impl Row {
    fn with(self, rule: Rule) -> Self {
        let with = vec![rule];
        Self { with, ..self }
    }

    fn of_module(self) -> Self {
        let of_module = true;
        Self { of_module, ..self }
    }

    fn hangs(&self) -> Vec<Rule> {
        let on = on(self.function);
        let on = match self.of_module || self.function == C_InitToken {
            true => on,
            false => on.at("device"),
        };
        self.with
            .iter()
            .cloned()
            .chain([on.hangs_forever()])
            .collect()
    }

    fn is_reload(&self) -> bool {
        matches!(self.function, C_Finalize | C_Initialize)
    }

    fn limit(&self) -> Duration {
        match self.function {
            C_GenerateKeyPair | C_InitToken => LONG_LIMIT,
            _ => LIMIT,
        }
    }

    /// The request; signatures are of a key that was opened before.
    fn request(&self, fixture: &Fixture, server: &Server) -> Request {
        let device = "pkcs11:token=device";
        let change = ChangePin::new("305419").uri(UriText::from(device));
        match self.request {
            Asks::OpenKey => Request::OpenKey(OpenKey::new(KEY)),
            Asks::Sign => {
                let key = server.client().open(KEY).unwrap();
                key.sign().unwrap();
                Request::Sign(key.request(key.told().schemes[0], b"message"))
            }
            Asks::CreateKey => Request::CreateKey(CreateKey::new(device, P256, "new")),
            Asks::ImportCertificate => {
                Request::ImportCertificate(ImportCertificate::new(KEY, fixture.certificate()))
            }
            Asks::DeleteKey => Request::DeleteKey(DeleteKey::new(KEY)),
            Asks::ChangePin => Request::ChangePin(change),
            Asks::ResetPin => {
                Request::ChangePin(change.reset(true).so_pin(Some(Pin::from(SO_PIN))))
            }
            Asks::InitToken => Request::InitToken(InitToken::new("new")),
        }
    }
}

/// One request on a connection of its own; none where the server has ended.
fn ask(socket: &Path, request: &Request) -> Option<Response> {
    let mut raw = RawClient(UnixStream::connect(socket).ok()?);
    raw.0.set_read_timeout(Some(TIMEOUT)).ok()?;
    raw.0.write_all(&frame::PREAMBLE).ok()?;
    raw.ask(request)
}

fn threads(pid: u32) -> u64 {
    proc::status(pid, "Threads").unwrap_or(0)
}

fn all(rows: Vec<Row>) {
    thread::scope(|scope| {
        for row in &rows {
            scope.spawn(|| {
                hangs_until_the_process_ends(row);
                stops_by_sigterm(row);
            });
        }
    });
}

fn fixture() -> Fixture {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.add_token("other");
    fixture
}

fn hangs_until_the_process_ends(row: &Row) {
    let (function, limit) = (row.function, row.limit());
    let fixture = fixture();
    let mut server = fixture.start_quick();
    let request = row.request(&fixture, &server);
    let other = server.client().open(OTHER).unwrap();
    other.sign().unwrap();
    let (pid, socket) = (server.pid(), server.socket().to_owned());
    let before = threads(pid);

    fixture.faults.set(row.hangs());
    let failures = Mutex::new(Vec::new());
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _over = StopOnDrop(&over);
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while !over.load(Relaxed) {
                    match ask(&socket, &request) {
                        Some(Response::Error(failure)) => failures.lock().unwrap().push(failure),
                        // What was known of the slot is enough.
                        Some(Response::Key(_)) if function == C_GetSlotInfo => {}
                        Some(other) => panic!("{function:?}: {other:?}"),
                        // Where it ends, nobody is answered.
                        None => return,
                    }
                    thread::sleep(Duration::from_millis(20));
                }
            });
        }
        wait_until(|| fixture.faults.counts().injected() > 0);
        let began = Instant::now();
        let (mut counts, mut slowest) = (Vec::new(), Duration::ZERO);
        let mut told = None;
        while began.elapsed() < limit * 9 / 5 {
            thread::sleep(Duration::from_millis(50));
            counts.push(threads(pid));
            if !row.is_reload() {
                let start = Instant::now();
                other.sign().unwrap();
                if !row.of_module {
                    // Nor does who comes anew and has to look for it notice anything, once the slot is known to hang.
                    server.client().open(OTHER).unwrap();
                }
                slowest = slowest.max(start.elapsed());
            }
            if told.is_none() && began.elapsed() > limit + Duration::from_millis(300) {
                told = Some(server.client().status());
            }
        }
        assert!(
            slowest < Duration::from_secs(1),
            "{function:?}: {slowest:?}"
        );
        // Whoever has been answered may be late on the way out, but for the calls that hang.
        let at_last = counts.iter().rev().take(10).min().unwrap();
        let bound = before + CLIENTS + SESSIONS + 4;
        assert!(*at_last <= bound, "{function:?}: {before}, then {counts:?}");
        let status = told.unwrap();
        let trouble = status.trouble.unwrap_or_default();
        assert!(!status.available, "{function:?} hangs and nobody says so");
        let named = trouble.starts_with(&format!("{} on ", function.name()));
        assert!(named, "{function:?}: {trouble}");
        if !row.of_module && function != C_InitToken {
            assert!(trouble.contains("token=device"), "{trouble}");
        }
        let status = server.wait(TIMEOUT);
        let took = began.elapsed();
        let log = server.log();
        assert_eq!(status.code(), Some(1), "{function:?}: {status}: {log}");
        let mut errors = log.lines().filter(|line| line.contains(" ERROR "));
        let why = errors.next().unwrap_or_else(|| panic!("{log}"));
        let parts = [function.name(), "; ending, so that systemd starts me anew"];
        assert_in_order(why, parts);
        assert_eq!(errors.next(), None);
        assert!(!socket.exists());
        // It looks every second. Who is at work then has 5 s to end, and does so at his own deadline.
        let grace = limit.min(Duration::from_secs(5));
        let most = limit * 2 + Duration::from_secs(1) + grace + Duration::from_secs(1);
        assert!(took < most, "{function:?}: {took:?}");
    });
    let failures = failures.into_inner().unwrap();
    let timeouts = failures
        .iter()
        .filter(|failure| failure.code == ErrorCode::Timeout);
    let were_told = timeouts.count() > 0 || function == C_GetSlotInfo;
    assert!(were_told, "{function:?}: {failures:?}");
    for failure in &failures {
        let is_due = matches!(failure.code, ErrorCode::Timeout | ErrorCode::Busy);
        assert!(is_due, "{function:?}: {}: {failure}", failure.code);
    }
}

/// With the limits of the real server; and another SIGTERM while it stops changes nothing.
fn stops_by_sigterm(row: &Row) {
    let fixture = fixture();
    let mut server = fixture.start();
    let request = row.request(&fixture, &server);
    fixture.faults.set(row.hangs());
    let socket = server.socket().to_owned();
    let hung = socket.clone();
    thread::spawn(move || ask(&hung, &request));
    // What leads to the call comes first.
    let before = row.with.len() as u64;
    wait_until(|| fixture.faults.counts().injected() > before);
    let (began, finalized) = (Instant::now(), fixture.faults.count(C_Finalize));
    server.signal(Signal::SIGTERM);
    thread::sleep(Duration::from_millis(500));
    if server.is_running() {
        server.signal(Signal::SIGTERM);
    }
    let status = server.wait(TIMEOUT);
    let (took, function) = (began.elapsed(), row.function);
    assert_eq!(status.code(), Some(0), "{function:?}: {}", server.log());
    assert!(took < Duration::from_secs(10), "{function:?}: {took:?}");
    assert_eq!(fixture.faults.count(C_Finalize), finalized, "{function:?}");
    assert!(!socket.exists());
}

#[test]
fn a_call_about_slots_hangs() {
    all(vec![
        row(C_GetInfo, Asks::OpenKey).of_module(),
        row(C_GetSlotList, Asks::OpenKey).of_module(),
        row(C_GetSlotInfo, Asks::OpenKey),
        row(C_GetTokenInfo, Asks::OpenKey),
        row(C_GetMechanismList, Asks::OpenKey),
        row(C_GetMechanismInfo, Asks::OpenKey),
    ]);
}

#[test]
fn a_call_about_a_session_or_login_hangs() {
    let fails = || on(C_Sign).at("device").returns(CKR_DEVICE_ERROR);
    let already = on(C_Login).at("device").after();
    all(vec![
        row(C_OpenSession, Asks::OpenKey),
        row(C_CloseSession, Asks::Sign).with(fails()),
        row(C_GetSessionInfo, Asks::OpenKey),
        row(C_Login, Asks::OpenKey),
        row(C_Logout, Asks::OpenKey).with(already.returns(CKR_USER_ALREADY_LOGGED_IN)),
    ]);
}

#[test]
fn a_call_of_a_search_hangs() {
    all(vec![
        row(C_FindObjectsInit, Asks::OpenKey),
        row(C_FindObjects, Asks::OpenKey),
        row(C_FindObjectsFinal, Asks::OpenKey),
        row(C_GetAttributeValue, Asks::OpenKey),
    ]);
}

#[test]
fn a_call_of_a_signature_hangs() {
    all(vec![row(C_SignInit, Asks::Sign), row(C_Sign, Asks::Sign)]);
}

#[test]
fn a_call_that_changes_a_token_hangs() {
    all(vec![
        row(C_GenerateKeyPair, Asks::CreateKey),
        row(C_CreateObject, Asks::ImportCertificate),
        row(C_DestroyObject, Asks::DeleteKey),
        row(C_SetPIN, Asks::ChangePin),
        row(C_InitPIN, Asks::ResetPin),
        row(C_InitToken, Asks::InitToken),
    ]);
}

#[test]
fn a_reload_hangs() {
    let lost = || {
        let lost = on(C_SignInit).at("device");
        lost.returns(CKR_CRYPTOKI_NOT_INITIALIZED)
    };
    all(vec![
        row(C_Finalize, Asks::Sign).with(lost()).of_module(),
        row(C_Initialize, Asks::Sign).with(lost()).of_module(),
    ]);
}
