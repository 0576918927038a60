//! The end of the process, by SIGTERM or because a PKCS#11 call hangs, whatever the module does.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use p11_fault_module::{Function::*, on};
use p11_tests::{
    fixture::{Fixture, KEY, PIN},
    keys::KeyKind,
    raw_client::RawClient,
    server::Server,
    tools::run,
    wait::{TIMEOUT, is_soon, wait_for_listener, wait_until},
};

/// SIGTERM ends the process within this time.
const END: Duration = Duration::from_secs(10);

/// Sends SIGTERM, and once more while the server stops. It ends in time and leaves nothing.
fn stops(server: &mut Server) -> Duration {
    let began = Instant::now();
    server.signal(Signal::SIGTERM);
    thread::sleep(Duration::from_millis(500));
    if server.is_running() {
        server.signal(Signal::SIGTERM);
    }
    let status = server.wait(TIMEOUT);
    let took = began.elapsed();
    assert_eq!(status.code(), Some(0), "{status}: {}", server.log());
    assert!(took < END, "after {took:?}: {}", server.log());
    assert!(!server.socket().exists());
    took
}

#[test]
fn it_stops_while_the_module_hangs_in_its_last_calls() {
    thread::scope(|scope| {
        for function in [C_Finalize, C_Logout, C_CloseSession] {
            scope.spawn(move || {
                let (fixture, mut server) = Fixture::started();
                server.client().open(KEY).unwrap().sign().unwrap();
                fixture.faults.set([on(function).hangs_forever()]);
                stops(&mut server);
                let log = server.log();
                assert!(log.contains("does not end in time"), "{function:?}: {log}");
            });
        }
    });
}

/// The destructors of SoftHSM would take away what the searches use.
#[test]
fn it_stops_while_searches_run_and_does_not_crash() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.fill(1000);
    let mut server = fixture.start();
    fixture.faults.set([on(C_GetAttributeValue).delays(10)]);
    for _ in 0..8 {
        let client = server.client();
        thread::spawn(move || client.open("pkcs11:token=device").map(drop));
    }
    wait_until(|| fixture.faults.count(C_GetAttributeValue) > 100);
    let took = stops(&mut server);
    assert!(took > Duration::from_secs(4), "the searches were short");
}

/// Then the main thread hangs, and holds a lock of the dynamic linker, which the log may need.
#[test]
fn it_stops_while_the_module_hangs_in_being_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let module = module_that(folder.path(), "for (;;) pause();");
    let mut server = Server::builder().module(&module).pin(PIN).spawn();
    wait_until(|| server.socket().exists());
    let began = Instant::now();
    assert_eq!(server.terminate().code(), Some(0), "{}", server.log());
    assert!(began.elapsed() < END, "{:?}", began.elapsed());
}

/// A module that does this when it is loaded.
fn module_that(folder: &Path, does: &str) -> PathBuf {
    let source = folder.join("module.c");
    let module = folder.join("module.so");
    let text = format!(
        "#include <stdio.h>\n#include <unistd.h>\n\
         __attribute__((constructor)) static void load(void) {{ {does} }}\n"
    );
    fs::write(&source, text).unwrap();
    let mut cc = Command::new("cc");
    run(cc.args(["-shared", "-o"]).args([&module, &source]));
    module
}

#[test]
fn a_process_that_the_module_forks_takes_signals() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let does = format!(
        "pid_t pid = fork(); if (pid == 0) for (;;) pause(); \
         FILE *file = fopen({file:?}, \"w\"); fprintf(file, \"%d\", pid); fclose(file);"
    );
    let module = module_that(folder.path(), &does);
    let server = Server::builder().module(&module).pin(PIN).spawn();
    // It is no PKCS#11 module, so the server ends.
    server.wait_for_log("C_GetFunctionList");
    let pid = fs::read_to_string(file).unwrap();
    let status = format!("/proc/{pid}/status");
    let blocks_none = "\nSigBlk:\t0000000000000000\n";
    let takes_signals = is_soon(|| fs::read_to_string(&status).unwrap().contains(blocks_none));
    kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL).unwrap();
    assert!(takes_signals);
}

#[test]
fn it_stops_while_nobody_reads_its_log() {
    let fixture = Fixture::new(KeyKind::P256);
    let (mut command, folder) = fixture.server().pin(PIN).into_command();
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let socket = folder.path().join("p11.sock");
    wait_for_listener(&socket);
    // Each has a line, and a pipe holds 64 KiB.
    let mut raw = RawClient::admitted(&socket);
    assert!((0..2000).all(|_| raw.ping()));
    let began = Instant::now();
    let pid = Pid::from_raw(child.id().try_into().unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    is_soon(|| child.try_wait().unwrap().is_some());
    let took = began.elapsed();
    // Of no effect where it has ended.
    let _ = child.kill();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[test]
fn a_call_that_hangs_for_good_ends_it_long_before_a_watchdog_would() {
    let fixture = Fixture::new(KeyKind::P256);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_nonblocking(true).unwrap();
    let builder = fixture.server().pin(PIN).quick();
    let mut server = builder
        .envs([("NOTIFY_SOCKET", path.as_os_str())])
        .envs([("WATCHDOG_USEC", "60000000")])
        .start();
    fixture.faults.set([on(C_Sign).hangs_forever()]);
    let client = server.client();
    thread::spawn(move || client.open(KEY)?.sign());
    let status = server.wait(TIMEOUT);
    assert_eq!(status.code(), Some(1), "{status}: {}", server.log());
    assert_eq!(fixture.faults.count(C_Finalize), 0);
    let mut told = String::new();
    let mut message = [0; 4096];
    while let Ok(length) = manager.recv(&mut message) {
        told += std::str::from_utf8(&message[..length]).unwrap();
    }
    let mut told = told.lines().rev();
    assert_eq!(told.next(), Some("STOPPING=1"));
    let status = told.next().unwrap();
    assert!(status.starts_with("STATUS="), "{status}");
    assert!(status.contains("token=device"), "{status}");
}
