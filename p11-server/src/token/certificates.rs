//! Certificates leave with those of their issuers, and enter beside their keys.

use cryptoki::object::{Attribute, CertificateType, ObjectClass};
use p11_proto::message::{Certificate, GetCertificates, ImportCertificate};
use p11_proto::spki::{self, PublicKey};
use p11_uri::{ObjectType, Uri};

use super::objects::Object;
use super::pairs::public_half;
use super::{DEADLINE, Engine};
use crate::error::Error;
use crate::service::Access;

impl Engine {
    pub(super) fn chains(
        &self,
        request: &GetCertificates,
        access: &dyn Access,
    ) -> Result<Vec<Certificate>, Error> {
        let asked = self.asked(&request.uri, request.pin.as_ref(), access)?;
        self.heal(DEADLINE, |call, _| {
            // By the type of its key a certificate is named as well as by its own.
            let uri = asked.scoped()?.without_type();
            let token = self.tokens.one(call, &uri, access)?;
            self.log_in_to_look(call, &token, &asked)?;
            let facts = token.facts();
            let session = token.lend(call)?;
            let mut all = Object::find(&session, ObjectClass::CERTIFICATE, None, None)?;
            session.finish();
            all.sort_by(|a, b| (&a.label, &a.id).cmp(&(&b.label, &b.id)));
            let all: Vec<_> = all.iter().filter_map(Link::of).collect();
            let meant = |link: &&Link<'_>| {
                let its = link.object.facts_as(ObjectType::Cert);
                uri.matches_key(&its.label, &its.id) && access.check(&facts, Some(&its)).is_ok()
            };
            let chained = chain(&all.iter().filter(meant).collect::<Vec<_>>(), &all);
            Ok(chained
                .into_iter()
                .map(|link| Certificate {
                    uri: Uri::of_object(&facts, &link.object.facts_as(ObjectType::Cert))
                        .to_string(),
                    certificate: link.der.to_vec().into(),
                })
                .collect())
        })
    }

    pub(super) fn store_certificate(
        &self,
        request: &ImportCertificate,
        access: &dyn Access,
    ) -> Result<String, Error> {
        let bad = |error: p11_proto::Error| Error::BadRequest(error.to_string());
        let parts = spki::Certificate::parse(&request.certificate).map_err(bad)?;
        let public = PublicKey::from_spki(parts.spki).map_err(bad)?;
        let asked = self.asked(&request.uri, request.pin.as_ref(), access)?;
        self.once(DEADLINE, |call, _| {
            let uri = asked.in_scope()?;
            let token = self.tokens.one(call, &uri, access)?;
            access.check(&token.facts(), None)?;
            let session = self.guard.log_in_to_write(call, &token, asked.pins())?;
            let keys =
                Object::find(&session, ObjectClass::PRIVATE_KEY, uri.object(), uri.id())?;
            let is_its = |key: &&Object| {
                public_half(&session, key).is_ok_and(|half| half.identity() == public.identity())
            };
            let key = keys.iter().find(is_its).ok_or_else(|| {
                Error::KeyNotFound(format!(
                    "Failed to find a key: none that matches {} has the certificate's public key {}",
                    uri.without_query(),
                    public.identity()
                ))
            })?;
            let facts = key.facts_as(ObjectType::Cert);
            access.check(&token.facts(), Some(&facts))?;
            let there = Object::find(&session, ObjectClass::CERTIFICATE, None, Some(&key.id))?;
            let same = |object: &Object| object.certificate() == Some(&request.certificate[..]);
            if !there.iter().any(same) {
                session.create_object(&[
                    Attribute::Class(ObjectClass::CERTIFICATE),
                    Attribute::CertificateType(CertificateType::X_509),
                    Attribute::Token(true),
                    Attribute::Private(false),
                    Attribute::Label(key.label.clone().into_bytes()),
                    Attribute::Id(key.id.clone()),
                    Attribute::Subject(parts.subject.to_vec()),
                    Attribute::Issuer(parts.issuer.to_vec()),
                    Attribute::SerialNumber(parts.serial.to_vec()),
                    Attribute::Value(request.certificate.to_vec()),
                ])?;
            }
            session.finish();
            Ok(Uri::of_object(&token.facts(), &facts).to_string())
        })
    }
}

/// A certificate and the names that chain it to others (RFC 5280 section 6.1).
struct Link<'o> {
    object: &'o Object,
    der: &'o [u8],
    parts: spki::Certificate<'o>,
}

impl<'o> Link<'o> {
    fn of(object: &'o Object) -> Option<Link<'o>> {
        let der = object.certificate()?;
        let parts = spki::Certificate::parse(der).ok()?;
        Some(Link { object, der, parts })
    }

    fn is_issued_by(&self, other: &Link<'_>) -> bool {
        self.parts.issuer == other.parts.subject && self.der != other.der
    }
}

/// The certificates that were meant, leaves first, each followed by its issuers among all of them;
/// none twice.
fn chain<'a, 'o>(meant: &[&'a Link<'o>], all: &'a [Link<'o>]) -> Vec<&'a Link<'o>> {
    let (issuers, leaves): (Vec<&Link<'_>>, Vec<&Link<'_>>) = meant
        .iter()
        .partition(|link| meant.iter().any(|other| other.is_issued_by(link)));
    let mut chained: Vec<&Link<'_>> = Vec::new();
    for start in leaves.into_iter().chain(issuers) {
        let mut next = Some(start);
        while let Some(link) = next
            && !chained.iter().any(|known| known.der == link.der)
        {
            chained.push(link);
            next = all.iter().find(|other| link.is_issued_by(other));
        }
    }
    chained
}
