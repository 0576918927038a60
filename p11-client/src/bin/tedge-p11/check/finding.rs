//! What a step of the walk has found.

use serde::Serialize;

use crate::exit::{Exit, Refusal};

/// How a step ended. See docs/check.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Ok,
    Warning,
    Failed,
    /// This user, or this machine, does not show it.
    NotSeen,
    /// A step before it failed.
    NotLookedAt,
}

/// What a step has found, in the order in which it is told.
#[derive(Debug)]
pub struct Finding {
    pub outcome: Outcome,
    /// In one line.
    pub found: String,
    /// What works, and should not stay so.
    pub warnings: Vec<String>,
    /// More of a failure, a line each.
    pub details: Vec<String>,
    /// The commands that help.
    pub next: Vec<String>,
    /// Where it differs from that of the step.
    pub exit: Option<Exit>,
}

/// A failure is returned as soon as it is found.
pub type Looked = Result<Finding, Finding>;

impl Finding {
    pub fn ok(found: impl Into<String>) -> Finding {
        Finding::new(Outcome::Ok, found.into())
    }

    pub fn not_seen(found: impl Into<String>) -> Finding {
        Finding::new(Outcome::NotSeen, found.into())
    }

    pub fn failed(found: impl Into<String>) -> Finding {
        Finding::new(Outcome::Failed, found.into())
    }

    pub fn not_looked_at() -> Finding {
        Finding::new(Outcome::NotLookedAt, String::new())
    }

    fn new(outcome: Outcome, found: String) -> Finding {
        Finding {
            outcome,
            found,
            warnings: Vec::new(),
            details: Vec::new(),
            next: Vec::new(),
            exit: None,
        }
    }

    pub fn warn(mut self, warning: impl Into<String>) -> Finding {
        if self.outcome == Outcome::Ok {
            self.outcome = Outcome::Warning;
        }
        self.warnings.push(warning.into());
        self
    }

    pub fn detail(mut self, detail: impl Into<String>) -> Finding {
        self.details.push(detail.into());
        self
    }

    pub fn next(mut self, command: impl Into<String>) -> Finding {
        self.next.push(command.into());
        self
    }

    pub fn exit(mut self, exit: Exit) -> Finding {
        self.exit = Some(exit);
        self
    }

    /// A failure that does not matter, since something works that would not if it did.
    pub fn disproved(mut self, why: &str) -> Finding {
        self.outcome = Outcome::Warning;
        let first = std::mem::take(&mut self.found);
        let words = [first].into_iter().chain(self.details.drain(..));
        self.warnings.splice(0..0, words);
        self.found = why.to_owned();
        self
    }
}

/// What the server or the client's library says, with its exit code and its advice.
impl From<Refusal> for Finding {
    fn from(refusal: Refusal) -> Finding {
        Finding {
            next: refusal.next,
            exit: Some(refusal.exit),
            ..Finding::failed(refusal.message)
        }
    }
}
