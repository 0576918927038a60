//! Any text of a `tedge.toml` is taken, or refused at a place, and no value of it is repeated that could be a PIN.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| p11_server::daemon::check_tedge_toml(input));
