//! The rules: which faults there are, and the words with which a test says them. They travel as JSON.
//!
//! A rule begins with what it is about: `on(C_Sign)`, `token("label")`, `object(class, "label")`.

use cryptoki_sys::{
    CK_ATTRIBUTE_TYPE, CK_FLAGS, CK_MECHANISM_TYPE, CK_OBJECT_CLASS, CK_RV, CK_SLOT_ID, CK_ULONG,
    CKF_LOGIN_REQUIRED, CKF_TOKEN_INITIALIZED, CKF_USER_PIN_INITIALIZED,
};
use serde::{Deserialize, Serialize};

use crate::function::Function;

/// A fault. In every rule `token` is the label of the token it concerns; `None` means every token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Rule {
    /// Does something in the calls of one function; made by [`on`].
    Call {
        /// Which function.
        function: Function,
        /// Only calls that name a slot or session of this token.
        token: Option<String>,
        /// In which of its calls.
        when: When,
        /// Before or after the real module is called.
        moment: Moment,
        /// What happens.
        action: Action,
    },
    /// What a token is, or is not; made by [`token()`] and [`every_token`].
    Token {
        /// Which token.
        token: Option<String>,
        /// What it is.
        fault: TokenFault,
    },
    /// `C_GetAttributeValue` answers something else for one attribute. Searches still see the real value.
    /// Made by [`object`].
    Object {
        /// The class of the objects (CKO).
        class: CK_OBJECT_CLASS,
        /// The label of the objects.
        label: String,
        /// Which attribute (CKA).
        attribute: CK_ATTRIBUTE_TYPE,
        /// What it answers.
        answer: Answer,
    },
    /// The private key of this label wants a context-specific login before each signature (PKCS#11 2.40,
    /// CKA_ALWAYS_AUTHENTICATE).
    AlwaysAuthenticate(String),
    /// `C_SignInit` with the private key of this label returns this instead of calling the real module.
    FailsToSign(String, CK_RV),
    /// Every slot id is greater by this number.
    SlotOffset(CK_SLOT_ID),
    /// The slots of the tokens of these labels exchange their ids, as when two readers were replugged.
    SwapSlots(String, String),
    /// Once: every object gets a new handle, and the old handles become invalid.
    RenumberObjects,
    /// `C_Initialize` gives `CKR_CANT_LOCK` when it is asked to lock.
    CantLock,
    /// `C_Initialize` gives `CKR_ARGUMENTS_BAD` for all but NULL.
    WantsNull,
}

/// What a [`Rule::Call`] does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Returns this. Before the call: instead of calling the real module, in which an operation begun before
    /// stays active.
    Return(CK_RV),
    /// Waits this many milliseconds, then goes on.
    Delay(u32),
    /// Blocks until the rule is gone, then goes on.
    Hang,
    /// Blocks for ever.
    HangForever,
    /// Aborts the process.
    Abort,
    /// Tells this count or length where the call succeeds, whatever it wrote. Of no effect in functions that
    /// tell none.
    Count(CK_ULONG),
}

/// When in its calls a [`Rule::Call`] acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Moment {
    /// Before the real module is called.
    Before,
    /// After it returned.
    After,
}

/// In which calls a [`Rule::Call`] acts, counted in each process from when the rules were set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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

