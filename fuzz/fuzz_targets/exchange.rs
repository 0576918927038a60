//! See `checks::exchange`: what must hold for any input.
#![no_main]

#[allow(dead_code, reason = "the tests of the socket use more of it")]
#[path = "../../p11-server/tests/checks/mod.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    checks::exchange(input);
});
