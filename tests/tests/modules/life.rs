//! The life of keys in a token, the same with each module: made, found, used and deleted, and the PIN changed.

use std::collections::BTreeSet;

use p11_client::{
    ErrorCode, Failure,
    message::{ChangePin, DeleteCertificate, KeySpec, KeyType},
};
use p11_fault_module::Faults;
use p11_proto::Scheme;
use p11_tests::{
    client::{ClientKey, TestClient, refused},
    pki::certificate_for,
    server::Server,
};

use crate::PIN;

/// The user's PIN in the end.
const NEW_PIN: &str = "305419";

/// A kind of key, and its name.
pub type Kind = (&'static str, KeySpec);

/// The kinds of keys that can be asked for.
pub const EVERY_KIND: [Kind; 7] = [
    ("EC 256", KeySpec::new(KeyType::Ec, 256)),
    ("EC 384", KeySpec::new(KeyType::Ec, 384)),
    ("EC 521", KeySpec::new(KeyType::Ec, 521)),
    ("Ed25519", KeySpec::new(KeyType::Ed25519, 0)),
    ("RSA 2048", KeySpec::new(KeyType::Rsa, 2048)),
    ("RSA 3072", KeySpec::new(KeyType::Rsa, 3072)),
    ("RSA 4096", KeySpec::new(KeyType::Rsa, 4096)),
];

/// Those that take no seconds to make, for a module that is SoftHSM behind another.
pub const QUICK_KINDS: &[Kind] = EVERY_KIND.split_at(5).0;

/// A token whose life begins.
pub struct Life<'a> {
    /// The server, which knows its PIN.
    pub server: &'a Server,
    /// Counts what the module is called for.
    pub faults: &'a Faults,
    /// Its label.
    pub token: &'a str,
    /// The keys that it has already: their kinds and labels.
    pub keys: &'a [(&'a str, &'a str)],
    /// What keys are to be made.
    pub kinds: &'a [Kind],
}

/// What was seen of it.
#[derive(Default)]
pub struct Seen {
    /// The kinds of keys that were made.
    pub made: Vec<String>,
    /// What leads to each key.
    pub found: Vec<&'static str>,
    /// The kinds of keys, and what each of them signs.
    pub signed: Vec<(String, Vec<Scheme>)>,
    /// What was changed beside that.
    pub changed: Vec<&'static str>,
    /// What was tried in vain, and how the server answered.
    pub cannot: Vec<String>,
    /// How many calls a signature took.
    pub calls: BTreeSet<u64>,
}

struct Key {
    kind: String,
    label: String,
    uri: String,
    key: ClientKey,
}

