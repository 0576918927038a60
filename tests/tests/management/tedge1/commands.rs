//! What a released `tedge` sends for each of its commands, and what its users and thin-edge's tests look for in the answers.
//!
//! | command | requests, in this order |
//! |---|---|
//! | `hsm list-tokens` | 16 |
//! | `hsm init` | 14 |
//! | `hsm create-key` | without a token 12, and where there is none 14; 6 for a key of that name (not with `--force-new`); 10 |
//! | `hsm list-keys` | 22 |
//! | `hsm delete-key` | 20 |
//! | `hsm change-pin` | 18 |
//! | `cert create`, `create-csr`, `renew` | 8, 6, and 5 with the scheme of the certificate request |
//! | `cert download` | 6; where that fails 16, 22 and what `create-key` sends; 5 |
//! | `connect`, `reconnect` | 8, 1, 2 (since 1.7 as 5 without a scheme) |

use p11_tests::{
    fixture::{Fixture, PIN, SO_PIN},
    keys::{KeyKind, KeySpec},
    server::Server,
    softhsm::SoftHsm,
    text::assert_contains,
    verify::verifies,
};

use super::{NONE, Tedge1Client, message, some, text, text_of, varint, varint_of};

const NEW: &str = "305419";
const WRONG: &str = "not-the-pin";

const NO_TOKEN: &str = "No token matching the given URI was found";
const MANY_TOKENS: &str = "Found multiple initialized tokens";
const WRONG_PIN: &str = "The specified PIN is incorrect";

/// The commands of a released `tedge`, each with the requests that it sends, and the error that it shows.
struct Tedge(Tedge1Client);

/// A public key as `tedge` has it, and its URI.
type Made = Result<(Vec<u8>, String), String>;

fn option(value: Option<&str>) -> Vec<u8> {
    value.map_or_else(|| NONE.to_vec(), some)
}

