//! A PKCS#11 module that wraps another one, counts the calls, and misbehaves by rule. The process under test
//! loads it in place of the real module; a test in another process steers it through a folder.
//!
//! # How a test uses it
//! The package of the test depends on this one (`[dev-dependencies]` or `[dependencies]`), and so `cargo test`
//! and `cargo nextest` build the module, `libp11_fault_module.so`, next to the test; [`Faults::module_path`] finds it.
//!
//! ```no_run
//! use p11_fault_module::cryptoki_sys::CKR_DEVICE_ERROR;
//! use p11_fault_module::{Faults, Function::*, on, token};
//!
//! let faults = Faults::new("/usr/lib/softhsm/libsofthsm2.so");
//! let server = std::process::Command::new("tedge-p11-server")
//!     .arg("--module-path")
//!     .arg(Faults::module_path())
//!     .envs(faults.envs())
//!     .spawn();
//!
//! let before = faults.counts();
//! // … one signature …
//! let calls = faults.counts().since(&before);
//! assert_eq!((calls.of(C_Sign), calls.total()), (1, 2), "{calls}");
//!
//! faults.set([on(C_Sign).next(1).returns(CKR_DEVICE_ERROR), token("my-token").session_limit(2)]);
//! // … the next signature succeeds all the same …
//! faults.clear();
//! ```
//!
//! # What to know
//! - Rules are in force from the next call on. The module looks for new ones at each call, so what no call saw did
//!   not happen: to pull a token and put it back while the process is idle, use [`Token::sessions_closed`].
//! - [`Faults::set`] replaces all rules. Counted rules (`next`, `every`, `random`) begin anew with each `set`, and in each
//!   process; what happens once ([`TokenFault::SessionsClosed`], [`TokenFault::LoggedOut`], [`Rule::RenumberObjects`]) happens
//!   at each `set`.
//! - Rules made with [`on`] act in the order in which they stand; the first that returns ends the call. They are not about
//!   calls that are refused before: an unknown slot, a hidden token, a session or object that is gone, a mechanism that is lacking.
//! - Counts are of what the process called, never of what the module asked the real one for itself. They and the wrong PINs
//!   live in the folder, and so outlive the process.
//! - The module writes to stderr when it cannot use its environment or a rule.
//!
//! # The map
//! | file | what |
//! |---|---|
//! | `faults`, `rules` | the test's side; the rules, which travel as JSON in the file `rules` |
//! | `counters` | the counts, shared by both sides |
//! | `random` | random numbers, of rules and of tests |
//! | `function`, `module` | the table of all functions; what the application calls |
//! | `call`, `args` | what happens in every call; what happens to parameters |
//! | `state`, `active_rules`, `sessions`, `pins` | what the module remembers |
//! | `real` | what the module asks of the wrapped one for itself |
//! | `lifecycle`, `slots`, `token`, `session`, `login`, `objects`, `attributes`, `signing`, `generate` | the functions with faults of their own |

mod active_rules;
mod args;
mod attributes;
mod call;
mod counters;
mod error;
mod faults;
mod function;
mod generate;
mod lifecycle;
mod login;
mod module;
mod objects;
mod pins;
mod random;
mod real;
mod rules;
mod session;
mod sessions;
mod signing;
mod slots;
mod state;
mod token;

pub use counters::Counts;
/// For the codes of the standard (CKR, CKA, CKM, CKO).
pub use cryptoki_sys;
pub use faults::Faults;
pub use function::Function;
pub use random::Random;
pub use rules::{
    Action, Answer, Moment, Object, On, Pin, Rule, Token, TokenFault, When, every_token, object,
    on, token,
};
