//! What must hold for any bytes of a client.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    p11_server::daemon::exchange(input);
});
