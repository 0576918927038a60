//! What the service manager is notified of. What it is told of a hung call is in `ending`.

use std::{
    os::unix::net::UnixDatagram,
    time::{Duration, Instant},
};

use p11_fault_module::{Function::C_Initialize, cryptoki_sys::CKR_DEVICE_ERROR, on};
use p11_tests::{
    fixture::{Fixture, KEY, PIN},
    keys::KeyKind,
    raw_client::RawClient,
    server::{Builder, Server},
    wait::TIMEOUT,
};

/// The end of a service manager.
struct Manager {
    socket: UnixDatagram,
    folder: tempfile::TempDir,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        Self { socket, folder }
    }

    fn start(&self, builder: Builder) -> Server {
        builder
            .envs([("NOTIFY_SOCKET", self.folder.path().join("notify"))])
            .start()
    }

    /// The next message.
    fn told(&self) -> String {
        let mut message = [0; 4096];
        let length = self.socket.recv(&mut message).expect("a message");
        String::from_utf8(message[..length].to_vec()).unwrap()
    }

    /// The first message from now on that contains this.
    fn wait_for(&self, text: &str) -> String {
        let end = Instant::now() + TIMEOUT;
        loop {
            let told = self.told();
            if told.contains(text) {
                return told;
            }
            assert!(Instant::now() < end, "never told {text}");
        }
    }
}

#[test]
fn the_manager_is_told_of_the_start_and_of_the_stop() {
    let manager = Manager::new();
    let fixture = Fixture::new(KeyKind::P256);
    let mut server = manager.start(fixture.server().pin(PIN));
    assert!(manager.told().lines().any(|line| line == "READY=1"));
    RawClient::admitted(server.socket());
    manager.wait_for("STATUS=the PKCS#11 module is ready");
    assert_eq!(server.terminate().code(), Some(0));
    manager.wait_for("STOPPING=1");
}

#[test]
fn the_manager_is_told_of_trouble_and_of_its_end() {
    let manager = Manager::new();
    let fixture = Fixture::new(KeyKind::P256);
    fixture
        .faults
        .set([on(C_Initialize).returns(CKR_DEVICE_ERROR)]);
    let server = manager.start(fixture.server().pin(PIN));
    let status = manager.wait_for("CKR_DEVICE_ERROR");
    assert!(status.contains("STATUS="), "{status}");
    fixture.faults.clear();
    // The next request that comes when a try is due finds the module well.
    let client = server.client();
    let end = Instant::now() + TIMEOUT;
    while client.open(KEY).is_err() {
        assert!(Instant::now() < end, "it does not heal");
        std::thread::sleep(Duration::from_millis(100));
    }
    manager.wait_for("STATUS=the PKCS#11 module is ready");
}

#[test]
fn the_watchdog_is_notified_in_time() {
    const TIMEOUT: Duration = Duration::from_secs(6);
    let manager = Manager::new();
    let fixture = Fixture::new(KeyKind::P256);
    let usec = TIMEOUT.as_micros().to_string();
    let _server = manager.start(fixture.server().pin(PIN).envs([("WATCHDOG_USEC", usec)]));
    let mut last = Instant::now();
    for _ in 0..3 {
        manager.wait_for("WATCHDOG=1");
        assert!(last.elapsed() < TIMEOUT, "{:?}", last.elapsed());
        last = Instant::now();
    }
}

#[test]
fn without_a_watchdog_none_is_notified() {
    let manager = Manager::new();
    let fixture = Fixture::new(KeyKind::P256);
    let mut server = manager.start(fixture.server().pin(PIN));
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(server.terminate().code(), Some(0));
    loop {
        let told = manager.told();
        assert!(!told.contains("WATCHDOG"), "{told}");
        if told.contains("STOPPING=1") {
            break;
        }
    }
}
