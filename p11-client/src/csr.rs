//! Certificate requests (PKCS#10) and self-signed certificates for a key in a token.

use std::fmt::Display;
use std::time::{SystemTime, UNIX_EPOCH};

use der::Encode;
use der::asn1::{BitString, ObjectIdentifier};
use der::flagset::FlagSet;
use der::oid::AssociatedOid;
use p11_proto::Scheme;
use x509_cert::Certificate;
use x509_cert::builder::profile::BuilderProfile;
use x509_cert::builder::{Builder, CertificateBuilder};
use x509_cert::certificate::TbsCertificate;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectAltName, SubjectKeyIdentifier,
};
use x509_cert::ext::{Extension, ToExtension};
use x509_cert::name::Name;
use x509_cert::request::{CertReq, CertReqInfo, ExtensionReq};
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{
    AlgorithmIdentifierOwned, DynSignatureAlgorithmIdentifier, SubjectPublicKeyInfoOwned,
    SubjectPublicKeyInfoRef,
};
use x509_cert::time::Validity;

use crate::certificate_names::{
    parse_extended_key_usage, parse_key_usage, parse_san, parse_subject, refused,
};
use crate::error::Error;
use crate::rustcrypto::KeyWithScheme;
use crate::signing_key::SigningKey;

/// With RSA what every authority takes comes first, which PSS is not.
const SCHEMES: [Scheme; 10] = [
    Scheme::EcdsaP256Sha256,
    Scheme::EcdsaP384Sha384,
    Scheme::EcdsaP521Sha512,
    Scheme::Ed25519,
    Scheme::RsaPkcs1Sha256,
    Scheme::RsaPkcs1Sha384,
    Scheme::RsaPkcs1Sha512,
    Scheme::RsaPssSha256,
    Scheme::RsaPssSha384,
    Scheme::RsaPssSha512,
];

/// What a certificate shall say, for a request to an authority or for a self-signed one.
///
/// ```no_run
/// use p11_client::x509_cert::der::{EncodePem, pem::LineEnding};
/// use p11_client::{CertificateParams, Client, Config, SigningKey};
///
/// fn request() -> Result<String, Box<dyn std::error::Error>> {
///     let key = SigningKey::open(&Client::new(Config::default()), "pkcs11:token=device", None, None)?;
///     let request = CertificateParams::new("CN=gw-0001,O=Maker")?
///         .san("DNS:gw-0001.local")?
///         .key_usage("digitalSignature")?
///         .extended_key_usage("clientAuth")?
///         .request(&key)?;
///     Ok(request.to_pem(LineEnding::LF)?)
/// }
/// ```
#[derive(Clone, Debug)]
pub struct CertificateParams {
    subject: Name,
    scheme: Option<Scheme>,
    names: Vec<GeneralName>,
    key_usages: FlagSet<KeyUsages>,
    extended_key_usages: Vec<ObjectIdentifier>,
    extensions: Vec<Extension>,
}

impl CertificateParams {
    /// A subject as RFC 4514 writes it, `CN=gw-0001,O=Maker`, the most specific part first. May be empty.
    ///
    /// # Errors
    /// [`Error::CertificateParams`] says what is wrong with it.
    pub fn new(subject: &str) -> Result<Self, Error> {
        Ok(CertificateParams {
            subject: parse_subject(subject)?,
            scheme: None,
            names: Vec::new(),
            key_usages: FlagSet::default(),
            extended_key_usages: Vec::new(),
            extensions: Vec::new(),
        })
    }

    /// Adds a subject alternative name: `DNS:`, `IP:`, `email:` or `URI:`, and the name.
    ///
    /// # Errors
    /// [`Error::CertificateParams`] for another prefix, a name that is none of its kind, or one that is there already.
    pub fn san(mut self, name: &str) -> Result<Self, Error> {
        let parsed = parse_san(name)?;
        if self.names.contains(&parsed) {
            return Err(twice(name));
        }
        self.names.push(parsed);
        Ok(self)
    }

    /// Adds a key usage by its name in RFC 5280 section 4.2.1.3, such as `digitalSignature`.
    ///
    /// # Errors
    /// [`Error::CertificateParams`] for a name that is not there.
    pub fn key_usage(mut self, name: &str) -> Result<Self, Error> {
        self.key_usages |= parse_key_usage(name)?;
        Ok(self)
    }

