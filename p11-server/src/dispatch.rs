//! A request of protocol 1 enters, its response leaves: the only place that knows all of them.

use std::time::Duration;

use p11_proto::message::{
    Certificates, Deleted, Imported, Objects, Pong, Signature, Status, Tokens,
};
use p11_proto::{Failure, Request, Response, frame};

use crate::caller::Caller;
use crate::error::Error;
use crate::service::SignRequest;
use crate::token::{DEADLINE, LONG_DEADLINE};

const SERVER: &str = concat!("tedge-p11-server ", env!("CARGO_PKG_VERSION"));

/// How long the operation behind a request may take.
pub fn deadline(request: &Request) -> Duration {
    match request {
        Request::CreateKey(_) | Request::InitToken(_) => LONG_DEADLINE,
        _ => DEADLINE,
    }
}

/// Answers one request.
pub fn dispatch(caller: &mut Caller<'_>, request: &Request) -> Response {
    answer(caller, request).unwrap_or_else(|error| {
        caller.fail(&error);
        Response::Error(Failure::from(&error))
    })
}

fn answer(caller: &mut Caller<'_>, request: &Request) -> Result<Response, Error> {
    Ok(match request {
        Request::Ping(_) => Response::Pong(Pong {
            server: SERVER.into(),
            protocol: frame::VERSION,
        }),
        Request::Status(_) => {
            let trouble = caller.service.trouble();
            Response::Status(Status {
                server: SERVER.into(),
                available: trouble.is_none(),
                trouble,
            })
        }
        Request::OpenKey(open) => Response::Key((*caller.open_key(open)?).clone()),
        Request::Sign(sign) => {
            let signature = caller.sign(&SignRequest {
                uri: &sign.uri,
                pin: sign.pin.as_ref(),
                scheme: Some(sign.scheme),
                message: &sign.message,
                identity: Some(sign.identity),
            })?;
            Response::Signature(Signature {
                signature: signature.into(),
            })
        }
        Request::ListTokens(_) => {
            let mut tokens = caller.list_tokens()?;
            let truncated = frame::truncate(&mut tokens);
            Response::Tokens(Tokens { tokens, truncated })
        }
        Request::ListKeys(list) => {
            let mut objects = caller.list_keys(list)?;
            let truncated = frame::truncate(&mut objects);
            Response::Objects(Objects { objects, truncated })
        }
        Request::GetPublicKey(get) => Response::PublicKey(caller.public_key(get)?),
        Request::GetCertificates(get) => {
            let mut certificates = caller.certificates(get)?;
            let truncated = frame::truncate(&mut certificates);
            Response::Certificates(Certificates {
                certificates,
                truncated,
            })
        }
        Request::ImportCertificate(import) => Response::Imported(Imported {
            uri: caller.import_certificate(import)?,
        }),
        Request::CreateKey(create) => Response::PublicKey(caller.create_key(create)?),
        Request::DeleteKey(delete) => Response::Deleted(Deleted {
            deleted: caller.delete_key(delete, false)?,
        }),
        Request::InitToken(init) => Response::TokenReady(caller.init_token(init)?),
        Request::ChangePin(change) => Response::PinChanged(caller.change_pin(change)?),
    })
}

#[cfg(test)]
mod tests {
    use p11_proto::message::{CreateKey, DeleteKey, InitToken, KeySpec, KeyType};
    use p11_proto::tedge1;

    use super::*;

    #[test]
    fn what_a_card_may_take_minutes_for_has_minutes_in_both_protocols() {
        let key = KeySpec {
            key_type: KeyType::Rsa,
            bits: 4096,
        };
        let create = Request::CreateKey(CreateKey {
            uri: "pkcs11:".into(),
            pin: None,
            key,
            label: "key".into(),
            id: None,
        });
        let init = Request::InitToken(InitToken {
            uri: None,
            label: "token".into(),
            so_pin: None,
            pin: None,
        });
        let delete = Request::DeleteKey(DeleteKey {
            uri: "pkcs11:object=key".into(),
            pin: None,
        });
        let minutes = Duration::from_secs(10 * 60);
        assert_eq!(deadline(&create), minutes);
        assert_eq!(deadline(&init), minutes);
        assert_eq!(deadline(&delete), Duration::from_secs(30));

        // The same in the bytes of old clients.
        let old = |bytes: &[u8]| {
            let request = tedge1::Request::decode(bytes).unwrap();
            crate::tedge1::deadline(&request)
        };
        let create = b"\0\x0a\x07pkcs11:\0\x80\x20\x03key\0\0";
        assert_eq!(old(create), minutes);
        assert_eq!(old(b"\0\x0e\x05token\0\0\0"), minutes);
        assert_eq!(old(b"\0\x14\x07pkcs11:\0"), Duration::from_secs(30));
    }
}
