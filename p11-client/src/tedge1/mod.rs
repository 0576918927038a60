//! tedge1, the protocol of old servers: translates requests of protocol 1 and their answers.
//!
//! | module | what it holds |
//! |---|---|
//! | `key` | opening a key and signing with it |
//! | `manage` | listing and changing keys and tokens |
//! | `exchange` | one request and its reply; which protocol a server speaks |
//! | `failure` | error codes for the texts of old servers |

mod exchange;
mod failure;
mod key;
mod manage;

use p11_proto::message::{Message, Pong, Request, Response};
use p11_proto::tedge1;

use crate::error::Error;
use crate::socket::Target;

pub(crate) use exchange::probe;
use exchange::{send, too_old};

/// Sends a request to an old server, as far as tedge1 has a message for it.
pub(crate) fn call(request: &Request, server: Target<'_>) -> Result<Response, Error> {
    Ok(match request {
        Request::Ping(_) => {
            send(server, &tedge1::Request::Ping)?;
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