/// What a token is in a [`Rule::Token`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TokenFault {
    /// It is pulled out of its slot: its sessions answer `CKR_DEVICE_REMOVED`, and `CKR_SESSION_HANDLE_INVALID`
    /// once it is back.
    Hidden,
    /// Once: all its sessions are closed behind the application's back.
    SessionsClosed,
    /// Once: the login is lost behind the application's back.
    LoggedOut,
    /// A PIN allows this many wrong tries in a row, then it is locked. Kept in the folder, so a restart does not
    /// unlock.
    PinTries(Pin, u32),
    /// `C_OpenSession` gives `CKR_SESSION_COUNT` beyond this many open sessions, read-only and read/write
    /// together, and `C_GetTokenInfo` tells the limit.
    SessionLimit(u32),
    /// It lacks mechanisms (CKM) that the real one has.
    WithoutMechanisms(Vec<CK_MECHANISM_TYPE>),
    /// It does not list a mechanism (CKM), whatever it does with it.
    Unlisted(CK_MECHANISM_TYPE),
    /// It has a PIN pad: a login with a null PIN uses this PIN, a login with any PIN is `CKR_ARGUMENTS_BAD`.
    PinPad(String),
    /// `C_GetTokenInfo` tells other flags (CKF).
    Flags {
        /// Those that it has.
        set: CK_FLAGS,
        /// Those that it has not.
        clear: CK_FLAGS,
    },
    /// `C_GetTokenInfo` tells this label and serial number. Rules know the token by its real label.
    Tells(String, String),
    /// `C_GenerateKeyPair` gives `CKR_TEMPLATE_INCONSISTENT` unless the private template has this attribute
    /// (CKA), which the real module, as it may refuse it, then does not see.
    DemandsInPrivateTemplate(CK_ATTRIBUTE_TYPE),
    /// `C_GenerateKeyPair` gives this code where a template has this attribute (CKA).
    RefusesInTemplate(CK_ATTRIBUTE_TYPE, CK_RV),
    /// `C_GenerateKeyPair` gives this code where an Edwards curve is named by a text, and takes id-Ed25519 (RFC 8410), which
    /// the real module may not.
    WantsCurveByOid(CK_RV),
    /// `C_FindObjects` never ends: it finds the last object again and again.
    EndlessSearch,
}

/// What a [`Rule::Object`] answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// That the object has no such attribute (`CKR_ATTRIBUTE_TYPE_INVALID`).
    Hidden,
    /// This for the whole call, with no value at all.
    Fails(CK_RV),
    /// These bytes.
    Value(Vec<u8>),
    /// The real value, and this as its length.
    Length(CK_ULONG),
}

/// Whose PIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Pin {
    /// The user's.
    User,
    /// The security officer's.
    So,
}

/// Begins a rule about the calls of one function: `on(C_Sign).next(3).returns(CKR_DEVICE_ERROR)`.
pub fn on(function: Function) -> On {
    On {
        function,
        token: None,
        when: When::Always,
        moment: Moment::Before,
    }
}

/// A rule about calls that still lacks its action.
#[derive(Debug, Clone)]
pub struct On {
    function: Function,
    token: Option<String>,
    when: When,
    moment: Moment,
}

impl On {
    /// Only where the call names a slot or session of this token.
    pub fn at(self, token: &str) -> Self {
        let token = Some(token.to_owned());
        Self { token, ..self }
    }

    /// Only in the next calls.
    pub fn next(self, calls: u32) -> Self {
        let when = When::Next(calls);
        Self { when, ..self }
    }

    /// Only in every k-th call.
    pub fn every(self, k: u32) -> Self {
        let when = When::Every(k);
        Self { when, ..self }
    }

    /// Only by chance; the same seed gives the same sequence.
    pub fn random(self, probability: f64, seed: u64) -> Self {
        let when = When::Random { probability, seed };
        Self { when, ..self }
    }

    /// After the real module has done its work.
    pub fn after(self) -> Self {
        let moment = Moment::After;
        Self { moment, ..self }
    }

    /// See [`Action::Return`].
    pub fn returns(self, rv: CK_RV) -> Rule {
        self.does(Action::Return(rv))
    }

    /// See [`Action::Delay`].
    pub fn delays(self, milliseconds: u32) -> Rule {
        self.does(Action::Delay(milliseconds))
    }

    /// See [`Action::Hang`].
    pub fn hangs(self) -> Rule {
        self.does(Action::Hang)
    }

    /// See [`Action::HangForever`].
    pub fn hangs_forever(self) -> Rule {
        self.does(Action::HangForever)
    }

    /// See [`Action::Abort`].
    pub fn aborts(self) -> Rule {
        self.does(Action::Abort)
    }

    /// See [`Action::Count`].
    pub fn counts(self, count: CK_ULONG) -> Rule {
        self.does(Action::Count(count))
    }

