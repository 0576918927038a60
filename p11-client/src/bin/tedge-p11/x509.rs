//! What a certificate says: whose it is, who issued it, and until when it is good.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use x509_cert::Certificate;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::pem::{LineEnding, encode_string};
use x509_cert::der::{DateTime, Decode, Encode};
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

    fn read(der: &[u8]) -> Result<Summary, der::Error> {
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

    /// "CN=gw-0001, by CN=Maker CA, 2026-11-27 to 2026-12-27 (29 days)"
    pub fn in_long(&self) -> String {
        format!(
            "{}, by {}, {} to {} ({} days)",
            self.subject_name,
            self.issuer_name,
            day(&self.not_before),
            day(&self.not_after),
            self.days
        )
    }

    /// Where a peer would refuse it today.
    pub fn warning(&self) -> Option<String> {
        if self.is_early {
            let day = day(&self.not_before);
            return Some(format!(
                "It is not valid before {day}: is the clock of this device right?"
            ));
        }
        self.is_late
            .then(|| format!("It expired on {}.", day(&self.not_after)))
    }
}

/// Seconds of Unix time as text.
pub fn rfc3339(seconds: u64) -> Option<String> {
    let time = DateTime::from_unix_duration(Duration::from_secs(seconds));
    time.ok().map(|time| time.to_string())
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

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(name: &str, from: i32, until: i32) -> Summary {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Maker");
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(until, 3, 1);
        let key = KeyPair::generate().unwrap();
        Summary::of(params.self_signed(&key).unwrap().der()).unwrap()
    }

    #[test]
    fn what_a_peer_would_refuse_today_is_said() {
        let good = certificate("gw-0001", 2020, 2090);
        assert_eq!(good.in_short(), "CN=gw-0001 until 2090-03-01");
        assert_eq!(good.not_after, "2090-03-01T00:00:00Z");
        assert!(good.days > 10_000 && good.warning().is_none(), "{good:?}");

        let late = certificate("gw-0001", 2020, 2021);
        assert_eq!(late.in_short(), "CN=gw-0001 expired 2021-03-01");
        assert_eq!(late.warning().unwrap(), "It expired on 2021-03-01.");
        assert!(late.days < 0 && late.is_late, "{late:?}");

        let early = certificate("gw-0001", 2080, 2090);
        assert_eq!(early.in_short(), "CN=gw-0001 not before 2080-01-01");
        assert!(early.warning().unwrap().contains("clock"), "{early:?}");
    }

    #[test]
    fn no_name_drives_the_terminal() {
        let odd = certificate("a\u{1b}[2J", 2020, 2090);
        let said = format!("{} {} {}", odd.in_long(), odd.subject, odd.issuer);
        assert!(!said.contains('\u{1b}'), "{said:?}");
    }
}
