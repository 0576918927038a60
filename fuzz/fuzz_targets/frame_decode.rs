//! See `checks::frames`: what must hold for any input.
#![no_main]

#[allow(dead_code, reason = "each target calls one of the checks")]
#[path = "../../p11-proto/tests/checks/mod.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::frames(input));
