//! One request of one peer: whether the policy allows it, the call, and what the audit says of it.

use std::sync::Arc;
use std::time::Instant;

use p11_proto::message::{Setting, Status};
use p11_proto::{Request, Response};
use p11_uri::{ObjectInfo, TokenInfo};

use super::audit::Entry;
use super::peer::Peer;
use super::policy::{Operation, Policy};
use super::process::Process;
use crate::error::{Error, HIDDEN_TROUBLE};
use crate::service::{Access, Service, Unrestricted};

/// Who answers, and whom.
pub(super) struct Served {
    pub service: Arc<dyn Service>,
    pub policy: Policy,
    /// What is configured, as `Status` tells of it.
    pub settings: Vec<Setting>,
}

impl Served {
    /// A service of which nothing is configured that `Status` could tell of.
    pub fn new(service: Arc<dyn Service>, policy: Policy) -> Served {
        Served {
            service,
            policy,
            settings: Vec::new(),
        }
    }
}

/// Who asks, and whom.
pub(super) struct RequestContext<'a> {
    /// What held when the request came.
    pub served: Arc<Served>,
    pub process: &'a Process,
    pub peer: &'a Peer,
    pub connection: &'a dyn Waits,
    /// When the request came.
    pub began: Instant,
    /// What the log will say of the request.
    pub audit: Entry,
}

/// A connection on which a request waits for its answer.
pub(super) trait Waits {
    /// Whether the peer was answered already or is gone.
    fn has_left(&self) -> bool;
}

impl RequestContext<'_> {
    /// Does what a request asks for, if the policy allows it.
    ///
    /// # Errors
    /// [`Error::NotAllowed`], and those of the service.
    pub fn call(&mut self, request: &Request) -> Result<Response, Error> {
        self.audit.set_request(request);
        let service = &self.served.service;
        let mut response = match Operation::of(request) {
            Some(operation) => {
                let policy = &self.served.policy;
                let grant = policy.grant(self.peer.uid, self.peer.gid, operation)?;
                let answer = service.call(request, &self.access(&grant));
                answer.map_err(|error| match self.may_list_all() {
                    true => error,
                    false => error.without_details(),
                })?
            }
            None => service.call(request, &self.access(&Unrestricted))?,
        };
        if let Response::Status(status) = &mut response {
            self.complete(status);
        }
        self.audit.set_response(&response);
        Ok(response)
    }

    /// Adds what the daemon knows, and takes away what is not for who asks.
    fn complete(&self, status: &mut Status) {
        let (policy, Peer { uid, gid, .. }) = (&self.served.policy, *self.peer);
        // Without a configuration there is no policy.
        if status.details.is_some() {
            let allowed = policy.allowed(uid, gid).into_iter();
            status.allowed = Some(allowed.map(|operation| operation.name().into()).collect());
        }
        status.uptime = Some(self.process.uptime());
        status.account = Some(self.process.account().clone());
        if !self.may_list_all() {
            status.trouble = status.trouble.take().map(|_| HIDDEN_TROUBLE.into());
            status.details = None;
        }
        if let Some(details) = &mut status.details {
            details.counters.connections = Some(self.process.connections());
            details.settings = self.served.settings.clone();
        }
    }

    fn may_list_all(&self) -> bool {
        let Peer { uid, gid, .. } = *self.peer;
        let may_list = self.served.policy.grant(uid, gid, Operation::List);
        may_list.is_ok_and(|grant| grant.is_for_all())
    }

    /// Notes how the request failed.
    pub fn fail(&mut self, error: &Error) {
        self.audit.set_failure(error);
    }

    fn access<'a>(&'a self, grant: &'a dyn Access) -> PeerAccess<'a> {
        PeerAccess {
            grant,
            context: self,
        }
    }
}

/// What the policy grants to a peer that waits for its answer.
struct PeerAccess<'a> {
    grant: &'a dyn Access,
    context: &'a RequestContext<'a>,
}

impl Access for PeerAccess<'_> {
    fn check(&self, token: &TokenInfo, object: Option<&ObjectInfo>) -> Result<(), Error> {
        self.grant.check(token, object)
    }

    fn is_restricted(&self) -> bool {
        self.grant.is_restricted()
    }

    fn is_told_all(&self) -> bool {
        self.context.may_list_all()
    }

    fn user(&self) -> u32 {
        self.context.peer.uid
    }

    fn has_left(&self) -> bool {
        self.context.connection.has_left()
    }
}
