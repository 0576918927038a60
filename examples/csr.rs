//! Makes a certificate request for a key that stays in its token, and prints it as PEM.
//!
//! ```text
//! csr SOCKET KEY-URI SUBJECT [SAN...]
//! csr /run/tedge-p11-server/tedge-p11-server.sock 'pkcs11:object=device-key' CN=gw-0001,O=Maker DNS:gw-0001.local
//! ```
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)] // It talks to the person who runs it.

use std::error::Error;

use p11_client::x509_cert::der::{EncodePem, pem::LineEnding};
use p11_client::{CertificateParams, Client, Config, SigningKey};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(socket), Some(uri), Some(subject)) =
        (arguments.next(), arguments.next(), arguments.next())
    else {
        return Err("usage: csr SOCKET KEY-URI SUBJECT [SAN...]".into());
    };
    let key = SigningKey::open(&Client::new(Config::new(socket)), &uri, None, None)?;

    let mut params = CertificateParams::new(&subject)?
        .key_usage("digitalSignature")?
        .extended_key_usage("clientAuth")?;
    for name in arguments {
        params = params.san(&name)?;
    }
    print!("{}", params.request(&key)?.to_pem(LineEnding::LF)?);
    Ok(())
}