fn utf8(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The strings of a list.
fn strings(reply: &[u8]) -> Vec<String> {
    let (length, mut rest) = varint_of(reply);
    let strings = (0..length).map(|_| {
        let (string, after) = text_of(rest);
        rest = after;
        utf8(string)
    });
    strings.collect()
}

impl Tedge {
    fn of(server: &Server) -> Self {
        Self(Tedge1Client::of(server))
    }

    /// The fields of the reply of this number, or the text of an error.
    fn ask(&self, number: u8, request: &[u8]) -> Result<Vec<u8>, String> {
        let reply = self.0.ask(request);
        match reply.as_slice() {
            [0, 0, text @ ..] => Err(utf8(text_of(text).0)),
            [0, other, fields @ ..] if *other == number => Ok(fields.to_vec()),
            other => panic!("{other:?}"),
        }
    }

    /// Slot, label, whether it is initialised, and URI of each token.
    fn list_tokens(&self) -> Vec<(u64, String, bool, String)> {
        let reply = self.ask(17, &[0, 16]).unwrap();
        let (length, mut rest) = varint_of(&reply);
        let tokens = (0..length).map(|_| {
            let (slot, after) = varint_of(rest);
            let (label, after) = text_of(after);
            let (_model, after) = text_of(after);
            let (_manufacturer, after) = text_of(after);
            let (_serial, after) = text_of(after);
            let (uri, end) = text_of(&after[1..]);
            rest = end;
            (slot, utf8(label), after[0] == 1, utf8(uri))
        });
        tokens.collect()
    }

    fn tokens_uris(&self) -> Vec<String> {
        strings(&self.ask(13, &[0, 12]).unwrap())
    }

    fn init(&self, label: &str, uri: Option<&str>) -> Result<String, String> {
        let init = message(14, &[&text(label), NONE, NONE, &option(uri)]);
        Ok(utf8(text_of(&self.ask(15, &init)?).0))
    }

    fn public_key(&self, uri: Option<&str>) -> Result<Vec<u8>, String> {
        let pem = self.ask(7, &message(6, &[&option(uri)]))?;
        Ok(text_of(&pem).0.to_vec())
    }

    fn create(&self, token: &str, label: &str, id: Option<&[u8]>, pin: Option<&str>) -> Made {
        let p256 = [&[1][..], &varint(256)].concat();
        let id = id.map_or_else(|| NONE.to_vec(), some);
        let create = [&text(token)[..], &p256, &text(label), &id, &option(pin)];
        let reply = self.ask(11, &message(10, &create))?;
        let (pem, rest) = text_of(&reply);
        Ok((pem.to_vec(), utf8(text_of(rest).0)))
    }

    /// `hsm create-key --label label [token]`
    fn create_key(&self, token: Option<&str>, label: &str) -> Made {
        let token = match (token, self.tokens_uris().as_slice()) {
            (Some(token), _) => token.to_owned(),
            (None, []) => self.init("tedge", None)?,
            (None, [token]) => token.clone(),
            (None, several) => return Err(several.join("\n")),
        };
        let uri = format!("{token};object={label}");
        match self.public_key(Some(&uri)) {
            Ok(pem) => Ok((pem, uri)),
            Err(_) => self.create(&token, label, None, None),
        }
    }

    /// Class, label and URI of each key.
    fn list_keys(&self, uri: Option<&str>) -> Result<Vec<[String; 3]>, String> {
        let reply = self.ask(23, &message(22, &[&option(uri), NONE]))?;
        let (length, mut rest) = varint_of(&reply);
        let keys = (0..length).map(|_| {
            let fields = [(); 5].map(|()| {
                let (field, after) = text_of(rest);
                rest = after;
                utf8(field)
            });
            let [class, _key_type, label, _id, uri] = fields;
            [class, label, uri]
        });
        Ok(keys.collect())
    }

    fn delete_key(&self, uri: &str) -> Result<Vec<String>, String> {
        Ok(strings(&self.ask(21, &message(20, &[&text(uri), NONE]))?))
    }

    fn change_pin(&self, uri: Option<&str>, new: &str, old: &str) -> Result<String, String> {
        let change = [&option(uri)[..], &text(new), &some(old), NONE, &[0]];
        Ok(utf8(text_of(&self.ask(19, &message(18, &change))?).0))
    }

    fn reset_pin(&self, uri: &str, new: &str, so_pin: &str) -> Result<String, String> {
        let reset = [&some(uri)[..], &text(new), NONE, &some(so_pin), &[1]];
        Ok(utf8(text_of(&self.ask(19, &message(18, &reset))?).0))
    }

    /// The signature of a certificate request, with ECDSA on P-256.
    fn sign_csr(&self, uri: Option<&str>) -> Result<Vec<u8>, String> {
        self.0.ask(&[0, 8]);
        self.public_key(uri)?;
        let sign = message(5, &[&text("request"), &option(uri), &[1, 0], NONE]);
        Ok(text_of(&self.ask(4, &sign)?).0.to_vec())
    }

    /// The signature of a handshake; `connect` shows the first error.
    fn connect(&self, uri: Option<&str>, pin: Option<&str>) -> Result<Vec<u8>, String> {
        self.0.ask(&[0, 8]);
        let (uri, pin) = (option(uri), option(pin));
        let offered = [&[2][..], &varint(0x0804), &varint(0x0403)].concat();
        let chosen = self.ask(3, &message(1, &[&offered, &uri, &pin]))?;
        assert_eq!(chosen, [&[1][..], &varint(0x0403), &[3]].concat());
        let without_scheme = self.ask(4, &message(2, &[&text("handshake"), &uri, &pin]))?;
        self.ask(4, &message(5, &[&text("handshake"), &uri, NONE, &pin]))?;
        Ok(text_of(&without_scheme).0.to_vec())
    }
}

/// A store without a token, and a server with thin-edge's usual configuration.
fn bare() -> (SoftHsm, Server) {
    let hsm = SoftHsm::new();
    let server = Server::builder().softhsm(&hsm).pin(PIN).start();
    (hsm, server)
}

/// thin-edge's scripts cut the URI of a free slot out of `hsm list-tokens` by `pkcs11:\S*slot-id=\d+`, and take the first.
fn first_free_slot(tedge: &Tedge) -> String {
    let tokens = tedge.list_tokens();
    let cut = tokens.iter().find_map(|(.., uri)| {
        let (before, after) = uri.rsplit_once("slot-id=")?;
        let digits = after.find(|c: char| !c.is_ascii_digit());
        Some(format!(
            "{before}slot-id={}",
            &after[..digits.unwrap_or(after.len())]
        ))
    });
    let (slot, _, _, uri) = tokens.iter().find(|(_, _, made, _)| !made).unwrap();
    assert!(uri.ends_with(&format!(";slot-id={slot}")), "{uri}");
    assert_eq!(cut.as_ref(), Some(uri), "{tokens:?}");
    uri.clone()
}

#[test]
fn a_device_with_nothing_gets_token_key_and_certificate_request() {
    let (_hsm, server) = bare();
    let tedge = Tedge::of(&server);
    // `cert download` looks for a key, finds no token, and makes both.
    let error = tedge.public_key(None).unwrap_err();
    assert_contains(
        &error,
        ["PKCS #11 service failed: ", "Didn't find a slot to use"],
    );
    assert!(tedge.list_tokens().iter().all(|(_, _, made, _)| !made));
    let (pem, uri) = tedge.create_key(None, "tedge").unwrap();
    assert_contains(&uri, [";token=tedge;", ";object=tedge"]);
    assert_eq!(tedge.public_key(Some(&uri)).unwrap(), pem);
    tedge.sign_csr(Some(&uri)).unwrap();

    // Once more nothing is made.
    let listed = tedge.list_keys(None).unwrap();
    let again = tedge.create_key(None, "tedge").unwrap();
    assert_eq!(again.0, pem);
    assert_eq!(tedge.list_keys(None).unwrap(), listed);
    // The key of another name is, and `--force-new` makes a second one of the name.
    tedge.create_key(None, "other").unwrap();
    let token = &tedge.tokens_uris()[0];
    tedge.create(token, "tedge", None, None).unwrap();
    let of_label = |[class, label, _]: &&[String; 3]| class == "private" && label == "tedge";
    let listed = tedge.list_keys(Some(token)).unwrap();
    assert_eq!(listed.iter().filter(of_label).count(), 2);
}

#[test]
fn hsm_init_makes_each_token_once_and_is_strict_with_slots() {
    let (_hsm, server) = bare();
    let tedge = Tedge::of(&server);
    let manual = tedge.init("manual", None).unwrap();
    assert!(manual.starts_with("pkcs11:") && manual.ends_with(";token=manual"));
    let (_, key) = tedge.create_key(Some(&manual), "key").unwrap();
    assert_eq!(tedge.init("manual", None).unwrap(), manual);
    tedge.sign_csr(Some(&key)).unwrap();

    let slot = first_free_slot(&tedge);
    let made = tedge.init("slot", Some(&slot)).unwrap();
    assert!(made.ends_with(";token=slot"), "{made}");
    // The slot has another number by now.
    assert_contains(tedge.init("slot", Some(&slot)).unwrap_err(), [NO_TOKEN]);
    assert_eq!(tedge.init("slot", None).unwrap(), made);
    let free = first_free_slot(&tedge);
    assert_eq!(tedge.init("slot", Some(&free)).unwrap(), made);
    assert_eq!(tedge.tokens_uris(), [manual, made]);
    assert_eq!(tedge.list_tokens().len(), 3);
}

#[test]
fn where_there_are_two_tokens_commands_without_one_name_both() {
    let (hsm, server) = bare();
    let tedge = Tedge::of(&server);
    assert!(tedge.tokens_uris().is_empty());
    // By another program. They are seen at once, so that no third one is made.
    let tokens = ["one", "two"].map(|label| hsm.init_token(label, PIN, SO_PIN));
    let told = tedge.create_key(None, "key").unwrap_err();
    assert_contains(&told, ["token=one", "token=two"]);
    for told in [
        tedge.create("pkcs11:", "key", None, None).map(drop),
        tedge.list_keys(None).map(drop),
        tedge.delete_key("pkcs11:object=key").map(drop),
        tedge.change_pin(None, NEW, PIN).map(drop),
    ] {
        let told = told.unwrap_err();
        assert_contains(&told, [MANY_TOKENS, "token=one", "token=two"]);
    }
    let uri = tokens[1].uri();
    let (_, key) = tedge.create_key(Some(&uri), "key").unwrap();
    assert_eq!(
        tedge.delete_key(&format!("{uri};object=key")),
        Ok(vec![key])
    );
    assert_eq!(tedge.delete_key(&format!("{uri};object=key")), Ok(vec![]));
}

#[test]
fn what_create_key_and_change_pin_refuse_has_the_phrases() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture.start();
    server.secrets().add(NEW);
    let tedge = Tedge::of(&server);
    let token = "pkcs11:token=device";
    let id = Some(&[1, 2, 3][..]);
    let (_, uri) = tedge.create(token, "my-key", id, None).unwrap();
    assert!(uri.contains(";id=%01%02%03;"), "{uri}");
    let changed = |told: Result<String, String>| told.map(|uri| (vec![], uri));
    for (told, phrase) in [
        (
            tedge.create(token, "my-key", id, None),
            "Object with this id already exists on the token",
        ),
        (tedge.create(token, "my-key", None, Some(WRONG)), WRONG_PIN),
        (tedge.create("pkcs11:token=none", "k", None, None), NO_TOKEN),
        (
            changed(tedge.change_pin(Some(token), NEW, WRONG)),
            WRONG_PIN,
        ),
        (
            changed(tedge.change_pin(Some("pkcs11:token=none"), NEW, PIN)),
            NO_TOKEN,
        ),
    ] {
        let told = told.unwrap_err();
        assert!(told.starts_with("PKCS #11 service failed: "), "{told}");
        assert_contains(&told, [phrase]);
    }
    let told = tedge.change_pin(Some(token), NEW, PIN).unwrap();
    assert!(told.ends_with("token=device"), "{told}");
    tedge.sign_csr(Some(&uri)).unwrap();
    assert_eq!(tedge.reset_pin(token, PIN, SO_PIN), Ok(told));
    tedge.sign_csr(Some(&uri)).unwrap();
    assert_contains(tedge.reset_pin(token, NEW, WRONG).unwrap_err(), [WRONG_PIN]);
}

