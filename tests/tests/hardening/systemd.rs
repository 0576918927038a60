//! The units as shipped, judged and run by systemd itself.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use p11_tests::tools::{command, run};

const SERVICE: &str = "tedge-p11-server.service";
const SOCKET: &str = "tedge-p11-server.socket";

/// The units in a folder of their own, with these drop-ins and a program to start.
fn units(drop_ins: &[PathBuf]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("tedge-p11-server");
    fs::copy("/bin/true", &program).unwrap();
    let service = shipped(SERVICE);
    assert!(service.contains("ExecStart=/usr/bin/tedge-p11-server\n"));
    let service = service.replace("/usr/bin/tedge-p11-server", program.to_str().unwrap());
    fs::write(folder.path().join(SERVICE), service).unwrap();
    fs::write(folder.path().join(SOCKET), shipped(SOCKET)).unwrap();
    let places = folder.path().join(format!("{SERVICE}.d"));
    fs::create_dir(&places).unwrap();
    for drop_in in drop_ins {
        fs::copy(drop_in, places.join(drop_in.file_name().unwrap())).unwrap();
    }
    folder
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd")
}

fn shipped(unit: &str) -> String {
    fs::read_to_string(folder().join(unit)).unwrap()
}

fn drop_ins() -> Vec<PathBuf> {
    let files = fs::read_dir(folder().join("drop-ins")).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

/// `systemd-analyze`, seeing our units before the system's.
fn analyze(units: &tempfile::TempDir, verb: &str) -> Command {
    let mut analyze = command("systemd-analyze");
    // A colon at the end stands for the usual places.
    analyze
        .env("SYSTEMD_UNIT_PATH", format!("{}:", units.path().display()))
        .arg(verb);
    analyze
}

/// What systemd thinks of the service, from 0 to 10.
fn exposure(units: &tempfile::TempDir) -> f32 {
    let said = run(analyze(units, "security")
        .arg("--offline=true")
        .arg(units.path().join(SERVICE)));
    let said = String::from_utf8(said).unwrap();
    let overall = said
        .lines()
        .find(|line| line.contains("Overall exposure level"));
    let level = overall.and_then(|line| line.split_whitespace().rev().nth(2));
    level
        .and_then(|level| level.parse().ok())
        .unwrap_or_else(|| panic!("no level in {said}"))
}

/// Fails if systemd has anything to say about the units.
fn assert_clean(units: &tempfile::TempDir) {
    let output = analyze(units, "verify")
        .args([units.path().join(SERVICE), units.path().join(SOCKET)])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn the_units_are_as_the_reference_page_describes_them() {
    for (unit, settings) in [
        (
            SOCKET,
            &[
                "ListenStream=%t/tedge-p11-server/tedge-p11-server.sock",
                "SocketMode=0660",
                "SocketUser=tedge",
                "SocketGroup=tedge",
                "WantedBy=sockets.target",
                "TriggerLimitIntervalSec=0",
            ][..],
        ),
        (
            SERVICE,
            &[
                "Requires=tedge-p11-server.socket",
                "EnvironmentFile=-/etc/tedge/plugins/tedge-p11-server.conf",
                "Type=notify",
                "User=tedge",
                "Restart=on-failure",
                "WatchdogSec=30",
                "LimitCORE=0",
                "MemorySwapMax=0",
                // The socket would fail with the service.
                "StartLimitIntervalSec=0",
                // What clients can make it use is far below.
                "LogRateLimitIntervalSec=0",
                "MemoryMax=256M",
                "TasksMax=1200",
                "LimitNOFILE=2048",
            ],
        ),
    ] {
        let text = shipped(unit);
        for setting in settings {
            assert!(
                text.lines().any(|line| line == *setting),
                "{setting} is not in {unit}"
            );
        }
    }
}

#[test]
fn the_units_as_shipped_are_clean_and_exposed_by_no_more_than_1_5() {
    let units = units(&[]);
    assert_clean(&units);
    let level = exposure(&units);
    assert!(level <= 1.5, "{level}");
}

#[test]
fn the_units_are_clean_with_each_drop_in() {
    let drop_ins = drop_ins();
    assert_eq!(drop_ins.len(), 4, "TPM, readers, SoftHSM, network HSMs");
    for drop_in in drop_ins {
        let units = units(std::slice::from_ref(&drop_in));
        assert_clean(&units);
        let level = exposure(&units);
        assert!(level <= 1.5, "{level} with {}", drop_in.display());
    }
}

#[test]
fn the_drop_ins_are_read_where_they_are_put() {
    let units = units(&drop_ins());
    let said = run(analyze(&units, "security")
        .args(["--offline=true", "--no-pager"])
        .arg(units.path().join(SERVICE)));
    let said = String::from_utf8(said).unwrap();
    let private_network = said.lines().find(|line| line.contains("PrivateNetwork="));
    assert!(
        private_network.is_some_and(|line| line.starts_with('✗')),
        "{said}"
    );
}

/// What the manager's own targets are for is of no interest here.
const TARGETS: [&str; 5] = ["default", "basic", "sysinit", "sockets", "shutdown"];

/// Connects again and again while the socket is there.
const CONNECT: &str = "
import socket, time
for _ in range(60):
    socket.socket(socket.AF_UNIX).connect('/run/manager/tedge-p11-server/tedge-p11-server.sock')
    time.sleep(0.03)
";

#[test]
fn a_service_that_ends_again_and_again_does_not_take_its_socket_along() {
    // The service ends at once: there is no user tedge, or the program sends no notification.
    for ending in ["RestartSec=10ms", "Restart=no"] {
        let units = units(&[]);
        let drop_in = |unit: &str, text: String| {
            let folder = units.path().join(format!("{unit}.d"));
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("test.conf"), text).unwrap();
        };
        drop_in(SERVICE, format!("[Service]\n{ending}\n"));
        drop_in(
            SOCKET,
            "[Socket]\nSocketUser=root\nSocketGroup=root\n".into(),
        );
        for target in TARGETS {
            let target = units.path().join(format!("{target}.target"));
            fs::write(target, "[Unit]\n").unwrap();
        }
        let script =
            format!("systemctl --user start {SOCKET} && /usr/bin/python3 -c \"{CONNECT}\"");
        let manager = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hardening/manager.sh");
        run(command("sh").arg(manager).arg(units.path()).args([
            "sh",
            "-c",
            &format!("{script} && systemctl --user is-active {SOCKET}"),
        ]));
    }
}
