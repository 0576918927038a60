//! Step `connection`: the TLS handshake with a peer, as tedge makes it, and what the peer's alert means.

use std::io::{self, ErrorKind, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use p11_client::rustls::client::ResolvesClientCert;
use p11_client::rustls::crypto::ring;
use p11_client::rustls::pki_types::pem::PemObject;
use p11_client::rustls::pki_types::{CertificateDer, ServerName};
use p11_client::rustls::sign::CertifiedKey;
use p11_client::rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, Error as TlsError,
    ProtocolVersion, RootCertStore, SignatureScheme,
};
use p11_client::{Error, Resolver, SigningKey};

use super::finding::{Finding, Looked};
use super::walk::Walk;
use crate::exit::{Exit, Refusal, this_command};

const TIMEOUT: Duration = Duration::from_secs(10);
/// For how long a peer that has finished the handshake may still refuse the certificate: in TLS 1.3 it says so afterwards.
const LAST_WORD: Duration = Duration::from_secs(2);
/// Debian's and Alpine's, Fedora's.
const OF_MACHINE: [&str; 2] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
];

pub fn look(walk: &mut Walk<'_>) -> Looked {
    let peer = walk.check.connect.clone().unwrap_or_default();
    let Some((_, opened)) = &walk.key else {
        return Ok(Finding::not_seen("the key was not seen"));
    };
    if walk.chain.is_empty() {
        return Ok(Finding::not_seen("the certificate was not seen"));
    }
    let (host, _) = peer
        .rsplit_once(':')
        .ok_or_else(|| Finding::failed(format!("{peer:?} is not HOST:PORT")).exit(Exit::Usage))?;
    let host = host.trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(host.clone())
        .map_err(|_| Finding::failed(format!("{host:?} is no name of a host")).exit(Exit::Usage))?;
    let roots = roots(walk.check.ca.as_deref())?;
    let key =
        SigningKey::open(&walk.session.client, &opened.uri, None, None).map_err(Refusal::from)?;
    let resolver = Resolver::new(walk.chain.clone(), key.clone()).map_err(Refusal::from)?;
    let asked = Arc::new(Asked {
        resolver,
        was_asked: AtomicBool::new(false),
    });
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Finding::failed(error.to_string()))?
        .with_root_certificates(roots)
        .with_client_cert_resolver(asked.clone());
    let mut tcp = tcp(&peer)?;
    let mut tls = ClientConnection::new(Arc::new(config), name)
        .map_err(|error| Finding::failed(error.to_string()))?;
    match handshake(&mut tls, &mut tcp) {
        Ok(()) => Ok(told(&peer, &tls, &asked)),
        Err(error) => Err(refused(walk, &peer, &key, &error, tls.is_handshaking())),
    }
}

/// The certificate, and whether the peer has asked for one.
#[derive(Debug)]
struct Asked {
    resolver: Resolver,
    was_asked: AtomicBool,
}

impl ResolvesClientCert for Asked {
    fn resolve(&self, issuers: &[&[u8]], offered: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.was_asked.store(true, Ordering::Relaxed);
        self.resolver.resolve(issuers, offered)
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn told(peer: &str, tls: &ClientConnection, asked: &Asked) -> Finding {
    let version = match tls.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
        _ => "TLS 1.3",
    };
    match asked.was_asked.load(Ordering::Relaxed) {
        true => Finding::ok(format!("{peer} has taken the certificate, {version}")),
        false => Finding::ok(format!("{peer} answers, {version}"))
            .warn("it did not ask for a certificate, so it does not know the device by its key: is it the right port?"),
    }
}

fn roots(file: Option<&Path>) -> Result<RootCertStore, Finding> {
    let of_machine = || {
        OF_MACHINE
            .map(Path::new)
            .into_iter()
            .find(|file| file.exists())
    };
    let Some(file) = file.or_else(of_machine) else {
        return Err(Finding::failed("this machine has no list of authorities")
            .next("apt install ca-certificates # or --ca FILE"));
    };
    let unreadable = |error| Finding::failed(format!("{} cannot be used: {error}", file.display()));
    let certificates = CertificateDer::pem_file_iter(file).map_err(unreadable)?;
    let certificates: Vec<_> = certificates.collect::<Result<_, _>>().map_err(unreadable)?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates);
    match roots.is_empty() {
        true => Err(Finding::failed(format!(
            "there is no certificate in {}",
            file.display()
        ))),
        false => Ok(roots),
    }
}

