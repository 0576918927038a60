//! p11tool and this crate mean the same by a URI, both ways, on SoftHSM tokens with awkward names.

#![allow(clippy::panic, clippy::expect_used)] // A helper that fails fails the test.

use p11_uri::{ObjectInfo, ObjectType, TokenInfo, Uri};
use secrecy::ExposeSecret;
use std::fs;
use std::process::Command;
use tempfile::TempDir;

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
const PIN: &str = "1&2=3;4 5%6?7/é";
const LABELS: [&str; 3] = [
    "my-token",
    "a;b?c#d/e&f=[g]|%41 ~é",
    "\"quoted\" <token>+'(x)'",
];
/// Label and id of the keys in each token.
const KEYS: [(&str, &[u8]); 3] = [
    ("my-key", &[0x01]),
    ("k;?#/&=[]|%41~é ", &[0x00, 0xFF, b'%', b'A']),
    ("my-key", &[0x02]),
];

#[test]
fn tokens_that_p11tool_names_are_found_by_us() {
    let tokens = Tokens::new();
    let infos = tokens.infos();
    let lines = tokens.p11tool(&["--list-token-urls"]);
    for token in &infos {
        let mine: Vec<_> = lines
            .lines()
            .filter(|line| parsed(line).matches_token(token))
            .collect();
        let [line] = mine.as_slice() else {
            panic!("{} names {mine:?}", token.label)
        };
        // Printed by us, it is the same text again.
        assert_eq!(parsed(line).to_string(), **line);
        assert_eq!(Uri::of_token(token).to_string(), **line);
    }
}

#[test]
fn library_attributes_that_p11tool_prints_are_read_and_printed_alike() {
    let tokens = Tokens::new();
    let lines = tokens.p11tool(&["--detailed-url", "--list-token-urls"]);
    let detailed: Vec<_> = lines
        .lines()
        .filter(|line| line.contains("library-"))
        .collect();
    assert!(!detailed.is_empty(), "{lines}");
    for line in detailed {
        let uri = parsed(line);
        assert_eq!(uri.library_manufacturer(), Some("SoftHSM"));
        assert_eq!(uri.library_description(), Some("Implementation of PKCS11"));
        assert_eq!(uri.to_string(), line);
    }
}

#[test]
fn tokens_that_we_name_are_found_by_p11tool() {
    let tokens = Tokens::new();
    for token in tokens.infos() {
        // Listing tokens, p11tool heeds no URI; listing objects, it does.
        let objects = tokens.objects(&Uri::of_token(&token).to_string());
        assert_eq!(objects.len(), 2 * KEYS.len(), "{objects:?}");
        assert!(
            objects.iter().all(|line| line.contains(&token.serial)),
            "{objects:?}"
        );
    }
}

#[test]
fn objects_that_p11tool_names_are_found_by_us() {
    let tokens = Tokens::new();
    let lines = tokens.objects("pkcs11:manufacturer=SoftHSM%20project");
    for (token, object) in tokens.objects_expected() {
        let is_mine = |uri: &Uri| uri.matches_token(&token) && uri.matches_object(&object);
        let mine: Vec<_> = lines.iter().filter(|line| is_mine(&parsed(line))).collect();
        let [line] = mine.as_slice() else {
            panic!("{object:?} is named by {mine:?} of {lines:?}")
        };
        assert_eq!(parsed(line).to_string(), **line);
        assert!(parsed(line).matches_key(&object.label, &object.id));
    }
}

#[test]
fn objects_that_we_name_are_found_by_p11tool() {
    let tokens = Tokens::new();
    for (token, object) in tokens.objects_expected() {
        let full = Uri::of_object(&token, &object).to_string();
        assert_eq!(tokens.objects(&full), [full.as_str()]);
    }
    let by_label = parsed("pkcs11:object=my-key;type=private;library-manufacturer=SoftHSM");
    assert_eq!(
        tokens.objects(&by_label.to_string()).len(),
        2 * LABELS.len()
    );
    let by_id = parsed("pkcs11:id=%02;library-description=Implementation%20of%20PKCS11");
    assert_eq!(tokens.objects(&by_id.to_string()).len(), 2 * LABELS.len());
}

