//! `public-key`

use std::fs;

use p11_tests::{
    fixture::Fixture,
    keys::KeyKind,
    tools::{command, run},
};

use super::{json, tedge_p11};

#[test]
fn the_public_half_is_one_that_openssl_reads() {
    let fixture = Fixture::new(KeyKind::P521);
    let server = fixture.start();
    let ended = tedge_p11(&server, &["public-key", "key"]);
    assert_eq!(ended.stderr, "");
    let file = server.folder().join("key.pem");
    fs::write(&file, ended.done()).unwrap();
    let read = run(command("openssl")
        .args(["pkey", "-pubin", "-outform", "DER", "-in"])
        .arg(&file));
    assert_eq!(read, fixture.key.spki);

    // The only key needs no name.
    let (code, answer) = json(&server, &["public-key"]);
    assert_eq!(
        (code, &answer["bits"], &answer["pem"]),
        (0, &521.into(), &ended.stdout.as_str().into())
    );
}
