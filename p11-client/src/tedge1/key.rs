//! Opening a key and signing with it, where the server is told which key is meant by its URI alone.

use p11_proto::message::{OpenKey, OpenedKey, Sign, Signature};
use p11_proto::spki::{Curve, Kind, PublicKey};
use p11_proto::tedge1::{self, ChooseScheme, Request, SigScheme, SignWithSigScheme, ToSign};
use p11_proto::{ErrorCode, Failure, Scheme, UriText};

use super::{ask, too_old, uri_or_none};
use crate::error::Error;
use crate::socket::Target;
use crate::uri::without_query;

/// What an old server can be asked for: the schemes that tedge1 has a number for, and that of
/// Ed25519, which needs none since such a key has no other.
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

/// Which key it is, by its public half where the server has that, else by the certificate's; and
/// what it can do.
pub(super) fn open(request: &OpenKey, server: Target<'_>) -> Result<OpenedKey, Error> {
    let wanted = match &request.spki {
        Some(spki) => Some(PublicKey::from_spki(spki).map_err(Error::Certificate)?),
        None => None,
    };
    let schemes = schemes(request, server)?;
    let public = match (told_public_key(&request.uri, server)?, wanted) {
        (Some(told), Some(wanted)) if told != wanted => return Err(chose_another(server)),
        (Some(public), _) | (None, Some(public)) => public,
        (None, None) => {
            let what = "tell the public half of this key (it need not, given the certificate)";
            return Err(too_old(server, what));
        }
    };
    if !schemes.iter().all(|scheme| fits(*scheme, public.kind())) {
        return Err(chose_another(server));
    }
    Ok(OpenedKey::new(
        without_query(&request.uri),
        &public,
        schemes,
    ))
}

/// One signature. That it is the key that was opened is checked here, as far as the server has the
/// public half of the key: it does not check itself.
pub(super) fn sign(request: &Sign, server: Target<'_>) -> Result<Signature, Error> {
    let told = told_public_key(&request.uri, server)?;
    if told.is_some_and(|told| told.identity() != request.identity) {
        let message = "the URI leads to another key than the one that was opened; open it again";
        return Err(Failure::new(ErrorCode::KeyChanged, message).into());
    }
    let scheme = Scheme::from_number(request.scheme);
    let to_sign = ToSign(request.message.clone());
    let uri = uri_or_none(&request.uri);
    let pin = request.pin.clone();
    let signature = match (scheme.and_then(SigScheme::from_scheme), scheme) {
        (Some(sigscheme), _) => ask!(server, Request::SignWithSigScheme(SignWithSigScheme {
            to_sign,
            uri,
            sigscheme: Some(sigscheme),
            pin,
        }) => Sign),
        (None, Some(Scheme::Ed25519)) => {
            ask!(server, Request::Sign(tedge1::Sign { to_sign, uri, pin }) => Sign)
        }
        (None, _) => {
            let what = format!("sign with the scheme {:#06x}", request.scheme);
            return Err(too_old(server, what));
        }
    };
    Ok(Signature::new(signature))
}

/// The public half of a key, as an old server exports it: not quite in the form that it claims.
pub(super) fn public_key(uri: &UriText, server: Target<'_>) -> Result<PublicKey, Error> {
    let pem = ask!(server, Request::GetPublicKeyPem(uri_or_none(uri)) => GetPublicKeyPem);
    public_key_of(&pem, server)
}

/// The public key in an old server's PEM.
pub(super) fn public_key_of(pem: &str, server: Target<'_>) -> Result<PublicKey, Error> {
    tedge1::public_key_from_legacy_pem(pem).map_err(|e| Error::not_understood(server.path, e))
}

/// The public half of a key where the server has it, in a form that can be read.
fn told_public_key(uri: &UriText, server: Target<'_>) -> Result<Option<PublicKey>, Error> {
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
    let offer = || {
        Ok(ask!(server, Request::ChooseScheme(ChooseScheme {
            offered: offered.iter().map(|scheme| scheme.number()).collect(),
            uri: uri_or_none(&request.uri),
            pin: request.pin.clone(),
        }) => ChooseScheme))
    };
    match offer() {
        Ok(chosen) => Ok(chosen.scheme),
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

fn chose_another(server: Target<'_>) -> Error {
    let what = "choose the certificate's key among those that match the URI, and chose another \
                (a URI that names no other helps)";
    too_old(server, what)
}
