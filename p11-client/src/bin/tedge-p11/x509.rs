//! What a certificate says: whose it is, who issued it, and until when it is good.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use x509_cert::Certificate;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::pem::{LineEnding, encode_string};
use x509_cert::der::{Decode, Encode};
use x509_cert::name::Name;
use x509_cert::time::Time;

use crate::exit::Refusal;
use crate::output::printable;

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const DAY: i64 = 24 * 60 * 60;

/// See docs/command.md.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    pub subject: String,
    pub issuer: String,
    /// Hexadecimal.
    pub serial: String,
    /// RFC 3339, as `not_after`.
    pub not_before: String,
    pub not_after: String,
    /// Whole days until then, below 0 afterwards.
    pub days: i64,
    #[serde(skip)]
    pub subject_name: String,
    #[serde(skip)]
    pub issuer_name: String,
    #[serde(skip)]
    pub is_early: bool,
    #[serde(skip)]
    pub is_late: bool,
    /// The public key, a DER `SubjectPublicKeyInfo`.
    #[serde(skip)]
    pub spki: Vec<u8>,
}

impl Summary {
    pub fn of(der: &[u8]) -> Result<Summary, Refusal> {
        Summary::read(der)
            .map_err(|e| Refusal::failed(format_args!("the certificate cannot be read: {e}")))
    }

    fn read(der: &[u8]) -> Result<Summary, x509_cert::der::Error> {
        let certificate = Certificate::from_der(der)?;
        let certificate = certificate.tbs_certificate();
        let validity = certificate.validity();
        let (from, until) = (seconds(validity.not_before), seconds(validity.not_after));
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, whole_seconds);
        let serial = certificate.serial_number().as_bytes();
        Ok(Summary {
            subject: printable(&certificate.subject().to_string()),
            issuer: printable(&certificate.issuer().to_string()),
            serial: serial.iter().map(|byte| format!("{byte:02x}")).collect(),
            not_before: validity.not_before.to_date_time().to_string(),
            not_after: validity.not_after.to_date_time().to_string(),
            days: (until - now).div_euclid(DAY),
            subject_name: short_name(certificate.subject()),
            issuer_name: short_name(certificate.issuer()),
            is_early: now < from,
            is_late: now > until,
            spki: certificate.subject_public_key_info().to_der()?,
        })
    }

    /// "CN=gw-0001 until 2027-03-01"
    pub fn in_short(&self) -> String {
        let when = match (self.is_early, self.is_late) {
            (true, _) => format!("not before {}", day(&self.not_before)),
            (_, true) => format!("expired {}", day(&self.not_after)),
            _ => format!("until {}", day(&self.not_after)),
        };
        format!("{} {when}", self.subject_name)
    }
}

/// PEM (RFC 7468) under a label.
pub fn to_pem(label: &str, der: &[u8]) -> Result<String, Refusal> {
    encode_string(label, LineEnding::LF, der).map_err(Refusal::failed)
}

/// "CN=gw-0001", or all of a name without one.
fn short_name(name: &Name) -> String {
    let mut parts = name.iter();
    let common = parts.find(|part| part.oid == COMMON_NAME);
    printable(&common.map_or_else(|| name.to_string(), ToString::to_string))
}

/// 2027-03-01
fn day(time: &str) -> &str {
    time.split('T').next().unwrap_or(time)
}

fn seconds(time: Time) -> i64 {
    whole_seconds(time.to_unix_duration())
}

fn whole_seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}
