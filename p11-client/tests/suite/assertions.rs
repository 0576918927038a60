//! Assertions about errors.

use p11_client::Error;

/// Checks the code of an error and what its text says.
pub fn assert_error(error: &Error, code: &str, parts: &[&str]) {
    assert_eq!(error.code(), code, "{error}");
    let text = error.to_string();
    let told = format!("{text} {error:?}");
    assert!(!told.contains("1234"), "a PIN is shown: {told}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

/// Checks that the server is told to be too old for this.
pub fn assert_too_old(error: &Error, what: &str) {
    assert_error(error, "TooOld", &[what, "tedge-p11-server 0.1"]);
}
