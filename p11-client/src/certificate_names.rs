//! What certificates say in words: subjects, subject alternative names, key usages.

use std::fmt::Display;
use std::net::IpAddr;

use der::asn1::{
    Any, Ia5String, Ia5StringRef, ObjectIdentifier, PrintableStringRef, Utf8StringRef,
};
use der::oid::db::DB;
use der::oid::db::rfc3280::{EMAIL_ADDRESS, PSEUDONYM};
use der::oid::db::rfc4519::{
    COMMON_NAME, COUNTRY_NAME, DN_QUALIFIER, LOCALITY_NAME, ORGANIZATION_NAME,
    ORGANIZATIONAL_UNIT_NAME, SERIAL_NUMBER, TITLE,
};
use der::{Decode, Encode, Tag, Tagged};
use rustls::pki_types::DnsName;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::ext::pkix::KeyUsages;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::{Name, RdnSequence, RelativeDistinguishedName};

use crate::error::Error;

const KEY_USAGES: [(&str, KeyUsages); 9] = [
    ("digitalSignature", KeyUsages::DigitalSignature),
    ("nonRepudiation", KeyUsages::NonRepudiation),
    ("keyEncipherment", KeyUsages::KeyEncipherment),
    ("dataEncipherment", KeyUsages::DataEncipherment),
    ("keyAgreement", KeyUsages::KeyAgreement),
    ("keyCertSign", KeyUsages::KeyCertSign),
    ("cRLSign", KeyUsages::CRLSign),
    ("encipherOnly", KeyUsages::EncipherOnly),
    ("decipherOnly", KeyUsages::DecipherOnly),
];

/// RFC 5280 appendix A.1.
const STATE_OR_PROVINCE_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.8");

/// How many characters a value may have (RFC 5280 appendix A.1).
const LENGTHS: [(ObjectIdentifier, usize); 10] = [
    (COUNTRY_NAME, 2),
    (COMMON_NAME, 64),
    (ORGANIZATION_NAME, 64),
    (ORGANIZATIONAL_UNIT_NAME, 64),
    (SERIAL_NUMBER, 64),
    (TITLE, 64),
    (LOCALITY_NAME, 128),
    (STATE_OR_PROVINCE_NAME, 128),
    (PSEUDONYM, 128),
    (EMAIL_ADDRESS, 255),
];

/// RFC 5280 section 4.2.1.12.
const EXTENDED_KEY_USAGES: [(&str, &str); 6] = [
    ("serverAuth", "1.3.6.1.5.5.7.3.1"),
    ("clientAuth", "1.3.6.1.5.5.7.3.2"),
    ("codeSigning", "1.3.6.1.5.5.7.3.3"),
    ("emailProtection", "1.3.6.1.5.5.7.3.4"),
    ("timeStamping", "1.3.6.1.5.5.7.3.8"),
    ("OCSPSigning", "1.3.6.1.5.5.7.3.9"),
];

pub(crate) fn parse_subject(text: &str) -> Result<Name, Error> {
    let refuse = |cause: &str| refused(format_args!("the subject {text:?} {cause}"));
    if text.is_empty() {
        return Ok(Name::default());
    }
    let name: Name = is_rfc4514(text).then(|| text.parse().ok()).flatten().ok_or_else(|| {
        refuse(
            "cannot be understood: write it as CN=gw-0001,O=Maker (RFC 4514), with a backslash before each of , ; + < > \" \\ in a value, and before a blank at its ends",
        )
    })?;
    // The parser takes any characters, and any length.
    let mut names = Vec::new();
    for name in name.iter_rdn() {
        let mut parts: Vec<_> = name.iter().cloned().collect();
        for part in &mut parts {
            check_value(part).map_err(|cause| refuse(&cause))?;
        }
        let mut kinds: Vec<_> = parts.iter().map(|part| part.oid).collect();
        kinds.sort_unstable();
        kinds.dedup();
        if kinds.len() < parts.len() {
            return Err(refuse("has two of one kind joined by +"));
        }
        names.push(RelativeDistinguishedName::try_from(parts).map_err(refused)?);
    }
    let names = RdnSequence::from(names).to_der();
    names.and_then(|der| Name::from_der(&der)).map_err(refused)
}

/// Whether what must be escaped in a value is, which the parser does not ask (RFC 4514 section 3).
fn is_rfc4514(text: &str) -> bool {
    let mut chars = text.chars().peekable();
    let (mut is_first, mut is_blank) = (false, false);
    while let Some(c) = chars.next() {
        let was_blank = is_blank;
        is_blank = false;
        match c {
            ';' | '<' | '>' | '"' | '\0' => return false,
            ',' | '+' if was_blank => return false,
            ' ' if is_first => return false,
            ' ' => is_blank = true,
            '\\' => match chars.next() {
                Some(c) if c.is_ascii_hexdigit() => {
                    if !chars.next().is_some_and(|c| c.is_ascii_hexdigit()) {
                        return false;
                    }
                }
                Some(_) => {}
                None => return false,
            },
            _ => {}
        }
        is_first = c == '=';
    }
    !is_blank
}

