//! The certificates on a token: those of a key, or one that is named itself.

use p11_client::message::{CertificateEntry, GetCertificates};
use p11_uri::{ObjectType, Uri};

use crate::exit::{Exit, Refusal};
use crate::inventory::Key;
use crate::names::find_key;
use crate::output::printable;
use crate::session::Session;
use crate::x509::Summary;

/// A certificate and what it says.
pub struct Stored {
    pub entry: CertificateEntry,
    pub summary: Summary,
}

/// Whose certificates were looked for.
pub enum Of {
    Key(Box<Key>),
    Certificate(String),
}

/// The certificates of a key, each followed by its issuers, the newest first; or those that a URI with `type=cert` names.
pub fn of_name(session: &mut Session, name: Option<&str>) -> Result<(Of, Vec<Stored>), Refusal> {
    let uri = name.and_then(|name| Uri::parse(name).ok());
    let (uri, of) = match uri.filter(|uri| uri.object_type() == Some(ObjectType::Cert)) {
        Some(uri) => {
            let uri = uri.without_query().to_string();
            (uri.clone(), Of::Certificate(uri))
        }
        None => {
            let key = find_key(session, name)?;
            (key.full.clone(), Of::Key(Box::new(key)))
        }
    };
    Ok((of, list(session, &uri)?))
}

/// What the newest certificate of a key says, if it can be read.
pub fn newest_certificate(session: &mut Session, key: &Key) -> Result<Option<Summary>, Refusal> {
    let newest = entries(session, &key.full)?.into_iter().next();
    Ok(newest.and_then(|newest| Summary::of(&newest.certificate).ok()))
}

impl Of {
    pub fn name(&self) -> String {
        match self {
            Of::Key(key) => key.name(),
            Of::Certificate(uri) => uri.clone(),
        }
    }

    pub fn no_certificate(&self) -> Refusal {
        let what = match self {
            Of::Key(key) => format!(
                "{} has no such certificate on token \"{}\"",
                key.name(),
                printable(&key.token)
            ),
            Of::Certificate(uri) => format!("there is no certificate {uri}"),
        };
        Refusal::new(Exit::NotFound, "CertificateNotFound", what)
            .next("tedge-p11 certificate import FILE")
    }
}

fn list(session: &mut Session, uri: &str) -> Result<Vec<Stored>, Refusal> {
    let entries = entries(session, uri)?.into_iter();
    let read = entries.map(|entry| {
        Ok(Stored {
            summary: Summary::of(&entry.certificate)?,
            entry,
        })
    });
    read.collect()
}

fn entries(session: &mut Session, uri: &str) -> Result<Vec<CertificateEntry>, Refusal> {
    let request = GetCertificates::new(uri);
    let answer = session.ask("looking for certificates", |client| {
        client.get_certificates(request.clone())
    })?;
    Ok(answer.certificates)
}
