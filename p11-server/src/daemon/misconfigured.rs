//! What is answered while the configuration cannot be used: `Ping` and `Status`, and an error to all else.

use p11_proto::message::{Pong, Status};
use p11_proto::{Request, Response, frame};

use crate::engine::{SERVER, VERSION};
use crate::error::Error;
use crate::service::{Access, Service};

/// What is wrong with the configuration.
pub(super) struct Misconfigured(pub String);

impl Service for Misconfigured {
    fn call(&self, request: &Request, _: &dyn Access) -> Result<Response, Error> {
        let error = Error::Misconfigured(self.0.clone());
        match request {
            Request::Ping(_) => Ok(Response::Pong(Pong::new(SERVER, frame::VERSION))),
            Request::Status(_) => {
                let status = Status::new(SERVER, false).trouble(error.to_string());
                let status = status.version(VERSION.to_owned());
                Ok(Response::Status(status))
            }
            _ => Err(error),
        }
    }
}
