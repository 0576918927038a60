//! What a key can sign, by which mechanism, and the bytes on both sides of `C_Sign`.

pub mod encode;
mod hash;
pub mod scheme;
