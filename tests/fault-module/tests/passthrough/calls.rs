//! Counts, and rules about calls: return, delay, hang, abort.

use std::os::unix::process::ExitStatusExt;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use cryptoki::context::Pkcs11;
use cryptoki::error::RvError;
use p11_fault_module::cryptoki_sys::*;
use p11_fault_module::{Faults, Function::*, On, on, token};

use crate::fixture::*;

#[test]
fn every_call_is_counted_and_none_of_the_modules_own() {
    let fixture = Fixture::new();
    fixture.run(|faults| {
        let module = start();
        let session = open_and_login(&module, ONE);
        let key = make_key(&session);
        // With a rule that makes the module ask the real one for labels.
        faults.set([
            on(C_Sign).at(TWO).returns(CKR_DEVICE_ERROR),
            token(ONE).session_limit(9),
        ]);

        let before = faults.counts();
        sign(&session, key).unwrap();
        let calls = faults.counts().since(&before);
        assert_eq!(calls.to_string(), "C_SignInit 1, C_Sign 2");
        assert_eq!((calls.total(), calls.injected()), (3, 0));
    });
    // The counts outlive the process.
    assert_eq!(fixture.faults.count(C_Initialize), 1);
    assert_eq!(fixture.faults.count(C_GetFunctionList), 1);
}

#[test]
fn a_process_that_loads_the_module_twice_has_one_state() {
    Fixture::new().run(|faults| {
        faults.set([token(ONE).session_limit(1)]);
        let module = start();
        let session = module.open_ro_session_no_drop(slot(&module, ONE)).unwrap();
        drop((session, module));
        // Still initialised, and the session is still open.
        let module = load();
        assert_eq!(
            code(initialize(&module)),
            RvError::CryptokiAlreadyInitialized
        );
        assert_eq!(
            code(module.open_ro_session(slot(&module, ONE))),
            RvError::SessionCount
        );
    });
}

#[test]
fn without_its_environment_the_module_refuses_to_load_and_says_why() {
    let fixture = Fixture::new();
    let exit = fixture.run_without("P11_FAULT_MODULE", |_| {
        assert_eq!(
            code(Pkcs11::new(Faults::module_path())),
            RvError::GeneralError
        );
    });
    assert!(exit.status.success());
    assert!(
        exit.stderr.contains("P11_FAULT_MODULE is not set"),
        "stderr: {}",
        exit.stderr
    );
}

#[test]
fn a_rule_that_cannot_be_read_is_told_on_stderr() {
    let fixture = Fixture::new();
    let exit = fixture.run_to_exit(|faults| {
        let [_, (_, folder)] = faults.envs();
        std::fs::write(
            std::path::Path::new(&folder).join("rules"),
            r#"[{"HangUp":{"function":"C_Sign"}}]"#,
        )
        .unwrap();
        start();
    });
    assert!(exit.status.success());
    assert!(
        exit.stderr.contains("unknown variant `HangUp`"),
        "stderr: {}",
        exit.stderr
    );
}

#[test]
fn each_change_of_the_rules_is_seen_at_the_next_call() {
    Fixture::new().run(|faults| {
        let module = start();
        let slot = slot(&module, ONE);
        for round in 0..200 {
            // Lines of equal length, set faster than the file system's clock ticks and its inodes are reused.
            faults.set([on(C_GetSlotInfo).returns(CKR_DEVICE_ERROR)]);
            assert_eq!(
                code(module.get_slot_info(slot)),
                RvError::DeviceError,
                "round {round}"
            );
            faults.set([on(C_GetSlotInfo).returns(CKR_DEVICE_REMOVED)]);
            faults.set([on(C_GetSlotInfo).returns(CKR_DEVICE_MEMORY)]);
            assert_eq!(
                code(module.get_slot_info(slot)),
                RvError::DeviceMemory,
                "round {round}"
            );
        }
        faults.clear();
        module.get_slot_info(slot).unwrap();
    });
}

