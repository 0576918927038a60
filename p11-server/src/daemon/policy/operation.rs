//! The operations that a policy can allow, their names, and which requests need them.

use p11_proto::Request;

/// What a rule can allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
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
    /// Delete a certificate.
    DeleteCertificate,
    /// Make a token ready for use.
    InitToken,
    /// Change the PIN of a token.
    ChangePin,
}

impl Operation {
    /// All that there are.
    pub(crate) const ALL: [Operation; 8] = [
        Operation::Sign,
        Operation::List,
        Operation::CreateKey,
        Operation::ImportCertificate,
        Operation::DeleteKey,
        Operation::DeleteCertificate,
        Operation::InitToken,
        Operation::ChangePin,
    ];

    /// The operation that a request needs to be allowed; `None` for what everybody may ask.
    pub(crate) fn of(request: &Request) -> Option<Operation> {
        Some(match request {
            Request::Ping(_) | Request::Status(_) => return None,
            Request::OpenKey(_) | Request::Sign(_) => Operation::Sign,
            Request::CreateKey(_) => Operation::CreateKey,
            Request::ImportCertificate(_) => Operation::ImportCertificate,
            Request::DeleteKey(_) => Operation::DeleteKey,
            Request::DeleteCertificate(_) => Operation::DeleteCertificate,
            Request::InitToken(_) => Operation::InitToken,
            Request::ChangePin(_) => Operation::ChangePin,
            _ => Operation::List,
        })
    }

    /// Its name in policy, log and errors.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Operation::Sign => "sign",
            Operation::List => "list",
            Operation::CreateKey => "create-key",
            Operation::ImportCertificate => "import-certificate",
            Operation::DeleteKey => "delete-key",
            Operation::DeleteCertificate => "delete-certificate",
            Operation::InitToken => "init-token",
            Operation::ChangePin => "change-pin",
        }
    }

    /// Whether it changes a token.
    pub(crate) fn changes(self) -> bool {
        !matches!(self, Operation::Sign | Operation::List)
    }
}