    /// Adds an extended key usage: `clientAuth` or another name of RFC 5280 section 4.2.1.12, or the numbers of an object
    /// identifier.
    ///
    /// # Errors
    /// [`Error::CertificateParams`] for what is neither, or is there already.
    pub fn extended_key_usage(mut self, name: &str) -> Result<Self, Error> {
        let usage = parse_extended_key_usage(name)?;
        if self.extended_key_usages.contains(&usage) {
            return Err(twice(name));
        }
        self.extended_key_usages.push(usage);
        Ok(self)
    }

    /// Adds any extension, such as those of [`x509_cert::ext::pkix`]:
    ///
    /// ```
    /// use p11_client::CertificateParams;
    /// use p11_client::x509_cert::ext::pkix::BasicConstraints;
    ///
    /// let authority = BasicConstraints { ca: true, path_len_constraint: Some(0) };
    /// let params = CertificateParams::new("CN=an authority")?.extension(&authority)?;
    /// # Ok::<(), p11_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::CertificateParams`] for one that cannot be encoded.
    pub fn extension<E: ToExtension>(mut self, extension: E) -> Result<Self, Error>
    where
        E::Error: Display,
    {
        let extension = extension.to_extension(&self.subject, &self.extensions);
        self.extensions.push(extension.map_err(refused)?);
        Ok(self)
    }

    /// What to sign with. Otherwise, of what the key can make, PKCS#1 with SHA-256 for RSA, and the one of its kind for others.
    #[must_use]
    pub fn scheme(mut self, scheme: Scheme) -> Self {
        self.scheme = Some(scheme);
        self
    }

    /// A request to an authority (PKCS#10, RFC 2986), signed with this key.
    ///
    /// # Errors
    /// Those of a signature, and [`Error::CertificateParams`].
    pub fn request(&self, key: &SigningKey) -> Result<CertReq, Error> {
        let signer = self.signer(key)?;
        let mut info = CertReqInfo {
            version: Default::default(),
            subject: self.subject.clone(),
            public_key: public_key(key)?,
            attributes: Default::default(),
        };
        let extensions = self.extensions()?;
        // An extensionRequest of no extension would be malformed (RFC 5272 section 3.1).
        if !extensions.is_empty() {
            let attribute = ExtensionReq(extensions).try_into().map_err(refused)?;
            info.attributes.insert(attribute).map_err(refused)?;
        }
        let signature = key.sign(signer.scheme(), &info.to_der().map_err(refused)?)?;
        Ok(CertReq {
            info,
            algorithm: algorithm(&signer)?,
            signature: BitString::from_bytes(&signature).map_err(refused)?,
        })
    }

    /// A certificate that this key has signed for itself, valid for example for [`Validity::from_now`]. It gets a
    /// `SubjectKeyIdentifier` where there is none among the extensions.
    ///
    /// # Errors
    /// Those of a signature, and [`Error::CertificateParams`].
    pub fn self_signed(&self, key: &SigningKey, validity: Validity) -> Result<Certificate, Error> {
        let signer = self.signer(key)?;
        let profile = SelfSigned {
            subject: self.subject.clone(),
            extensions: self.extensions()?,
        };
        let serial = serial_number(key)?;
        let mut builder = CertificateBuilder::new(profile, serial, validity, public_key(key)?)
            .map_err(refused)?;
        let signature = key.sign(
            signer.scheme(),
            &builder.finalize(&signer).map_err(refused)?,
        )?;
        let signature = BitString::from_bytes(&signature).map_err(refused)?;
        builder.assemble(signature, &signer).map_err(refused)
    }

    /// What is signed with: [`CertificateParams::scheme`], or the one that it says.
    ///
    /// # Errors
    /// [`Error::CertificateParams`] where the key can make none.
    pub fn scheme_with(&self, key: &SigningKey) -> Result<Scheme, Error> {
        let can = |scheme: &Scheme| key.schemes().contains(&scheme.number().into());
        let scheme = self.scheme.or_else(|| SCHEMES.into_iter().find(can));
        scheme.ok_or_else(|| {
            refused(format_args!(
                "the token can sign nothing with the key {}",
                key.uri()
            ))
        })
    }

