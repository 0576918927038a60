//! nil in place of a value, which means that the field is absent.

use serde::{Deserialize, Deserializer};

/// For fields with a default, since serde takes nil only for an `Option`.
pub(super) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}