/// What a value may be (RFC 5280 appendix A.1). One that has to be a PrintableString becomes one.
fn check_value(part: &mut AttributeTypeAndValue) -> Result<(), String> {
    if part.oid == DN_QUALIFIER && part.value.tag() == Tag::Utf8String {
        let printable = Any::new(Tag::PrintableString, part.value.value());
        part.value = printable.map_err(|error| error.to_string())?;
    }
    let value = &part.value;
    let text = match value.tag() {
        Tag::PrintableString => PrintableStringRef::try_from(value).ok().map(|s| s.as_str()),
        Tag::Ia5String => Ia5StringRef::try_from(value).ok().map(|s| s.as_str()),
        Tag::Utf8String => Utf8StringRef::try_from(value).ok().map(|s| s.as_str()),
        // Of a value in hexadecimal digits.
        _ => return Ok(()),
    };
    let kind = part.oid;
    let names = DB.find_names_for_oid(kind);
    let kind = names
        .min_by_key(|name| name.len())
        .map_or(kind.to_string(), str::to_uppercase);
    let Some(text) = text.filter(|text| !text.chars().any(char::is_control)) else {
        return Err(format!("has characters in {kind} that may not be there"));
    };
    let length = text.chars().count();
    let longest = LENGTHS.iter().find(|(oid, _)| *oid == part.oid);
    match longest {
        _ if length == 0 => Err(format!("has nothing in {kind}")),
        Some((_, longest)) if length > *longest => Err(format!(
            "has {length} characters in {kind}, and {longest} are allowed"
        )),
        _ if part.oid == COUNTRY_NAME && length != 2 => Err(format!(
            "has no country in {kind}: write its two letters, DE for example"
        )),
        _ => Ok(()),
    }
}

pub(crate) fn parse_san(text: &str) -> Result<GeneralName, Error> {
    let refuse = |cause: &str| {
        refused(format_args!(
            "the subject alternative name {text:?} {cause}"
        ))
    };
    let (kind, name) = text
        .split_once(':')
        .ok_or_else(|| refuse("has no kind: write DNS:, IP:, email: or URI: before it"))?;
    let ascii = |what: &str| Ia5String::new(name).map_err(|_| refuse(what));
    match kind.to_ascii_lowercase().as_str() {
        "dns" => {
            const NONE: &str =
                "is no DNS name (one in other letters than ASCII is written as xn--…)";
            let host = name.strip_prefix("*.").unwrap_or(name);
            DnsName::try_from(host).map_err(|_| refuse(NONE))?;
            Ok(GeneralName::DnsName(ascii(NONE)?))
        }
        "ip" => {
            let address: IpAddr = name.parse().map_err(|_| refuse("is no IP address"))?;
            Ok(address.into())
        }
        "email" => {
            const NONE: &str = "is no e-mail address";
            let is_address = name
                .split_once('@')
                .is_some_and(|(who, host)| !who.is_empty() && DnsName::try_from(host).is_ok());
            match is_address {
                true => Ok(GeneralName::Rfc822Name(ascii(NONE)?)),
                false => Err(refuse(NONE)),
            }
        }
        "uri" => {
            const NONE: &str = "is no absolute URI (RFC 3986)";
            let has_scheme = name.split_once(':').is_some_and(|(scheme, rest)| {
                scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && !rest.is_empty()
            });
            match has_scheme && name.bytes().all(|byte| byte.is_ascii_graphic()) {
                true => Ok(GeneralName::UniformResourceIdentifier(ascii(NONE)?)),
                false => Err(refuse(NONE)),
            }
        }
        _ => Err(refuse(
            "is of an unknown kind: DNS:, IP:, email: and URI: are known",
        )),
    }
}

pub(crate) fn parse_key_usage(name: &str) -> Result<KeyUsages, Error> {
    let known = KEY_USAGES.iter().find(|(known, _)| *known == name);
    known.map(|(_, usage)| *usage).ok_or_else(|| {
        let known = KEY_USAGES.map(|(known, _)| known).join(", ");
        refused(format_args!("{name:?} is no key usage: those are {known}"))
    })
}

pub(crate) fn parse_extended_key_usage(name: &str) -> Result<ObjectIdentifier, Error> {
    let known = EXTENDED_KEY_USAGES.iter().find(|(known, _)| *known == name);
    let numbers = known.map_or(name, |(_, numbers)| *numbers);
    ObjectIdentifier::new(numbers).map_err(|_| {
        let known = EXTENDED_KEY_USAGES.map(|(known, _)| known).join(", ");
        refused(format_args!(
            "{name:?} is no extended key usage: write one of {known}, or an object identifier such as 1.3.6.1.5.5.7.3.2"
        ))
    })
}