    fn signer(&self, key: &SigningKey) -> Result<KeyWithScheme, Error> {
        key.with_scheme(self.scheme_with(key)?)
    }

    fn extensions(&self) -> Result<Vec<Extension>, Error> {
        let mut extensions = Vec::new();
        if !self.names.is_empty() {
            extensions.push(self.encoded(&SubjectAltName(self.names.clone()))?);
        }
        if !self.key_usages.is_empty() {
            extensions.push(self.encoded(&KeyUsage(self.key_usages))?);
        }
        if !self.extended_key_usages.is_empty() {
            extensions.push(self.encoded(&ExtendedKeyUsage(self.extended_key_usages.clone()))?);
        }
        extensions.extend(self.extensions.iter().cloned());
        let mut ids: Vec<_> = extensions
            .iter()
            .map(|extension| extension.extn_id)
            .collect();
        ids.sort_unstable();
        let twice = ids.windows(2).find_map(|pair| match pair {
            [one, other] if one == other => Some(one),
            _ => None,
        });
        match twice {
            Some(twice) => Err(refused(format_args!(
                "the extension {twice} is there twice"
            ))),
            None => Ok(extensions),
        }
    }

    fn encoded<'a, E>(&self, extension: &'a E) -> Result<Extension, Error>
    where
        &'a E: ToExtension<Error = der::Error>,
    {
        let encoded = extension.to_extension(&self.subject, &[]);
        encoded.map_err(refused)
    }
}

/// A certificate whose issuer is its subject, with these extensions.
struct SelfSigned {
    subject: Name,
    extensions: Vec<Extension>,
}

impl BuilderProfile for SelfSigned {
    fn get_issuer(&self, subject: &Name) -> Name {
        subject.clone()
    }

    fn get_subject(&self) -> Name {
        self.subject.clone()
    }

    fn build_extensions(
        &self,
        key: SubjectPublicKeyInfoRef<'_>,
        _issuer_key: SubjectPublicKeyInfoRef<'_>,
        _certificate: &TbsCertificate,
    ) -> x509_cert::builder::Result<Vec<Extension>> {
        let mut extensions = self.extensions.clone();
        let id = SubjectKeyIdentifier::OID;
        if extensions.iter().all(|extension| extension.extn_id != id) {
            let identifier = SubjectKeyIdentifier::try_from(key)?;
            extensions.push(identifier.to_extension(&self.subject, &[])?);
        }
        Ok(extensions)
    }
}

fn public_key(key: &SigningKey) -> Result<SubjectPublicKeyInfoOwned, Error> {
    SubjectPublicKeyInfoOwned::try_from(key.public_key_info().spki()).map_err(refused)
}

fn twice(name: &str) -> Error {
    refused(format_args!("{name:?} is there twice"))
}

/// One that this key has not used before: part of its identity, and the time.
fn serial_number(key: &SigningKey) -> Result<SerialNumber, Error> {
    let identity = key.identity();
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanoseconds = since_1970.unwrap_or_default().as_nanos().to_be_bytes();
    let identity = identity.as_bytes().iter().take(8);
    // The upper half of the 128 bits is zero until the year 2554. A first byte of 1 keeps the number positive.
    let number = [1u8]
        .iter()
        .chain(identity)
        .chain(nanoseconds.iter().skip(8));
    SerialNumber::new(&number.copied().collect::<Vec<_>>()).map_err(refused)
}

fn algorithm(signer: &KeyWithScheme) -> Result<AlgorithmIdentifierOwned, Error> {
    signer.signature_algorithm_identifier().map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_there_twice() {
        let params = || CertificateParams::new("CN=a").unwrap();
        let names = params().san("DNS:a.b").unwrap();
        let usages = params().extended_key_usage("clientAuth").unwrap();
        for error in [
            names.san("dns:a.b").unwrap_err(),
            usages.extended_key_usage("1.3.6.1.5.5.7.3.2").unwrap_err(),
        ] {
            assert!(error.to_string().contains("is there twice"), "{error}");
        }
    }
}
