//! What makes a token this token, wherever it is plugged in.

use p11_uri::TokenInfo;

use crate::engine::module::TokenFlags;

/// TPM vendors as tpm2-pkcs11 tells them, the manufacturer of a token (TCG TPM Vendor ID Registry).
const TPM_VENDORS: [&str; 24] = [
    "AMD", "ATML", "BRCM", "CSCO", "FLYS", "GOOG", "HPE", "HPI", "IBM", "IFX", "INTC", "LEN",
    "MSFT", "NSM", "NTC", "NTZ", "QCOM", "ROCC", "SMSC", "SMSN", "SNS", "STM", "TXN", "WEC",
];

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

    /// Whether it lies in a TPM, whose lockout is another than a card's: by module, model or manufacturer.
    pub fn is_tpm(&self, info: &TokenInfo) -> bool {
        let is_vendor = TPM_VENDORS.contains(&self.manufacturer.trim());
        info.library_manufacturer.starts_with("tpm2-software")
            || self.model.contains("TPM")
            || (is_vendor && self.serial.chars().all(|digit| digit == '0'))
    }

    /// The device in which it lies.
    pub fn device(&self) -> String {
        format!("{:?}", (&self.manufacturer, &self.model, &self.serial))
    }

    /// Whether it has a label: before it is initialised it has none, and perhaps no serial number.
    pub fn is_named(&self) -> bool {
        !self.label.is_empty()
    }

    /// Whether it says less of itself than it could.
    pub fn leaves_out(&self) -> bool {
        let said = [&self.label, &self.manufacturer, &self.model, &self.serial];
        said.iter().any(|fact| fact.is_empty())
    }

    /// Whether a token that says this of itself may be this one.
    pub fn is_of(&self, flags: &TokenFlags) -> bool {
        self.label == flags.label
            && self.manufacturer == flags.manufacturer
            && self.model == flags.model
            && self.serial == flags.serial
    }
}
