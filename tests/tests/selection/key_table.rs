//! Keys of every kind and name on one token, a row each: how it is made, its label and id, and what the server answers.

use std::path::PathBuf;

use p11_client::{
    ErrorCode,
    message::{Class, KeyType},
};
use p11_tests::{
    client::{TestClient, refused},
    softhsm::Token,
    tools::{command, run},
};

use super::{Store, assert_refused, log_lines};
use Made::{Generated, Imported};

/// How a pair comes to be on the token.
enum Made {
    /// The token makes it, of what `pkcs11-tool --key-type` takes.
    Generated(&'static str),
    /// openssl makes it: algorithm and options.
    Imported(&'static str, &'static [&'static str]),
}

const P256: Made = Generated("EC:secp256r1");

const fn ec(curve: &'static [&'static str; 1]) -> Made {
    Imported("EC", curve)
}

const fn rsa(bits_and_exponent: &'static [&'static str]) -> Made {
    Imported("RSA", bits_and_exponent)
}

const ES256: &[u16] = &[0x0403];
/// All with RSA but PSS with SHA-512, for which 1024 bits are too few.
const RSA_1024: &[u16] = &[0x0804, 0x0805, 0x0401, 0x0501, 0x0601];
/// The least that PSS with SHA-256 fits.
const RSA_522: &[u16] = &[0x0804, 0x0401];
const RSA_520: &[u16] = &[0x0401];
const RSA: &[u16] = &[0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601];
/// No key to sign with.
const NONE: &[u16] = &[];
const OTHER_CURVE: &str = "the EC key is on none of P-256, P-384 and P-521";

/// How it is made, its label and id; then what a listing says of its type and size, what names it in its URI, and the
/// schemes that it signs.
type Row = (
    Made,
    &'static [u8],
    Vec<u8>,
    (KeyType, u32),
    String,
    &'static [u16],
);

#[rustfmt::skip]
fn rows() -> Vec<Row> {
    use KeyType::{Ec, Ed25519, Rsa};
    let row = |made, label: &'static [u8], id: &[u8], kind, named: &str, schemes| {
        (made, label, id.to_vec(), kind, named.to_owned(), schemes)
    };
    let l255: &[u8] = &[b'L'; 255];
    let l256: &[u8] = &[b'L'; 256];
    let id255 = "%FF".repeat(255);
    vec![
        // Kinds and sizes.
        row(P256, b"p256", &[1], (Ec, 256), "id=%01;object=p256", ES256),
        row(ec(&["ec_paramgen_curve:P-256"]), b"p256-imported", &[2], (Ec, 256), "id=%02;object=p256-imported", ES256),
        row(Generated("EC:secp384r1"), b"p384", &[3], (Ec, 384), "id=%03;object=p384", &[0x0503]),
        row(ec(&["ec_paramgen_curve:P-521"]), b"p521", &[4], (Ec, 521), "id=%04;object=p521", &[0x0603]),
        row(Generated("EC:edwards25519"), b"ed", &[5], (Ed25519, 255), "id=%05;object=ed", &[0x0807]),
        row(Generated("EC:secp256k1"), b"k1", &[6], (Ec, 0), "id=%06;object=k1", NONE),
        row(Generated("EC:brainpoolP256r1"), b"bp256", &[7], (Ec, 0), "id=%07;object=bp256", NONE),
        row(ec(&["ec_paramgen_curve:brainpoolP384r1"]), b"bp384", &[8], (Ec, 0), "id=%08;object=bp384", NONE),
        row(Generated("rsa:2048"), b"rsa", &[0x10], (Rsa, 2048), "id=%10;object=rsa", RSA),
        row(rsa(&["rsa_keygen_bits:2048", "rsa_keygen_pubexp:3"]), b"e3", &[0x11], (Rsa, 2048), "id=%11;object=e3", RSA),
        row(rsa(&["rsa_keygen_bits:2050"]), b"rsa+", &[0x12], (Rsa, 2050), "id=%12;object=rsa%2B", RSA),
        row(rsa(&["rsa_keygen_bits:2047"]), b"rsa-", &[0x13], (Rsa, 2047), "id=%13;object=rsa-", RSA),
        row(rsa(&["rsa_keygen_bits:1026"]), b"r1026", &[0x14], (Rsa, 1026), "id=%14;object=r1026", RSA_1024),
        row(Generated("rsa:1024"), b"r1024", &[0x15], (Rsa, 1024), "id=%15;object=r1024", RSA_1024),
        row(rsa(&["rsa_keygen_bits:522"]), b"r522", &[0x16], (Rsa, 522), "id=%16;object=r522", RSA_522),
        row(rsa(&["rsa_keygen_bits:520"]), b"r520", &[0x17], (Rsa, 520), "id=%17;object=r520", RSA_520),
        // Ids of 0 to 255 bytes, and one that is too long to be one.
        row(P256, b"no id", b"", (Ec, 256), "object=no%20id", ES256),
        row(P256, b"zero", &[0], (Ec, 256), "id=%00;object=zero", ES256),
        row(P256, b"zeros", &[0, 0], (Ec, 256), "id=%00%00;object=zeros", ES256),
        row(P256, b"id as text", b"a;%/", (Ec, 256), "id=%61%3B%25%2F;object=id%20as%20text", ES256),
        row(ec(&["ec_paramgen_curve:P-256"]), b"id of 255", &[0xff; 255], (Ec, 256), &format!("id={id255};object=id%20of%20255"), ES256),
        row(ec(&["ec_paramgen_curve:P-256"]), b"id of 256", &[0xff; 256], (Ec, 256), "object=id%20of%20256", ES256),
        // Equal ids.
        row(P256, b"twin a", &[0x20], (Ec, 256), "id=%20;object=twin%20a", ES256),
        row(P256, b"twin b", &[0x20], (Ec, 256), "id=%20;object=twin%20b", ES256),
        row(ec(&["ec_paramgen_curve:P-384"]), b"twin c", &[0x20], (Ec, 384), "id=%20;object=twin%20c", &[0x0503]),
        // Labels.
        row(P256, b"", &[0x30], (Ec, 256), "id=%30", ES256),
        row(P256, b" ", &[0x31], (Ec, 256), "id=%31;object=%20", ES256),
        row(P256, b"12345678901234567890123456789012", &[0x32], (Ec, 256), "id=%32;object=12345678901234567890123456789012", ES256),
        row(P256, "Schlüssel 鍵".as_bytes(), &[0x33], (Ec, 256), "id=%33;object=Schl%C3%BCssel%20%E9%8D%B5", ES256),
        row(P256, b";%/?&=#<>", &[0x34], (Ec, 256), "id=%34;object=%3B%25%2F%3F%26%3D%23%3C%3E", ES256),
        row(P256, b"?pin-value=5", &[0x35], (Ec, 256), "id=%35;object=%3Fpin-value%3D5", ES256),
        row(P256, b"two\nlines\x1b[2J", &[0x36], (Ec, 256), "id=%36;object=two%0Alines%1B%5B2J", ES256),
        row(P256, b"caf\xe9", &[0x37], (Ec, 256), "id=%37", ES256),
        row(P256, l255, &[0x38], (Ec, 256), &format!("id=%38;object={}", "L".repeat(255)), ES256),
        row(P256, l256, &[0x39], (Ec, 256), "id=%39", ES256),
    ]
}

