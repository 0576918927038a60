//! The rules: which faults there are. A test makes them with [`Rule`]'s builders; they reach the module
//! as text, one rule a line, through `Display` and `FromStr`.

use std::fmt;
use std::str::FromStr;

use cryptoki_sys::{CK_ATTRIBUTE_TYPE, CK_MECHANISM_TYPE, CK_OBJECT_CLASS, CK_RV, CK_SLOT_ID};

use crate::error::Error;
use crate::module::Function;
use crate::text::{Value, Words};

/// Declares each rule once, and from that the type and both directions of the text form.
macro_rules! rules {
    ($(
        $(#[$doc:meta])*
        $rule:ident = $word:literal { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }
    )*) => {
        /// A fault. In every rule `token` is the label of the token it concerns; `None` means every token.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Rule {
            $($(#[$doc])* $rule { $($(#[$field_doc])* $field: $type,)* },)*
        }

        impl fmt::Display for Rule {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$rule { $($field,)* } => {
                        f.write_str($word)?;
                        $(if let Some(value) = $field.to_text() {
                            write!(f, " {}={value}", stringify!($field))?;
                        })*
                        Ok(())
                    })*
                }
            }
        }

        impl FromStr for Rule {
            type Err = Error;

            fn from_str(line: &str) -> Result<Self, Error> {
                let mut words = Words::new(line);
                let rule = match words.rule {
                    $($word => Self::$rule { $($field: words.take(stringify!($field))?,)* },)*
                    other => return Err(Error::UnknownRule(other.to_owned())),
                };
                words.finish()?;
                Ok(rule)
            }
        }
    };
}

rules! {
    /// Does something in the calls of one function.
    Call = "call" {
        /// Which function.
        function: Function,
        /// What happens in it.
        action: Action,
        /// In which of its calls.
        when: When,
        /// Only calls that name a slot or session of this token.
        token: Option<String>,
    }
    /// Every slot id is greater by this number.
    SlotOffset = "slot-offset" {
        /// Visible id = real id + offset.
        offset: CK_SLOT_ID,
    }
    /// The slots of two tokens exchange their ids, as when two readers were replugged.
    SwapSlots = "swap-slots" {
        /// The label of one token.
        first: String,
        /// The label of the other.
        second: String,
    }
    /// The token is pulled out of its slot: its sessions answer `CKR_DEVICE_REMOVED`, and
    /// `CKR_SESSION_HANDLE_INVALID` once it is back.
    HideToken = "hide-token" {
        /// Which token.
        token: Option<String>,
    }
    /// Once: all sessions are closed behind the application's back.
    CloseSessions = "close-sessions" {
        /// Of which token.
        token: Option<String>,
    }
    /// Once: the login is lost behind the application's back.
    LogOut = "log-out" {
        /// On which token.
        token: Option<String>,
    }
    /// Once: every object gets a new handle, and the old handles become invalid.
    RenumberObjects = "renumber-objects" {}
    /// A PIN allows this many wrong tries in a row, then it is locked. Kept in the folder, so a restart does not unlock.
    PinTries = "pin-tries" {
        /// Whose PIN.
        pin: Pin,
        /// How many wrong tries lock it.
        tries: u32,
        /// Of which token.
        token: Option<String>,
    }
    /// `C_OpenSession` gives `CKR_SESSION_COUNT` beyond this many open sessions, and `C_GetTokenInfo` tells the limit.
    SessionLimit = "session-limit" {
        /// The most sessions, read-only and read/write together.
        max: u32,
        /// On which token.
        token: Option<String>,
    }
    /// The token lacks mechanisms that the real one has.
    StripMechanisms = "strip-mechanisms" {
        /// Which mechanisms (CKM).
        mechanisms: Vec<CK_MECHANISM_TYPE>,
        /// On which token.
        token: Option<String>,
    }
    /// A private key wants a context-specific login before each signature (PKCS#11 2.40, CKA_ALWAYS_AUTHENTICATE).
    AlwaysAuthenticate = "always-authenticate" {
        /// The key's label.
        key: String,
    }
    /// `C_GetAttributeValue` answers something else for one attribute. Searches still see the real value.
    Attribute = "attribute" {
        /// The label of the objects.
        label: String,
        /// The class of the objects (CKO).
        class: CK_OBJECT_CLASS,
        /// Which attribute (CKA).
        attribute: CK_ATTRIBUTE_TYPE,
        /// What it answers.
        answer: Answer,
    }
    /// The token has a pinpad: a login with a null PIN uses this PIN, a login with any PIN is `CKR_ARGUMENTS_BAD`.
    Pinpad = "pinpad" {
        /// What the user types.
        pin: String,
        /// On which token.
        token: Option<String>,
    }
    /// The token does not ask for a login (`CKF_LOGIN_REQUIRED` is not set).
    NoLogin = "no-login" {
        /// Which token.
        token: Option<String>,
    }
    /// The token seems not to be initialised (`CKF_TOKEN_INITIALIZED` is not set).
    Uninitialized = "uninitialized" {
        /// Which token.
        token: Option<String>,
    }
    /// `C_Initialize` gives `CKR_CANT_LOCK` when it is asked to lock.
    CantLock = "cant-lock" {}
    /// `C_GenerateKeyPair` gives `CKR_TEMPLATE_INCONSISTENT` unless the private template has this attribute,
    /// which the real module, as it may refuse it, then does not see.
    DemandInPrivateTemplate = "demand-in-private-template" {
        /// Which attribute (CKA).
        attribute: CK_ATTRIBUTE_TYPE,
        /// On which token.
        token: Option<String>,
    }
}