#[test]
fn a_rule_acts_always_next_every_k_th_time_or_by_chance() {
    Fixture::new().run(|faults| {
        let module = start();
        let slot = slot(&module, ONE);
        let failures = |calls: usize| -> Vec<usize> {
            (0..calls)
                .filter(|_| module.get_slot_info(slot).is_err())
                .collect()
        };

        faults.set([on(C_GetSlotInfo).returns(CKR_DEVICE_ERROR)]);
        assert_eq!(failures(3), [0, 1, 2]);
        faults.set([on(C_GetSlotInfo).next(2).returns(CKR_DEVICE_ERROR)]);
        assert_eq!(failures(5), [0, 1]);
        faults.set([on(C_GetSlotInfo).every(3).returns(CKR_DEVICE_ERROR)]);
        assert_eq!(failures(7), [2, 5]);

        let chance = |seed| {
            on(C_GetSlotInfo)
                .random(0.2, seed)
                .returns(CKR_DEVICE_ERROR)
        };
        faults.set([chance(1)]);
        let first = failures(500);
        assert!(
            (60..140).contains(&first.len()),
            "{} of 500 for a chance of 0.2",
            first.len()
        );
        faults.set([chance(1)]);
        assert_eq!(failures(500), first, "the same seed");
        faults.set([chance(2)]);
        assert_ne!(failures(500), first, "another seed");
        let expected = 3 + 2 + 2 + 2 * first.len() as u64;
        assert!(faults.counts().injected() > expected);
    });
}

#[test]
fn c_initialize_fails_for_a_while() {
    Fixture::new().run(|faults| {
        faults.set([on(C_Initialize).next(2).returns(CKR_GENERAL_ERROR)]);
        let module = load();
        assert_eq!(code(initialize(&module)), RvError::GeneralError);
        assert_eq!(code(initialize(&module)), RvError::GeneralError);
        initialize(&module).unwrap();
    });
}

#[test]
fn a_return_comes_instead_of_the_call_or_after_it() {
    Fixture::new().run(|faults| {
        let module = start();
        let session = open_and_login(&module, ONE);
        let key = make_key(&session);

        faults.set([on(C_Logout).returns(CKR_DEVICE_ERROR)]);
        assert_eq!(code(session.logout()), RvError::DeviceError);
        sign(&session, key).expect("C_Logout was not done");

        faults.set([on(C_Logout).after().returns(CKR_DEVICE_ERROR)]);
        assert_eq!(code(session.logout()), RvError::DeviceError);
        assert!(sign(&session, key).is_err(), "C_Logout was done");
    });
}

#[test]
fn a_rule_may_be_about_one_token() {
    Fixture::new().run(|faults| {
        let module = start();
        let (one, two) = (slot(&module, ONE), slot(&module, TWO));
        // A sick slot: it is there, and its token cannot be asked.
        faults.set([
            on(C_GetTokenInfo).at(ONE).returns(CKR_TOKEN_NOT_RECOGNIZED),
            on(C_GetSessionInfo)
                .at(TWO)
                .next(1)
                .returns(CKR_DEVICE_ERROR),
        ]);
        assert_eq!(
            code(module.get_token_info(one)),
            RvError::TokenNotRecognized
        );
        assert_eq!(module.get_token_info(two).unwrap().label(), TWO);

        // By the session's token, and a call on another token uses nothing up.
        let (on_one, on_two) = (
            module.open_ro_session(one).unwrap(),
            module.open_ro_session(two).unwrap(),
        );
        on_one.get_session_info().unwrap();
        assert_eq!(code(on_two.get_session_info()), RvError::DeviceError);
        on_two.get_session_info().unwrap();
    });
}

#[test]
fn a_delayed_call_is_late_and_blocks_no_other() {
    Fixture::new().run(|faults| {
        let module = start();
        let slot = slot(&module, ONE);
        faults.set([on(C_GetSlotInfo).delays(500)]);
        let before = faults.counts();
        let start = Instant::now();
        thread::scope(|scope| {
            let late = || scope.spawn(|| module.get_slot_info(slot).unwrap());
            let late = [late(), late()];
            while faults.counts().since(&before).of(C_GetSlotInfo) < 2 {
                thread::yield_now();
            }
            module.get_token_info(slot).unwrap();
            assert!(
                !late.iter().any(|call| call.is_finished()),
                "the other call waited for them"
            );
        });
        assert!(
            start.elapsed() >= Duration::from_millis(500),
            "not late: {:?}",
            start.elapsed()
        );
        assert_eq!(faults.counts().max_concurrent(), 3);
    });
}

#[test]
fn a_hung_call_goes_on_when_its_rule_is_gone() {
    Fixture::new().run(|faults| {
        let module = start();
        let slot = slot(&module, ONE);
        faults.set([on(C_GetSlotInfo).next(1).hangs()]);
        let (done, returned) = mpsc::channel();
        let hung = module.clone();
        let before = faults.count(C_GetSlotInfo);
        thread::spawn(move || done.send(hung.get_slot_info(slot)));
        while faults.count(C_GetSlotInfo) == before {
            thread::yield_now();
        }
        thread::sleep(Duration::from_millis(100));
        module.get_slot_info(slot).expect("only one call hangs");
        assert!(returned.try_recv().is_err(), "the call did not hang");
        faults.clear();
        returned
            .recv_timeout(Duration::from_secs(5))
            .expect("the call still hangs")
            .unwrap();
    });
}

