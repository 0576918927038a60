//! The requests for tokio's programs: each blocks a thread of tokio's pool for blocking work, and no task.

use p11_proto::message::{
    Certificates, ChangePin, CreateKey, DeleteCertificate, DeleteKey, Deleted, GetCertificates,
    GetPublicKey, ImportCertificate, Imported, InitToken, ListKeys, Objects, OpenKey, OpenedKey,
    PinChanged, Pong, PublicKeyEntry, Sign, Status, TokenEntry, TokenReady, Tokens,
};
use p11_proto::{Pin, Scheme};
use rustls::pki_types::CertificateDer;
use tokio::runtime::Handle;

use crate::client::Client;
use crate::error::Error;
use crate::signing_key::SigningKey;

/// Runs it on a thread that may block. Goes on to its end where nobody waits for it any more.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let runtime = Handle::try_current().map_err(|_| Error::NoRuntime)?;
    match runtime.spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => match e.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::NoRuntime),
        },
    }
}

macro_rules! methods {
    ($($name:ident = $blocking:ident($($request:ident: $Request:ty)?) -> $Answer:ty;)*) => {
        /// Each is the method without `_async`, on a thread of tokio's for blocking work. The request goes on to its end where
        /// its future is dropped, and a runtime that is dropped waits for it ([`tokio::runtime::Runtime::shutdown_background`] does
        /// not). [`Error::NoRuntime`] outside of a runtime.
        impl Client {
            $(
                #[doc = concat!("As [`Client::", stringify!($blocking), "`].")]
                pub async fn $name(&self $(, $request: $Request)?) -> Result<$Answer, Error> {
                    let client = self.clone();
                    blocking(move || client.$blocking($($request)?)).await
                }
            )*
        }
    };
}

methods! {
    ping_async = ping() -> Pong;
    status_async = status() -> Status;
    open_key_async = open_key(request: OpenKey) -> OpenedKey;
    sign_async = sign(request: Sign) -> Vec<u8>;
    list_tokens_async = list_tokens() -> Tokens;
    initialized_tokens_async = initialized_tokens() -> Vec<TokenEntry>;
    list_keys_async = list_keys(request: ListKeys) -> Objects;
    get_public_key_async = get_public_key(request: GetPublicKey) -> PublicKeyEntry;
    get_certificates_async = get_certificates(request: GetCertificates) -> Certificates;
    import_certificate_async = import_certificate(request: ImportCertificate) -> Imported;
    create_key_async = create_key(request: CreateKey) -> PublicKeyEntry;
    delete_key_async = delete_key(request: DeleteKey) -> Deleted;
    delete_certificate_async = delete_certificate(request: DeleteCertificate) -> Deleted;
    init_token_async = init_token(request: InitToken) -> TokenReady;
    change_pin_async = change_pin(request: ChangePin) -> PinChanged;
}

impl SigningKey {
    /// As [`SigningKey::open`], on a thread of tokio's for blocking work.
    ///
    /// # Errors
    /// The same, and [`Error::NoRuntime`] outside of a runtime.
    pub async fn open_async(
        client: &Client,
        uri: &str,
        pin: Option<Pin>,
        certificate: Option<&CertificateDer<'_>>,
    ) -> Result<SigningKey, Error> {
        let (client, uri) = (client.clone(), uri.to_owned());
        let certificate = certificate.map(|certificate| certificate.clone().into_owned());
        blocking(move || SigningKey::open(&client, &uri, pin, certificate.as_ref())).await
    }

    /// As [`SigningKey::sign`], on a thread of tokio's for blocking work.
    ///
    /// # Errors
    /// The same, and [`Error::NoRuntime`] outside of a runtime.
    pub async fn sign_async(&self, scheme: Scheme, message: &[u8]) -> Result<Vec<u8>, Error> {
        let (key, message) = (self.clone(), message.to_vec());
        blocking(move || key.sign(scheme, &message)).await
    }
}
