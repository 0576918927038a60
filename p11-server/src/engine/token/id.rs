//! What makes a token this token, wherever it is plugged in.

use crate::engine::module::TokenFlags;

/// Label, manufacturer, model and serial number.
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
    /// The first token that says this of itself.
    pub fn of(flags: &TokenFlags) -> TokenId {
        TokenId {
            label: flags.label.clone(),
            manufacturer: flags.manufacturer.clone(),
            model: flags.model.clone(),
            serial: flags.serial.clone(),
            ordinal: 0,
        }
    }

    /// Whether a token that says this of itself may be this one.
    pub fn is_of(&self, flags: &TokenFlags) -> bool {
        self.label == flags.label
            && self.manufacturer == flags.manufacturer
            && self.model == flags.model
            && self.serial == flags.serial
    }
}
