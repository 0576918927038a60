//! The words a test says: what a rule is about goes in (`on(C_Sign)`, `token("label")`, `object(class, "label")`),
//! a [`Rule`] comes out.

use cryptoki_sys::{CK_ATTRIBUTE_TYPE, CK_MECHANISM_TYPE, CK_OBJECT_CLASS, CK_RV, CK_SLOT_ID};

use crate::module::Function;
use crate::rules::{Action, Answer, Pin, Rule, When};

impl Rule {
    /// See [`Rule::SlotOffset`].
    pub fn slot_offset(offset: CK_SLOT_ID) -> Self {
        Self::SlotOffset { offset }
    }

    /// See [`Rule::SwapSlots`].
    pub fn swap_slots(first: &str, second: &str) -> Self {
        let (first, second) = (first.to_owned(), second.to_owned());
        Self::SwapSlots { first, second }
    }

    /// See [`Rule::RenumberObjects`].
    pub fn renumber_objects() -> Self {
        Self::RenumberObjects {}
    }

    /// See [`Rule::AlwaysAuthenticate`].
    pub fn always_authenticate(key: &str) -> Self {
        let key = key.to_owned();
        Self::AlwaysAuthenticate { key }
    }

    /// See [`Rule::CantLock`].
    pub fn cant_lock() -> Self {
        Self::CantLock {}
    }
}

/// Begins a rule about the calls of one function: `on(C_Sign).next(3).returns(CKR_DEVICE_ERROR)`.
pub fn on(function: Function) -> On {
    On {
        function,
        when: When::Always,
        token: None,
    }
}

/// A rule about calls that still lacks its action.
#[derive(Debug, Clone)]
pub struct On {
    function: Function,
    when: When,
    token: Option<String>,
}

impl On {
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

    /// Only where the call names a slot or session of this token.
    pub fn at(self, token: &str) -> Self {
        let token = Some(token.to_owned());
        Self { token, ..self }
    }

    /// Returns `rv` instead of calling the real module. An operation begun before stays active in it.
    pub fn returns(self, rv: CK_RV) -> Rule {
        self.act(Action::Return(rv))
    }

    /// Calls the real module, then returns `rv`.
    pub fn returns_after(self, rv: CK_RV) -> Rule {
        self.act(Action::ReturnAfter(rv))
    }

    /// Waits before it calls the real module.
    pub fn delays(self, milliseconds: u32) -> Rule {
        self.act(Action::Delay(milliseconds))
    }

    /// Blocks until the rule is gone, then calls the real module.
    pub fn hangs(self) -> Rule {
        self.act(Action::Hang)
    }

    /// Blocks for ever.
    pub fn hangs_forever(self) -> Rule {
        self.act(Action::HangForever)
    }

    /// Aborts the process.
    pub fn aborts(self) -> Rule {
        self.act(Action::Abort)
    }

    fn act(self, action: Action) -> Rule {
        let Self {
            function,
            when,
            token,
        } = self;
        Rule::Call {
            function,
            action,
            when,
            token,
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
    /// See [`Rule::HideToken`]. To pull and put back a token while no call sees it, use [`Token::sessions_closed`].
    pub fn hidden(self) -> Rule {
        Rule::HideToken { token: self.0 }
    }

    /// See [`Rule::CloseSessions`].
    pub fn sessions_closed(self) -> Rule {
        Rule::CloseSessions { token: self.0 }
    }

    /// See [`Rule::LogOut`].
    pub fn logged_out(self) -> Rule {
        Rule::LogOut { token: self.0 }
    }

    /// See [`Rule::PinTries`].
    pub fn pin_tries(self, pin: Pin, tries: u32) -> Rule {
        Rule::PinTries {
            pin,
            tries,
            token: self.0,
        }
    }

    /// See [`Rule::SessionLimit`].
    pub fn session_limit(self, max: u32) -> Rule {
        Rule::SessionLimit { max, token: self.0 }
    }

    /// See [`Rule::StripMechanisms`].
    pub fn without_mechanisms(
        self,
        mechanisms: impl IntoIterator<Item = CK_MECHANISM_TYPE>,
    ) -> Rule {
        let mechanisms = mechanisms.into_iter().collect();
        Rule::StripMechanisms {
            mechanisms,
            token: self.0,
        }
    }

    /// See [`Rule::Pinpad`].
    pub fn pinpad(self, pin: &str) -> Rule {
        let pin = pin.to_owned();
        Rule::Pinpad { pin, token: self.0 }
    }

    /// See [`Rule::NoLogin`].
    pub fn asks_no_login(self) -> Rule {
        Rule::NoLogin { token: self.0 }
    }

    /// See [`Rule::Uninitialized`].
    pub fn uninitialized(self) -> Rule {
        Rule::Uninitialized { token: self.0 }
    }

    /// See [`Rule::DemandInPrivateTemplate`].
    pub fn demands_in_private_template(self, attribute: CK_ATTRIBUTE_TYPE) -> Rule {
        Rule::DemandInPrivateTemplate {
            attribute,
            token: self.0,
        }
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

    fn answer(self, attribute: CK_ATTRIBUTE_TYPE, answer: Answer) -> Rule {
        let Self { class, label } = self;
        Rule::Attribute {
            label,
            class,
            attribute,
            answer,
        }
    }
}
