//! Logins: retry counters, PIN pads, and keys that want a login for each signature.

use cryptoki::error::RvError;
use cryptoki::object::{Attribute, AttributeType, ObjectClass};
use cryptoki::session::UserType;
use cryptoki::slot::TokenInfo;
use p11_fault_module::cryptoki_sys::{CKR_OK, CKR_USER_NOT_LOGGED_IN};
use p11_fault_module::{Function::*, Pin, Rule, token};

use crate::fixture::*;

/// The user's flags: count low, final try, locked.
fn user_flags(token: &TokenInfo) -> (bool, bool, bool) {
    (
        token.user_pin_count_low(),
        token.user_pin_final_try(),
        token.user_pin_locked(),
    )
}

#[test]
fn wrong_pins_lock_the_token_and_a_restart_does_not_unlock_it() {
    let fixture = Fixture::new();
    fixture.faults.set([token(ONE).pin_tries(Pin::User, 3)]);
    fixture.run(|_| {
        let module = start();
        let session = open(&module, ONE);
        let flags = || user_flags(&module.get_token_info(slot(&module, ONE)).unwrap());
        assert_eq!(flags(), (false, false, false));
        assert_eq!(code(login(&session, "0000")), RvError::PinIncorrect);
        assert_eq!(flags(), (true, false, false));
        // The right PIN restores all tries.
        login(&session, PIN).unwrap();
        assert_eq!(flags(), (false, false, false));
        // Another login is no try.
        assert_eq!(code(login(&session, PIN)), RvError::UserAlreadyLoggedIn);
        assert_eq!(flags(), (false, false, false));
        session.logout().unwrap();

        assert_eq!(code(login(&session, "0000")), RvError::PinIncorrect);
        assert_eq!(code(login(&session, "0000")), RvError::PinIncorrect);
        assert_eq!(flags(), (true, true, false));
        assert_eq!(code(login(&session, "0000")), RvError::PinIncorrect);
        assert_eq!(flags(), (true, false, true));
        assert_eq!(code(login(&session, PIN)), RvError::PinLocked);
        // The other token has no such counter.
        login(&open(&module, TWO), PIN).unwrap();
    });
    fixture.run(|faults| {
        let module = start();
        let session = open(&module, ONE);
        assert_eq!(code(login(&session, PIN)), RvError::PinLocked);
        faults.unlock_pins();
        login(&session, PIN).unwrap();
    });
}

#[test]
fn the_so_has_a_counter_of_its_own_and_unlocks_the_user() {
    Fixture::new().run(|faults| {
        faults.set([
            token(ONE).pin_tries(Pin::So, 2),
            token(ONE).pin_tries(Pin::User, 1),
        ]);
        let module = start();
        let session = open(&module, ONE);
        let so = |so_pin| session.login(UserType::So, Some(&pin(so_pin)));
        let info = || module.get_token_info(slot(&module, ONE)).unwrap();

        assert_eq!(user_flags(&info()), (false, true, false));
        assert_eq!(code(login(&session, "0000")), RvError::PinIncorrect);
        assert!(info().user_pin_locked() && !info().so_pin_count_low());

        assert_eq!(code(so("0000")), RvError::PinIncorrect);
        assert!(info().so_pin_count_low() && info().so_pin_final_try() && !info().so_pin_locked());
        so(SO_PIN).unwrap();
        assert!(!info().so_pin_count_low() && !info().so_pin_final_try());
        session.init_pin(&pin(PIN)).unwrap();
        session.logout().unwrap();
        login(&session, PIN).expect("the SO unlocked the user's PIN");
        session.logout().unwrap();

        assert_eq!(code(so("0000")), RvError::PinIncorrect);
        session.close().unwrap();
        // Initialising the token asks for the same PIN.
        assert_eq!(
            code(module.init_token(slot(&module, ONE), &pin("0000"), ONE)),
            RvError::PinIncorrect
        );
        assert!(info().so_pin_locked());
        assert_eq!(
            code(module.init_token(slot(&module, ONE), &pin(SO_PIN), ONE)),
            RvError::PinLocked
        );
    });
}

