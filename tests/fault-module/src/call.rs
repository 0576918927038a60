//! One call of one function: it is counted and the rules about calls strike here, then the real module or a
//! handler goes on; what the application gets back comes out.

use std::cell::OnceCell;
use std::sync::{Arc, RwLockReadGuard};
use std::thread;
use std::time::Duration;

use cryptoki_sys::*;

use crate::module::Function;
use crate::real;
use crate::rule_book::RuleSet;
use crate::rules::{Action, Rule};
use crate::state::State;

/// How often a hung call looks whether its rule is gone.
const POLL: Duration = Duration::from_millis(5);

/// Does `body` as a call of `function`, counted and measured. `Err` is a return value too, of a call that went no further.
pub(crate) fn run(
    function: Function,
    body: impl FnOnce(&mut Call) -> Result<CK_RV, CK_RV>,
) -> CK_RV {
    let Some(state) = State::get() else {
        return CKR_CRYPTOKI_NOT_INITIALIZED;
    };
    state.counters.called(function);
    // An application may ask for the list and initialise from anywhere, whatever the locking.
    let _inside = match function {
        Function::C_GetFunctionList | Function::C_Initialize => None,
        _ => Some(state.counters.enter()),
    };
    let mut call = Call {
        state,
        function,
        rules: state.rules(),
        slot: None,
        label: OnceCell::new(),
        afterwards: None,
    };
    let rv = body(&mut call).unwrap_or_else(|rv| rv);
    if let Function::C_OpenSession
    | Function::C_CloseSession
    | Function::C_CloseAllSessions
    | Function::C_Finalize = function
    {
        state.counters.set_open_sessions(state.sessions.count());
    }
    rv
}

/// A call on its way.
pub(crate) struct Call {
    pub state: &'static State,
    pub rules: Arc<RuleSet>,
    /// The real id of the slot that the call names or that its session is on.
    pub slot: Option<CK_SLOT_ID>,
    function: Function,
    label: OnceCell<Option<String>>,
    afterwards: Option<CK_RV>,
}

impl Call {
    /// The label of the token that the call is about.
    pub fn label(&self) -> Option<&str> {
        self.label
            .get_or_init(|| real::label(self.slot?))
            .as_deref()
    }

    /// Whether the call is about this token; every call is about `None`.
    pub fn is_about(&self, token: &Option<String>) -> bool {
        match token {
            None => true,
            Some(token) => self.label() == Some(token),
        }
    }

    /// Whether the token that the call is about is pulled out.
    pub fn is_hidden(&self) -> bool {
        self.rules
            .iter()
            .any(|rule| matches!(rule, Rule::HideToken { token } if self.is_about(token)))
    }

    /// Whether a signature was begun in the session that waits for the context-specific login.
    pub fn awaits_login(&self, session: CK_SESSION_HANDLE) -> bool {
        let session = self.state.sessions.get(session);
        session.is_some_and(|session| session.awaits_login)
    }

    /// Lets the rules about calls strike; `Err` is what to return at once.
    pub fn strike(&mut self) -> Result<(), CK_RV> {
        let rules = Arc::clone(&self.rules);
        for active in rules.active() {
            let Rule::Call {
                function,
                action,
                when,
                token,
            } = &active.rule
            else {
                continue;
            };
            if *function != self.function || !self.is_about(token) || !active.is_due(when) {
                continue;
            }
            self.state.counters.struck();
            match action {
                Action::Return(rv) => return Err(*rv),
                Action::ReturnAfter(rv) => self.afterwards = Some(*rv),
                Action::Delay(milliseconds) => {
                    thread::sleep(Duration::from_millis((*milliseconds).into()))
                }
                Action::Hang => self.hang_until_gone(&active.rule),
                Action::HangForever => loop {
                    thread::park();
                },
                Action::Abort => std::process::abort(),
            }
        }
        Ok(())
    }

    /// Held while the call is inside the real module.
    pub fn pass(&self) -> Option<RwLockReadGuard<'static, ()>> {
        // It may wait for a slot event for ever, and uses no session.
        (self.function != Function::C_WaitForSlotEvent).then(|| self.state.pass())
    }

    /// What the application gets for what the real module returned.
    pub fn verdict(&self, rv: CK_RV) -> CK_RV {
        self.afterwards.unwrap_or(rv)
    }

    fn hang_until_gone(&self, rule: &Rule) {
        while self.state.rules().iter().any(|active| active == rule) {
            thread::sleep(POLL);
        }
    }
}