    /// Any action.
    pub fn does(self, action: Action) -> Rule {
        let Self {
            function,
            token,
            when,
            moment,
        } = self;
        Rule::Call {
            function,
            token,
            when,
            moment,
            action,
        }
    }
}

/// Begins a rule about the token with this label.
pub fn token(label: &str) -> Token {
    Token(Some(label.to_owned()))
}

/// Begins a rule about every token.
pub fn every_token() -> Token {
    Token(None)
}

/// A rule about a token that still lacks what happens to it.
#[derive(Debug, Clone)]
pub struct Token(Option<String>);

impl Token {
    /// See [`TokenFault::Hidden`]. To pull and put back a token while no call sees it, use
    /// [`Token::sessions_closed`].
    pub fn hidden(self) -> Rule {
        self.has(TokenFault::Hidden)
    }

    /// See [`TokenFault::SessionsClosed`].
    pub fn sessions_closed(self) -> Rule {
        self.has(TokenFault::SessionsClosed)
    }

    /// See [`TokenFault::LoggedOut`].
    pub fn logged_out(self) -> Rule {
        self.has(TokenFault::LoggedOut)
    }

    /// See [`TokenFault::PinTries`].
    pub fn pin_tries(self, pin: Pin, tries: u32) -> Rule {
        self.has(TokenFault::PinTries(pin, tries))
    }

    /// See [`TokenFault::SessionLimit`].
    pub fn session_limit(self, max: u32) -> Rule {
        self.has(TokenFault::SessionLimit(max))
    }

    /// See [`TokenFault::WithoutMechanisms`].
    pub fn without_mechanisms(
        self,
        mechanisms: impl IntoIterator<Item = CK_MECHANISM_TYPE>,
    ) -> Rule {
        let mechanisms = mechanisms.into_iter().collect();
        self.has(TokenFault::WithoutMechanisms(mechanisms))
    }

    /// See [`TokenFault::Unlisted`].
    pub fn does_not_list(self, mechanism: CK_MECHANISM_TYPE) -> Rule {
        self.has(TokenFault::Unlisted(mechanism))
    }

    /// See [`TokenFault::PinPad`].
    pub fn pin_pad(self, pin: &str) -> Rule {
        self.has(TokenFault::PinPad(pin.to_owned()))
    }

    /// See [`TokenFault::Tells`].
    pub fn tells(self, label: &str, serial: &str) -> Rule {
        self.has(TokenFault::Tells(label.to_owned(), serial.to_owned()))
    }

    /// It does not ask for a login.
    pub fn asks_no_login(self) -> Rule {
        self.lacks_flags(CKF_LOGIN_REQUIRED)
    }

    /// It seems not to be initialised.
    pub fn uninitialized(self) -> Rule {
        self.lacks_flags(CKF_TOKEN_INITIALIZED | CKF_USER_PIN_INITIALIZED)
    }

    /// See [`TokenFault::DemandsInPrivateTemplate`].
    pub fn demands_in_private_template(self, attribute: CK_ATTRIBUTE_TYPE) -> Rule {
        self.has(TokenFault::DemandsInPrivateTemplate(attribute))
    }

    /// See [`TokenFault::RefusesInTemplate`].
    pub fn refuses_in_template(self, attribute: CK_ATTRIBUTE_TYPE, rv: CK_RV) -> Rule {
        self.has(TokenFault::RefusesInTemplate(attribute, rv))
    }

    /// See [`TokenFault::WantsCurveByOid`].
    pub fn wants_curve_by_oid(self, rv: CK_RV) -> Rule {
        self.has(TokenFault::WantsCurveByOid(rv))
    }

    /// See [`TokenFault::EndlessSearch`].
    pub fn endless_search(self) -> Rule {
        self.has(TokenFault::EndlessSearch)
    }

    /// Any fault.
    pub fn has(self, fault: TokenFault) -> Rule {
        let token = self.0;
        Rule::Token { token, fault }
    }

    fn lacks_flags(self, clear: CK_FLAGS) -> Rule {
        self.has(TokenFault::Flags { set: 0, clear })
    }
}

