//! The bytes of references to keys, which files hold for years and other programs read.
#![cfg(test)]

use p11_proto::KeyReference;

const URI: &str = "pkcs11:token=t";

/// `SEQUENCE { VisibleString "PKCS#11 Provider URI v1.0", UTF8String "pkcs11:token=t" }`
const PROVIDER: &str = "\
-----BEGIN PKCS#11 PROVIDER URI-----
MCsaGVBLQ1MjMTEgUHJvdmlkZXIgVVJJIHYxLjAMDnBrY3MxMTp0b2tlbj10
-----END PKCS#11 PROVIDER URI-----
";

/// The same in PKCS#8: version 0, `SEQUENCE { OBJECT IDENTIFIER 2.25.253957271009186626707486067947167478369 }`,
/// `OCTET STRING`.
const PKCS8: &str = "\
-----BEGIN PRIVATE KEY-----
MEoCAQAwFgYUaYL+jrKK5J3SgM+mtsmmmPCr5GEELTArGhlQS0NTIzExIFByb3Zp
ZGVyIFVSSSB2MS4wDA5wa2NzMTE6dG9rZW49dA==
-----END PRIVATE KEY-----
";

#[test]
fn the_bytes_stay_as_they_are() {
    let reference = KeyReference::new(URI);
    assert_eq!(reference.to_provider_pem().unwrap(), PROVIDER);
    assert_eq!(reference.to_pem().unwrap(), PKCS8);
    for pem in [PROVIDER, PKCS8] {
        assert_eq!(KeyReference::from_pem(pem).unwrap(), reference);
        let windows = pem.replace('\n', "\r\n");
        assert_eq!(KeyReference::from_pem(&windows).unwrap(), reference);
    }
}

#[test]
fn a_reference_of_a_later_version_and_a_cut_one_are_refused() {
    // "v1.1"
    let later = PROVIDER
        .replace("SSB2MS4wDA5", "SSB2MS4xDA5")
        .replace("IHYxLjAM", "IHYxLjEM");
    let error = KeyReference::from_pem(&later).unwrap_err().to_string();
    assert!(error.contains("of an unknown version"), "{error}");
    let cut = PROVIDER
        .replace("dG9rZW49dA", "")
        .replace("MTp0b2tlbj10", "");
    let error = KeyReference::from_pem(&cut).unwrap_err().to_string();
    assert!(error.contains("malformed"), "{error}");
}

#[test]
fn a_pin_in_the_uri_is_not_printed() {
    let reference = KeyReference::new("pkcs11:token=t?pin-value=4711");
    assert!(!format!("{reference:?}").contains("4711"));
}

#[test]
fn one_of_ours_that_is_not_as_ours_are_is_malformed_and_no_key_of_another_kind() {
    let tlv = |tag: u8, parts: &[&[u8]]| {
        let value = parts.concat();
        [&[tag, u8::try_from(value.len()).unwrap()][..], &value].concat()
    };
    let description: &[u8] = &tlv(0x1a, &[b"PKCS#11 Provider URI v1.0"]);
    let octets: &[u8] = &tlv(0x30, &[description, &tlv(0x0c, &[URI.as_bytes()])]);
    let octets: &[u8] = &tlv(0x04, &[octets]);
    let oid: &[u8] = &[
        6, 20, 0x69, 0x82, 0xfe, 0x8e, 0xb2, 0x8a, 0xe4, 0x9d, 0xd2, 0x80, 0xcf, 0xa6, 0xb6, 0xc9,
        0xa6, 0x98, 0xf0, 0xab, 0xe4, 0x61,
    ];
    let (version, algorithm): (&[u8], &[u8]) = (&[2, 1, 0], &tlv(0x30, &[oid]));
    let with_null: &[u8] = &tlv(0x30, &[oid, &[5, 0]]);
    let read = |parts: &[&[u8]], after: &[u8]| {
        KeyReference::from_pkcs8(&[&tlv(0x30, parts), after].concat())
    };
    let good = [version, algorithm, octets];
    assert_eq!(read(&good, &[]).unwrap(), Some(KeyReference::new(URI)));
    for (parts, after) in [
        (&good[..], &[0][..]),
        (&[&[2, 1, 1], algorithm, octets], &[]),
        (&[&[2, 1, 5], algorithm, octets], &[]),
        (&[version, with_null, octets], &[]),
        (&[version, algorithm, octets, &[0xa0, 0]], &[]),
        (&[version, algorithm, octets, &[0xa1, 0]], &[]),
        (&[version, algorithm, &[4, 0]], &[]),
        (&[version, algorithm, &[5, 0]], &[]),
        (&[version, algorithm], &[]),
    ] {
        let error = read(parts, after).unwrap_err().to_string();
        assert!(error.contains("malformed"), "{error}");
    }
    let other: &[u8] = &tlv(0x30, &[&[6, 3, 43, 101, 112]]);
    assert_eq!(read(&[version, other, octets], &[]).unwrap(), None);
}
