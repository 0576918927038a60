//! PROTOCOL.md, from which clients are written, describes every message.

use std::collections::BTreeSet;

use p11_proto::{
    ErrorCode, Request, Response,
    message::{
        Account, Counters, HungCall, LastError, LoginState, Message, ModuleStatus, PinOwner,
        Setting, Source, Status, StatusDetails, TokenStatus,
    },
};
use serde_json::Value;

#[test]
fn the_page_has_a_row_for_every_message_and_a_section_for_every_request() {
    let page = include_str!("../../../PROTOCOL.md");
    for name in Request::NAMES.iter().chain(Response::NAMES) {
        let row = format!("| `{name}` |");
        assert!(page.contains(&row), "no row for {name}");
    }
    for name in Request::NAMES {
        let alone = ["Ping", "Status"].contains(name);
        let section = format!("### {name}\n");
        assert!(alone || page.contains(&section), "no section for {name}");
    }
}

#[test]
fn the_page_names_every_field_of_a_status() {
    let page = include_str!("../../../PROTOCOL.md");
    let mut names = BTreeSet::new();
    collect(&serde_json::to_value(whole_status()).unwrap(), &mut names);
    assert!(names.len() > 35, "{names:?}");
    for name in names {
        assert!(page.contains(&format!("`{name}`")), "no {name}");
    }
}

fn collect(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                names.insert(name.clone());
                collect(value, names);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, names)),
        _ => {}
    }
}

fn whole_status() -> Status {
    let text = || Some("x".to_owned());
    let module = ModuleStatus::new("x")
        .description(text())
        .manufacturer(text())
        .version(text());
    let counters = Counters::new(1_u64, 1_u64, 1_u64, 1_u64)
        .connections(1)
        .signed_at(1)
        .signing_us(1);
    let token = TokenStatus::new("x", "x", LoginState::Refused)
        .since(1)
        .pin_owner(PinOwner::Server)
        .pin_origin(text())
        .reason(text());
    let setting = Setting::new("x", Source::File)
        .value(text())
        .place(text())
        .line(1);
    let error = LastError::new(1_u64, ErrorCode::Module, "x")
        .function(text())
        .ckr(text());
    let details = StatusDetails::new(module, counters)
        .tokens(vec![token])
        .hung(vec![HungCall::new("x", 1_u64).token(text())])
        .settings(vec![setting])
        .last_error(error);
    Status::new("x", true)
        .trouble(text())
        .version(text())
        .uptime(1)
        .account(Account::new(0_u32).user(text()))
        .allowed(vec!["x".to_owned()])
        .details(Box::new(details))
}