#[test]
fn calls_hang_with_and_without_a_token() {
    Fixture::new().run(|faults| {
        let module = load();
        let hangs = |rule: On, call: &(dyn Fn() + Sync)| {
            let before = faults.counts().injected();
            faults.set([rule.next(1).hangs()]);
            thread::scope(|scope| {
                let hung = scope.spawn(call);
                while faults.counts().injected() == before {
                    thread::yield_now();
                }
                thread::sleep(Duration::from_millis(20));
                assert!(!hung.is_finished());
                faults.clear();
            });
        };
        hangs(on(C_Initialize), &|| initialize(&module).unwrap());
        hangs(on(C_GetSlotList), &|| drop(module.get_all_slots().unwrap()));
        let one = slot(&module, ONE);
        hangs(on(C_GetTokenInfo).at(ONE), &|| {
            module.get_token_info(one).unwrap();
        });
        hangs(on(C_OpenSession).at(ONE).after(), &|| {
            drop(module.open_ro_session(one).unwrap());
        });
        hangs(on(C_CloseSession).at(ONE), &|| {
            module.open_ro_session(one).unwrap().close().unwrap();
        });
        hangs(on(C_Finalize), &|| module.clone().finalize().unwrap());
    });
}

#[test]
fn counts_and_lengths_may_be_other_than_what_was_written() {
    Fixture::new().run(|faults| {
        let module = start();
        let session = open_and_login(&module, ONE);
        let key = make_key(&session);
        faults.set([on(C_GetSlotList).counts(0)]);
        assert_eq!(module.get_all_slots().unwrap(), []);
        faults.set([on(C_FindObjects).counts(0)]);
        assert_eq!(session.find_objects(&[]).unwrap(), []);
        // In the second call, after the one that asks for the length.
        faults.set([on(C_Sign).every(2).counts(7)]);
        assert_eq!(sign(&session, key).unwrap().len(), 7);
        // A function that tells no count is called as ever.
        faults.set([on(C_SignInit).counts(7)]);
        assert_eq!(sign(&session, key).unwrap().len(), 64);
    });
}

#[test]
fn a_call_may_hang_for_ever() {
    Fixture::new().run(|faults| {
        let module = start();
        let slot = slot(&module, ONE);
        faults.set([on(C_GetSlotInfo).next(1).hangs_forever()]);
        let (done, returned) = mpsc::channel();
        let hung = module.clone();
        let before = faults.count(C_GetSlotInfo);
        thread::spawn(move || done.send(hung.get_slot_info(slot)));
        while faults.count(C_GetSlotInfo) == before {
            thread::yield_now();
        }
        faults.clear();
        assert!(
            returned.recv_timeout(Duration::from_millis(200)).is_err(),
            "the call returned"
        );
        // Changes that wait for running calls do not wait for this one.
        faults.set([token(ONE).sessions_closed()]);
        module.get_slot_info(slot).unwrap();
    });
}

#[test]
fn a_call_may_abort_the_process() {
    let fixture = Fixture::new();
    let exit = fixture.run_to_exit(|faults| {
        faults.set([on(C_GetSlotList).aborts()]);
        let _ = start().get_all_slots();
    });
    assert_eq!(exit.status.signal(), Some(6), "no SIGABRT: {}", exit.status);
}

#[test]
fn a_module_that_cannot_lock_says_so_and_the_threads_in_it_are_counted() {
    Fixture::new().run(|faults| {
        faults.set([
            p11_fault_module::Rule::CantLock,
            on(C_GetSlotInfo).delays(50),
        ]);
        let module = load();
        assert_eq!(code(initialize(&module)), RvError::CantLock);
        assert_eq!(
            faults.counts().max_concurrent(),
            0,
            "initialising does not count"
        );
        let flags = cryptoki::context::CInitializeFlags::empty();
        module
            .initialize(cryptoki::context::CInitializeArgs::new(flags))
            .unwrap();

        let slot = slot(&module, ONE);
        module.get_slot_info(slot).unwrap();
        assert_eq!(faults.counts().max_concurrent(), 1);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| module.get_slot_info(slot).unwrap());
            }
        });
        assert_eq!(faults.counts().max_concurrent(), 3);
        faults.forget_max_concurrent();
        assert_eq!(faults.counts().max_concurrent(), 0);
    });
}