/// Begins a rule about what objects of this class and label answer.
pub fn object(class: CK_OBJECT_CLASS, label: &str) -> Object {
    let label = label.to_owned();
    Object { class, label }
}

/// A rule about objects that still lacks the attribute and its answer.
#[derive(Debug, Clone)]
pub struct Object {
    class: CK_OBJECT_CLASS,
    label: String,
}

impl Object {
    /// See [`Answer::Hidden`].
    pub fn hides(self, attribute: CK_ATTRIBUTE_TYPE) -> Rule {
        self.answer(attribute, Answer::Hidden)
    }

    /// See [`Answer::Fails`].
    pub fn fails(self, attribute: CK_ATTRIBUTE_TYPE, rv: CK_RV) -> Rule {
        self.answer(attribute, Answer::Fails(rv))
    }

    /// See [`Answer::Value`].
    pub fn answers(self, attribute: CK_ATTRIBUTE_TYPE, bytes: impl Into<Vec<u8>>) -> Rule {
        self.answer(attribute, Answer::Value(bytes.into()))
    }

    /// See [`Answer::Length`].
    pub fn claims_length(self, attribute: CK_ATTRIBUTE_TYPE, length: CK_ULONG) -> Rule {
        self.answer(attribute, Answer::Length(length))
    }

    fn answer(self, attribute: CK_ATTRIBUTE_TYPE, answer: Answer) -> Rule {
        let Self { class, label } = self;
        Rule::Object {
            class,
            label,
            attribute,
            answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use cryptoki_sys::*;

    use super::*;

    #[test]
    fn each_rule_is_the_same_after_its_way_through_json() -> serde_json::Result<()> {
        let calls = Function::ALL
            .into_iter()
            .map(|function| on(function).hangs());
        let others = [
            on(Function::C_Sign).next(3).after().returns(CKR_PIN_LOCKED),
            on(Function::C_Login).random(0.125, 42).delays(250),
            on(Function::C_GetTokenInfo).at("a token").hangs_forever(),
            on(Function::C_WaitForSlotEvent).every(7).aborts(),
            on(Function::C_FindObjects).counts(1 << 40),
            Rule::SlotOffset(0x1000),
            Rule::SwapSlots("one \"100%\"".into(), "zwei=übel\n".into()),
            Rule::RenumberObjects,
            Rule::AlwaysAuthenticate("my key".into()),
            Rule::FailsToSign("my key".into(), CKR_DEVICE_ERROR),
            Rule::CantLock,
            Rule::WantsNull,
            token("").hidden(),
            every_token().sessions_closed(),
            every_token().pin_tries(Pin::So, 10),
            token("t").session_limit(4),
            token("t").without_mechanisms([CKM_ECDSA, CKM_VENDOR_DEFINED]),
            token("t").pin_pad("12 34"),
            token("t").refuses_in_template(CKA_UNWRAP, CKR_ATTRIBUTE_READ_ONLY),
            every_token().uninitialized(),
            object(CKO_PRIVATE_KEY, "k").hides(CKA_EC_POINT),
            object(CKO_CERTIFICATE, "k").answers(CKA_VALUE, [0, 0x7f, 0xff]),
            object(CKO_CERTIFICATE, "k").claims_length(CKA_VALUE, CK_UNAVAILABLE_INFORMATION),
        ];
        let rules: Vec<_> = calls.chain(others).collect();
        let json = serde_json::to_string(&rules)?;
        assert_eq!(serde_json::from_str::<Vec<Rule>>(&json)?, rules);
        Ok(())
    }

    #[test]
    fn what_is_no_rule_is_refused_with_the_reason() {
        for (json, reason) in [
            (r#"{"HangToken":{}}"#, "unknown variant `HangToken`"),
            (
                r#"{"Token":{"label":"t","fault":"Hidden"}}"#,
                "unknown field `label`",
            ),
            (
                r#"{"Call":{"function":"C_Sing"}}"#,
                "unknown variant `C_Sing`",
            ),
        ] {
            let error = serde_json::from_str::<Rule>(json).unwrap_err().to_string();
            assert!(error.contains(reason), "{json} gave {error:?}");
        }
    }
}
