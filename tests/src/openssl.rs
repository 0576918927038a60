//! An `openssl s_server` that wants a client certificate, and tells which signature it was shown.

use crate::{pki::Pki, process::Process, tools::command, wait::TIMEOUT};

/// A running `openssl s_server`. It sends each line that it receives back in reverse, or answers HTTP.
pub struct OpensslServer {
    process: Process,
    port: u16,
}

/// What the server saw of its client, in openssl's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Such as `TLSv1.3`.
    pub protocol: String,
    /// Such as `CN = a device`.
    pub certificate: String,
    /// Such as `RSA-PSS`.
    pub signature: String,
    /// Such as `SHA256`; none for Ed25519.
    pub hash: Option<String>,
}

impl OpensslServer {
    /// Starts a server with further arguments, such as `-tls1_2` or `-client_sigalgs RSA+SHA256`.
    pub fn start(pki: &Pki, arguments: &[&str]) -> Self {
        Self::that_answers("-rev", pki, arguments)
    }

    /// Starts a server that answers requests of HTTP with what it saw of the client.
    pub fn http(pki: &Pki) -> Self {
        Self::that_answers("-www", pki, &[])
    }

    fn that_answers(how: &str, pki: &Pki, arguments: &[&str]) -> Self {
        let identity = pki.server();
        let mut server = command("openssl");
        server
            .args(["s_server", "-accept", "127.0.0.1:0", how])
            .args(["-Verify", "1", "-verify_return_error", "-CAfile"])
            .arg(pki.authority())
            .arg("-cert")
            .arg(&identity.certificate)
            .arg("-key")
            .arg(&identity.private_key)
            .args(arguments);
        let process = Process::start("openssl s_server", server);
        let line = process.wait_for_log("ACCEPT 127.0.0.1:", TIMEOUT);
        let port = line.rsplit(':').next().and_then(|port| port.parse().ok());
        Self {
            process,
            port: port.unwrap_or_else(|| panic!("no port in {line:?}")),
        }
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Everything it has printed so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Waits for the end of the first handshake and returns what the server saw in it.
    pub fn seen(&self) -> Seen {
        self.process.wait_for_log("Verification: OK", TIMEOUT);
        let log = self.process.log();
        let field = |name: &str| {
            let value = log.lines().find_map(|line| line.strip_prefix(name));
            value.map(|value| value.trim().to_owned())
        };
        let required = |name: &str| field(name).unwrap_or_else(|| panic!("no {name} in {log}"));
        Seen {
            protocol: required("Protocol version:"),
            certificate: required("Peer certificate:"),
            signature: required("Signature type:"),
            hash: field("Hash used:"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::run;

    /// The handshake is openssl's at both ends: this tests the harness.
    #[test]
    fn the_server_tells_what_the_client_proved() {
        let pki = Pki::new();
        let server = OpensslServer::start(&pki, &["-tls1_2"]);
        let client = pki.server();
        run(command("openssl")
            .args(["s_client", "-CAfile"])
            .arg(pki.authority())
            .args(["-connect", &format!("127.0.0.1:{}", server.port()), "-cert"])
            .arg(&client.certificate)
            .arg("-key")
            .arg(&client.private_key));
        assert_eq!(
            server.seen(),
            Seen {
                protocol: "TLSv1.2".into(),
                certificate: "CN = localhost".into(),
                signature: "ECDSA".into(),
                hash: Some("SHA256".into()),
            }
        );
    }
}
