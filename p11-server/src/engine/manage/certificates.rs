//! Reading certificates with those of their issuers, and storing them beside their keys.

use cryptoki::object::{Attribute, CertificateType, ObjectClass};
use p11_proto::message::{
    CertificateEntry, Certificates, GetCertificates, ImportCertificate, Imported,
};
use p11_proto::spki::{self, PublicKey};
use p11_uri::{ObjectType, Uri};

use crate::engine::core::Core;
use crate::engine::find::object::Object;
use crate::engine::find::pair::public_half;
use crate::error::Error;
use crate::service::Access;

impl Core {
    /// Certificates, each followed by that of its issuer.
    pub fn get_certificates(
        &self,
        request: &GetCertificates,
        access: &dyn Access,
    ) -> Result<Certificates, Error> {
        let query = self.query(&request.uri, request.pin.as_ref(), access)?;
        self.retry(|call, _| {
            // By the type of its key a certificate is named as well as by its own.
            let uri = query.scoped()?.without_type();
            let token = self.tokens.one(call, &uri, access)?;
            self.log_in_to_look(call, &token, &query)?;
            let token_info = token.info();
            let session = token.acquire(call)?;
            let mut all = Object::find(&session, ObjectClass::CERTIFICATE, None, None)?;
            session.finish();
            all.sort_by(|a, b| (&a.label, &a.id).cmp(&(&b.label, &b.id)));
            let all: Vec<_> = all.iter().filter_map(Link::of).collect();
            let meant = |link: &&Link<'_>| {
                let its = link.object.info_as(ObjectType::Cert);
                uri.matches_key(&its.label, &its.id)
                    && access.check(&token_info, Some(&its)).is_ok()
            };
            let chained = chain(&all.iter().filter(meant).collect::<Vec<_>>(), &all);
            let entry = |link: &Link<'_>| {
                let uri = Uri::of_object(&token_info, &link.object.info_as(ObjectType::Cert));
                CertificateEntry::new(uri.to_string(), link.der.to_vec())
            };
            Ok(Certificates::new(chained.into_iter().map(entry).collect()))
        })
    }

    /// Stores a certificate beside its key.
    pub fn import_certificate(
        &self,
        request: &ImportCertificate,
        access: &dyn Access,
    ) -> Result<Imported, Error> {
        let bad = |error: p11_proto::Error| Error::BadRequest(error.to_string());
        let parts = spki::Certificate::parse(&request.certificate).map_err(bad)?;
        let public = PublicKey::from_spki(parts.spki).map_err(bad)?;
        let query = self.query(&request.uri, request.pin.as_ref(), access)?;
        self.once(self.module.timeouts().request, |call, _| {
            let uri = query.in_scope()?;
            let token = self.tokens.one(call, &uri, access)?;
            access.check(&token.info(), None)?;
            let session = self.guard.log_in_to_write(call, &token, query.pins())?;
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
            let info = key.info_as(ObjectType::Cert);
            access.check(&token.info(), Some(&info))?;
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
            let uri = Uri::of_object(&token.info(), &info);
            Ok(Imported::new(uri.to_string()))
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
