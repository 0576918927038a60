//! The rules in the text of a policy file.

use std::fmt;

use nix::unistd::{Gid, Group, Uid, User};
use p11_uri::Uri;
use serde::Deserialize;
use toml::de::{DeArray, DeTable, DeValue};
use toml::{Spanned, Value};

use super::operation::Operation;
use crate::daemon::toml_table::{TomlError, into_struct, into_table};

/// Which operations some users and groups may do with some tokens and keys.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) number: usize,
    pub(super) users: Vec<Uid>,
    pub(super) groups: Vec<Gid>,
    pub(super) operations: Vec<Operation>,
    pub(super) uri: Uri,
}

/// Why there are no rules in a text.
#[derive(Debug)]
pub(crate) struct Wrong {
    pub(super) line: usize,
    /// Which line and rule is wrong, and what may stand there.
    pub(super) why: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// Reads the rules.
pub(super) fn rules(text: &str) -> Result<Vec<Rule>, Wrong> {
    let wrong = |wrong: TomlError, rule: &str| {
        let (line, _) = wrong.line_and_column(text.as_bytes());
        let why = format!("line {line}{rule}: {}", wrong.what);
        Wrong { line, why }
    };
    let tables = tables(text).map_err(|error| wrong(error, ""))?;
    let numbered = (1..).zip(tables);
    let rules = numbered.map(|(number, table)| {
        rule(number, table).map_err(|error| wrong(error, &format!(", rule {number}")))
    });
    rules.collect()
}

/// The tables that rules are written in.
fn tables(text: &str) -> Result<DeArray<'_>, TomlError> {
    let file = DeTable::parse(text)
        .map_err(|error| TomlError::new(error.span().unwrap_or_default(), error.message()))?;
    let mut file = file.into_inner();
    let rules = file.remove("rule");
    if let Some(key) = file.keys().next() {
        let what = format!("unknown field `{key}`; a policy is made of [[rule]]");
        return Err(TomlError::new(key.span(), what));
    }
    let Some(rules) = rules else {
        return Ok(DeArray::new());
    };
    let span = rules.span();
    match rules.into_inner() {
        DeValue::Array(tables) => Ok(tables),
        _ => Err(TomlError::new(span, RULES)),
    }
}

const RULES: &str = "expected [[rule]] for each rule";

/// A rule as it is written.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RuleTable {
    users: Vec<Spanned<Value>>,
    groups: Vec<Spanned<Value>>,
    operations: Vec<Spanned<String>>,
    uri: Option<Spanned<String>>,
}

fn rule(number: usize, value: Spanned<DeValue<'_>>) -> Result<Rule, TomlError> {
    let span = value.span();
    let table: RuleTable = into_struct(into_table(value, RULES)?, expected)?;
    let users = table.users.iter().map(uid);
    let groups = table.groups.iter().map(gid);
    let operations = table.operations.iter().map(operation);
    let rule = Rule {
        number,
        users: users.collect::<Result<_, _>>()?,
        groups: groups.collect::<Result<_, _>>()?,
        operations: operations.collect::<Result<_, _>>()?,
        uri: table.uri.map_or_else(|| Ok(Uri::default()), uri)?,
    };
    if rule.users.is_empty() && rule.groups.is_empty() {
        let what = "it is for nobody; give it users or groups";
        return Err(TomlError::new(span, what));
    }
    if rule.operations.is_empty() {
        let what = format!(
            "it allows nothing; give it operations, of {}",
            all_operations()
        );
        return Err(TomlError::new(span, what));
    }
    Ok(rule)
}

/// What may stand in a field of a rule.
fn expected(field: &str) -> String {
    match field {
        "users" => r#"expected a list such as ["tedge", 1000]"#.into(),
        "groups" => r#"expected a list such as ["iot", 1000]"#.into(),
        "operations" => format!(
            r#"expected a list such as ["sign", "list"], of {}"#,
            all_operations()
        ),
        "uri" => r#"expected a URI such as "pkcs11:token=device""#.into(),
        _ => {
            format!("unknown field `{field}`; a rule has `users`, `groups`, `operations` and `uri`")
        }
    }
}

fn operation(name: &Spanned<String>) -> Result<Operation, TomlError> {
    let named = |known: &Operation| known.name() == name.get_ref();
    Operation::ALL.into_iter().find(named).ok_or_else(|| {
        let what = format!(
            "there is no operation {:?}; there are {}",
            name.get_ref(),
            all_operations()
        );
        TomlError::new(name.span(), what)
    })
}

fn all_operations() -> String {
    Operation::ALL.map(Operation::name).join(", ")
}

