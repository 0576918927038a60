//! The text of a policy file enters; its rules leave, or which line is wrong and what may stand there.

use nix::unistd::{Gid, Group, Uid, User};
use p11_uri::Uri;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Operation, Rule};

type Value<'t> = Spanned<DeValue<'t>>;

pub(super) fn rules(text: &str) -> Result<Vec<Rule>, String> {
    file(text).map_err(|wrong| {
        let before = text.bytes().take(wrong.at);
        let line = 1 + before.filter(|byte| *byte == b'\n').count();
        match wrong.rule {
            Some(number) => format!("line {line}, rule {number}: {}", wrong.what),
            None => format!("line {line}: {}", wrong.what),
        }
    })
}

/// What cannot be used.
struct Wrong {
    /// Where it begins, in bytes.
    at: usize,
    rule: Option<usize>,
    what: String,
}

impl Wrong {
    fn new<T>(at: &Spanned<T>, what: String) -> Wrong {
        Wrong {
            at: at.span().start,
            rule: None,
            what,
        }
    }

    fn unexpected(value: &Value<'_>, expected: &str) -> Wrong {
        let found = value.get_ref().type_str();
        Wrong::new(
            value,
            format!("expected {expected}, found a value of type {found}"),
        )
    }
}

fn file(text: &str) -> Result<Vec<Rule>, Wrong> {
    let file = DeTable::parse(text).map_err(|error| Wrong {
        at: error.span().map_or(0, |span| span.start),
        rule: None,
        what: error.message().to_owned(),
    })?;
    let mut rules = Vec::new();
    for (key, value) in file.get_ref() {
        if key.get_ref() != "rule" {
            let what = format!("unknown field `{key}`; a policy is made of [[rule]]");
            return Err(Wrong::new(key, what));
        }
        let DeValue::Array(tables) = value.get_ref() else {
            return Err(Wrong::unexpected(value, "[[rule]] for each rule"));
        };
        for (number, table) in (1..).zip(tables.iter()) {
            let rule = rule(number, table).map_err(|wrong| Wrong {
                rule: Some(number),
                ..wrong
            });
            rules.push(rule?);
        }
    }
    Ok(rules)
}

