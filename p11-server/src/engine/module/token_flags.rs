//! What a token says of itself: names, flags and limits.

use std::ops::RangeInclusive;

use cryptoki_sys::{
    CK_FLAGS, CK_TOKEN_INFO, CK_ULONG, CKF_LOGIN_REQUIRED, CKF_PROTECTED_AUTHENTICATION_PATH,
    CKF_SO_PIN_COUNT_LOW, CKF_SO_PIN_FINAL_TRY, CKF_SO_PIN_LOCKED, CKF_SO_PIN_TO_BE_CHANGED,
    CKF_TOKEN_INITIALIZED, CKF_USER_PIN_COUNT_LOW, CKF_USER_PIN_FINAL_TRY,
    CKF_USER_PIN_INITIALIZED, CKF_USER_PIN_LOCKED, CKF_WRITE_PROTECTED,
};

/// What a token says of itself (`CK_TOKEN_INFO`, PKCS#11 section 3.2). Blanks at the end of texts are gone.
#[derive(Clone, Debug)]
pub(crate) struct TokenFlags {
    pub label: String,
    pub manufacturer: String,
    pub model: String,
    pub serial: String,
    flags: CK_FLAGS,
    /// How many sessions may be open; `None` where it does not say, or sets no limit.
    pub most_sessions: Option<usize>,
    /// How many bytes a PIN may have.
    pub pin_len: RangeInclusive<usize>,
}

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident: $flag:ident;)*) => {
        impl TokenFlags {
            $($(#[$doc])* pub fn $name(&self) -> bool {
                self.flags & $flag != 0
            })*
        }
    };
}

flags! {
    /// It has a label and a security officer's PIN.
    token_initialized: CKF_TOKEN_INITIALIZED;
    /// Private objects want a login.
    login_required: CKF_LOGIN_REQUIRED;
    /// The user's PIN was set.
    user_pin_initialized: CKF_USER_PIN_INITIALIZED;
    /// PINs are typed at the token itself.
    protected_authentication_path: CKF_PROTECTED_AUTHENTICATION_PATH;
    /// It cannot be changed.
    write_protected: CKF_WRITE_PROTECTED;
    /// At least one try of the user's PIN was used up.
    user_pin_count_low: CKF_USER_PIN_COUNT_LOW;
    /// One try is left.
    user_pin_final_try: CKF_USER_PIN_FINAL_TRY;
    /// None is left.
    user_pin_locked: CKF_USER_PIN_LOCKED;
    /// At least one try of the security officer's PIN was used up.
    so_pin_count_low: CKF_SO_PIN_COUNT_LOW;
    /// One try is left.
    so_pin_final_try: CKF_SO_PIN_FINAL_TRY;
    /// None is left.
    so_pin_locked: CKF_SO_PIN_LOCKED;
    /// It is the one of the factory, or none yet.
    so_pin_to_be_changed: CKF_SO_PIN_TO_BE_CHANGED;
}

impl From<&CK_TOKEN_INFO> for TokenFlags {
    fn from(info: &CK_TOKEN_INFO) -> Self {
        // 0 is no limit, all ones is "not told" (section 3.2).
        let most = usize::try_from(info.ulMaxSessionCount).ok();
        let most = most.filter(|most| (1..usize::MAX).contains(most));
        let length = |length: CK_ULONG| usize::try_from(length).unwrap_or(usize::MAX);
        TokenFlags {
            label: text(&info.label),
            manufacturer: text(&info.manufacturerID),
            model: text(&info.model),
            serial: text(&info.serialNumber),
            flags: info.flags,
            most_sessions: most,
            pin_len: length(info.ulMinPinLen)..=length(info.ulMaxPinLen),
        }
    }
}

impl TokenFlags {
    pub(super) fn of_cryptoki(info: &cryptoki::slot::TokenInfo) -> TokenFlags {
        let flags = [
            (info.token_initialized(), CKF_TOKEN_INITIALIZED),
            (info.login_required(), CKF_LOGIN_REQUIRED),
            (info.user_pin_initialized(), CKF_USER_PIN_INITIALIZED),
            (
                info.protected_authentication_path(),
                CKF_PROTECTED_AUTHENTICATION_PATH,
            ),
            (info.write_protected(), CKF_WRITE_PROTECTED),
            (info.user_pin_count_low(), CKF_USER_PIN_COUNT_LOW),
            (info.user_pin_final_try(), CKF_USER_PIN_FINAL_TRY),
            (info.user_pin_locked(), CKF_USER_PIN_LOCKED),
            (info.so_pin_count_low(), CKF_SO_PIN_COUNT_LOW),
            (info.so_pin_final_try(), CKF_SO_PIN_FINAL_TRY),
            (info.so_pin_locked(), CKF_SO_PIN_LOCKED),
            (info.so_pin_to_be_changed(), CKF_SO_PIN_TO_BE_CHANGED),
        ];
        let set = flags.iter().filter(|(is_set, _)| *is_set);
        let most = match info.max_session_count() {
            cryptoki::slot::Limit::Max(most) => usize::try_from(most).ok(),
            _ => None,
        };
        TokenFlags {
            label: text(info.label().as_bytes()),
            manufacturer: text(info.manufacturer_id().as_bytes()),
            model: text(info.model().as_bytes()),
            serial: text(info.serial_number().as_bytes()),
            flags: set.fold(0, |all, (_, flag)| all | flag),
            most_sessions: most,
            pin_len: info.min_pin_length()..=info.max_pin_length(),
        }
    }
}

/// A text that is padded with blanks, or, by modules that should not, with NULs.
pub(super) fn text(padded: &[u8]) -> String {
    String::from_utf8_lossy(padded)
        .trim_end_matches([' ', '\0'])
        .to_owned()
}
