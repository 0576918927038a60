//! Opening a key and signing with it through an old server, which knows a key by its URI alone.

use p11_proto::message::{OpenKey, OpenedKey, Sign, Signature};
use p11_proto::spki::{Curve, Kind, PublicKey};
use p11_proto::tedge1::{
    self, ChooseScheme, Request, Response, SigScheme, SignWithSigScheme, ToSign,
};
use p11_proto::{ErrorCode, Failure, Scheme, UriText};

use super::exchange::{ask, optional, send, too_old};
use crate::error::Error;
use crate::socket::Target;
use crate::uri::without_query;

/// The schemes of tedge1, and Ed25519, which needs none: such a key has no other scheme.
const SCHEMES: [Scheme; 6] = [
    Scheme::EcdsaP256Sha256,
    Scheme::EcdsaP384Sha384,
    Scheme::EcdsaP521Sha512,
    Scheme::RsaPssSha256,
    Scheme::RsaPkcs1Sha256,
    Scheme::Ed25519,
];

/// How some old servers say that the key can do none of the schemes.
const NO_SCHEME: &str = "failed to choose scheme";

/// The key's schemes, and its public key: as the server exports it, else the certificate's.
pub(super) fn open(request: &OpenKey, server: Target<'_>) -> Result<OpenedKey, Error> {
    let expected = match &request.spki {
        Some(spki) => Some(PublicKey::from_spki(spki).map_err(Error::Certificate)?),
        None => None,
    };
    let schemes = schemes(request, server)?;
    let public = match (exported_public_key(&request.uri, server)?, expected) {
        (Some(exported), Some(expected)) if exported != expected => {
            return Err(other_key_chosen(server));
        }
        (Some(public), _) | (None, Some(public)) => public,
        (None, None) => {
            let what = "tell the public half of this key (it need not, given the certificate)";
            return Err(too_old(server, what));
        }
    };
    if !schemes.iter().all(|scheme| fits(*scheme, public.kind())) {
        return Err(other_key_chosen(server));
    }
    let uri = without_query(&request.uri);
    Ok(OpenedKey::new(uri, &public, schemes))
}

/// One signature. An old server does not check that the key is the one that was opened, so it is
/// checked here, if the server exports the public key.
pub(super) fn sign(request: &Sign, server: Target<'_>) -> Result<Signature, Error> {
    let exported = exported_public_key(&request.uri, server)?;
    if exported.is_some_and(|exported| exported.identity() != request.identity) {
        let message = "the URI leads to another key than the one that was opened; open it again";
        return Err(Failure::new(ErrorCode::KeyChanged, message).into());
    }
    let to_sign = ToSign(request.message.clone());
    let uri = optional(&request.uri);
    let pin = request.pin.clone();
    let scheme = Scheme::from_number(request.scheme);
    let sigscheme = scheme.and_then(SigScheme::from_scheme);
    let request = if sigscheme.is_some() {
        Request::SignWithSigScheme(SignWithSigScheme {
            to_sign,
            uri,
            sigscheme,
            pin,
        })
    } else if scheme == Some(Scheme::Ed25519) {
        Request::Sign(tedge1::Sign { to_sign, uri, pin })
    } else {
        let what = format!("sign with the scheme {:#06x}", request.scheme);
        return Err(too_old(server, what));
    };
    let signature = ask!(server, request => Sign);
    Ok(Signature::new(signature))
}

/// The public key of a key.
pub(super) fn public_key(uri: &UriText, server: Target<'_>) -> Result<PublicKey, Error> {
    let pem = ask!(server, Request::GetPublicKeyPem(optional(uri)) => GetPublicKeyPem);
    decode_pem(&pem, server)
}

/// The public key in an old server's PEM.
pub(super) fn decode_pem(pem: &str, server: Target<'_>) -> Result<PublicKey, Error> {
    tedge1::public_key_from_legacy_pem(pem).map_err(|e| Error::not_understood(server.path, e))
}

/// The public key of a key, if the server exports it in a form that can be read.
fn exported_public_key(uri: &UriText, server: Target<'_>) -> Result<Option<PublicKey>, Error> {
    match public_key(uri, server) {
        Ok(public) => Ok(Some(public)),
        Err(e @ (Error::Server(_) | Error::Protocol { .. })) => {
            tracing::debug!("the public key is not told: {e}");
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

/// The schemes of a key. The server names one of those that it is offered, so it is asked until it
/// names none.
fn schemes(request: &OpenKey, server: Target<'_>) -> Result<Vec<Scheme>, Error> {
    let mut left = SCHEMES.to_vec();
    let mut found = Vec::new();
    while let Some(number) = choose(&left, request, server)? {
        let chosen = left.iter().position(|scheme| scheme.number() == number);
        let chosen = chosen.ok_or_else(|| {
            Error::not_understood(server.path, "it chose a scheme that was not offered")
        })?;
        found.push(left.remove(chosen));
    }
    Ok(found)
}

fn choose(offered: &[Scheme], request: &OpenKey, server: Target<'_>) -> Result<Option<u16>, Error> {
    let request = Request::ChooseScheme(ChooseScheme {
        offered: offered.iter().map(|scheme| scheme.number()).collect(),
        uri: optional(&request.uri),
        pin: request.pin.clone(),
    });
    match send(server, &request) {
        Ok(Response::ChooseScheme(chosen)) => Ok(chosen.scheme),
        Ok(other) => Err(Error::not_understood(
            server.path,
            format_args!("its answer was {:?}", other.name()),
        )),
        Err(Error::Server(failure)) if failure.message.contains(NO_SCHEME) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Whether a key of this kind can do the scheme at all.
fn fits(scheme: Scheme, kind: Kind) -> bool {
    match scheme {
        Scheme::EcdsaP256Sha256 => kind == Kind::Ec(Curve::P256),
        Scheme::EcdsaP384Sha384 => kind == Kind::Ec(Curve::P384),
        Scheme::EcdsaP521Sha512 => kind == Kind::Ec(Curve::P521),
        Scheme::Ed25519 => kind == Kind::Ed25519,
        _ => matches!(kind, Kind::Rsa { .. }),
    }
}

fn other_key_chosen(server: Target<'_>) -> Error {
    let what = "choose the certificate's key among those that match the URI, and chose another \
                (a URI that names no other helps)";
    too_old(server, what)
}
