//! What makes a token this token, wherever it is plugged in.

use cryptoki::slot::TokenInfo;

/// What makes a token this token, wherever it is plugged in.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TokenId {
    label: String,
    manufacturer: String,
    model: String,
    serial: String,
    /// Tokens that tell nothing apart are told apart by their order.
    pub ordinal: usize,
}

impl TokenId {
    pub fn of(info: &TokenInfo) -> TokenId {
        TokenId {
            label: info.label().into(),
            manufacturer: info.manufacturer_id().into(),
            model: info.model().into(),
            serial: info.serial_number().into(),
            ordinal: 0,
        }
    }

    /// Whether a token that says this of itself is (a ordinal of) this one.
    pub fn is_of(&self, info: &TokenInfo) -> bool {
        let found = TokenId::of(info);
        found
            == TokenId {
                ordinal: 0,
                ..self.clone()
            }
    }
}
