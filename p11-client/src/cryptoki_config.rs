//! How a program that is configured as thin-edge is reaches its key: through a socket, by a module, or not at all.

use std::path::{Path, PathBuf};

use p11_proto::{Pin, UriText};
use rustls::pki_types::CertificateDer;
use serde::Deserialize;

use crate::chain_file::read_chain;
use crate::client::Client;
use crate::config::Config;
use crate::error::Error;
#[cfg(feature = "module")]
use crate::module::ModuleConfig;
use crate::renewing_resolver::RenewingResolver;
use crate::signing_key::SigningKey;

/// Which key, where it is, and how it is reached, under the names that thin-edge's `tedge.toml` has for that.
///
/// Made by [`CryptokiConfig::load`] from that file and the environment, by serde as a part of another configuration, or by
/// [`CryptokiConfig::socket`], [`CryptokiConfig::module`] and the other methods:
///
/// ```
/// use p11_client::{CryptokiConfig, Pin};
///
/// let config = CryptokiConfig::socket("/run/tedge-p11-server/tedge-p11-server.sock")
///     .key_uri("pkcs11:token=device")
///     .key_pin(Pin::from("1234"));
/// assert!(!format!("{config:?}").contains("1234"));
/// let client = config.client()?.expect("the mode is not off");
/// # Ok::<(), p11_client::Error>(())
/// ```
///
/// It can be read and not written, since what is written would hold PINs.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct CryptokiConfig {
    /// `device.cryptoki.mode`: where the module is loaded, if a key in a token is used at all.
    #[serde(alias = "enable")]
    pub mode: Mode,
    /// `device.cryptoki.module_path`: the module of the mode `module`. Without it, the `module-path` of `uri`.
    pub module_path: Option<PathBuf>,
    /// `device.cryptoki.pin`: the PIN in the mode `module`, thin-edge's conventional one where it is not set. In the mode
    /// `socket` it is the server's, and never sent.
    pub pin: Option<Pin>,
    /// `device.cryptoki.uri`: in the mode `module` its attributes replace those of `key_uri`. In the mode `socket` it is the
    /// server's.
    pub uri: Option<UriText>,
    /// `device.cryptoki.socket_path`: the server's socket in the mode `socket`.
    pub socket_path: Option<PathBuf>,
    /// `device.key_uri`, or a cloud's: which key. Without it, any.
    pub key_uri: Option<UriText>,
    /// `device.key_pin`, or a cloud's: the PIN that goes with each request, in both modes.
    pub key_pin: Option<Pin>,
    /// `device.cert_path`, or a cloud's: a PEM file with the certificate of the key, and those of its issuers after it.
    pub cert_path: Option<PathBuf>,
    /// Whether a PIN was set, to nothing: then the conventional one is not tried.
    #[serde(skip)]
    pub(crate) pin_is_empty: bool,
    #[serde(skip)]
    pub(crate) refusals: Option<PathBuf>,
}

/// `device.cryptoki.mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Mode {
    /// The key is in no token.
    #[default]
    Off,
    /// The module is loaded in this process (feature `module`).
    Module,
    /// `tedge-p11-server` has loaded the module.
    Socket,
}

