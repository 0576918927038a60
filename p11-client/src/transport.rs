//! What carries a request to a token and the answer back: a socket, an engine in the process, or a closure.

use std::sync::Arc;
use std::time::Duration;

use p11_proto::message::{Request, Response};

use crate::error::Error;

/// What carries requests to a token.
///
/// [`Client`](crate::Client) and [`SigningKey`](crate::SigningKey) work over any of them: over
/// [`SocketTransport`](crate::SocketTransport), over a module in the process (feature `module`), or, in the tests of a
/// program, over a closure:
///
/// ```
/// use p11_client::message::{Pong, Request, Response};
/// use p11_client::{Client, ErrorCode, Failure};
///
/// let client = Client::with_transport(|request: &Request| {
///     Ok(match request {
///         Request::Ping(_) => Response::Pong(Pong::new("a token of the tests", 1)),
///         _ => Response::Error(Failure::new(ErrorCode::Unsupported, "not in this test")),
///     })
/// });
/// assert_eq!(client.ping()?.server, "a token of the tests");
/// assert_eq!(client.status().unwrap_err().code(), "Unsupported");
/// # Ok::<(), p11_client::Error>(())
/// ```
pub trait Transport: Send + Sync {
    /// Carries one request, and blocks until its answer is there. May be called by many threads at once.
    ///
    /// A [`Response::Error`] is taken as [`Error::Server`].
    ///
    /// # Errors
    /// Whatever keeps the answer from coming.
    fn call(&self, request: &Request) -> Result<Response, Error>;

    /// The same, given up after this time where the transport can do that; a closure cannot.
    ///
    /// # Errors
    /// As [`Transport::call`].
    fn call_within(&self, request: &Request, limit: Duration) -> Result<Response, Error> {
        let _ = limit;
        self.call(request)
    }
}

impl<F> Transport for F
where
    F: Fn(&Request) -> Result<Response, Error> + Send + Sync,
{
    fn call(&self, request: &Request) -> Result<Response, Error> {
        self(request)
    }
}

impl<T: Transport + ?Sized> Transport for Arc<T> {
    fn call(&self, request: &Request) -> Result<Response, Error> {
        (**self).call(request)
    }

    fn call_within(&self, request: &Request, limit: Duration) -> Result<Response, Error> {
        (**self).call_within(request, limit)
    }
}
