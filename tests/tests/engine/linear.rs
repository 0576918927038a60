//! What a search costs grows with the objects on the token and no faster.

use p11_client::ErrorCode;
use p11_fault_module::{Counts, Function::C_Login};
use p11_tests::{
    client::{TestClient, refused},
    fixture::{Fixture, KEY},
    keys::KeyKind,
};

/// What a client asks of a token that it has used before, and its name.
type Row = (&'static str, fn(&TestClient));

const ROWS: [Row; 5] = [
    ("OpenKey by token and label", |client| {
        drop(client.open(KEY).unwrap());
    }),
    ("OpenKey by token", |client| {
        drop(client.open("pkcs11:token=device").unwrap());
    }),
    ("GetPublicKey", |client| {
        drop(client.get_public_key(KEY).unwrap());
    }),
    ("ListKeys", |client| {
        drop(client.list_keys("pkcs11:token=device").unwrap());
    }),
    ("a miss", |client| {
        let missing = client.open("pkcs11:token=device;object=missing");
        refused(missing, ErrorCode::KeyNotFound);
    }),
];

/// The calls of each request on a token of so many objects, each by a server of its own.
fn costs(objects: usize) -> Vec<Counts> {
    let fixture = Fixture::new(KeyKind::P256);
    // All of one id, but for the first pair.
    fixture.fill(objects);
    let cost = |(name, ask): &Row| {
        let mut server = fixture.start();
        let before = fixture.faults.counts();
        ask(&server.client());
        let calls = fixture.faults.counts().since(&before);
        // A request that makes many calls is no call that hangs.
        assert_eq!(server.client().status().trouble, None, "{name}");
        assert!(server.is_running());
        calls
    };
    ROWS.iter().map(cost).collect()
}

#[test]
fn calls_grow_with_the_objects_and_no_faster() {
    const SIZES: [usize; 3] = [20, 200, 2000];
    let [few, more, many] = SIZES.map(costs);
    for ((((name, _), few), more), many) in ROWS.iter().zip(few).zip(more).zip(many) {
        assert!(few.of(C_Login) <= 1, "{name}: {few}");
        // What ten times the objects add, a hundred times add ten times, and a few for the first.
        let per_object = |calls: &Counts, objects: usize| calls.total() as f64 / objects as f64;
        let (per_few, per_many) = (per_object(&few, SIZES[0]), per_object(&many, SIZES[2]));
        assert!(per_many <= per_few, "{name}: {few}; {more}; {many}");
        let steady = per_object(&more, SIZES[1]) * 1.1;
        assert!(per_many <= steady, "{name}: {few}; {more}; {many}");
        // Each object is found and read, with and without a login.
        assert!(per_many <= 5.0, "{name}: {many}");
    }
}
