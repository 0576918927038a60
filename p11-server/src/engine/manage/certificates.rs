//! Reading certificates with those of their issuers, storing them beside their keys, deleting them.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::time::Instant;

use cryptoki::object::{Attribute, CertificateType, ObjectClass};
use p11_proto::Identity;
use p11_proto::message::{
    CertificateEntry, Certificates, DeleteCertificate, Deleted, GetCertificates, ImportCertificate,
    Imported,
};
use p11_proto::spki::{self, PublicKey};
use p11_uri::{ObjectType, Uri};
use tracing::{info, warn};

use crate::engine::core::Core;
use crate::engine::find::contents::Contents;
use crate::engine::find::object::Object;
use crate::error::{Error, list};
use crate::service::Access;

impl Core {
    /// Certificates, each followed by that of its issuer: those of the keys that the URI names, the newest first,
    /// or, where it names none, those that it names itself.
    pub fn get_certificates(
        &self,
        request: &GetCertificates,
        access: &dyn Access,
    ) -> Result<Certificates, Error> {
        let query = self.query(&request.uri, request.pin.as_ref(), access)?;
        self.retry(access, |client, _| {
            let uri = query.scoped()?;
            let by_own_name = uri.object_type() == Some(ObjectType::Cert) || !uri.names_object();
            // By the type of its key a certificate is named as well as by its own.
            let uri = uri.without_type();
            let since = Instant::now();
            let token = self.registry.one(client, &uri)?;
            let (contents, hidden) = self.look(client, &token, &query, since)?;
            let sees_private = hidden.is_none();
            let token_info = token.info();
            let may_use = |object: &Object| access.check(&token_info, Some(&object.info())).is_ok();
            let may_see = |object: &&Object| {
                let its = object.info_as(ObjectType::Cert);
                (sees_private || !object.is_private())
                    && access.check(&token_info, Some(&its)).is_ok()
            };
            let visible = contents.certificates.iter().filter(may_see);
            let all: Vec<_> = visible.filter_map(Link::of).collect();
            let keys = contents.private.iter().zip(contents.pairs.halves());
            let keys = keys.filter(|(key, _)| uri.matches_key(&key.label, &key.id));
            let keys = keys.filter(|(key, _)| sees_private && may_use(key));
            let private = keys.filter_map(|(_, half)| Some(half.as_ref().ok()?.public.identity()));
            let public = contents.public.iter();
            let public = public.filter(|key| uri.matches_key(&key.label, &key.id) && may_use(key));
            let public = public.filter_map(|key| Some(key.public_key().ok()??.identity()));
            let identities: HashSet<_> = private.chain(public).collect();
            let of_keys = !by_own_name && !identities.is_empty();
            let mut meant: Vec<_> = all
                .iter()
                .filter(|link| match of_keys {
                    // Whatever they are called: other tools use labels and ids of their own.
                    true => link.identity().is_some_and(|its| identities.contains(&its)),
                    false => uri.matches_key(&link.object.label, &link.object.id),
                })
                .collect();
            meant.sort_by_key(|link| Reverse(link.parts.not_before));
            let chained = chain(&meant, &all);
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
        self.without_retry(access, self.module.timeouts().session, |client| {
            let uri = query.in_scope()?;
            let token = self.registry.one(client, &uri)?;
            access.check(&token.info(), None)?;
            let session = self.session_to_change(client, &token, query.pins())?;
            let contents = self.contents_to_change(&session, client)?;
            let key = key_of_certificate(&contents, &uri, &public)?;
            let info = key.info_as(ObjectType::Cert);
            access.check(&token.info(), Some(&info))?;
            let same = |object: &Object| {
                object.id == key.id && object.certificate() == Some(&request.certificate[..])
            };
            if !contents.certificates.iter().any(same) {
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
            let uri = Uri::of_object(&token.info(), &info);
            Ok(Imported::new(uri.to_string()))
        })
    }
}

impl Core {
    /// Deletes one certificate.
    pub fn delete_certificate(
        &self,
        request: &DeleteCertificate,
        access: &dyn Access,
    ) -> Result<Deleted, Error> {
        let query = self.query(&request.uri, request.pin.as_ref(), access)?;
        if request.certificate.is_none() && !Uri::parse(&request.uri)?.names_object() {
            return Err(Error::BadRequest(
                "which certificate is to be deleted? name it by object=… or id=… in the URI, or bring it".into(),
            ));
        }
        self.without_retry(access, self.module.timeouts().session, |client| {
            let uri = query.in_scope()?.without_type();
            let token = self.registry.one(client, &uri)?;
            access.check(&token.info(), None)?;
            let session = self.session_to_change(client, &token, query.pins())?;
            let contents = self.contents_to_change(&session, client)?;
            let wanted = request.certificate.as_deref();
            let is_meant = |object: &&Object| {
                let is_it = |wanted| object.certificate() == Some(wanted);
                uri.matches_key(&object.label, &object.id) && wanted.is_none_or(|it| is_it(&it[..]))
            };
            let meant: Vec<_> = contents.certificates.iter().filter(is_meant).collect();
            let name = |object: &Object| {
                Uri::of_object(&token.info(), &object.info_as(ObjectType::Cert)).to_string()
            };
            let [object] = meant.as_slice() else {
                let names: Vec<_> = meant.iter().map(|object| name(object)).collect();
                return match names.is_empty() {
                    true => Ok(Deleted::new(Vec::new())),
                    false => Err(Error::AmbiguousKey(format!(
                        "several certificates match {}, and none was deleted: {}; bring the one that is meant",
                        uri.shown(),
                        list(&names)
                    ))),
                };
            };
            access.check(&token.info(), Some(&object.info_as(ObjectType::Cert)))?;
            session.destroy_object(object.handle)?;
            let name = name(object);
            info!("deleted {name}");
            Ok(Deleted::new(vec![name]))
        })
    }
}

/// The key that has the public key of a certificate, or that alone could have it.
fn key_of_certificate<'c>(
    contents: &'c Contents,
    uri: &Uri,
    public: &PublicKey,
) -> Result<&'c Object, Error> {
    let mut keys = contents.private.iter().zip(contents.pairs.halves());
    let key = keys.find_map(|(key, half)| {
        let is_its = matches!(half, Ok(half) if half.public.identity() == public.identity());
        (is_its && uri.matches_key(&key.label, &key.id)).then_some(key)
    });
    if let Some(key) = key {
        return Ok(key);
    }
    let untold = contents.pairs.untold(&contents.private, public);
    let untold = untold.filter(|key| uri.matches_key(&key.label, &key.id));
    if let [key] = untold.collect::<Vec<_>>().as_slice() {
        warn!(
            "nothing on the token tells the public key of {}, so the client is taken at its word that the \
             certificate for {} is that key's",
            Uri::of_object(&contents.token.info(), &key.info()),
            public.identity()
        );
        return Ok(key);
    }
    Err(Error::KeyNotFound {
        why: format!(
            "Failed to find a key: none that matches {} has the certificate's public key {}",
            uri.shown(),
            public.identity()
        ),
        names_token: true,
    })
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

    fn identity(&self) -> Option<Identity> {
        Some(PublicKey::from_spki(self.parts.spki).ok()?.identity())
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
