//! What a policy can allow: the operations, and their names.

/// What a rule can allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Open a key and sign with it.
    Sign,
    /// List tokens, keys and certificates, and read what is public of them.
    List,
    /// Make a key pair.
    CreateKey,
    /// Store the certificate of a key.
    ImportCertificate,
    /// Delete a key pair.
    DeleteKey,
    /// Make a token ready for use.
    InitToken,
    /// Change the PIN of a token.
    ChangePin,
}

impl Operation {
    /// All that there are.
    pub const ALL: [Operation; 7] = [
        Operation::Sign,
        Operation::List,
        Operation::CreateKey,
        Operation::ImportCertificate,
        Operation::DeleteKey,
        Operation::InitToken,
        Operation::ChangePin,
    ];

    /// Its name in policy, log and errors.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Sign => "sign",
            Operation::List => "list",
            Operation::CreateKey => "create-key",
            Operation::ImportCertificate => "import-certificate",
            Operation::DeleteKey => "delete-key",
            Operation::InitToken => "init-token",
            Operation::ChangePin => "change-pin",
        }
    }

    /// Whether it changes a token.
    pub fn changes(self) -> bool {
        !matches!(self, Operation::Sign | Operation::List)
    }
}
