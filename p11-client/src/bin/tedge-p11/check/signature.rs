//! Step `signature`: one is made, as in a handshake, and verified.

use std::time::{Duration, Instant};

use p11_client::Scheme;
use p11_client::message::Sign;

use super::finding::{Finding, Looked};
use super::walk::{Walk, now};
use crate::exit::Refusal;
use crate::verify::verifies;

/// Peers give up a handshake after some seconds, and it is not the only thing in one.
const SLOW: Duration = Duration::from_millis(800);

pub fn look(walk: &mut Walk<'_>) -> Looked {
    let Some((_, key)) = &walk.key else {
        return Ok(Finding::not_seen("the key was not seen"));
    };
    let mut schemes = key.schemes.iter();
    let Some(scheme) = schemes.find_map(|number| Scheme::from_number(*number)) else {
        return Err(Finding::failed(
            "the key can make no signature that TLS knows",
        ));
    };
    let message = format!("tedge-p11 check {}", now()).into_bytes();
    let request = Sign::new(
        key.uri.as_str(),
        scheme.number(),
        message.clone(),
        key.identity,
    );
    let began = Instant::now();
    let signature = walk.session.client.sign(request).map_err(Refusal::from)?;
    let took = began.elapsed();
    let shown = format!("{}, {} ms", scheme.name(), took.as_millis());
    let finding = match verifies(&key.spki, key.bits, scheme, &message, &signature) {
        Some(true) => Finding::ok(format!("made and verified ({shown})")),
        // Of a size that the step `key` has warned of.
        None => Finding::ok(format!("made, not verified ({shown})")),
        Some(false) => {
            return Err(Finding::failed(format!(
                "a signature was made that is not of the key ({shown})"
            ))
            .detail("The token or its module is broken: no peer will take what it signs."));
        }
    };
    Ok(match took > SLOW {
        true => finding.warn("slow: a peer may give up the handshake meanwhile"),
        false => finding,
    })
}
