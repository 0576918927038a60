//! Sessions that end or lose their login behind the application's back, and their limit.

use std::sync::Mutex;
use std::thread;

use cryptoki::error::RvError;
use cryptoki::object::ObjectClass;
use cryptoki::session::SessionState;
use cryptoki::slot::Limit;
use p11_fault_module::{every_token, token};

use crate::fixture::*;

#[test]
fn all_sessions_are_closed_once() {
    Fixture::new().run(|faults| {
        let module = start();
        let (one, two) = (open(&module, ONE), open(&module, TWO));
        faults.set([token(ONE).sessions_closed()]);
        assert_eq!(code(one.get_session_info()), RvError::SessionHandleInvalid);
        two.get_session_info()
            .expect("the other token is untouched");

        let one = open(&module, ONE);
        one.get_session_info().expect("it happens once");
        faults.set([every_token().sessions_closed()]);
        assert_eq!(code(one.get_session_info()), RvError::SessionHandleInvalid);
        assert_eq!(code(two.get_session_info()), RvError::SessionHandleInvalid);
    });
}

#[test]
fn open_sessions_are_counted_however_they_end() {
    Fixture::new().run(|faults| {
        let open_sessions = || faults.counts().open_sessions();
        let module = start();
        let (one, two) = (open(&module, ONE), open(&module, TWO));
        assert_eq!(open_sessions(), 2);
        one.close().unwrap();
        assert_eq!(open_sessions(), 1);
        faults.set([token(TWO).sessions_closed()]);
        let _one = open(&module, ONE);
        assert_eq!(open_sessions(), 1);
        assert!(two.close().is_err());
        let before = faults.counts();
        module.finalize().unwrap();
        assert_eq!(faults.counts().since(&before).open_sessions(), 0);
    });
}

#[test]
fn closing_sessions_waits_for_the_calls_that_use_them() {
    Fixture::new().run(|faults| {
        let module = start();
        let key_maker = open_and_login(&module, ONE);
        make_key(&key_maker);
        // SoftHSM crashes when a session is closed under a call that uses it.
        thread::scope(|scope| {
            let signers: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        let mut signatures = 0;
                        while signatures < 100 {
                            let session = module.open_ro_session(slot(&module, ONE)).unwrap();
                            let _ = login(&session, PIN);
                            let found =
                                session.find_objects(&[cryptoki::object::Attribute::Class(
                                    ObjectClass::PRIVATE_KEY,
                                )]);
                            let Some(key) = found.ok().and_then(|found| found.first().copied())
                            else {
                                continue;
                            };
                            while signatures < 100 && sign(&session, key).is_ok() {
                                signatures += 1;
                            }
                        }
                    })
                })
                .collect();
            while !signers.iter().all(|signer| signer.is_finished()) {
                faults.set([token(ONE).sessions_closed()]);
                thread::sleep(std::time::Duration::from_millis(5));
            }
        });
    });
}

#[test]
fn the_login_is_lost_once() {
    Fixture::new().run(|faults| {
        let module = start();
        let (one, two) = (open_and_login(&module, ONE), open_and_login(&module, TWO));
        faults.set([token(ONE).logged_out()]);
        assert_eq!(
            one.get_session_info().unwrap().session_state(),
            SessionState::RwPublic
        );
        assert_eq!(
            two.get_session_info().unwrap().session_state(),
            SessionState::RwUser
        );
        login(&one, PIN).unwrap();
        assert_eq!(
            one.get_session_info().unwrap().session_state(),
            SessionState::RwUser,
            "it happens once"
        );
    });
}

#[test]
fn sessions_beyond_the_limit_are_refused() {
    Fixture::new().run(|faults| {
        let module = start();
        let (one, two) = (slot(&module, ONE), slot(&module, TWO));
        faults.set([token(ONE).session_limit(2)]);
        let info = module.get_token_info(one).unwrap();
        assert!(matches!(info.max_session_count(), Limit::Max(2)));
        assert!(matches!(info.max_rw_session_count(), Limit::Max(2)));
        let info = module.get_token_info(two).unwrap();
        assert!(!matches!(info.max_session_count(), Limit::Max(2)));

        let first = module.open_ro_session(one).unwrap();
        let _second = module.open_rw_session(one).unwrap();
        assert_eq!(code(module.open_ro_session(one)), RvError::SessionCount);
        let _others: Vec<_> = (0..3)
            .map(|_| module.open_ro_session(two).unwrap())
            .collect();
        first.close().unwrap();
        let _third = module.open_ro_session(one).unwrap();
        assert_eq!(code(module.open_ro_session(one)), RvError::SessionCount);
    });
}

#[test]
fn threads_cannot_exceed_the_limit_together() {
    Fixture::new().run(|faults| {
        let module = start();
        let one = slot(&module, ONE);
        faults.set([token(ONE).session_limit(3)]);
        let opened = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let session = module.open_ro_session(one);
                    opened.lock().unwrap().extend(session);
                });
            }
        });
        let opened = opened.into_inner().unwrap();
        assert!((1..=3).contains(&opened.len()), "{} sessions", opened.len());
    });
}
