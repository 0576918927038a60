//! Tokens that can do less than the real one.

use cryptoki::error::RvError;
use cryptoki::mechanism::MechanismType;
use p11_fault_module::cryptoki_sys::*;
use p11_fault_module::{every_token, token};

use crate::fixture::*;

#[test]
fn a_mechanism_that_is_lacking_is_neither_listed_nor_usable() {
    Fixture::new().run(|faults| {
        let module = start();
        let (one, two) = (slot(&module, ONE), slot(&module, TWO));
        let all = module.get_mechanism_list(one).unwrap();
        let session = open_and_login(&module, ONE);
        let key = make_key(&session);
        let other = open_and_login(&module, TWO);
        let other_key = make_key(&other);

        faults.set([token(ONE).without_mechanisms([CKM_ECDSA, CKM_RSA_PKCS_PSS])]);
        let left = module.get_mechanism_list(one).unwrap();
        assert_eq!(left.len(), all.len() - 2);
        assert!(
            !left.contains(&MechanismType::ECDSA) && !left.contains(&MechanismType::RSA_PKCS_PSS)
        );
        assert_eq!(
            code(module.get_mechanism_info(one, MechanismType::ECDSA)),
            RvError::MechanismInvalid
        );
        module
            .get_mechanism_info(one, MechanismType::RSA_PKCS)
            .unwrap();
        assert_eq!(code(sign(&session, key)), RvError::MechanismInvalid);

        assert_eq!(module.get_mechanism_list(two).unwrap(), all);
        sign(&other, other_key).unwrap();
    });
}

#[test]
fn a_token_may_ask_for_no_login() {
    Fixture::new().run(|faults| {
        let module = start();
        let one = slot(&module, ONE);
        assert!(module.get_token_info(one).unwrap().login_required());
        faults.set([every_token().asks_no_login()]);
        assert!(!module.get_token_info(one).unwrap().login_required());
    });
}

#[test]
fn a_token_may_seem_not_to_be_initialised() {
    Fixture::new().run(|faults| {
        let module = start();
        let is_initialized = |label| {
            let info = module.get_token_info(slot(&module, label)).unwrap();
            (info.token_initialized(), info.user_pin_initialized())
        };
        faults.set([token(ONE).uninitialized()]);
        assert_eq!(is_initialized(ONE), (false, false));
        assert_eq!(is_initialized(TWO), (true, true));
    });
}
