//! One call of one function: it is counted, and the rules about calls act before and after it.

use std::cell::OnceCell;
use std::sync::{Arc, RwLockReadGuard};
use std::thread;
use std::time::Duration;

use cryptoki_sys::*;

use crate::active_rules::RuleSet;
use crate::function::Function;
use crate::real;
use crate::rules::{Action, Moment, Rule, TokenFault};
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
        count: None,
        label: OnceCell::new(),
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

/// A call that is being made.
pub(crate) struct Call {
    pub state: &'static State,
    pub rules: Arc<RuleSet>,
    /// The real id of the slot that the call names or that its session is on.
    pub slot: Option<CK_SLOT_ID>,
    /// What it tells as count or length, by a rule.
    pub count: Option<CK_ULONG>,
    function: Function,
    label: OnceCell<Option<String>>,
}

impl Call {
    /// The label of the token that the call is about.
    pub fn label(&self) -> Option<&str> {
        self.label
            .get_or_init(|| real::label(self.slot?))
            .as_deref()
    }

    /// What the rules say of the token that the call is about.
    pub fn token_faults(&self) -> impl Iterator<Item = &TokenFault> {
        self.rules.iter().filter_map(|rule| match rule {
            Rule::Token { token, fault } if self.is_about(token) => Some(fault),
            _ => None,
        })
    }

    /// Whether the token that the call is about is pulled out.
    pub fn is_hidden(&self) -> bool {
        self.token_faults()
            .any(|fault| *fault == TokenFault::Hidden)
    }

    /// Whether a rule takes the mechanism from the token that the call is about.
    pub fn lacks_mechanism(&self, mechanism: CK_MECHANISM_TYPE) -> bool {
        self.token_faults().any(|fault| {
            matches!(fault, TokenFault::WithoutMechanisms(lacking) if lacking.contains(&mechanism))
        })
    }

    /// Whether a signature was begun in the session that waits for the context-specific login.
    pub fn awaits_login(&self, session: CK_SESSION_HANDLE) -> bool {
        let session = self.state.sessions.get(session);
        session.is_some_and(|session| session.awaits_login)
    }

    /// Lets the rules about calls act; `Err` is what to return at once.
    pub fn inject(&mut self, now: Moment) -> Result<(), CK_RV> {
        let rules = Arc::clone(&self.rules);
        for active in rules.active() {
            let Rule::Call {
                function,
                token,
                when,
                moment,
                action,
            } = &active.rule
            else {
                continue;
            };
            if (*function, *moment) != (self.function, now)
                || !self.is_about(token)
                || !active.is_due(when)
            {
                continue;
            }
            self.state.counters.injected();
            match action {
                Action::Return(rv) => return Err(*rv),
                Action::Delay(milliseconds) => {
                    thread::sleep(Duration::from_millis((*milliseconds).into()))
                }
                Action::Hang => self.hang_until_gone(&active.rule),
                Action::HangForever => loop {
                    thread::park();
                },
                Action::Abort => std::process::abort(),
                Action::Count(count) => self.count = Some(*count),
            }
        }
        Ok(())
    }

    /// Held while the call is inside the real module.
    pub fn enter_real(&self) -> Option<RwLockReadGuard<'static, ()>> {
        // It may wait for a slot event for ever, and uses no session.
        (self.function != Function::C_WaitForSlotEvent).then(|| self.state.enter_real())
    }

    /// Whether the call is about this token; every call is about `None`.
    fn is_about(&self, token: &Option<String>) -> bool {
        match token {
            None => true,
            Some(token) => self.label() == Some(token),
        }
    }

    fn hang_until_gone(&self, rule: &Rule) {
        while self.state.rules().iter().any(|active| active == rule) {
            thread::sleep(POLL);
        }
    }
}