#[test]
fn a_pin_that_we_print_logs_in() {
    let tokens = Tokens::new();
    let percent: String = PIN.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let private = |object: &ObjectInfo| object.object_type == ObjectType::Private;
    for (token, object) in tokens
        .objects_expected()
        .into_iter()
        .filter(|(_, object)| private(object))
    {
        let whole = parsed(&format!(
            "{}?pin-value={percent}",
            Uri::of_object(&token, &object)
        ));
        tokens.p11tool(&["--test-sign", whole.to_string_with_pin().expose_secret()]);
    }
}

/// Three SoftHSM tokens with the same keys, in a folder of their own.
struct Tokens {
    folder: TempDir,
}

impl Tokens {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder for the tokens");
        let store = folder.path().join("tokens");
        fs::create_dir(&store).expect("a folder for the tokens");
        let conf = format!(
            "directories.tokendir = {}\nlog.level = ERROR\n",
            store.display()
        );
        fs::write(folder.path().join("softhsm2.conf"), conf).expect("the configuration of SoftHSM");
        let tokens = Self { folder };
        for label in LABELS {
            let names = ["--init-token", "--free", "--label", label];
            let pins = ["--so-pin", "87654321", "--pin", PIN];
            tokens.run("softhsm2-util", "softhsm2", &[&names[..], &pins].concat());
        }
        for token in tokens.infos() {
            for (label, id) in KEYS {
                let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
                let names = ["--label", label, "--id", &id];
                let kind = [
                    "--login",
                    "--set-pin",
                    PIN,
                    "--generate-privkey=ecdsa",
                    "--curve=secp256r1",
                ];
                let place = Uri::of_token(&token).to_string();
                tokens.p11tool(&[&kind[..], &names, &[&place]].concat());
            }
        }
        tokens
    }

    /// The tokens as p11tool describes them in words, not in URIs.
    fn infos(&self) -> Vec<TokenInfo> {
        let listing = self.p11tool(&["--list-tokens"]);
        let blocks = listing.split("\nToken ").map(|block| {
            let field = |name: &str| {
                let line = block
                    .lines()
                    .find_map(|line| line.trim_start().strip_prefix(name));
                line.unwrap_or_default().trim_start_matches(": ").to_owned()
            };
            let mut token = TokenInfo::default();
            token.label = field("Label");
            token.manufacturer = field("Manufacturer");
            token.model = field("Model");
            token.serial = field("Serial");
            token
        });
        let infos: Vec<_> = blocks
            .filter(|token| LABELS.contains(&token.label.as_str()))
            .collect();
        assert_eq!(infos.len(), LABELS.len(), "{listing}");
        infos
    }

    /// The objects that were made.
    fn objects_expected(&self) -> Vec<(TokenInfo, ObjectInfo)> {
        let mut objects = Vec::new();
        for token in self.infos() {
            for (label, id) in KEYS {
                for object_type in [ObjectType::Private, ObjectType::Public] {
                    let object = ObjectInfo::new(object_type, label, id);
                    objects.push((token.clone(), object));
                }
            }
        }
        objects
    }

    /// URIs of the objects that p11tool finds by a URI.
    fn objects(&self, uri: &str) -> Vec<String> {
        let listing = self.p11tool(&[
            "--login",
            "--set-pin",
            PIN,
            "--list-all",
            "--only-urls",
            uri,
        ]);
        listing
            .lines()
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect()
    }

    fn p11tool(&self, arguments: &[&str]) -> String {
        self.run(
            "p11tool",
            "gnutls-bin",
            &[&["--batch", "--provider", MODULE], arguments].concat(),
        )
    }

    fn run(&self, program: &str, package: &str, arguments: &[&str]) -> String {
        assert!(
            fs::exists(MODULE).unwrap_or(false),
            "no {MODULE}: install the Debian package softhsm2"
        );
        let output = Command::new(program)
            .env("SOFTHSM2_CONF", self.folder.path().join("softhsm2.conf"))
            .args(arguments)
            .output()
            .unwrap_or_else(|error| {
                panic!("{program}: {error}; install the Debian package {package}")
            });
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {printed}{errors}"
        );
        printed
    }
}

fn parsed(text: &str) -> Uri {
    Uri::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}