#[test]
fn changing_the_pin_with_a_wrong_old_one_is_a_try_too() {
    Fixture::new().run(|faults| {
        faults.set([token(ONE).pin_tries(Pin::User, 2)]);
        let module = start();
        let session = open_and_login(&module, ONE);
        let change = |old, new| session.set_pin(&pin(old), &pin(new));
        assert_eq!(code(change("0000", "4321")), RvError::PinIncorrect);
        let token = module.get_token_info(slot(&module, ONE)).unwrap();
        assert_eq!(user_flags(&token), (true, true, false));
        change(PIN, "4321").unwrap();
        let token = module.get_token_info(slot(&module, ONE)).unwrap();
        assert_eq!(user_flags(&token), (false, false, false));
        assert_eq!(code(change(PIN, "9999")), RvError::PinIncorrect);
        assert_eq!(code(change(PIN, "9999")), RvError::PinIncorrect);
        assert_eq!(code(change("4321", "9999")), RvError::PinLocked);
    });
}

#[test]
fn a_pinpad_takes_no_pin_from_the_application() {
    Fixture::new().run(|faults| {
        let module = start();
        assert!(
            !module
                .get_token_info(slot(&module, ONE))
                .unwrap()
                .protected_authentication_path()
        );
        faults.set([token(ONE).pin_pad(PIN)]);
        assert!(
            module
                .get_token_info(slot(&module, ONE))
                .unwrap()
                .protected_authentication_path()
        );
        let session = open(&module, ONE);
        assert_eq!(code(login(&session, PIN)), RvError::ArgumentsBad);
        session.login(UserType::User, None).unwrap();
        make_key(&session);
        session.logout().unwrap();
        faults.set([token(ONE).pin_pad("0000")]);
        assert_eq!(
            code(session.login(UserType::User, None)),
            RvError::PinIncorrect
        );
    });
}

#[test]
fn an_always_authenticate_key_wants_a_login_for_each_signature() {
    Fixture::new().run(|faults| {
        let module = start();
        let session = open_and_login(&module, ONE);
        let key = make_key(&session);
        faults.set([
            Rule::AlwaysAuthenticate(KEY.into()),
            token(ONE).pin_tries(Pin::User, 2),
        ]);
        let asked = [AttributeType::AlwaysAuthenticate];
        let got = |object| session.get_attributes(object, &asked).unwrap();
        assert_eq!(got(key), [Attribute::AlwaysAuthenticate(true)]);
        assert!(got(find(&session, ObjectClass::PUBLIC_KEY)).is_empty());
        let begin = || session.sign_init(&cryptoki::mechanism::Mechanism::Ecdsa, key);
        let context_login =
            |context_pin| session.login(UserType::ContextSpecific, Some(&pin(context_pin)));

        assert_eq!(code(sign(&session, key)), RvError::UserNotLoggedIn);
        // The refused signature ended the operation, so another may begin.
        begin().unwrap();
        assert_eq!(code(session.sign_update(&[7])), RvError::UserNotLoggedIn);
        assert_eq!(code(context_login("0000")), RvError::PinIncorrect);
        assert!(
            module
                .get_token_info(slot(&module, ONE))
                .unwrap()
                .user_pin_final_try()
        );
        context_login(PIN).unwrap();
        assert!(
            !module
                .get_token_info(slot(&module, ONE))
                .unwrap()
                .user_pin_final_try()
        );
        let before = faults.counts();
        assert_eq!(c_sign(&session), CKR_OK);
        assert_eq!(faults.counts().since(&before).of(C_Sign), 1);
        // One login, one signature.
        begin().unwrap();
        assert_eq!(c_sign(&session), CKR_USER_NOT_LOGGED_IN);
        assert!(
            context_login(PIN).is_err(),
            "no signature waits for a login"
        );
        // Another key does not want it.
        faults.set([Rule::AlwaysAuthenticate("another".into())]);
        sign(&session, key).unwrap();
    });
}
