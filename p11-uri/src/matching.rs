//! Which token and object a URI means (RFC 7512 section 2.5), the URI of a token or object, and the scope
//! of a service.

use crate::info::{ObjectInfo, ObjectType, TokenInfo};
use crate::uri::Uri;

/// What [`Uri::apply_scope`] makes of a URI.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Scoped {
    /// The URI, held to the scope.
    pub uri: Uri,
    /// The attributes for which the scope had another value than the URI.
    pub replaced: Vec<String>,
}

impl Uri {
    /// Whether the slot, token and library attributes mean this token. What the URI does not say matches
    /// anything; a path attribute that RFC 7512 does not define matches nothing.
    pub fn matches_token(&self, info: &TokenInfo) -> bool {
        self.vendor_path.is_empty() && self.token.matches(info)
    }

    /// Whether `object`, `id` and `type` mean this object, on whatever token it is.
    pub fn matches_object(&self, info: &ObjectInfo) -> bool {
        self.vendor_path.is_empty() && self.object.matches(info)
    }

    /// Whether `object` and `id` mean the key pair of this label and id. `type=private` and `type=public`
    /// both name the pair; a URI with any other type means no key pair.
    pub fn matches_key(&self, label: &str, id: &[u8]) -> bool {
        use ObjectType::{Private, Public};
        self.vendor_path.is_empty()
            && matches!(self.object_type(), None | Some(Private | Public))
            && self.object().is_none_or(|own| own == label)
            && self.id().is_none_or(|own| own == id)
    }

    /// How near a token comes to the one that this URI means, to list the nearest first where none matches.
    pub fn nearness_to_token(&self, info: &TokenInfo) -> usize {
        [
            (self.token(), &info.label),
            (self.serial(), &info.serial),
            (self.model(), &info.model),
            (self.manufacturer(), &info.manufacturer),
        ]
        .into_iter()
        .map(|(own, its)| common_beginning(own.unwrap_or_default().as_bytes(), its.as_bytes()))
        .sum()
    }

    /// The same for an object.
    pub fn nearness_to_object(&self, info: &ObjectInfo) -> usize {
        let label = self.object().unwrap_or_default().as_bytes();
        common_beginning(label, info.label.as_bytes())
            + common_beginning(self.id().unwrap_or_default(), &info.id)
    }

    /// Holds this URI to a scope: the path attributes of the scope take the place of this URI's, which
    /// adds those that the scope leaves open. The query stays this URI's.
    ///
    /// ```
    /// use p11_uri::Uri;
    ///
    /// let scope = Uri::parse("pkcs11:token=factory")?;
    /// let scoped = Uri::parse("pkcs11:token=mine;object=key")?.apply_scope(&scope);
    /// assert_eq!(scoped.uri.to_string(), "pkcs11:token=factory;object=key");
    /// assert_eq!(scoped.replaced, ["token"]);
    /// # Ok::<(), p11_uri::Error>(())
    /// ```
    pub fn apply_scope(&self, scope: &Uri) -> Scoped {
        let mut uri = self.clone();
        let mut replaced = Vec::new();
        uri.token.apply_scope(&scope.token, &mut replaced);
        uri.object.apply_scope(&scope.object, &mut replaced);
        for (name, value) in &scope.vendor_path {
            let own = uri.vendor_path.insert(name.clone(), value.clone());
            if own.is_some_and(|own| own != *value) {
                replaced.push(name.clone());
            }
        }
        Scoped { uri, replaced }
    }

    /// The URI of a token: model, manufacturer, serial number and label, as p11tool prints it, and the slot of one that
    /// is ambiguous. What is empty is left out, since many modules have no value there.
    pub fn of_token(info: &TokenInfo) -> Uri {
        let mut uri = Uri::default();
        uri.token.model = non_empty(&info.model);
        uri.token.manufacturer = non_empty(&info.manufacturer);
        uri.token.serial = non_empty(&info.serial);
        uri.token.token = non_empty(&info.label);
        uri.token.slot_id = info.is_ambiguous.then_some(info.slot_id);
        uri
    }

    /// The URI of a slot whose token has no label and serial number yet: slot id and model. It is good as
    /// long as the library stays loaded.
    pub fn of_slot(info: &TokenInfo) -> Uri {
        let mut uri = Uri::default();
        uri.token.slot_id = Some(info.slot_id);
        uri.token.model = non_empty(&info.model);
        uri
    }

    /// The whole URI of an object: its token's, with the object's id, label and type. One with neither id nor label is
    /// named by its having none, since a URI without `id` and `object` means every object.
    pub fn of_object(token: &TokenInfo, object: &ObjectInfo) -> Uri {
        let mut uri = Uri::of_token(token);
        uri.object.id = (!object.id.is_empty()).then(|| object.id.clone());
        uri.object.object = non_empty(&object.label);
        if !uri.names_object() {
            uri.object.id = Some(Vec::new());
            uri.object.object = Some(String::new());
        }
        uri.object.object_type = Some(object.object_type);
        uri
    }
}

fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// How many bytes of two texts are equal from the beginning, whatever their case.
fn common_beginning(one: &[u8], other: &[u8]) -> usize {
    let pairs = one.iter().zip(other);
    pairs.take_while(|(a, b)| a.eq_ignore_ascii_case(b)).count()
}
