//! Clients that sign while something is done to the parts below the server.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use p11_client::Failure;
use p11_tests::{client::ClientKey, wait::StopOnDrop};

/// Until when keys sign again. Where a login gave no clear answer the PIN is not sent for half a minute.
const HEALS: Duration = Duration::from_secs(60);

/// Signs in three threads while it happens, and until each of them can sign again. Returns what failed meanwhile. A
/// signature that is wrong fails the test.
pub fn failures_during(key: &ClientKey, happens: impl FnOnce()) -> Vec<Failure> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let clients = [(); 3].map(|()| scope.spawn(|| sign_until(key, &is_over)));
        let over = StopOnDrop(&is_over);
        happens();
        drop(over);
        let failed = clients.map(|client| client.join().unwrap());
        failed.into_iter().flatten().collect()
    })
}

fn sign_until(key: &ClientKey, is_over: &AtomicBool) -> Vec<Failure> {
    let mut failed = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        if let Err(failure) = key.sign() {
            failed.push(failure);
            thread::sleep(Duration::from_millis(50));
        }
    }
    let end = Instant::now() + HEALS;
    while let Err(failure) = key.sign() {
        assert!(Instant::now() < end, "not within {HEALS:?}: {failure:?}");
        thread::sleep(Duration::from_millis(50));
    }
    failed
}
