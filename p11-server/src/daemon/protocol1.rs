//! A request of protocol 1 and its response.

use std::time::Duration;

use p11_proto::{Failure, Request, Response, frame};

use super::request::RequestContext;
use crate::engine::Timeouts;

/// How long the operation behind a request may take.
pub(super) fn deadline(request: &Request, timeouts: &Timeouts) -> Duration {
    match request.takes_minutes() {
        true => timeouts.long_request,
        false => timeouts.request,
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

/// Tokens of which `Status` tells in an answer that is no listing yet: it is answered while all else waits.
const FEW_TOKENS: usize = 8;

/// Whether it may be long.
pub(super) fn is_listing(response: &Response) -> bool {
    match response {
        Response::Tokens(_) | Response::Objects(_) | Response::Certificates(_) => true,
        Response::Status(status) => {
            let details = status.details.as_ref();
            details.is_some_and(|details| details.tokens.len() > FEW_TOKENS)
        }
        _ => false,
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
    use p11_proto::message::{
        Counters, LoginState, ModuleStatus, Status, StatusDetails, TokenStatus,
    };
    use p11_proto::{frame, tedge1};

    use super::*;
    use crate::daemon::net::tests::frames::every_request;
    use crate::daemon::tedge1 as old;

    #[test]
    fn a_status_of_many_tokens_is_a_listing() {
        for (count, expected) in [(FEW_TOKENS, false), (FEW_TOKENS + 1, true)] {
            let token = TokenStatus::new("pkcs11:token=t", "t", LoginState::NotTried);
            let counters = Counters::new(0_u64, 0_u64, 0_u64, 0_u64);
            let details = StatusDetails::new(ModuleStatus::new("m"), counters);
            let details = details.tokens(vec![token; count]);
            let status = Status::new("s", true).details(Box::new(details));
            assert_eq!(is_listing(&Response::Status(status)), expected, "{count}");
        }
    }

    #[test]
    fn what_a_card_may_take_minutes_for_has_minutes_in_both_protocols() {
        let timeouts = Timeouts::default();
        let minutes = Duration::from_secs(10 * 60);
        let of_most = Duration::from_secs(30);
        for frame in every_request() {
            let request = frame::decode(&frame[4..]).unwrap();
            let expected = match request {
                Request::CreateKey(_) | Request::InitToken(_) => minutes,
                _ => of_most,
            };
            assert_eq!(deadline(&request, &timeouts), expected, "{request:?}");
        }

        // The same in the bytes of old clients.
        let old = |bytes: &[u8]| {
            let request = tedge1::Request::decode(bytes).unwrap();
            old::deadline(&request, &timeouts)
        };
        let create = b"\0\x0a\x07pkcs11:\0\x80\x20\x03key\0\0";
        assert_eq!(old(create), minutes);
        assert_eq!(old(b"\0\x0e\x05token\0\0\0"), minutes);
        assert_eq!(old(b"\0\x14\x07pkcs11:\0"), of_most);
    }
}
