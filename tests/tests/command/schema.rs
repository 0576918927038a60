//! Answers in JSON have the fields that docs/command.md lists, and no others.

use std::{collections::BTreeMap, fs};

use serde_json::Value;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/command.md");

/// Panics if this is not what the page says of the command, or of an error.
pub(crate) fn check(command: &str, answer: &Value) {
    let section = match answer.get("error") {
        Some(_) => "error",
        None => command,
    };
    let listed = fields(section);
    assert!(
        !listed.is_empty(),
        "docs/command.md has no table for {section}"
    );
    let mut found = BTreeMap::new();
    walk("", answer, &mut found);
    for (path, kind) in &found {
        let listed = listed
            .get(path)
            .unwrap_or_else(|| panic!("{path} of {section} is not listed"));
        let is_right =
            listed.trim_end_matches('?') == *kind || *kind == "null" && listed.ends_with('?');
        assert!(is_right, "{path} of {section} is {kind}, not {listed}");
    }
    for path in listed.keys() {
        // An empty list and what is null have no fields.
        let list = path.split_once("[]").map(|(list, _)| format!("{list}[]"));
        let is_empty = list.is_some_and(|list| !found.keys().any(|path| path.starts_with(&list)));
        let parent = path.rsplit_once('.').map_or("", |(parent, _)| parent);
        let is_in_nothing = is_empty || found.get(parent) == Some(&"null");
        assert!(
            found.contains_key(path) || is_in_nothing,
            "{path} of {section} is missing"
        );
    }
}

/// The paths of the section's table, each with its type.
fn fields(section: &str) -> BTreeMap<String, String> {
    let page = fs::read_to_string(PAGE).unwrap();
    let heading = format!("### `{section}`");
    let lines = page.lines().skip_while(|line| *line != heading).skip(1);
    let mut fields = BTreeMap::new();
    for line in lines.take_while(|line| !line.starts_with("## ") && !line.starts_with("### ")) {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [_, paths, kind, ..] = cells.as_slice() else {
            continue;
        };
        for path in paths.split(", ").filter_map(|path| path.strip_prefix('`')) {
            fields.insert(path.trim_end_matches('`').to_owned(), (*kind).to_owned());
        }
    }
    fields
}

fn walk(path: &str, value: &Value, found: &mut BTreeMap<String, &'static str>) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(entries) => {
            for entry in entries {
                walk(&format!("{path}[]"), entry, found);
            }
            "list"
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = match path {
                    "" => name.clone(),
                    _ => format!("{path}.{name}"),
                };
                walk(&path, value, found);
            }
            "object"
        }
    };
    // Of an object the fields are listed; one that may be null is listed itself, too.
    let is_listed_by_its_fields =
        path.is_empty() || path == "error" || path.ends_with(']') && kind == "object";
    if !is_listed_by_its_fields {
        found.insert(path.to_owned(), kind);
    }
}