macro_rules! setters {
    ($($(#[$doc:meta])* $field:ident: $value:ty;)*) => {
        $(
            $(#[$doc])*
            #[must_use]
            pub fn $field(mut self, $field: $value) -> Self {
                self.$field = Some($field.into());
                self
            }
        )*
    };
}

impl CryptokiConfig {
    /// The mode `socket`, with the server at this path.
    pub fn socket(socket_path: impl AsRef<Path>) -> Self {
        CryptokiConfig {
            mode: Mode::Socket,
            socket_path: Some(socket_path.as_ref().to_owned()),
            ..CryptokiConfig::default()
        }
    }

    /// The mode `module`, with this module.
    pub fn module(module_path: impl AsRef<Path>) -> Self {
        CryptokiConfig {
            mode: Mode::Module,
            module_path: Some(module_path.as_ref().to_owned()),
            ..CryptokiConfig::default()
        }
    }

    setters! {
        /// Sets [the field](#structfield.pin).
        pin: impl Into<Pin>;
        /// Sets [the field](#structfield.uri).
        uri: impl Into<UriText>;
        /// Sets [the field](#structfield.key_uri).
        key_uri: impl Into<UriText>;
        /// Sets [the field](#structfield.key_pin).
        key_pin: impl Into<Pin>;
        /// Sets [the field](#structfield.cert_path).
        cert_path: impl Into<PathBuf>;
        /// Where the mode `module` remembers PINs that a token has refused, see `ModuleConfig::refusals`.
        refusals: impl Into<PathBuf>;
    }

    /// The client that is configured, `None` in the mode `off`. It serves both other modes in the same way.
    ///
    /// # Errors
    /// [`Error::Config`] where a value is missing, a URI is none, or the mode is `module` and this program was built without the feature
    /// of that name; those of `ModuleTransport::load`. A socket is connected to by the first request.
    pub fn client(&self) -> Result<Option<Client>, Error> {
        self.check_uris()?;
        let client = match self.mode {
            Mode::Off => return Ok(None),
            Mode::Socket => {
                let socket = self.socket_path.as_deref();
                Client::new(Config::new(
                    socket.unwrap_or(Config::DEFAULT_SOCKET.as_ref()),
                ))
            }
            Mode::Module => self.module_client()?,
        };
        Ok(Some(client.pin(self.key_pin.clone())))
    }

    /// The key that is configured, and its chain of certificates. `None` in the mode `off`.
    ///
    /// # Errors
    /// Those of [`CryptokiConfig::client`], [`CryptokiConfig::chain`] and [`SigningKey::open_for`].
    pub fn open(&self) -> Result<Option<(SigningKey, Vec<CertificateDer<'static>>)>, Error> {
        let Some(client) = self.client()? else {
            return Ok(None);
        };
        let chain = self.chain()?;
        let uri = self.key_uri.as_deref().unwrap_or("pkcs11:");
        let key = SigningKey::open_for(&client, uri, None, &chain)?;
        Ok(Some((key, chain)))
    }

    /// The key that is configured and its certificates, as they are at each handshake: for programs that outlive them, or start
    /// before the server. `None` in the mode `off`.
    ///
    /// # Errors
    /// Those of [`CryptokiConfig::client`], and [`Error::Config`] where `cert_path` is not set. The file is read by the first
    /// handshake.
    pub fn resolver(&self) -> Result<Option<RenewingResolver>, Error> {
        let Some(client) = self.client()? else {
            return Ok(None);
        };
        let uri = self.key_uri.as_deref().unwrap_or("pkcs11:");
        let resolver = RenewingResolver::new(&client, uri, None, self.chain_path()?);
        Ok(Some(resolver))
    }

    /// The certificates in the file `cert_path`.
    ///
    /// # Errors
    /// [`Error::Config`] where it is not set, cannot be read, or is no PEM; [`Error::NoCertificate`] where none is in it.
    pub fn chain(&self) -> Result<Vec<CertificateDer<'static>>, Error> {
        let path = self.chain_path()?;
        read_chain(path).map_err(|error| match error {
            Error::ChainFile { cause, .. } => Error::Config(format!(
                "device.cert_path, {path:?}, cannot be used: {cause}"
            )),
            other => other,
        })
    }

    /// Whether the URIs that are used in this mode are some.
    pub(crate) fn check_uris(&self) -> Result<(), Error> {
        let of_server = match self.mode {
            Mode::Off => return Ok(()),
            Mode::Module => self.uri.as_deref(),
            Mode::Socket => None,
        };
        let key_uri = self.key_uri.as_deref();
        for (name, uri) in [("key_uri", key_uri), ("device.cryptoki.uri", of_server)] {
            uri.map(p11_uri::Uri::parse)
                .transpose()
                .map_err(|cause| Error::Config(format!("{name} is no PKCS#11 URI: {cause}")))?;
        }
        Ok(())
    }

    fn chain_path(&self) -> Result<&Path, Error> {
        let path = self.cert_path.as_deref();
        path.ok_or_else(|| Error::Config("device.cert_path is not set".to_owned()))
    }

    #[cfg(feature = "module")]
    fn module_client(&self) -> Result<Client, Error> {
        let named_by_uri = || {
            let uri = p11_uri::Uri::parse(self.uri.as_deref()?).ok()?;
            Some(uri.module_path()?.into())
        };
        let path: PathBuf = match self.module_path.clone().or_else(named_by_uri) {
            Some(path) => path,
            None => {
                let what = "device.cryptoki.mode is \"module\", and device.cryptoki.module_path is not set";
                return Err(Error::Config(what.to_owned()));
            }
        };
        let mut module = ModuleConfig::new(path)
            .pin(self.pin.clone())
            .refusals(self.refusals.clone());
        if let Some(uri) = &self.uri {
            module = module.uri(uri.clone());
        }
        if !self.pin_is_empty {
            module = module.default_pin();
        }
        Client::with_module(module)
    }

    #[cfg(not(feature = "module"))]
    fn module_client(&self) -> Result<Client, Error> {
        let what = "device.cryptoki.mode is \"module\", and this program was built without the feature \"module\" of \
                    p11-client: set it to \"socket\" and run tedge-p11-server";
        Err(Error::Config(what.to_owned()))
    }
}