/// For what a certificate cannot say.
pub(crate) fn refused(cause: impl Display) -> Error {
    Error::CertificateParams(cause.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_read_as_rfc_4514_writes_it() {
        for (text, printed) in [
            ("CN=gw-0001,O=Maker", "CN=gw-0001,O=Maker"),
            (r"CN=a\, b,OU=x", r"CN=a\, b,OU=x"),
            ("OU=x+serialNumber=1", "SERIALNUMBER=1+OU=x"),
            ("C=DE", "C=DE"),
            ("", ""),
        ] {
            assert_eq!(parse_subject(text).unwrap().to_string(), printed);
        }
    }

    #[test]
    fn what_is_no_subject_is_refused_with_the_form() {
        for text in ["gw-0001", "/CN=gw-0001", "CN=a, O=b", "CN", ",", "NN=a"] {
            let error = parse_subject(text).unwrap_err().to_string();
            assert!(error.contains("CN=gw-0001,O=Maker (RFC 4514)"), "{error}");
        }
        for text in ["C=\u{d6}", "emailAddress=\u{e4}@b.c"] {
            let error = parse_subject(text).unwrap_err().to_string();
            assert!(error.contains("characters"), "{error}");
        }
    }

    #[test]
    fn values_are_as_rfc_5280_and_4514_want_them() {
        let long = |name: &str, length| format!("{name}={}", "ä".repeat(length));
        for (text, part) in [
            (r"CN=a\FF", "characters"),
            (r"CN=a\C3", "characters"),
            (r"CN=a\0A", "characters"),
            (r"CN=a\00", "characters"),
            ("CN=a\n", "characters"),
            ("dnQualifier=ä", "characters"),
            ("CN=a\0", "RFC 4514"),
            (r"CN=a\", "RFC 4514"),
            (r"CN=a\4", "RFC 4514"),
            ("CN=a;O=b", "RFC 4514"),
            ("CN=<x>", "RFC 4514"),
            ("CN=\"x\"", "RFC 4514"),
            ("CN= a", "RFC 4514"),
            ("CN=a ", "RFC 4514"),
            ("CN=a ,O=b", "RFC 4514"),
            ("CN=", "nothing in CN"),
            ("C=Germany", "2 are allowed"),
            ("C=D", "two letters"),
            (&long("CN", 65), "65 characters in CN, and 64 are allowed"),
            (&long("O", 65), "64 are allowed"),
            (&long("L", 129), "128 are allowed"),
            ("CN=a+CN=a", "two of one kind"),
            ("CN=a+CN=b", "two of one kind"),
        ] {
            let error = parse_subject(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text:?}: {error}");
        }
        for text in [
            r"CN=\ a\ ",
            r"CN=a\;b\3C",
            "CN=a b",
            &long("CN", 64),
            "CN=a=b",
        ] {
            parse_subject(text).unwrap();
        }
        let name = parse_subject("dnQualifier=a").unwrap();
        assert_eq!(
            name.iter().next().unwrap().value.tag(),
            Tag::PrintableString
        );
    }

    #[test]
    fn alternative_names_are_of_four_kinds() {
        for text in [
            "DNS:gw-0001.local",
            "dns:*.maker.example",
            "IP:192.0.2.1",
            "IP:2001:db8::1",
            "email:device@maker.example",
            "URI:urn:dev:mac:0024befffe804ff1",
        ] {
            parse_san(text).unwrap();
        }
        for text in [
            "gw-0001.local",
            "DNS:",
            "DNS:a b",
            "DNS:k\u{fc}che.local",
            "IP:192.0.2.256",
            "IP:192.0.2.0/24",
            "email:device",
            "email:@maker.example",
            "URI:maker.example/x",
            "URI:urn:\u{fc}",
            "RID:1.2.3.4",
        ] {
            let error = parse_san(text).unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }

    #[test]
    fn usages_have_the_names_of_rfc_5280() {
        assert_eq!(parse_key_usage("cRLSign").unwrap(), KeyUsages::CRLSign);
        let client = ObjectIdentifier::new("1.3.6.1.5.5.7.3.2").unwrap();
        assert_eq!(parse_extended_key_usage("clientAuth").unwrap(), client);
        assert_eq!(
            parse_extended_key_usage("1.3.6.1.5.5.7.3.2").unwrap(),
            client
        );
        for error in [
            parse_key_usage("clientAuth").unwrap_err(),
            parse_extended_key_usage("digitalSignature").unwrap_err(),
        ] {
            assert_eq!(error.code(), "CertificateParams");
            assert!(error.to_string().contains("Sign"), "{error}");
        }
    }
}
