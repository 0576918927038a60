//! tedge1, which is all that old servers speak: requests of protocol 1 enter, their answers leave.
//!
//! | room | what it holds |
//! |---|---|
//! | `exchange` | one connection, one request and one reply; which protocol a server speaks |
//! | `failure` | what the text of an old server's error means |
//! | `key` | opening a key and signing with it |
//! | `manage` | listing and changing keys and tokens |

mod exchange;
mod failure;
mod key;
mod manage;

use p11_proto::message::{Message, Pong, Request, Response};
use p11_proto::{UriText, tedge1};

use crate::error::Error;
use crate::socket::Target;

pub(crate) use exchange::probe;

/// Answers a request with the help of an old server, as far as it can.
pub(crate) fn call(request: &Request, server: Target<'_>) -> Result<Response, Error> {
    Ok(match request {
        Request::Ping(_) => {
            exchange::ask(server, &tedge1::Request::Ping)?;
            Response::Pong(Pong::new("a server that speaks tedge1 alone", 0))
        }
        Request::OpenKey(open) => Response::Key(key::open(open, server)?),
        Request::Sign(sign) => Response::Signature(key::sign(sign, server)?),
        Request::GetPublicKey(get) => Response::PublicKey(manage::get_public_key(get, server)?),
        Request::ListTokens(_) => Response::Tokens(manage::list_tokens(server)?),
        Request::ListKeys(list) => Response::Objects(manage::list_keys(list, server)?),
        Request::CreateKey(create) => Response::PublicKey(manage::create_key(create, server)?),
        Request::DeleteKey(delete) => Response::Deleted(manage::delete_key(delete, server)?),
        Request::InitToken(init) => Response::TokenReady(manage::init_token(init, server)?),
        Request::ChangePin(change) => Response::PinChanged(manage::change_pin(change, server)?),
        Request::Status(_) => return Err(too_old(server, "tell its status")),
        Request::GetCertificates(_) => return Err(too_old(server, "read certificates")),
        Request::ImportCertificate(_) => return Err(too_old(server, "store a certificate")),
        other => return Err(too_old(server, format!("answer {}", other.name()))),
    })
}

/// The error for what tedge1 has no message for.
fn too_old(server: Target<'_>, what: impl Into<String>) -> Error {
    Error::TooOld {
        path: server.path.to_owned(),
        what: what.into(),
    }
}

/// The URI for a request that may have none, which means any key as `pkcs11:` does.
fn uri_or_none(uri: &UriText) -> Option<UriText> {
    (**uri != *"pkcs11:").then(|| uri.clone())
}

/// Asks an old server: the value of the response that belongs to the request.
macro_rules! ask {
    ($server:expr, $request:expr => $response:ident) => {
        match $crate::tedge1::exchange::ask($server, &$request)? {
            p11_proto::tedge1::Response::$response(value) => value,
            other => return Err($crate::error::Error::unexpected($server.path, other.name())),
        }
    };
}
use ask;
