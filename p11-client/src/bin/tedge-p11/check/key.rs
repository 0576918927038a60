//! Step `key`: exactly one that is meant, with both halves, which may sign.

use p11_client::Uri;
use p11_client::message::{ByteBuf, KeyType, OpenKey, OpenedKey};
use p11_client::rustls::pki_types::CertificateDer;
use p11_client::rustls::pki_types::pem::PemObject;
use p11_client::spki::PublicKey;

use super::finding::{Finding, Looked};
use super::token::wanted;
use super::walk::Walk;
use crate::exit::{Exit, Refusal, quoted};
use crate::inventory::{Inventory, Key};

/// What brokers take.
const LEAST_RSA_BITS: u32 = 2048;

pub fn look(walk: &mut Walk<'_>) -> Looked {
    let Some(token) = walk.token.clone() else {
        return Ok(Finding::not_seen("the token was not seen"));
    };
    if !walk.may_log_in {
        return Ok(Finding::not_seen(
            "its token wants a PIN, which is not sent without --login",
        ));
    }
    read_chain(walk);
    let wanted = wanted(walk);
    let mut listed = Inventory::of_keys(&mut walk.session, token.uri(), None)?;
    if let Some((_, refusal)) = listed.troubles.pop() {
        return Err(refusal.into());
    }
    let meant: Vec<_> = listed
        .keys
        .iter()
        .filter(|key| wanted.matches_key(&key.label, &key.id))
        .collect();
    let usable: Vec<_> = meant.iter().filter(|key| key.has_private).collect();
    let request = match usable.as_slice() {
        [] => return Err(none(&token.entry.label, &meant, &listed, wanted.object())),
        [only] if only.can_sign == Some(false) => return Err(may_not_sign(only)),
        [only] => OpenKey::new(only.full.as_str()),
        // The certificate says which.
        several => {
            let spki = spki(walk).ok_or_else(|| ambiguous(several))?;
            let uri = wanted.apply_scope(token.uri()).uri.without_query();
            OpenKey::new(uri.to_string()).spki(Some(spki))
        }
    };
    let opened = walk
        .session
        .client
        .open_key(request)
        .map_err(Refusal::from)?;
    let uri = Uri::parse(&opened.uri).unwrap_or_default();
    let mut opened_key = usable
        .iter()
        .filter(|key| uri.matches_key(&key.label, &key.id));
    let Some(key) = opened_key.next().map(|key| Key::clone(key)) else {
        return Err(Finding::failed(format!(
            "the server opened {} instead",
            opened.uri
        )));
    };
    let finding = told(&key, &opened);
    walk.key = Some((key, opened));
    Ok(finding)
}

fn may_not_sign(key: &Key) -> Finding {
    Finding::failed(format!(
        "the key {:?} may not sign (CKA_SIGN is false)",
        key.name()
    ))
    .exit(Exit::Failed)
    .next("tedge-p11 create-key device-key # or another key: tedge-p11 keys")
}

fn told(key: &Key, opened: &OpenedKey) -> Finding {
    let mut finding = Finding::ok(summary(key));
    if key.key_type == KeyType::Rsa && opened.bits < LEAST_RSA_BITS {
        finding = finding.warn(format!("{} bits: brokers refuse it", opened.bits));
    }
    if key.extractable == Some(true) {
        finding = finding.warn("it can be taken out of the token (CKA_EXTRACTABLE)");
    }
    match &opened.note {
        Some(note) => finding.warn(note),
        None => finding,
    }
}

/// The certificates in the file, as far as there are some; the step `certificate` says what is wrong with it.
fn read_chain(walk: &mut Walk<'_>) {
    let Some(path) = &walk.session.config.cert_path else {
        return;
    };
    if let Ok(certificates) = CertificateDer::pem_file_iter(path) {
        walk.chain = certificates.map_while(Result::ok).collect();
    }
}

fn spki(walk: &Walk<'_>) -> Option<ByteBuf> {
    let public = PublicKey::of_certificate(walk.chain.first()?).ok()?;
    Some(ByteBuf::from(public.spki()))
}

fn summary(key: &Key) -> String {
    let bound = match key.extractable {
        Some(false) => ", never extractable",
        _ => "",
    };
    format!("{}, {}{bound}  {}", key.name(), key.kind(), key.uri)
}

fn none(token: &str, halves: &[&Key], listed: &Inventory, label: Option<&str>) -> Finding {
    if let Some(half) = halves.first() {
        return Finding::failed(format!(
            "only the public half of {:?} is there, or its private half is not shown",
            half.name()
        ))
        .next(format!("tedge-p11 create-key {}", quoted(&half.name())));
    }
    let name = label.unwrap_or("device-key");
    let mut finding = Finding::failed(match label {
        Some(label) => format!("there is no key {label:?} on the token {token:?}"),
        None => format!("there is no key on the token {token:?} that is meant by device.key_uri"),
    });
    let others: Vec<_> = listed.keys.iter().filter(|key| key.has_private).collect();
    if listed.keys.is_empty() {
        finding = finding.detail("It holds no key at all.");
    }
    for other in &others {
        finding = finding
            .detail(format!("There is {:?}, {}", other.name(), other.kind()))
            .next(format!(
                "tedge config set device.key_uri {}",
                quoted(&other.uri)
            ));
    }
    finding.next(format!("tedge-p11 create-key {}", quoted(name)))
}

fn ambiguous(several: &[&&Key]) -> Finding {
    let finding = Finding::failed(format!(
        "{} keys could be the one that is meant, and there is no certificate that tells which",
        several.len()
    ));
    several.iter().fold(finding, |finding, key| {
        finding.next(format!(
            "tedge config set device.key_uri {}",
            quoted(&key.uri)
        ))
    })
}
