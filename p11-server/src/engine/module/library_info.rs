//! What a module says of itself (`CK_INFO`, PKCS#11 section 3.1).

/// Maker, name and version of a module.
#[derive(Clone)]
pub(crate) struct LibraryInfo {
    pub manufacturer: String,
    pub description: String,
    pub version: (u8, u8),
}
