//! What changes or lists tokens and keys, a request each.

mod certificates;
mod create;
mod delete;
mod init;
mod key_template;
mod list;
mod pin;
