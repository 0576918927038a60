//! A URI and facts go in, whether it means them comes out (RFC 7512 section 2.5); likewise a URI and the
//! scope that it is held to.

use crate::uri::Path;
use crate::{ObjectFacts, ObjectType, TokenFacts, Uri};

/// What [`Uri::scoped_by`] makes of a URI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scoped {
    /// The URI, held to the scope.
    pub uri: Uri,
    /// The attributes for which the scope had another value than the URI.
    pub replaced: Vec<String>,
}

impl Uri {
    /// Whether the slot, token and library attributes mean this token. What the URI does not say matches
    /// anything; a path attribute that RFC 7512 does not define matches nothing.
    pub fn matches_token(&self, facts: &TokenFacts) -> bool {
        let path = &self.path;
        path.vendor.is_empty()
            && is_padded(&path.library_description, &facts.library_description)
            && is_padded(&path.library_manufacturer, &facts.library_manufacturer)
            && is(&path.library_version, &facts.library_version)
            && is_padded(&path.slot_description, &facts.slot_description)
            && is_padded(&path.slot_manufacturer, &facts.slot_manufacturer)
            && is(&path.slot_id, &facts.slot_id)
            && is_padded(&path.model, &facts.model)
            && is_padded(&path.manufacturer, &facts.manufacturer)
            && is_padded(&path.serial, &facts.serial)
            && is_padded(&path.token, &facts.label)
    }

    /// Whether `object`, `id` and `type` mean this object, on whatever token it is.
    pub fn matches_object(&self, facts: &ObjectFacts) -> bool {
        is(&self.path.object_type, &facts.object_type)
            && self.matches_names(&facts.label, &facts.id)
    }

    /// Whether `object` and `id` mean the key pair of this label and id. `type=private` and `type=public`
    /// both name the pair; a URI with any other type means no key pair.
    pub fn matches_key(&self, label: &str, id: &[u8]) -> bool {
        matches!(
            self.path.object_type,
            None | Some(ObjectType::Private | ObjectType::Public)
        ) && self.matches_names(label, id)
    }

    /// Holds this URI to a scope: the path attributes of the scope take the place of this URI's, which
    /// adds those that the scope leaves open. The query stays this URI's.
    ///
    /// ```
    /// use p11_uri::Uri;
    ///
    /// let scope = Uri::parse("pkcs11:token=factory")?;
    /// let scoped = Uri::parse("pkcs11:token=mine;object=key")?.scoped_by(&scope);
    /// assert_eq!(scoped.uri.to_string(), "pkcs11:token=factory;object=key");
    /// assert_eq!(scoped.replaced, ["token"]);
    /// # Ok::<(), p11_uri::Error>(())
    /// ```
    pub fn scoped_by(&self, scope: &Uri) -> Scoped {
        let mut uri = self.clone();
        let mut replaced = Vec::new();
        let mine = &mut uri.path;
        // Taken apart by name, so that an attribute added to `Path` cannot be forgotten here.
        let Path {
            library_description,
            library_manufacturer,
            library_version,
            slot_description,
            slot_manufacturer,
            slot_id,
            model,
            manufacturer,
            serial,
            token,
            id,
            object,
            object_type,
            vendor,
        } = &scope.path;
        hold(
            &mut mine.library_description,
            library_description,
            "library-description",
            &mut replaced,
        );
        hold(
            &mut mine.library_manufacturer,
            library_manufacturer,
            "library-manufacturer",
            &mut replaced,
        );
        hold(
            &mut mine.library_version,
            library_version,
            "library-version",
            &mut replaced,
        );
        hold(
            &mut mine.slot_description,
            slot_description,
            "slot-description",
            &mut replaced,
        );
        hold(
            &mut mine.slot_manufacturer,
            slot_manufacturer,
            "slot-manufacturer",
            &mut replaced,
        );
        hold(&mut mine.slot_id, slot_id, "slot-id", &mut replaced);
        hold(&mut mine.model, model, "model", &mut replaced);
        hold(
            &mut mine.manufacturer,
            manufacturer,
            "manufacturer",
            &mut replaced,
        );
        hold(&mut mine.serial, serial, "serial", &mut replaced);
        hold(&mut mine.token, token, "token", &mut replaced);
        hold(&mut mine.id, id, "id", &mut replaced);
        hold(&mut mine.object, object, "object", &mut replaced);
        hold(&mut mine.object_type, object_type, "type", &mut replaced);
        for (name, value) in vendor {
            if mine
                .vendor
                .insert(name.clone(), value.clone())
                .is_some_and(|old| old != *value)
            {
                replaced.push(name.clone());
            }
        }
        Scoped { uri, replaced }
    }

    fn matches_names(&self, label: &str, id: &[u8]) -> bool {
        self.path.vendor.is_empty()
            && self
                .path
                .object
                .as_deref()
                .is_none_or(|object| object == label)
            && self.path.id.as_deref().is_none_or(|own| own == id)
    }
}

fn is<T: PartialEq>(given: &Option<T>, fact: &T) -> bool {
    given.as_ref().is_none_or(|given| given == fact)
}

/// The text fields of the info structures are padded with blanks to their length, by some modules with
/// NULs against the standard (tpm2-pkcs11), so that neither carries a meaning at the end.
fn is_padded(given: &Option<String>, fact: &str) -> bool {
    const PADDING: [char; 2] = [' ', '\0'];
    given
        .as_deref()
        .is_none_or(|given| given.trim_end_matches(PADDING) == fact.trim_end_matches(PADDING))
}

/// Puts the scope's value, if it has one, in the place of `mine`.
fn hold<T: Clone + PartialEq>(
    mine: &mut Option<T>,
    scope: &Option<T>,
    name: &str,
    replaced: &mut Vec<String>,
) {
    if scope.is_none() || mine == scope {
        return;
    }
    if mine.is_some() {
        replaced.push(name.to_owned());
    }
    mine.clone_from(scope);
}