impl Life<'_> {
    /// Plays it. Fails where a key that the server told of is not found, and where a signature is wrong.
    pub fn play(&self) -> Seen {
        let mut seen = Seen::default();
        let client = self.server.client();
        let token = client.token(self.token).uri;
        let given = self.keys.iter().map(|(kind, label)| {
            let uri = format!("{token};object={label}");
            let key = client.open(&uri).unwrap();
            let (kind, label) = (kind.to_string(), label.to_string());
            Key {
                kind,
                label,
                uri,
                key,
            }
        });
        let mut keys: Vec<_> = given.collect();
        let objects = || client.list_keys(&token).unwrap().len();
        let before = objects();
        keys.extend(self.make(&client, &token, &mut seen));
        assert!(!keys.is_empty(), "{:?}", seen.cannot);
        for key in &keys {
            self.find(&client, &token, key, &mut seen);
            self.sign(key, &mut seen);
        }
        self.store_certificate(&client, &token, &keys[0], &mut seen);
        self.delete_keys(&client, &keys, &mut seen);
        self.change_pin(&client, &token, &keys[0], &mut seen);
        // What could not be made, and what was deleted, is gone with both halves.
        let halves = if seen.made.is_empty() { 0 } else { 2 };
        assert_eq!(objects(), before + halves);
        seen
    }

    fn make(&self, client: &TestClient, token: &str, seen: &mut Seen) -> Vec<Key> {
        let mut keys = Vec::new();
        let mut refused: Vec<(String, Vec<String>)> = Vec::new();
        for (number, (kind, spec)) in (0xa1..).zip(self.kinds) {
            let (kind, label) = (kind.to_string(), kind.to_lowercase().replace(' ', ""));
            match client.create_key(token, *spec, &label, Some(&[number])) {
                Ok(made) => {
                    let uri = made.uri;
                    let key = client.open(&uri).unwrap();
                    assert_eq!(key.told().spki, made.spki, "{uri}");
                    seen.made.push(kind.clone());
                    keys.push(Key {
                        kind,
                        label,
                        uri,
                        key,
                    });
                }
                Err(failure) => {
                    let left = client.list_keys(&format!("{token};object={label}"));
                    let why = match left.unwrap().len() {
                        0 => told(&failure),
                        left => format!("{}, which leaves {left} objects", told(&failure)),
                    };
                    match refused.iter_mut().find(|(known, _)| *known == why) {
                        Some((_, kinds)) => kinds.push(kind),
                        None => refused.push((why, vec![kind])),
                    }
                }
            }
        }
        let refused = refused.iter();
        let texts = refused.map(|(why, kinds)| format!("make {}: {why}", joined(kinds)));
        seen.cannot.extend(texts);
        keys
    }

    /// Each way to a key leads to this one.
    fn find(&self, client: &TestClient, token: &str, key: &Key, seen: &mut Seen) {
        let spki = &key.key.told().spki;
        let listed = client
            .list_keys(&format!("{token};object={}", key.label))
            .unwrap();
        let id: String = listed[0]
            .id
            .iter()
            .map(|byte| format!("%{byte:02X}"))
            .collect();
        for (way, uri, certified) in [
            ("label", format!("{token};object={}", key.label), false),
            ("id", format!("{token};id={id}"), false),
            ("public key", token.to_owned(), true),
        ] {
            let found = match certified {
                true => client.open_certified(&uri, spki),
                false => client.open(&uri),
            };
            assert_eq!(found.unwrap().told().spki, *spki, "{uri}");
            if !seen.found.contains(&way) {
                seen.found.push(way);
            }
        }
    }

    /// Signs with each scheme that is offered; another library verifies.
    fn sign(&self, key: &Key, seen: &mut Seen) {
        let mut signed = Vec::new();
        for scheme in &key.key.told().schemes {
            let scheme = Scheme::from_number(*scheme).unwrap();
            // The first may find out which way leads there.
            let first = key.key.sign_with(scheme.number());
            let before = self.faults.counts();
            match first.and_then(|()| key.key.sign_with(scheme.number())) {
                Ok(()) => {
                    signed.push(scheme);
                    seen.calls
                        .insert(self.faults.counts().since(&before).total());
                }
                Err(failure) => seen.cannot.push(format!(
                    "sign {scheme} with {}: {}",
                    key.kind,
                    told(&failure)
                )),
            }
        }
        signed.sort_by_key(|scheme| scheme.name());
        seen.signed.push((key.kind.clone(), signed));
    }

    fn store_certificate(&self, client: &TestClient, token: &str, key: &Key, seen: &mut Seen) {
        let der = certificate_for(&key.key.told().spki);
        let listed = || client.get_certificates(&key.uri).unwrap();
        let before = listed().len();
        match client.import_certificate(&key.uri, &der) {
            Err(failure) => seen
                .cannot
                .push(format!("import a certificate: {}", told(&failure))),
            Ok(uri) => {
                seen.changed.push("certificate imported");
                // Of several the newest comes first.
                assert_eq!(listed()[0].certificate, der, "{uri}");
                seen.changed.push("listed");
                let request = DeleteCertificate::new(token).certificate(Some(der.into()));
                match client.delete_certificate(request) {
                    Err(failure) => seen
                        .cannot
                        .push(format!("delete a certificate: {}", told(&failure))),
                    Ok(_) => {
                        assert_eq!(listed().len(), before);
                        seen.changed.push("deleted");
                    }
                }
            }
        }
    }

    /// All but the first.
    fn delete_keys(&self, client: &TestClient, keys: &[Key], seen: &mut Seen) {
        for key in &keys[1..] {
            match client.delete_key(&key.uri) {
                Ok(_) => {
                    refused(client.open(&key.uri), ErrorCode::KeyNotFound);
                    refused(key.key.sign(), ErrorCode::KeyNotFound);
                    if !seen.changed.contains(&"keys deleted") {
                        seen.changed.push("keys deleted");
                    }
                }
                Err(failure) => {
                    seen.cannot
                        .push(format!("delete a key: {}", told(&failure)));
                    break;
                }
            }
        }
    }

    fn change_pin(&self, client: &TestClient, token: &str, key: &Key, seen: &mut Seen) {
        self.server.secrets().add(NEW_PIN);
        match client.change_pin(ChangePin::new(NEW_PIN).uri(Some(token.into()))) {
            Ok(_) => {
                key.key.sign().unwrap();
                let old = client.with_pin(PIN).open(&key.uri);
                refused(old, ErrorCode::PinIncorrect);
                seen.changed.push("PIN changed");
            }
            Err(failure) => seen
                .cannot
                .push(format!("change the PIN: {}", told(&failure))),
        }
    }
}

/// An error in short.
fn told(failure: &Failure) -> String {
    match (&failure.code, &failure.ckr) {
        (ErrorCode::Module, Some(ckr)) => format!("`{ckr}`"),
        (code, _) => format!("`{code}`"),
    }
}

/// `EC 256`, `EC 384` and `Ed25519` as "EC 256 384, Ed25519".
pub fn joined<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    let mut text = String::new();
    let mut last = "";
    for name in names {
        let (family, size) = name.rsplit_once(' ').unwrap_or((name, ""));
        if family == last {
            text.push(' ');
            text.push_str(size);
        } else {
            if !text.is_empty() {
                text.push_str(", ");
            }
            text.push_str(name);
        }
        last = family;
    }
    text
}
