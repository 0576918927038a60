//! PROTOCOL.md, from which clients are written, describes every message.

use p11_proto::{Request, Response, message::Message};

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
