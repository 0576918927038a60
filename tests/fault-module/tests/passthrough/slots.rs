//! Slots that are renumbered or swapped, and tokens that are pulled out.

use std::collections::BTreeSet;

use cryptoki::error::RvError;
use cryptoki::slot::Slot;
use p11_fault_module::{Rule, token};

use crate::fixture::*;

#[test]
fn renumbered_slots_have_new_ids_everywhere() {
    Fixture::new().run(|faults| {
        let module = start();
        let old = slot(&module, ONE);
        let old_ids: BTreeSet<u64> = module
            .get_all_slots()
            .unwrap()
            .iter()
            .map(Slot::id)
            .collect();
        let session = module.open_ro_session(old).unwrap();

        faults.set([Rule::SlotOffset(5)]);
        let ids: BTreeSet<u64> = module
            .get_all_slots()
            .unwrap()
            .iter()
            .map(Slot::id)
            .collect();
        assert_eq!(ids, old_ids.iter().map(|id| id + 5).collect());
        let new = slot(&module, ONE);
        assert_eq!(new.id(), old.id() + 5);
        assert_eq!(
            session.get_session_info().unwrap().slot_id().id(),
            new.id(),
            "an open session tells the new id"
        );
        for gone in [old, Slot::try_from(4u32).unwrap()] {
            assert_eq!(code(module.get_slot_info(gone)), RvError::SlotIdInvalid);
            assert_eq!(code(module.get_token_info(gone)), RvError::SlotIdInvalid);
            assert_eq!(
                code(module.get_mechanism_list(gone)),
                RvError::SlotIdInvalid
            );
            assert_eq!(code(module.open_ro_session(gone)), RvError::SlotIdInvalid);
        }
        module.get_slot_info(new).unwrap();
        assert!(!module.get_mechanism_list(new).unwrap().is_empty());
        module.open_ro_session(new).unwrap();
    });
}

#[test]
fn swapped_slots_exchange_their_tokens() {
    Fixture::new().run(|faults| {
        let module = start();
        let (one, two) = (slot(&module, ONE), slot(&module, TWO));
        let session = module.open_ro_session(one).unwrap();
        faults.set([Rule::SwapSlots(ONE.into(), TWO.into())]);
        assert_eq!((slot(&module, TWO), slot(&module, ONE)), (one, two));
        let opened = module.open_ro_session(one).unwrap();
        assert_eq!(opened.get_session_info().unwrap().slot_id(), one);
        assert_eq!(
            session.get_session_info().unwrap().slot_id(),
            two,
            "an open session stays with its token"
        );

        faults.set([Rule::SwapSlots(ONE.into(), TWO.into()), Rule::SlotOffset(7)]);
        assert_eq!(
            (slot(&module, TWO).id(), slot(&module, ONE).id()),
            (one.id() + 7, two.id() + 7)
        );
    });
}

#[test]
fn a_hidden_token_is_gone_with_its_sessions_and_comes_back_without_them() {
    Fixture::new().run(|faults| {
        let module = start();
        let (one, two) = (slot(&module, ONE), slot(&module, TWO));
        let session = open_and_login(&module, ONE);
        let key = make_key(&session);
        let other = module.open_ro_session(two).unwrap();

        faults.set([token(ONE).hidden()]);
        assert!(!module.get_slots_with_token().unwrap().contains(&one));
        assert!(module.get_slots_with_token().unwrap().contains(&two));
        assert!(
            module.get_all_slots().unwrap().contains(&one),
            "the reader is still there"
        );
        assert!(!module.get_slot_info(one).unwrap().token_present());
        assert_eq!(code(module.get_token_info(one)), RvError::TokenNotPresent);
        assert_eq!(
            code(module.get_mechanism_list(one)),
            RvError::TokenNotPresent
        );
        assert_eq!(code(module.open_ro_session(one)), RvError::TokenNotPresent);
        assert_eq!(code(sign(&session, key)), RvError::DeviceRemoved);
        assert_eq!(code(session.get_session_info()), RvError::DeviceRemoved);
        other
            .get_session_info()
            .expect("the other token is untouched");

        faults.clear();
        assert_eq!(slot(&module, ONE), one);
        assert!(module.get_slot_info(one).unwrap().token_present());
        assert_eq!(code(sign(&session, key)), RvError::SessionHandleInvalid);
        // The login went with the token.
        let session = open(&module, ONE);
        login(&session, PIN).unwrap();
    });
}
