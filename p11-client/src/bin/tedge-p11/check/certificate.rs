//! Step `certificate`: whose key it is of, until when it is good, and for what.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use p11_client::message::GetCertificates;
use p11_client::rustls::pki_types::CertificateDer;
use p11_client::rustls::pki_types::pem::PemObject;
use p11_client::spki::PublicKey;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage};

use super::files::quoted_path;
use super::finding::{Finding, Looked};
use super::walk::{Walk, now};
use crate::exit::quoted;
use crate::x509::Summary;

/// RFC 5280 section 4.2.1.12
const CLIENT_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");
const ANY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37.0");

/// When the rest of this file was written: a clock that says less is wrong.
const CLOCK_IS_PAST: u64 = 1_790_000_000;
const RENEW_WITHIN_DAYS: i64 = 30;

pub fn look(walk: &mut Walk<'_>) -> Looked {
    let Some(path) = walk.session.config.cert_path.clone() else {
        return Ok(Finding::not_seen("device.cert_path is not set"));
    };
    let mut shown = path.display().to_string();
    walk.chain = match read(walk, &path) {
        // Without thin-edge the one beside the key is enough.
        Err(finding) if !path.exists() && !walk.is_for_tedge() => {
            shown = "on the token".to_owned();
            let stored = stored(walk);
            match stored.is_empty() {
                true => return Err(finding),
                false => stored,
            }
        }
        Err(finding) => return Err(finding),
        Ok(Some(chain)) => chain,
        Ok(None) => {
            return Ok(Finding::not_seen(format!(
                "{shown} is not for you to read: run as root for more"
            )));
        }
    };
    let Some(leaf) = walk.chain.first() else {
        return Err(Finding::failed(format!(
            "there is no certificate in {shown}"
        )));
    };
    let summary = Summary::of(leaf)?;
    walk.issuer.clone_from(&summary.issuer_name);
    let of_key = of_this_key(walk, leaf, &summary, &shown)?;
    in_time(&summary)?;
    let certificate = Certificate::from_der(leaf);
    let certificate = certificate.map_err(|e| Finding::failed(format!("{shown}: {e}")))?;
    is_for_clients(&certificate, &summary)?;

    let until = format!("until {} ({})", day(&summary.not_after), days(summary.days));
    let name = &summary.subject_name;
    let mut finding = Finding::ok(format!("{shown}: {name}{of_key}, {until}"));
    if summary.days < RENEW_WITHIN_DAYS {
        finding = finding.warn(format!("expires in {}", days(summary.days)));
    }
    for warning in issuing(walk, &certificate, &summary) {
        finding = finding.warn(warning);
    }
    match device_id(&walk.config_dir) {
        Some(id) if format!("CN={id}") != *name => Ok(finding.warn(format!(
            "the certificate's name is {name}, and device.id is {id:?}: brokers know the device by the certificate's"
        ))),
        _ => Ok(finding),
    }
}

/// The certificates in the file; None where this user may not read it.
fn read(walk: &Walk<'_>, path: &Path) -> Result<Option<Vec<CertificateDer<'static>>>, Finding> {
    let (shown, file) = (path.display(), quoted_path(path));
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(None),
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(missing(walk, path)),
        Err(error) => return Err(Finding::failed(format!("{shown} cannot be read: {error}"))),
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(Some(chain)),
        Ok(_) if CertificateDer::from(text.as_slice()).first() == Some(&0x30) => Err(
            Finding::failed(format!("{shown} is DER, and has to be PEM")).next(format!(
                "openssl x509 -inform DER -in {file} -out {file}.pem && mv {file}.pem {file}"
            )),
        ),
        Ok(_) => Err(Finding::failed(format!(
            "{shown} is no PEM of a certificate"
        ))),
        Err(error) => Err(Finding::failed(format!("{shown} is broken: {error}"))),
    }
}

fn missing(walk: &Walk<'_>, path: &Path) -> Finding {
    let finding = Finding::failed(format!("there is no certificate {}", path.display()));
    let name = device_id(&walk.config_dir).unwrap_or_else(|| "NAME".to_owned());
    let request = format!(
        "--subject {} --out request.csr",
        quoted(&format!("CN={name}"))
    );
    let Some((key, _)) = &walk.key else {
        return finding.next(format!("tedge-p11 csr {request}"));
    };
    let key = quoted(&key.uri);
    match !stored(walk).is_empty() {
        true => finding
            .detail("The token has one of this key.")
            .next(format!(
                "tedge-p11 certificate show {key} >{}",
                quoted_path(path)
            )),
        false => finding.next(format!(
            "tedge-p11 csr {key} {request} # for your CA to sign"
        )),
    }
}

