//! Objects: handles that change, attributes that are hidden, replaced or fail, templates that are refused.

use cryptoki::error::RvError;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeInfo, AttributeType, ObjectClass};
use p11_fault_module::cryptoki_sys::*;
use p11_fault_module::{Rule, object, token};

use crate::fixture::*;

#[test]
fn renumbered_objects_are_found_under_new_handles_only() {
    Fixture::new().run(|faults| {
        let module = start();
        let session = open_and_login(&module, ONE);
        let old = make_key(&session);
        for round in 0..2 {
            let old = if round == 0 {
                old
            } else {
                find(&session, ObjectClass::PRIVATE_KEY)
            };
            faults.set([Rule::RenumberObjects]);
            assert_eq!(code(sign(&session, old)), RvError::KeyHandleInvalid);
            assert_eq!(
                code(session.get_attributes(old, &[AttributeType::Label])),
                RvError::ObjectHandleInvalid
            );
            assert_eq!(
                code(session.destroy_object(old)),
                RvError::ObjectHandleInvalid
            );

            let new = find(&session, ObjectClass::PRIVATE_KEY);
            sign(&session, new).unwrap();
            let label = session
                .get_attributes(new, &[AttributeType::Label])
                .unwrap();
            assert_eq!(label, [Attribute::Label(KEY.into())]);
        }
        faults.clear();
        // A new object gets a handle of the new kind.
        let made = make_key(&session);
        sign(&session, made).unwrap();
        session.destroy_object(made).unwrap();
        assert!(
            sign(&session, made).is_err(),
            "the real object was destroyed"
        );
    });
}

#[test]
fn a_hidden_attribute_is_not_there_and_the_others_are() {
    Fixture::new().run(|faults| {
        let module = start();
        let session = open_and_login(&module, ONE);
        make_key(&session);
        let public = find(&session, ObjectClass::PUBLIC_KEY);
        let private = find(&session, ObjectClass::PRIVATE_KEY);
        let asked = [
            AttributeType::Label,
            AttributeType::EcParams,
            AttributeType::KeyType,
        ];

        faults.set([object(CKO_PUBLIC_KEY, KEY).hides(CKA_EC_PARAMS)]);
        let got = session.get_attributes(public, &asked).unwrap();
        assert!(
            matches!(got.as_slice(), [Attribute::Label(_), Attribute::KeyType(_)]),
            "{got:?}"
        );
        let info = session
            .get_attribute_info(public, &[AttributeType::EcParams])
            .unwrap();
        assert_eq!(format!("{info:?}"), "[TypeInvalid]");
        // Neither another class nor another label.
        assert_eq!(session.get_attributes(private, &asked).unwrap().len(), 3);
        faults.set([object(CKO_PUBLIC_KEY, "another").hides(CKA_EC_PARAMS)]);
        assert_eq!(session.get_attributes(public, &asked).unwrap().len(), 3);
    });
}

#[test]
fn a_replaced_attribute_has_its_new_value() {
    Fixture::new().run(|faults| {
        let module = start();
        let session = open_and_login(&module, ONE);
        make_key(&session);
        let public = find(&session, ObjectClass::PUBLIC_KEY);
        let private = find(&session, ObjectClass::PRIVATE_KEY);

        // A curve by name (PrintableString), as some modules give it, and a key that may not sign.
        let name = b"\x13\x0asecp256r1\0";
        faults.set([
            object(CKO_PUBLIC_KEY, KEY).answers(CKA_EC_PARAMS, name),
            object(CKO_PRIVATE_KEY, KEY).answers(CKA_SIGN, [CK_FALSE]),
            object(CKO_PRIVATE_KEY, KEY).answers(CKA_ALLOWED_MECHANISMS, CKM_ECDSA.to_ne_bytes()),
        ]);
        let got = session
            .get_attributes(public, &[AttributeType::EcParams, AttributeType::Label])
            .unwrap();
        assert_eq!(
            got,
            [
                Attribute::EcParams(name.to_vec()),
                Attribute::Label(KEY.into())
            ]
        );
        let got = session
            .get_attributes(
                private,
                &[AttributeType::Sign, AttributeType::AllowedMechanisms],
            )
            .unwrap();
        let allowed = Attribute::AllowedMechanisms(vec![cryptoki::mechanism::MechanismType::ECDSA]);
        assert_eq!(got, [Attribute::Sign(false), allowed]);
    });
}

#[test]
fn an_attribute_may_claim_another_length() {
    Fixture::new().run(|faults| {
        let module = start();
        let session = open_and_login(&module, ONE);
        make_key(&session);
        let public = find(&session, ObjectClass::PUBLIC_KEY);
        faults.set([object(CKO_PUBLIC_KEY, KEY).claims_length(CKA_EC_PARAMS, 1 << 40)]);
        let asked = [AttributeType::EcParams, AttributeType::Label];
        let info = session.get_attribute_info(public, &asked).unwrap();
        assert!(
            matches!(
                info[..],
                [
                    AttributeInfo::Available(0x100_0000_0000),
                    AttributeInfo::Available(7)
                ]
            ),
            "{info:?}"
        );
    });
}

#[test]
fn a_search_may_never_end() {
    Fixture::new().run(|faults| {
        let module = start();
        let session = open_and_login(&module, ONE);
        make_key(&session);
        faults.set([token(ONE).endless_search()]);
        let objects = session.iter_objects(&[]).unwrap();
        let found: Vec<_> = objects.take(1000).collect::<Result<_, _>>().unwrap();
        assert_eq!(found.len(), 1000);
        assert_eq!(found[2], found[1]);
        faults.clear();
        assert_eq!(session.find_objects(&[]).unwrap().len(), 2);
    });
}

#[test]
fn an_attribute_may_fail_the_whole_call() {
    Fixture::new().run(|faults| {
        let module = start();
        let session = open_and_login(&module, ONE);
        make_key(&session);
        let private = find(&session, ObjectClass::PRIVATE_KEY);
        faults.set([object(CKO_PRIVATE_KEY, KEY).fails(CKA_EC_POINT, CKR_FUNCTION_FAILED)]);
        let asked = [AttributeType::Label, AttributeType::EcPoint];
        assert_eq!(
            code(session.get_attributes(private, &asked)),
            RvError::FunctionFailed
        );
        assert_eq!(
            session
                .get_attributes(private, &[AttributeType::Label])
                .unwrap()
                .len(),
            1
        );
    });
}

#[test]
fn a_private_template_may_have_to_name_what_the_real_module_refuses() {
    Fixture::new().run(|faults| {
        let module = start();
        let session = open_and_login(&module, ONE);
        let public = [Attribute::EcParams(P256.to_vec())];
        let generate = |private: &[Attribute]| {
            session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, private)
        };
        let parameters = Attribute::EcParams(P256.to_vec());
        let class = Attribute::Class(ObjectClass::PRIVATE_KEY);
        assert!(
            generate(std::slice::from_ref(&parameters)).is_err(),
            "SoftHSM refuses it"
        );

        faults.set([
            token(ONE).demands_in_private_template(CKA_CLASS),
            token(ONE).demands_in_private_template(CKA_EC_PARAMS),
        ]);
        for incomplete in [vec![], vec![class.clone()], vec![parameters.clone()]] {
            assert_eq!(
                code(generate(&incomplete)),
                RvError::TemplateInconsistent,
                "{incomplete:?}"
            );
        }
        let (_, key) = generate(&[class, Attribute::Sign(true), parameters]).unwrap();
        sign(&session, key).unwrap();
    });
}