/// Makes the pair; its SubjectPublicKeyInfo where openssl knows it.
fn make(store: &Store, token: &Token, (made, label, id, ..): &Row) -> Option<Vec<u8>> {
    match made {
        Generated(kind) => {
            store.hsm.generate_any(token, kind, label, id);
            None
        }
        Imported(algorithm, options) => {
            let file = tempfile::NamedTempFile::new().unwrap();
            let file = PathBuf::from(file.path());
            let mut openssl = command("openssl");
            openssl.args(["genpkey", "-algorithm", algorithm]);
            openssl.args(options.iter().flat_map(|option| ["-pkeyopt", option]));
            run(openssl.arg("-out").arg(&file));
            store.hsm.import_pem(token, label, id, &file);
            let spki = ["pkey", "-pubout", "-outform", "DER", "-in"];
            Some(run(command("openssl").args(spki).arg(&file)))
        }
    }
}

/// What URIs of keys on the token `device` begin with.
fn prefix(token: &Token) -> String {
    format!(
        "pkcs11:model=SoftHSM%20v2;manufacturer=SoftHSM%20project;serial={};token=device;",
        token.serial
    )
}

#[test]
fn each_key_is_listed_opened_signed_with_told_and_deleted_by_its_own_uri() {
    let store = Store::new();
    let token = store.token("device");
    let rows = rows();
    let made: Vec<_> = rows.iter().map(|row| make(&store, &token, row)).collect();
    let server = store.server().start();
    let client = server.client();
    let listed = client.list_keys("pkcs11:token=device").unwrap();
    assert_eq!(listed.len(), 2 * rows.len());

    let halves = |named: &str| {
        ["private", "public"].map(|class| format!("{}{named};type={class}", prefix(&token)))
    };
    for ((_, label, id, kind, named, schemes), spki) in rows.iter().zip(&made) {
        let uris = halves(named);
        for (uri, class) in uris.iter().zip([Class::Private, Class::Public]) {
            let of_uri: Vec<_> = listed.iter().filter(|entry| entry.uri == *uri).collect();
            let [entry] = of_uri.as_slice() else {
                panic!("{uri} is listed {} times", of_uri.len());
            };
            assert_eq!((entry.class, (entry.key_type, entry.bits)), (class, *kind));
            assert!(entry.id == *id || id.len() > 255, "{uri}");
            let is_named = named.contains("object=") || label.is_empty();
            let is_shown = entry.label.as_bytes() == *label;
            assert_eq!(
                is_shown,
                is_named && !label.iter().any(u8::is_ascii_control)
            );
            assert!(!entry.label.contains(char::is_control), "{uri}");
        }
        let uri = &uris[0];
        if schemes.is_empty() {
            let asked = [
                client.open(uri).map(drop),
                client.get_public_key(uri).map(drop),
            ];
            for answer in asked {
                let failure = refused(answer, ErrorCode::KeyNotFound);
                let told = format!("{uri} cannot be used: {OTHER_CURVE}");
                assert!(failure.message.contains(&told), "{failure}");
            }
            continue;
        }
        let key = client.open(uri).unwrap();
        assert_eq!((&key.told().uri, &key.told().schemes[..]), (uri, *schemes));
        assert!(spki.as_ref().is_none_or(|spki| key.told().spki == *spki));
        for scheme in *schemes {
            key.sign_with(*scheme).unwrap();
        }
        let public = client.get_public_key(uri).unwrap();
        assert_eq!((&public.uri, &public.spki), (uri, &key.told().spki));
    }
    let mut left = listed.len();
    for (.., named, _) in &rows {
        let uris = halves(named);
        assert_eq!(client.delete_key(&uris[0]).unwrap(), uris);
        left -= 2;
        let listed = client.list_keys("pkcs11:token=device").unwrap();
        assert_eq!(listed.len(), left, "{named}");
        assert_refused(&server, &uris[0], ErrorCode::KeyNotFound);
    }
}

