//! The tokens and keys that the server shows, each with the shortest URI that means it alone.

use p11_client::ErrorCode;
use p11_client::message::{Class, KeyType, ListKeys, ObjectEntry, Objects, TokenEntry};
use p11_uri::{ObjectInfo, ObjectType, TokenInfo, Uri};

use crate::exit::Refusal;
use crate::output::printable;
use crate::session::Session;
use crate::short_uri::{info, short_uri, shortest};

/// What was listed.
#[derive(Debug, Default)]
pub struct Inventory {
    pub tokens: Vec<Token>,
    pub keys: Vec<Key>,
    /// Certificates on the tokens whose keys were listed.
    pub certificates: Vec<ObjectEntry>,
    /// What the server remarks on the keys of a token, by the token's label.
    pub notes: Vec<(String, String)>,
    /// Tokens whose keys could not be listed, and why.
    pub troubles: Vec<(String, Refusal)>,
    /// Whether something is missing, since it does not fit into an answer.
    pub is_cut: bool,
}

/// A token.
#[derive(Clone, Debug)]
pub struct Token {
    pub entry: TokenEntry,
    /// The shortest URI that means it alone.
    pub uri: String,
    /// What that URI says.
    info: TokenInfo,
    full: Uri,
}

/// A key pair.
#[derive(Clone, Debug)]
pub struct Key {
    /// The label of its token.
    pub token: String,
    pub label: String,
    pub id: Vec<u8>,
    pub key_type: KeyType,
    pub bits: u32,
    /// Whether the private half was seen: without a PIN it is not.
    pub has_private: bool,
    pub can_sign: Option<bool>,
    pub extractable: Option<bool>,
    pub always_authenticate: Option<bool>,
    /// The shortest URI that means it alone.
    pub uri: String,
    /// The URI with all that is known of it.
    pub full: String,
}

impl Inventory {
    /// Every token, without its keys.
    pub fn of_tokens(session: &mut Session) -> Result<Inventory, Refusal> {
        let listed = session.ask("looking for tokens", |client| client.list_tokens())?;
        Ok(Inventory {
            tokens: tokens(listed.tokens)?,
            is_cut: listed.truncated,
            ..Inventory::default()
        })
    }

    /// Every token, and the keys of those that a URI means. Of a token with more objects than an answer holds, at least
    /// those are there that the URI, or this label, means.
    pub fn of_keys(
        session: &mut Session,
        uri: &Uri,
        label: Option<&str>,
    ) -> Result<Inventory, Refusal> {
        let mut inventory = Inventory::of_tokens(session)?;
        let tokens = inventory.tokens.clone();
        for token in tokens
            .iter()
            .filter(|token| token.entry.initialized && token.is_meant(uri))
        {
            let wanted = label.map_or_else(|| uri.clone(), of_label);
            match objects(session, &token.full, &wanted) {
                Ok(listed) => inventory.add(token, listed),
                Err(refusal) => {
                    let token = printable(&token.entry.label);
                    inventory.troubles.push((token, refusal));
                }
            }
        }
        Ok(inventory)
    }

    /// Whether it is worth a request to look for a key's certificate: one has a name of the key, or that of no key.
    pub fn may_be_certified(&self, key: &Key) -> bool {
        let is_of = |certificate: &ObjectEntry, key: &Key| {
            certificate.id == key.id || certificate.label == key.label
        };
        let mut certificates = self.certificates.iter();
        certificates.any(|certificate| {
            is_of(certificate, key) || !self.keys.iter().any(|key| is_of(certificate, key))
        })
    }

    /// The tokens that are ready, or nearly: not the blank ones.
    pub fn initialized(&self) -> impl Iterator<Item = &Token> {
        self.tokens.iter().filter(|token| token.entry.initialized)
    }

    fn add(&mut self, token: &Token, listed: Objects) {
        let mut keys: Vec<Key> = Vec::new();
        let (certificates, halves): (Vec<_>, Vec<_>) = listed
            .objects
            .into_iter()
            .filter(|object| object.class != Class::Unknown)
            .partition(|object| object.class == Class::Certificate);
        let of_class = |class| halves.iter().filter(move |half| half.class == class);
        keys.extend(of_class(Class::Private).map(|half| Key::new(token, half)));
        for half in of_class(Class::Public) {
            match keys.iter_mut().find(|key| key.has_half(half)) {
                // Some modules tell the type of the public half alone.
                Some(key) if key.bits == 0 => (key.key_type, key.bits) = (half.key_type, half.bits),
                Some(_) => {}
                None => keys.push(Key::new(token, half)),
            }
        }
        if !listed.truncated {
            let short: Vec<_> = keys.iter().map(|key| key.shortest(token, &keys)).collect();
            for (key, short) in keys.iter_mut().zip(short) {
                key.uri = short;
            }
        }
        self.keys.extend(keys);
        self.certificates.extend(certificates);
        self.is_cut |= listed.truncated;
        if let Some(note) = listed.note {
            self.notes.push((printable(&token.entry.label), note));
        }
    }
}

