//! A request of protocol 1 and its response.

use std::time::Duration;

use p11_proto::{Failure, Request, Response, frame};

use super::request::RequestContext;
use crate::engine::Timeouts;

/// How long the operation behind a request may take.
pub(super) fn deadline(request: &Request, timeouts: &Timeouts) -> Duration {
    match request {
        Request::CreateKey(_) | Request::InitToken(_) => timeouts.long_request,
        _ => timeouts.request,
    }
}

/// Answers one request.
pub(super) fn answer(context: &mut RequestContext<'_>, request: &Request) -> Response {
    match context.call(request) {
        Ok(mut response) => {
            truncate(&mut response);
            response
        }
        Err(error) => {
            context.fail(&error);
            Response::Error(Failure::from(&error))
        }
    }
}

/// Cuts a list that is too long for a frame, and says so.
fn truncate(response: &mut Response) {
    match response {
        Response::Tokens(list) => list.truncated = frame::truncate(&mut list.tokens),
        Response::Objects(list) => list.truncated = frame::truncate(&mut list.objects),
        Response::Certificates(list) => list.truncated = frame::truncate(&mut list.certificates),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use p11_proto::message::{CreateKey, DeleteKey, InitToken, KeySpec, KeyType};
    use p11_proto::tedge1;

    use super::*;
    use crate::daemon::tedge1 as old;

    #[test]
    fn what_a_card_may_take_minutes_for_has_minutes_in_both_protocols() {
        let timeouts = Timeouts::default();
        let spec = KeySpec::new(KeyType::Rsa, 4096);
        let create = Request::CreateKey(CreateKey::new("pkcs11:", spec, "key"));
        let init = Request::InitToken(InitToken::new("token"));
        let delete = Request::DeleteKey(DeleteKey::new("pkcs11:object=key"));
        let minutes = Duration::from_secs(10 * 60);
        assert_eq!(deadline(&create, &timeouts), minutes);
        assert_eq!(deadline(&init, &timeouts), minutes);
        assert_eq!(deadline(&delete, &timeouts), Duration::from_secs(30));

        // The same in the bytes of old clients.
        let old = |bytes: &[u8]| {
            let request = tedge1::Request::decode(bytes).unwrap();
            old::deadline(&request, &timeouts)
        };
        let create = b"\0\x0a\x07pkcs11:\0\x80\x20\x03key\0\0";
        assert_eq!(old(create), minutes);
        assert_eq!(old(b"\0\x0e\x05token\0\0\0"), minutes);
        assert_eq!(old(b"\0\x14\x07pkcs11:\0"), Duration::from_secs(30));
    }
}
