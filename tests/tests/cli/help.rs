//! `--help`, `--version` and mistyped options.

use p11_tests::{server::Server, softhsm::SoftHsm};

use super::{NO_MODULE, fails_to_start, with_module};

/// What the reference page says of each option.
const OPTIONS: &[&str] = &[
    "--socket-path <SOCKET_PATH>
     A path where the UNIX socket listener will be created
     [env: TEDGE_DEVICE_CRYPTOKI_SOCKET_PATH]",
    "--module-path <MODULE_PATH>
     The path to the PKCS#11 module
     [env: TEDGE_DEVICE_CRYPTOKI_MODULE_PATH]",
    "--pin <PIN>
     The PIN for the PKCS#11 token
     [env: TEDGE_DEVICE_CRYPTOKI_PIN]",
    "--uri <URI>
     A URI of the token/object to use.
     See RFC #7512.
     [env: TEDGE_DEVICE_CRYPTOKI_URI]",
    "--log-level <LOG_LEVEL>
     Configures the logging level.
     One of error/warn/info/debug/trace. Logs with verbosity lower or equal to the selected level
     will be printed, i.e. warn prints ERROR and WARN logs and trace prints logs of all levels.",
    "--config-dir <CONFIG_DIR>
     [env: TEDGE_CONFIG_DIR, default: /etc/tedge]",
    "-h, --help
     Print help (see a summary with '-h')",
    "-V, --version
     Print version",
];

/// What the server prints on stdout when it ends at once and well.
fn prints(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let (command, _folder) = Server::builder()
        .expect_socket("none")
        .args(arguments)
        .envs(environment.iter().copied())
        .into_command();
    let assert = assert_cmd::Command::from_std(command).assert().success();
    String::from_utf8_lossy(&assert.get_output().stdout).into_owned()
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn help_says_what_the_reference_page_says() {
    let help = words(&prints(&["--help"], &[]));
    assert!(
        help.starts_with("thin-edge.io service for passing PKCS#11 cryptographic tokens Usage: tedge-p11-server [OPTIONS] Options:"),
        "{help}"
    );
    for option in OPTIONS {
        assert!(help.contains(&words(option)), "{option}\nis not in\n{help}");
    }
}

#[test]
fn the_summary_is_shorter_and_names_the_same_options() {
    let (summary, help) = (prints(&["-h"], &[]), prints(&["--help"], &[]));
    assert!(summary.len() < help.len());
    for option in OPTIONS {
        let name = option.split('\n').next().unwrap();
        assert!(summary.contains(name), "{name} is not in\n{summary}");
    }
}

#[test]
fn help_shows_no_pin_from_the_environment() {
    let help = prints(&["--help"], &[("TEDGE_DEVICE_CRYPTOKI_PIN", "482915")]);
    assert!(!help.contains("482915"), "{help}");
}

#[test]
fn version_is_one_line() {
    let expected = format!("tedge-p11-server {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(prints(&["--version"], &[]), expected);
    assert_eq!(prints(&["-V"], &[]), expected);
}

#[test]
fn a_mistyped_option_or_level_ends_the_start_and_what_is_meant_is_named() {
    for (arguments, expected) in [
        (&["--modul-path", "x"][..], "did you mean --module-path?"),
        (
            &["--log-level", "loud"],
            "--log-level is one of error, warn, info, debug, trace",
        ),
        (&["--pin"], "--pin needs a value"),
        (
            &["--max-connections", "many"],
            "the value of --max-connections cannot be used",
        ),
        (&["--sign-only=yes"], "--sign-only takes no value"),
        (
            &["--uri", "pkcs11:", "--uri", "pkcs11:"],
            "--uri is given more than once",
        ),
    ] {
        let said = fails_to_start(Server::builder().args(arguments));
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn each_log_level_prints_itself_and_what_is_graver() {
    // A start that ends in an error after some INFO lines and the warning about the default PIN.
    let said_at = |level: &str| {
        let builder = Server::builder().module(NO_MODULE.as_ref());
        fails_to_start(builder.args(["--log-level", level]))
    };
    let error = said_at("error");
    assert!(error.contains(NO_MODULE), "{error}");
    assert!(!error.contains(" WARN "), "{error}");
    let warn = said_at("warn");
    assert!(warn.contains(" WARN "), "{warn}");
    assert!(!warn.contains(" INFO "), "{warn}");
    for level in ["info", "debug", "trace"] {
        let said = said_at(level);
        assert!(said.contains(" WARN ") && said.contains(" INFO "), "{said}");
    }
}

#[test]
fn info_is_the_level_without_an_option() {
    let hsm = SoftHsm::new();
    let server = with_module(&hsm).start();
    server.wait_for_log(" INFO ");
    assert!(!server.log().contains(" DEBUG "), "{}", server.log());
}
