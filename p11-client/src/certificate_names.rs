//! What certificates say in words: subjects, subject alternative names, key usages.

use std::fmt::Display;
use std::net::IpAddr;

use der::asn1::{Ia5String, Ia5StringRef, ObjectIdentifier, PrintableStringRef};
use der::{Tag, Tagged};
use rustls::pki_types::DnsName;
use x509_cert::ext::pkix::KeyUsages;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::Name;

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
    let name: Name = text.parse().map_err(|_| {
        refuse(
            "cannot be understood: write it as CN=gw-0001,O=Maker (RFC 4514), with a backslash before a comma in a value",
        )
    })?;
    // The parser takes any character.
    for part in name.iter() {
        let is_good = match part.value.tag() {
            Tag::PrintableString => PrintableStringRef::try_from(&part.value).is_ok(),
            Tag::Ia5String => Ia5StringRef::try_from(&part.value).is_ok(),
            _ => true,
        };
        if !is_good {
            return Err(refuse(&format!(
                "has characters in {part} that may not be there"
            )));
        }
    }
    Ok(name)
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