/// What OpenKey and GetPublicKey answer: the end of the key's URI, or an error and what it says.
type Answer = Result<&'static str, (ErrorCode, &'static str)>;

/// What is asked for, what is answered, how many objects ListKeys lists, and how many DeleteKey deletes.
type Question = (&'static str, Answer, usize, Result<usize, ErrorCode>);

#[rustfmt::skip]
const QUESTIONS: &[Question] = {
    use ErrorCode::{AmbiguousKey, KeyNotFound};
    const NOT_THERE: Answer = Err((KeyNotFound, "none matches"));
    &[
        ("id=%07", Ok("id=%07;object=same"), 4, Err(AmbiguousKey)),
        ("object=same;id=%07;type=public", Ok("id=%07;object=same"), 4, Err(AmbiguousKey)),
        ("id=%08", Err((KeyNotFound, "several public keys have its id and label")), 4, Err(AmbiguousKey)),
        ("id=%09", Ok("id=%09;object=a"), 4, Err(AmbiguousKey)),
        ("object=same;id=%09", NOT_THERE, 0, Ok(0)),
        ("object=", NOT_THERE, 0, Ok(0)),
        ("id=", NOT_THERE, 0, Ok(0)),
        ("id=%09%00", NOT_THERE, 0, Ok(0)),
        ("id=09", Err((KeyNotFound, "`id=%09`")), 0, Ok(0)),
        ("object=A", NOT_THERE, 0, Ok(0)),
        ("object=a%20", NOT_THERE, 0, Ok(0)),
        ("object=a;type=cert", NOT_THERE, 0, Ok(0)),
        ("object=b", Ok("id=%09;object=b"), 2, Ok(2)),
        ("id=%09", Ok("id=%09;object=a"), 2, Ok(2)),
        ("id=%09", NOT_THERE, 0, Ok(0)),
    ]
};

#[test]
fn a_uri_means_the_keys_that_it_says_and_changes_none_of_several() {
    let store = Store::new();
    let token = store.token("device");
    for (kind, label, id) in [
        ("rsa:1024", "same", 7),
        ("rsa:1024", "same", 7),
        ("EC:secp256r1", "same-ec", 8),
        ("EC:secp256r1", "same-ec", 8),
        ("EC:secp256r1", "b", 9),
        ("EC:secp384r1", "a", 9),
    ] {
        store
            .hsm
            .generate_any(&token, kind, label.as_bytes(), &[id]);
    }
    let server = store.server().start();
    let client = server.client();
    for question in QUESTIONS {
        ask(&client, &token, question);
    }
    assert!(log_lines(&server, "several keys match").len() > 2);
}

fn ask(client: &TestClient, token: &Token, (asked, answer, listed, deleted): &Question) {
    let uri = format!("pkcs11:token=device;{asked}");
    let open = client.open(&uri).map(|key| {
        key.sign().unwrap();
        key.told().uri.clone()
    });
    let public = client.get_public_key(&uri).map(|public| public.uri);
    for told in [open, public] {
        match (told, answer) {
            (Ok(told), Ok(named)) => {
                assert_eq!(
                    told,
                    format!("{}{named};type=private", prefix(token)),
                    "{asked}"
                );
            }
            (told, Err((code, text))) => {
                let failure = refused(told, *code);
                assert!(failure.message.contains(text), "{asked}: {failure}");
            }
            (Err(failure), Ok(_)) => panic!("{asked}: {failure}"),
        }
    }
    assert_eq!(client.list_keys(&uri).unwrap().len(), *listed, "{asked}");
    match (client.delete_key(&uri), deleted) {
        (Ok(uris), Ok(number)) => assert_eq!(uris.len(), *number, "{asked}"),
        (told, Err(code)) => drop(refused(told, *code)),
        (Err(failure), Ok(_)) => panic!("{asked}: {failure}"),
    }
}