fn rule(number: usize, value: &Value<'_>) -> Result<Rule, Wrong> {
    let DeValue::Table(table) = value.get_ref() else {
        return Err(Wrong::unexpected(value, "[[rule]] for each rule"));
    };
    let mut rule = Rule {
        number,
        users: Vec::new(),
        groups: Vec::new(),
        operations: Vec::new(),
        uri: Uri::default(),
    };
    for (key, value) in table {
        match key.get_ref().as_ref() {
            "users" => rule.users = list(value, r#"["tedge", 1000]"#, uid)?,
            "groups" => rule.groups = list(value, r#"["iot", 1000]"#, gid)?,
            "operations" => rule.operations = list(value, r#"["sign", "list"]"#, operation)?,
            "uri" => rule.uri = uri(value)?,
            _ => {
                let what = format!(
                    "unknown field `{key}`; a rule has `users`, `groups`, `operations` and `uri`"
                );
                return Err(Wrong::new(key, what));
            }
        }
    }
    if rule.users.is_empty() && rule.groups.is_empty() {
        let what = "it is for nobody; give it users or groups";
        return Err(Wrong::new(value, what.into()));
    }
    if rule.operations.is_empty() {
        let what = format!("it allows nothing; give it operations, of {}", operations());
        return Err(Wrong::new(value, what));
    }
    Ok(rule)
}

fn list<T>(
    value: &Value<'_>,
    example: &str,
    item: fn(&Value<'_>) -> Result<T, Wrong>,
) -> Result<Vec<T>, Wrong> {
    match value.get_ref() {
        DeValue::Array(items) => items.iter().map(item).collect(),
        _ => Err(Wrong::unexpected(
            value,
            &format!("a list such as {example}"),
        )),
    }
}

fn operation(value: &Value<'_>) -> Result<Operation, Wrong> {
    let DeValue::String(name) = value.get_ref() else {
        return Err(Wrong::unexpected(
            value,
            &format!("one of {}", operations()),
        ));
    };
    let named = Operation::ALL
        .into_iter()
        .find(|known| known.name() == name);
    named.ok_or_else(|| {
        let what = format!("there is no operation {name:?}; there are {}", operations());
        Wrong::new(value, what)
    })
}

fn operations() -> String {
    Operation::ALL.map(Operation::name).join(", ")
}

fn uri(value: &Value<'_>) -> Result<Uri, Wrong> {
    let DeValue::String(text) = value.get_ref() else {
        return Err(Wrong::unexpected(
            value,
            "a URI such as \"pkcs11:token=device\"",
        ));
    };
    let uri = Uri::parse(text).map_err(|error| Wrong::new(value, error.to_string()))?;
    if uri != uri.without_query() {
        let what = "its uri may have no query; leave out the `?` and what follows";
        return Err(Wrong::new(value, what.into()));
    }
    Ok(uri)
}

fn uid(value: &Value<'_>) -> Result<Uid, Wrong> {
    let named = |name: &str| Ok(User::from_name(name)?.map(|user| user.uid.as_raw()));
    number("user", named, value).map(Uid::from_raw)
}

fn gid(value: &Value<'_>) -> Result<Gid, Wrong> {
    let named = |name: &str| Ok(Group::from_name(name)?.map(|group| group.gid.as_raw()));
    number("group", named, value).map(Gid::from_raw)
}

/// The number of a user or group, written as such or as the name of an account.
fn number(
    kind: &str,
    named: fn(&str) -> nix::Result<Option<u32>>,
    value: &Value<'_>,
) -> Result<u32, Wrong> {
    let what = match value.get_ref() {
        DeValue::Integer(text) => match u32::from_str_radix(text.as_str(), text.radix()) {
            Ok(number) => return Ok(number),
            Err(_) => format!(
                "there is no {kind} {text}; numbers go from 0 to {}",
                u32::MAX
            ),
        },
        DeValue::String(name) => match named(name) {
            Ok(Some(number)) => return Ok(number),
            Ok(None) => format!("there is no {kind} {name:?}"),
            Err(error) => format!("cannot look up the {kind} {name:?}: {error}"),
        },
        _ => {
            let expected = format!("name or number of a {kind}");
            return Err(Wrong::unexpected(value, &expected));
        }
    };
    Err(Wrong::new(value, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_read_whole_and_knows_its_number() {
        let text = r#"
            [[rule]]
            users = ["root", 4711, 0x10]
            groups = ["root", 4712]
            operations = ["sign", "list", "create-key", "import-certificate", "delete-key",
                          "init-token", "change-pin"]
            uri = "pkcs11:token=a"

            [[rule]]
            groups = [5]
            operations = ["list"]
        "#;
        let [first, second] = &rules(text).unwrap()[..] else {
            panic!("two rules");
        };
        assert_eq!(first.number, 1);
        assert_eq!(first.users, [0, 4711, 16].map(Uid::from_raw));
        assert_eq!(first.groups, [0, 4712].map(Gid::from_raw));
        assert_eq!(first.operations, Operation::ALL);
        assert_eq!(first.uri, Uri::parse("pkcs11:token=a").unwrap());
        assert_eq!(second.number, 2);
        assert_eq!(second.users, []);
        assert_eq!(second.operations, [Operation::List]);
        assert_eq!(second.uri, Uri::parse("pkcs11:").unwrap());
    }

    #[test]
    fn a_policy_without_rules_allows_nothing() {
        for text in ["", "# nothing yet", "rule = []"] {
            assert!(rules(text).unwrap().is_empty());
        }
    }

    /// What is said about a policy.
    #[track_caller]
    fn refused(text: &str) -> String {
        match rules(text) {
            Err(what) => what,
            Ok(rules) => panic!("{text} is {rules:?}"),
        }
    }

    #[test]
    fn what_is_no_toml_is_refused_with_its_line() {
        assert_eq!(
            refused("\nno policy at all\n"),
            "line 2: key with no value, expected `=`"
        );
        assert_eq!(
            refused("[[rule]]\nusers = [0]\nusers = [1]\n"),
            "line 3: duplicate key"
        );
        assert_eq!(
            refused("[[rule]]\nusers = [0"),
            "line 2: unclosed array, expected `]`"
        );
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        assert_eq!(
            refused("[[rule]]\nusers = [0]\noperations = [\"sign\"]\n[rules]\n"),
            "line 4: unknown field `rules`; a policy is made of [[rule]]"
        );
        assert_eq!(
            refused("[rule]\nusers = [0]\n"),
            "line 1: expected [[rule]] for each rule, found a value of type table"
        );
        assert_eq!(
            refused("rule = [\n1]"),
            "line 2, rule 1: expected [[rule]] for each rule, found a value of type integer"
        );
    }

    #[test]
    fn a_rule_for_nobody_or_nothing_is_refused() {
        for empty in ["", "users = []", "groups = []"] {
            assert_eq!(
                refused(&format!("[[rule]]\noperations = [\"sign\"]\n{empty}")),
                "line 1, rule 1: it is for nobody; give it users or groups"
            );
        }
        for empty in ["", "operations = []"] {
            assert_eq!(
                refused(&format!("# nothing\n[[rule]]\nusers = [0]\n{empty}")),
                "line 2, rule 1: it allows nothing; give it operations, of sign, list, create-key, \
                 import-certificate, delete-key, init-token, change-pin"
            );
        }
    }

    #[test]
    fn what_is_wrong_in_a_rule_is_refused_with_what_may_stand_there() {
        for (wrong, expected) in [
            (
                "user = [0]",
                "unknown field `user`; a rule has `users`, `groups`, `operations` and `uri`",
            ),
            (
                "users = \"tedge\"",
                "expected a list such as [\"tedge\", 1000], found a value of type string",
            ),
            (
                "groups = 5",
                "expected a list such as [\"iot\", 1000], found a value of type integer",
            ),
            (
                "operations = \"sign\"",
                "expected a list such as [\"sign\", \"list\"], found a value of type string",
            ),
            (
                "users = [0.5]",
                "expected name or number of a user, found a value of type float",
            ),
            (
                "groups = [[5]]",
                "expected name or number of a group, found a value of type array",
            ),
            (
                "users = [0, -1]",
                "there is no user -1; numbers go from 0 to 4294967295",
            ),
            (
                "groups = [0x100000000]",
                "there is no group 0x100000000; numbers go from 0 to 4294967295",
            ),
            (
                "users = [\"no-such-user\"]",
                "there is no user \"no-such-user\"",
            ),
            (
                "groups = [\"no-such-group\"]",
                "there is no group \"no-such-group\"",
            ),
            (
                "operations = [\"sign\", \"fly\"]",
                "there is no operation \"fly\"; there are sign, list, create-key, \
                 import-certificate, delete-key, init-token, change-pin",
            ),
            (
                "operations = [true]",
                "expected one of sign, list, create-key, import-certificate, delete-key, \
                 init-token, change-pin, found a value of type boolean",
            ),
            (
                "uri = 2026-11-24",
                "expected a URI such as \"pkcs11:token=device\", found a value of type datetime",
            ),
            (
                "uri = \"pkcs11:token=a?pin-value=13579135\"",
                "its uri may have no query; leave out the `?` and what follows",
            ),
        ] {
            // In the fifth line, after a rule that is right.
            let text =
                format!("[[rule]]\nusers = [0]\noperations = [\"list\"]\n[[rule]]\n{wrong}\n");
            assert_eq!(refused(&text), format!("line 5, rule 2: {expected}"));
        }
        let no_uri = refused("[[rule]]\nuri = \"token=a\"");
        assert!(no_uri.starts_with("line 2, rule 1: "), "{no_uri}");
        assert!(no_uri.contains("pkcs11:"), "{no_uri}");
    }
}
