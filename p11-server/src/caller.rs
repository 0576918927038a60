//! One request of one peer: permission before, the audit's record after, the service in between. Both
//! protocols speak to the service through here.

use std::sync::Arc;

use p11_proto::UriText;
use p11_proto::message::{
    Certificate, ChangePin, CreateKey, DeleteKey, GetCertificates, GetPublicKey, ImportCertificate,
    InitToken, Key, ListKeys, Object, OpenKey, PinChanged, PublicKey, Token, TokenReady,
};
use tracing::warn;

use crate::audit::{About, Record};
use crate::error::Error;
use crate::net::Peer;
use crate::policy::{Grant, Operation, Policy};
use crate::service::{Service, SignRequest};

/// A peer with a request.
pub struct Caller<'a> {
    /// What does the work.
    pub service: &'a dyn Service,
    /// What the peer may do.
    pub policy: &'a Policy,
    /// Who it is.
    pub peer: &'a Peer,
    /// What the log will say of the request.
    pub record: Record,
}

impl<'a> Caller<'a> {
    fn grant(&self, operation: Operation) -> Result<Grant<'a>, Error> {
        self.policy.grant(self.peer.uid, self.peer.gid, operation)
    }

    /// Notes how the request failed.
    pub fn fail(&mut self, error: &Error) {
        self.record.fail(error);
        if let Error::NotAllowed(why) = error {
            warn!(peer = %self.peer, "{why}");
        }
    }

    /// As [`Service::open_key`].
    pub fn open_key(&mut self, request: &OpenKey) -> Result<Arc<Key>, Error> {
        self.record.about(&request.uri);
        let key = self
            .service
            .open_key(request, &self.grant(Operation::Sign)?)?;
        self.record.about = About::Key(key.clone());
        Ok(key)
    }

    /// As [`Service::sign`].
    pub fn sign(&mut self, request: &SignRequest<'_>) -> Result<Vec<u8>, Error> {
        self.record.scheme = request.scheme;
        let signed = self.grant(Operation::Sign);
        let signed = signed.and_then(|grant| self.service.sign(request, &grant));
        // The URI of the request is looked at only where there is no better one.
        let signed = signed.inspect_err(|_| self.record.about(request.uri))?;
        self.record.about = About::Key(signed.key);
        Ok(signed.signature)
    }

    /// As [`Service::list_tokens`].
    pub fn list_tokens(&mut self) -> Result<Vec<Token>, Error> {
        self.service.list_tokens(&self.grant(Operation::List)?)
    }

    /// As [`Service::list_keys`].
    pub fn list_keys(&mut self, request: &ListKeys) -> Result<Vec<Object>, Error> {
        self.record.about(&request.uri);
        self.service
            .list_keys(request, &self.grant(Operation::List)?)
    }

    /// As [`Service::public_key`].
    pub fn public_key(&mut self, request: &GetPublicKey) -> Result<PublicKey, Error> {
        self.record.about(&request.uri);
        let public = self
            .service
            .public_key(request, &self.grant(Operation::List)?)?;
        self.record.about = About::Uri(public.uri.clone());
        Ok(public)
    }

    /// As [`Service::certificates`].
    pub fn certificates(&mut self, request: &GetCertificates) -> Result<Vec<Certificate>, Error> {
        self.record.about(&request.uri);
        self.service
            .certificates(request, &self.grant(Operation::List)?)
    }

    /// As [`Service::import_certificate`].
    pub fn import_certificate(&mut self, request: &ImportCertificate) -> Result<String, Error> {
        self.record.about(&request.uri);
        let grant = self.grant(Operation::ImportCertificate)?;
        let uri = self.service.import_certificate(request, &grant)?;
        self.record.about = About::Uri(uri.clone());
        Ok(uri)
    }

    /// As [`Service::create_key`].
    pub fn create_key(&mut self, request: &CreateKey) -> Result<PublicKey, Error> {
        self.record.about(&request.uri);
        let public = self
            .service
            .create_key(request, &self.grant(Operation::CreateKey)?)?;
        self.record.about = About::Uri(public.uri.clone());
        Ok(public)
    }

    /// As [`Service::delete_key`].
    pub fn delete_key(&mut self, request: &DeleteKey, several: bool) -> Result<Vec<String>, Error> {
        self.record.about(&request.uri);
        let grant = self.grant(Operation::DeleteKey)?;
        self.service.delete_key(request, several, &grant)
    }

    /// As [`Service::init_token`].
    pub fn init_token(&mut self, request: &InitToken) -> Result<TokenReady, Error> {
        self.about_any(&request.uri);
        let ready = self
            .service
            .init_token(request, &self.grant(Operation::InitToken)?)?;
        self.record.about = About::Uri(ready.uri.clone());
        Ok(ready)
    }

    /// As [`Service::change_pin`].
    pub fn change_pin(&mut self, request: &ChangePin) -> Result<PinChanged, Error> {
        self.about_any(&request.uri);
        let changed = self
            .service
            .change_pin(request, &self.grant(Operation::ChangePin)?)?;
        self.record.about = About::Uri(changed.uri.clone());
        Ok(changed)
    }

    fn about_any(&mut self, uri: &Option<UriText>) {
        if let Some(uri) = uri {
            self.record.about(uri);
        }
    }
}