fn uri(text: Spanned<String>) -> Result<Uri, TomlError> {
    let uri = Uri::parse(text.get_ref())
        .map_err(|error| TomlError::new(text.span(), error.to_string()))?;
    if uri != uri.without_query() {
        let what = "its uri may have no query; leave out the `?` and what follows";
        return Err(TomlError::new(text.span(), what));
    }
    let wrong = if let Some((name, _)) = uri.vendor_path().next() {
        format!(
            "its uri has `{name:.64}`, which matches nothing; attributes are token, model, manufacturer, serial, \
             object, id and those of slot and library"
        )
    } else if uri.object_type().is_some() {
        "its uri has a type, but a rule is for a key with all that belongs to it; leave out `type`"
            .into()
    } else if text.get_ref().contains('*') {
        "its uri has a `*`, which is no wildcard; leave out an attribute that may have any value, or write %2A".into()
    } else {
        return Ok(uri);
    };
    Err(TomlError::new(text.span(), wrong))
}

fn uid(value: &Spanned<Value>) -> Result<Uid, TomlError> {
    let named = |name: &str| Ok(User::from_name(name)?.map(|user| user.uid));
    account("user", Uid::from_raw, named, value)
}

fn gid(value: &Spanned<Value>) -> Result<Gid, TomlError> {
    let named = |name: &str| Ok(Group::from_name(name)?.map(|group| group.gid));
    account("group", Gid::from_raw, named, value)
}

/// A user or group, written as its number or the name of its account.
fn account<T>(
    kind: &str,
    numbered: fn(u32) -> T,
    named: fn(&str) -> nix::Result<Option<T>>,
    value: &Spanned<Value>,
) -> Result<T, TomlError> {
    let what = match value.get_ref() {
        Value::Integer(number) => match u32::try_from(*number) {
            Ok(number) => return Ok(numbered(number)),
            Err(_) => format!(
                "there is no {kind} {number}; numbers go from 0 to {}",
                u32::MAX
            ),
        },
        Value::String(name) => match named(name) {
            Ok(Some(account)) => return Ok(account),
            Ok(None) => format!("there is no {kind} {name:?}"),
            Err(error) => format!("cannot look up the {kind} {name:?}: {error}"),
        },
        _ => format!("expected name or number of a {kind}"),
    };
    Err(TomlError::new(value.span(), what))
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
                          "delete-certificate", "init-token", "change-pin"]
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
    fn any_id_and_label_can_be_named() {
        let uri = "pkcs11:id=%01%2A;object=%2A";
        let text = format!("[[rule]]\nusers = [0]\noperations = [\"sign\"]\nuri = \"{uri}\"");
        assert!(rules(&text).unwrap()[0].uri.matches_key("*", b"\x01*"));
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
            Err(wrong) => wrong.why,
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
            "line 1: expected [[rule]] for each rule"
        );
        assert_eq!(
            refused("rule = [\n1]"),
            "line 2, rule 1: expected [[rule]] for each rule"
        );
        // The fields in their order, without names.
        assert_eq!(
            refused("rule = [[[0], [], [\"sign\"]]]"),
            "line 1, rule 1: expected [[rule]] for each rule"
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
                 import-certificate, delete-key, delete-certificate, init-token, change-pin"
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
                "expected a list such as [\"tedge\", 1000]",
            ),
            ("groups = 5", "expected a list such as [\"iot\", 1000]"),
            (
                "operations = \"sign\"",
                "expected a list such as [\"sign\", \"list\"], of sign, list, create-key, \
                 import-certificate, delete-key, delete-certificate, init-token, change-pin",
            ),
            ("users = [0.5]", "expected name or number of a user"),
            ("groups = [[5]]", "expected name or number of a group"),
            (
                "users = [0, -1]",
                "there is no user -1; numbers go from 0 to 4294967295",
            ),
            (
                "groups = [0x100000000]",
                "there is no group 4294967296; numbers go from 0 to 4294967295",
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
                 import-certificate, delete-key, delete-certificate, init-token, change-pin",
            ),
            (
                "operations = [true]",
                "expected a list such as [\"sign\", \"list\"], of sign, list, create-key, \
                 import-certificate, delete-key, delete-certificate, init-token, change-pin",
            ),
            (
                "uri = \"pkcs11:tokn=a\"",
                "its uri has `tokn`, which matches nothing; attributes are token, model, manufacturer, \
                 serial, object, id and those of slot and library",
            ),
            (
                "uri = \"pkcs11:object=a;type=private\"",
                "its uri has a type, but a rule is for a key with all that belongs to it; leave out `type`",
            ),
            (
                "uri = \"pkcs11:token=dev*\"",
                "its uri has a `*`, which is no wildcard; leave out an attribute that may have any value, or \
                 write %2A",
            ),
            (
                "uri = 2026-11-24",
                "expected a URI such as \"pkcs11:token=device\"",
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
        let in_a_list = refused("[[rule]]\nusers = [\n  0,\n  0.5,\n]\n");
        assert!(in_a_list.starts_with("line 4, rule 1: "), "{in_a_list}");
        let no_uri = refused("[[rule]]\nuri = \"token=a\"");
        assert!(no_uri.starts_with("line 2, rule 1: "), "{no_uri}");
        assert!(no_uri.contains("pkcs11:"), "{no_uri}");
    }
}