impl Token {
    /// Whether a URI means this token, as far as a client can tell.
    pub fn is_meant(&self, uri: &Uri) -> bool {
        let mut info = info(&self.full, self.entry.slot);
        // The server knows these, and holds the URI to them.
        let told = |value: Option<&str>| value.unwrap_or_default().to_owned();
        info.slot_description = told(uri.slot_description());
        info.slot_manufacturer = told(uri.slot_manufacturer());
        info.library_description = told(uri.library_description());
        info.library_manufacturer = told(uri.library_manufacturer());
        info.library_version = uri.library_version().unwrap_or_default();
        uri.matches_token(&info)
    }

    /// Whether the full URI of an object says that it is on this token.
    pub fn has(&self, object: &Uri) -> bool {
        let info = info(object, self.entry.slot);
        self.full.matches_token(&info)
    }

    /// The URI with all that is known of it.
    pub fn full(&self) -> &str {
        &self.entry.uri
    }

    /// The same, to list what is on it.
    pub fn uri(&self) -> &Uri {
        &self.full
    }
}

impl Key {
    fn new(token: &Token, half: &ObjectEntry) -> Self {
        let is_private = half.class == Class::Private;
        // The label of an entry is made fit for people, that of the URI is as it is.
        let full = Uri::parse(&half.uri).map(|uri| uri.without_type());
        let label = full.as_ref().ok().and_then(|uri| uri.object());
        let full_text = full
            .as_ref()
            .map_or_else(|_| half.uri.clone(), Uri::to_string);
        Key {
            token: token.entry.label.clone(),
            label: label.unwrap_or(&half.label).to_owned(),
            id: half.id.to_vec(),
            key_type: half.key_type,
            bits: half.bits,
            has_private: is_private,
            can_sign: half.can_sign,
            extractable: half.extractable,
            always_authenticate: half.always_authenticate,
            uri: full_text.clone(),
            full: full_text,
        }
    }

    /// A key that may not be listed, by the URI that leads to it.
    pub fn unlisted(uri: &Uri) -> Self {
        let text = uri.without_query().without_type().to_string();
        Key {
            token: uri.token().unwrap_or_default().to_owned(),
            label: uri.object().unwrap_or_default().to_owned(),
            id: uri.id().unwrap_or_default().to_vec(),
            key_type: KeyType::Unknown,
            bits: 0,
            has_private: true,
            can_sign: None,
            extractable: None,
            always_authenticate: None,
            uri: text.clone(),
            full: text,
        }
    }

    /// As people call it.
    pub fn name(&self) -> String {
        match self.label.is_empty() {
            true => self.uri.clone(),
            false => printable(&self.label),
        }
    }

    /// The URI of its private half, with all that is known of it.
    pub fn private_uri(&self) -> String {
        let uri = Uri::parse(&self.full);
        uri.map_or_else(
            |_| self.full.clone(),
            |uri| uri.with_type(ObjectType::Private).to_string(),
        )
    }

    /// "P-256"
    pub fn kind(&self) -> String {
        kind(self.key_type, self.bits)
    }