/// `device.cryptoki.uri`, `device.key_uri` and `device.key_pin`; which key signs a handshake or what the error says; what
/// `cert create` and `renew` say.
type Row = (
    &'static str,
    Option<&'static str>,
    Option<&'static str>,
    Result<&'static str, &'static str>,
    Result<(), &'static str>,
);

const NO_KEY: &str = "Failed to find a signing key";
const NO_SLOT: &str = "Failed to find a signing key: Didn't find a slot to use";
/// What `cert renew` and `cert create` look for.
const FAILED: &str = "PKCS #11 service failed: Failed to find a key";
const SLOT_TOO: &str = "Didn't find a slot to use";

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("", Some("pkcs11:token=tedge"), None, Ok("a"), Ok(())),
    ("", Some("pkcs11:token=tedge;object=a"), None, Ok("a"), Ok(())),
    ("", Some("pkcs11:token=tedge;object=b"), None, Ok("b"), Ok(())),
    ("", Some("pkcs11:object=b;type=private"), None, Ok("b"), Ok(())),
    ("", None, None, Ok("a"), Ok(())),
    ("", Some("pkcs11:token=none"), None, Err(NO_SLOT), Err(SLOT_TOO)),
    ("", Some("pkcs11:token=tedge;object=none"), None, Err(NO_KEY), Err(FAILED)),
    ("", Some("pkcs11:object=none"), None, Err(NO_KEY), Err(FAILED)),
    ("", Some("pkcs11:token=empty"), None, Err(NO_KEY), Err(FAILED)),
    ("pkcs11:token=none", None, None, Err(NO_SLOT), Err(SLOT_TOO)),
    ("pkcs11:token=empty", None, None, Err(NO_KEY), Err(FAILED)),
    ("pkcs11:token=tedge", None, None, Ok("a"), Ok(())),
    ("pkcs11:token=tedge;object=b", None, None, Ok("b"), Ok(())),
    ("pkcs11:token=tedge;object=b", Some("pkcs11:token=tedge;object=a"), None, Ok("b"), Ok(())),
    ("pkcs11:token=tedge", Some("pkcs11:token=none;object=b"), None, Ok("b"), Ok(())),
    // PINs, of which those of `pin-value` go before `key_pin`.
    ("", Some("pkcs11:token=tedge"), Some(PIN), Ok("a"), Ok(())),
    ("", Some("pkcs11:token=tedge"), Some(WRONG), Err(WRONG_PIN), Ok(())),
    ("", Some("pkcs11:token=tedge?pin-value=open-sesame"), None, Ok("a"), Ok(())),
    ("", Some("pkcs11:token=tedge?pin-value=not-the-pin"), None, Err(WRONG_PIN), Err(WRONG_PIN)),
    ("", Some("pkcs11:token=tedge?pin-value=not-the-pin"), Some(PIN), Err(WRONG_PIN), Err(WRONG_PIN)),
    ("", Some("pkcs11:token=tedge?pin-value=open-sesame"), Some(WRONG), Ok("a"), Ok(())),
];