fn tcp(peer: &str) -> Result<TcpStream, Finding> {
    let unknown = |error| {
        Finding::failed(format!("the name in {peer} is not known: {error}"))
            .next("resolvectl query HOST # or /etc/resolv.conf")
    };
    let addresses: Vec<_> = peer.to_socket_addrs().map_err(unknown)?.collect();
    let mut last = io::Error::from(ErrorKind::NotFound);
    for address in addresses {
        match TcpStream::connect_timeout(&address, TIMEOUT) {
            Ok(tcp) => {
                let limits = tcp.set_read_timeout(Some(TIMEOUT));
                let limits = limits.and_then(|()| tcp.set_write_timeout(Some(TIMEOUT)));
                return limits
                    .map(|()| tcp)
                    .map_err(|error| Finding::failed(error.to_string()));
            }
            Err(error) => last = error,
        }
    }
    Err(Finding::failed(format!("{peer} cannot be reached: {last}"))
        .detail("Nobody listens there, or a firewall is between."))
}

fn handshake(tls: &mut ClientConnection, tcp: &mut TcpStream) -> io::Result<()> {
    while tls.is_handshaking() {
        if tls.complete_io(tcp)? == (0, 0) {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
    while tls.wants_write() {
        tls.write_tls(tcp)?;
    }
    tcp.flush()?;
    if tls.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
        return Ok(());
    }
    // A ticket, or any other word of a peer that is content, ends the wait.
    tcp.set_read_timeout(Some(LAST_WORD))?;
    match tls.read_tls(tcp) {
        Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
        Ok(_) => tls.process_new_packets().map_err(io::Error::other)?,
        Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    Ok(())
}

fn refused(
    walk: &Walk<'_>,
    peer: &str,
    key: &SigningKey,
    error: &io::Error,
    was_early: bool,
) -> Finding {
    if let Some(own) = Error::in_handshake(error) {
        return Finding::failed(own.to_string());
    }
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<TlsError>());
    let finding = match tls {
        Some(TlsError::AlertReceived(alert)) => of_alert(walk, *alert),
        Some(TlsError::InvalidCertificate(why)) => of_certificate(peer, why),
        Some(TlsError::InvalidMessage(_)) => {
            Finding::failed(format!("what answers at {peer} does not speak TLS"))
                .detail("Brokers listen for TLS at 8883, and without it at 1883.")
        }
        Some(other) => Finding::failed(format!("{peer}: {other}")),
        None if error.kind() == ErrorKind::UnexpectedEof => Finding::failed(format!(
            "{peer} has closed the connection {}",
            match was_early {
                true => "in the handshake, without a word",
                false => "after the handshake, without a word: it may have refused the certificate",
            }
        )),
        None => Finding::failed(format!("{peer}: {error}")),
    };
    match key.why_not_sent() {
        Some(why) => finding.detail(why.to_string()),
        None => {
            finding.next("the broker's own log says why (mosquitto: journalctl -u mosquitto -n 20)")
        }
    }
}

/// What a broker means by an alert (RFC 8446 section 6.2).
fn of_alert(walk: &Walk<'_>, alert: AlertDescription) -> Finding {
    let issuer = &walk.issuer;
    Finding::failed(match alert {
        AlertDescription::UnknownCA => format!("the broker does not know the issuer of your certificate, {issuer}"),
        AlertDescription::CertificateExpired => {
            "the broker says that the certificate has expired, which it has not here: is the broker's clock right?".into()
        }
        AlertDescription::CertificateRevoked => "the broker says that the certificate was revoked".into(),
        AlertDescription::BadCertificate | AlertDescription::CertificateUnknown => {
            format!("the broker does not take the certificate (its issuer is {issuer}): it may want another one, or one of other usages")
        }
        AlertDescription::UnsupportedCertificate => {
            "the broker does not take a certificate of this kind, its usages for example".into()
        }
        AlertDescription::AccessDenied => "the broker knows the certificate, and does not let it in".into(),
        AlertDescription::CertificateRequired => "the broker wants a certificate, and none was sent".into(),
        AlertDescription::HandshakeFailure => {
            "the broker and this client have no way in common: cipher, curve or signature".into()
        }
        AlertDescription::ProtocolVersion => "the broker speaks neither TLS 1.3 nor 1.2".into(),
        AlertDescription::DecryptError => "the broker says that the signature is not that of the certificate's key".into(),
        AlertDescription::UnrecognisedName => "the broker does not go by that name".into(),
        other => format!("the broker refused the handshake: {other:?}"),
    })
    .detail(format!("Its alert: {alert:?}"))
}

/// What is wrong with the peer's certificate.
fn of_certificate(peer: &str, why: &CertificateError) -> Finding {
    match why {
        // Signed by a namesake.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => Finding::failed(
            format!("the certificate of {peer} is by nobody whom this machine trusts"),
        )
        .next(format!(
            "{} # the authority's certificate",
            this_command("--ca FILE")
        )),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Finding::failed(
            format!("the certificate of {peer} has expired, or the clock of this machine is wrong"),
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            Finding::failed(format!(
                "the certificate of {peer} is not valid yet: the clock of this machine is wrong"
            ))
            .next("timedatectl set-ntp true")
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Finding::failed(format!("{peer} has a certificate of another name: {why}"))
        }
        other => Finding::failed(format!("the certificate of {peer} cannot be used: {other}")),
    }
}