    pub fn id_hex(&self) -> String {
        self.id.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn has_half(&self, public: &ObjectEntry) -> bool {
        match self.id.is_empty() || public.id.is_empty() {
            true => self.label == public.label,
            false => self.id == *public.id,
        }
    }

    fn shortest(&self, token: &Token, all: &[Key]) -> String {
        let no_label = String::new();
        let no_id = Vec::new();
        let ways = [
            (&self.label, &no_id),
            (&self.label, &self.id),
            (&no_label, &self.id),
        ];
        for (label, id) in ways {
            let text = short_uri(&token.info, label, id);
            let Ok(uri) = Uri::parse(&text) else { continue };
            let meant = all
                .iter()
                .filter(|key| uri.matches_key(&key.label, &key.id));
            if uri.names_object() && meant.count() == 1 {
                return text;
            }
        }
        self.full.clone()
    }
}

/// "P-256", "RSA-2048", "Ed25519"
pub fn kind(key_type: KeyType, bits: u32) -> String {
    match key_type {
        KeyType::Ec => format!("P-{bits}"),
        KeyType::Rsa => format!("RSA-{bits}"),
        other => other.to_string(),
    }
}

/// The objects of a token; where those are too many, the ones that are wanted.
fn objects(session: &mut Session, token: &Uri, wanted: &Uri) -> Result<Objects, Refusal> {
    let mut list = |uri: String| {
        session.ask("looking for keys", |client| {
            client.list_keys(ListKeys::new(uri.as_str()))
        })
    };
    let all = list(token.to_string())?;
    if !all.truncated || !wanted.names_object() {
        return Ok(all);
    }
    let narrow = wanted.without_query().without_type();
    let listed = list(narrow.apply_scope(token).uri.to_string())?;
    Ok(listed.truncated(true))
}

fn of_label(label: &str) -> Uri {
    let object = ObjectInfo::new(ObjectType::Private, label, []);
    Uri::of_object(&TokenInfo::default(), &object).without_type()
}

fn tokens(entries: Vec<TokenEntry>) -> Result<Vec<Token>, Refusal> {
    let unreadable = |e| {
        Refusal::failed(format_args!(
            "the server's URI of a token cannot be read: {e}"
        ))
    };
    let mut tokens = Vec::new();
    for entry in entries {
        let full = Uri::parse(&entry.uri).map_err(unreadable)?;
        tokens.push(Token {
            info: info(&full, entry.slot),
            uri: entry.uri.clone(),
            entry,
            full,
        });
    }
    let infos: Vec<_> = tokens.iter().map(|token| token.info.clone()).collect();
    for token in tokens.iter_mut().filter(|token| token.entry.initialized) {
        let short = shortest(&token.info, &infos);
        token.uri = Uri::of_token(&short).to_string();
        token.info = short;
    }
    Ok(tokens)
}

/// Whether the policy keeps this user from listing, so that a name is taken to the server as it is.
pub fn may_not_list(error: &Refusal) -> bool {
    error.code == ErrorCode::NotAllowed.to_string().as_str()
}

#[cfg(test)]
mod tests {
    use p11_client::message::{Request, Response, Tokens};
    use p11_client::{Client, CryptokiConfig};

    use super::*;
    use crate::output::Output;

    /// A token of so many objects that a listing of all of them never shows the key `last`.
    fn with_many_objects(request: &Request) -> Result<Response, p11_client::Error> {
        let object = |class, label: &str, id: u8| {
            let uri = format!("pkcs11:token=full;id=%{id:02}");
            let uri = format!("{uri};object={label};type={class}");
            ObjectEntry::new(class, KeyType::Ec, label, vec![id], uri).bits(256)
        };
        Ok(match request {
            Request::ListTokens(_) => {
                let token = TokenEntry::new(0, "pkcs11:token=full")
                    .label("full")
                    .initialized(true);
                Response::Tokens(Tokens::new(vec![token]))
            }
            Request::ListKeys(request) => Response::Objects(match &*request.uri {
                "pkcs11:token=full;object=last" => {
                    Objects::new(vec![object(Class::Private, "last", 9)])
                }
                _ => Objects::new(vec![object(Class::Private, "first", 1)]).truncated(true),
            }),
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn a_key_that_is_named_is_found_on_a_token_of_very_many() {
        let session = &mut Session {
            client: Client::with_transport(with_many_objects),
            given_pin: None,
            output: Output {
                json: false,
                verbose: false,
            },
            config: CryptokiConfig::default(),
        };
        let listed = Inventory::of_keys(session, &Uri::default(), Some("last")).unwrap();
        let [key] = listed.keys.as_slice() else {
            panic!("{listed:?}")
        };
        // What else is there is not known, so nothing is left out.
        assert_eq!(key.uri, "pkcs11:token=full;id=%09;object=last");
        let uri = Uri::parse("pkcs11:object=last").unwrap();
        assert_eq!(
            Inventory::of_keys(session, &uri, None).unwrap().keys.len(),
            1
        );
        let all = Inventory::of_keys(session, &Uri::default(), None).unwrap();
        assert!(all.is_cut && all.keys.len() == 1, "{all:?}");
    }
}
