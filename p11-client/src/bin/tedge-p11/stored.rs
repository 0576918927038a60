//! The certificates of a key that are on its token.

use p11_client::message::{CertificateEntry, GetCertificates};

use crate::exit::Refusal;
use crate::inventory::Key;
use crate::session::Session;
use crate::x509::Summary;

/// Those of the key, and each followed by its issuers; the newest first.
pub fn certificates(session: &mut Session, key: &Key) -> Result<Vec<CertificateEntry>, Refusal> {
    let request = GetCertificates::new(key.full.as_str());
    let answer = session.ask("looking for certificates", |client| {
        client.get_certificates(request.clone())
    })?;
    Ok(answer.certificates)
}

/// What the newest one says, if it can be read.
pub fn newest_certificate(session: &mut Session, key: &Key) -> Result<Option<Summary>, Refusal> {
    let certificates = certificates(session, key)?;
    let newest = certificates.first();
    Ok(newest.and_then(|newest| Summary::of(&newest.certificate).ok()))
}