#[test]
fn each_configuration_of_the_key_connects_or_says_why_not() {
    let hsm = SoftHsm::new();
    let token = hsm.init_token("tedge", PIN, SO_PIN);
    let keys = [("a", 1), ("b", 2)].map(|(label, id)| {
        let spec = KeySpec::new(KeyKind::P256, label, &[id]);
        hsm.generate(&token, &spec)
    });
    hsm.init_token("empty", PIN, SO_PIN);
    for (scope, uri, pin, connects, certifies) in ROWS {
        let builder = Server::builder().softhsm(&hsm).pin(PIN);
        let server = match *scope {
            "" => builder.start(),
            scope => builder.uri(scope).start(),
        };
        let tedge = Tedge::of(&server);
        // A fresh server answers as one that has signed before.
        for _ in 0..2 {
            match (tedge.connect(*uri, *pin), connects) {
                (Ok(signature), Ok(label)) => {
                    let key = keys.iter().find(|key| key.spec.label == *label).unwrap();
                    let is_good = verifies(&key.spki, 0x0403, b"handshake", &signature);
                    assert!(is_good, "{scope} {uri:?}");
                }
                (Err(told), Err(phrase)) => assert_contains(&told, [phrase]),
                (told, _) => panic!("{scope} {uri:?} {pin:?}: {told:?}"),
            }
            match (tedge.sign_csr(*uri), certifies) {
                (Ok(_), Ok(())) => {}
                (Err(told), Err(phrase)) => assert_contains(&told, [phrase]),
                (told, _) => panic!("{scope} {uri:?}: {told:?}"),
            }
        }
    }
}
