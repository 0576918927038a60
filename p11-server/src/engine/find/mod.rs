//! The key that a URI means, and what is on a token.

pub mod choice;
pub mod contents;
pub mod key;
mod not_found;
pub mod object;
pub mod pair;
pub mod public_key;
pub mod search;
mod view;