/// The newest certificate of the key that is on its token.
fn stored(walk: &Walk<'_>) -> Vec<CertificateDer<'static>> {
    let Some((_, opened)) = &walk.key else {
        return Vec::new();
    };
    let client = &walk.session.client;
    let stored = client.get_certificates(GetCertificates::new(opened.uri.as_str()));
    let newest = stored
        .ok()
        .and_then(|stored| stored.certificates.into_iter().next());
    newest
        .into_iter()
        .map(|certificate| certificate.certificate.into_vec().into())
        .collect()
}

/// ", of this key", or nothing where no key was seen.
fn of_this_key(
    walk: &Walk<'_>,
    leaf: &CertificateDer<'_>,
    summary: &Summary,
    shown: &str,
) -> Result<&'static str, Finding> {
    let Some((key, opened)) = &walk.key else {
        return Ok("");
    };
    let public = PublicKey::of_certificate(leaf)
        .map_err(|error| Finding::failed(format!("{shown}: {error}")))?;
    if public.identity() == opened.identity {
        return Ok(", of this key");
    }
    let is_its = |other: &CertificateDer<'_>| {
        PublicKey::of_certificate(other).is_ok_and(|public| public.identity() == opened.identity)
    };
    if let Some(place) = walk.chain.iter().position(is_its) {
        return Err(Finding::failed(format!(
            "certificate {} in {shown} is that of the key, and has to be the first; those of its issuers come after it",
            place + 1
        )));
    }
    Err(Finding::failed(format!(
        "{shown} ({}) is of another key",
        summary.subject_name
    ))
    .detail(format!("its public key  {} (SHA-256)", public.identity()))
    .detail(format!("{}  {}", key.name(), opened.identity))
    .next("tedge-p11 keys # is it of another of them?")
    .next(format!(
        "tedge-p11 csr {} --subject {} --out request.csr # for your CA to sign",
        quoted(&key.uri),
        quoted(&summary.subject_name)
    )))
}

fn in_time(summary: &Summary) -> Result<(), Finding> {
    let clock = |finding: Finding| match now() < CLOCK_IS_PAST {
        true => finding
            .detail(
                "The clock of this machine is wrong: it says a day before this program was made.",
            )
            .next("timedatectl set-ntp true"),
        false => finding,
    };
    if summary.is_early {
        return Err(clock(Finding::failed(format!(
            "{} is not valid before {}: is the clock of this machine right?",
            summary.subject_name, summary.not_before
        ))));
    }
    if summary.is_late {
        return Err(clock(Finding::failed(format!(
            "{} expired on {} ({} ago)",
            summary.subject_name,
            day(&summary.not_after),
            days(summary.days.abs())
        )))
        .next(format!(
            "tedge-p11 csr --subject {} --out request.csr # for your CA to sign anew",
            quoted(&summary.subject_name)
        )));
    }
    Ok(())
}

fn is_for_clients(certificate: &Certificate, summary: &Summary) -> Result<(), Finding> {
    let usage = certificate
        .tbs_certificate()
        .get_extension::<ExtendedKeyUsage>();
    let allows = |usage: &ExtendedKeyUsage| {
        usage
            .0
            .iter()
            .any(|oid| [CLIENT_AUTH, ANY_USAGE].contains(oid))
    };
    match usage {
        Ok(Some((_, usage))) if !allows(&usage) => Err(Finding::failed(format!(
            "{} is not for clients: it has an extended key usage, and clientAuth is not in it",
            summary.subject_name
        ))
        .next(format!(
            "tedge-p11 csr --subject {} --out request.csr # ask the CA for clientAuth",
            quoted(&summary.subject_name)
        ))),
        _ => Ok(()),
    }
}

/// What is odd about who issued it, and the certificates behind it.
fn issuing(walk: &Walk<'_>, certificate: &Certificate, summary: &Summary) -> Vec<String> {
    let mut warnings = Vec::new();
    let basic = certificate
        .tbs_certificate()
        .get_extension::<BasicConstraints>();
    let is_authority = basic.is_ok_and(|basic| basic.is_some_and(|(_, basic)| basic.ca));
    // thin-edge signs its own certificates as authorities.
    if is_authority && summary.subject != summary.issuer {
        warnings.push("it is that of an authority (CA:TRUE), which brokers may refuse".to_owned());
    }
    let mut issuer = summary.issuer.clone();
    for (place, next) in walk.chain.iter().enumerate().skip(1) {
        let Ok(next) = Summary::of(next) else {
            warnings.push(format!(
                "certificate {} in the file cannot be read",
                place + 1
            ));
            break;
        };
        if next.subject != issuer {
            warnings.push(format!(
                "certificate {} in the file ({}) is not that of the issuer of the one before it ({issuer})",
                place + 1,
                next.subject
            ));
            break;
        }
        if next.is_late || next.is_early {
            warnings.push(format!(
                "that of the issuer is out of its time: {}",
                next.in_short()
            ));
        }
        issuer = next.issuer;
    }
    warnings
}

/// 2027-03-01
fn day(time: &str) -> &str {
    time.split('T').next().unwrap_or(time)
}

fn days(count: i64) -> String {
    match count {
        1 => "1 day".to_owned(),
        _ => format!("{count} days"),
    }
}

/// `device.id` of tedge.toml.
fn device_id(config_dir: &Path) -> Option<String> {
    let text = fs::read_to_string(config_dir.join("tedge.toml")).ok()?;
    let file: toml::Table = toml::from_str(&text).ok()?;
    let id = file.get("device")?.get("id")?.as_str()?;
    (!id.is_empty()).then(|| id.to_owned())
}
