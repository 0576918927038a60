//! See `checks::planted`: no input makes a planted PIN be shown.
#![no_main]

#[allow(dead_code, reason = "each target calls one of the checks")]
#[path = "../../p11-uri/tests/checks/mod.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::planted(input));