/// What a [`Rule::Call`] does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Returns this instead of calling the real module.
    Return(CK_RV),
    /// Calls the real module, then returns this.
    ReturnAfter(CK_RV),
    /// Waits this many milliseconds, then goes on.
    Delay(u32),
    /// Blocks until the rule is gone, then goes on.
    Hang,
    /// Blocks for ever.
    HangForever,
    /// Aborts the process.
    Abort,
}

/// In which calls a [`Rule::Call`] strikes, counted in each process from when the rules were set.
#[derive(Debug, Clone, PartialEq)]
pub enum When {
    /// In each.
    Always,
    /// In the next ones, then never again.
    Next(u32),
    /// In every k-th.
    Every(u32),
    /// By chance, the same in each run with the same seed.
    Random {
        /// From 0 to 1.
        probability: f64,
        /// The seed.
        seed: u64,
    },
}

/// What [`Rule::Attribute`] answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// That the object has no such attribute (`CKR_ATTRIBUTE_TYPE_INVALID`).
    Hidden,
    /// This for the whole call, with no value at all.
    Fails(CK_RV),
    /// These bytes.
    Value(Vec<u8>),
}

/// Whose PIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pin {
    /// The user's.
    User,
    /// The security officer's.
    So,
}

impl Pin {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::So => "so",
        }
    }
}

#[cfg(test)]
mod tests {
    use cryptoki_sys::*;

    use super::*;
    use crate::builders::{every_token, object, on, token};

    #[test]
    fn each_rule_survives_its_text_form() {
        let rules = [
            on(Function::C_Sign).returns(CKR_DEVICE_ERROR),
            on(Function::C_Sign).next(3).returns_after(CKR_DEVICE_ERROR),
            on(Function::C_Initialize).every(7).delays(250),
            on(Function::C_Login).random(0.125, 42).hangs(),
            on(Function::C_GetTokenInfo).at("a token").hangs_forever(),
            on(Function::C_WaitForSlotEvent).aborts(),
            Rule::slot_offset(0x1000),
            Rule::swap_slots("one 100%", "zwei=übel"),
            token("").hidden(),
            every_token().sessions_closed(),
            token("a\tb").logged_out(),
            Rule::renumber_objects(),
            token("t").pin_tries(Pin::User, 3),
            every_token().pin_tries(Pin::So, 10),
            token("t").session_limit(4),
            token("t").without_mechanisms([CKM_ECDSA, CKM_RSA_PKCS]),
            token("t").without_mechanisms([]),
            Rule::always_authenticate("my key"),
            object(CKO_PRIVATE_KEY, "k").hides(CKA_EC_POINT),
            object(CKO_PUBLIC_KEY, "k").fails(CKA_EC_PARAMS, CKR_FUNCTION_FAILED),
            object(CKO_CERTIFICATE, "k").answers(CKA_VALUE, [0, 0x7f, 0xff]),
            token("t").pinpad("12 34"),
            every_token().asks_no_login(),
            token("t").uninitialized(),
            Rule::cant_lock(),
            token("t").demands_in_private_template(CKA_CLASS),
        ];
        for rule in rules {
            let line = rule.to_string();
            assert!(!line.contains(['\n', '\t']), "{line:?} is not one line");
            assert_eq!(line.parse::<Rule>().unwrap(), rule, "from {line:?}");
        }
    }

    #[test]
    fn the_text_reads_as_documented() {
        let rule = on(Function::C_Sign)
            .next(3)
            .at("my token")
            .returns(CKR_DEVICE_ERROR);
        assert_eq!(
            rule.to_string(),
            "call function=C_Sign action=return:0x30 when=next:3 token=my%20token"
        );
    }

    #[test]
    fn a_line_that_is_no_rule_is_refused_with_the_reason() {
        for (line, reason) in [
            ("cal function=C_Sign", "no rule is called \"cal\""),
            (
                "hide-token label=x",
                "the rule \"hide-token\" has no field \"label=x\"",
            ),
            (
                "call function=C_Sing action=hang when=always",
                "needs a valid field \"function\"",
            ),
            (
                "call function=C_Sign action=hang when=next:x",
                "needs a valid field \"when\"",
            ),
            (
                "call function=C_Sign action=hang:1 when=always",
                "needs a valid field \"action\"",
            ),
            ("slot-offset", "needs a valid field \"offset\""),
            ("hide-token token=%2", "needs a valid field \"token\""),
            (
                "attribute label=k class=0x3 attribute=0x181 answer=value:abc",
                "needs a valid field \"answer\"",
            ),
        ] {
            let error = line.parse::<Rule>().unwrap_err().to_string();
            assert!(error.contains(reason), "{line:?} gave {error:?}");
        }
    }
}
