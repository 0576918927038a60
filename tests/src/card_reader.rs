//! A card reader of a test's own: pcscd in a namespace, with the driver of vsmartcard's `vpcd`, which waits on a port
//! for a card.

use std::{
    fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, TcpStream},
    os::linux::net::TcpStreamExt as _,
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use tempfile::TempDir;

use crate::{
    namespace::Namespace,
    piv_card::{ATR, PivCard},
    ports::two_free_ports,
    process::Process,
    tools::pkcs11_module,
    wait::{TIMEOUT, wait_until},
};

/// A reader and its daemon, which programs in the namespace see. Dropping it stops what it consists of.
pub struct CardReader {
    card: Option<Inserted>,
    daemon: Process,
    namespace: Namespace,
    folder: TempDir,
    port: u16,
}

/// A card that is connected.
struct Inserted {
    stream: TcpStream,
    thread: Option<JoinHandle<()>>,
}

impl CardReader {
    /// A reader without a card.
    pub fn new() -> Self {
        let namespace = Namespace::new(&[]);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (daemon, port) = start(&namespace, &folder);
        Self {
            card: None,
            daemon,
            namespace,
            folder,
            port,
        }
    }

    /// Where programs see the reader.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Puts a card in, which the daemon sees half a second later.
    pub fn insert(&mut self, card: &Arc<Mutex<PivCard>>) {
        let mut stream = None;
        wait_until(|| {
            stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).ok();
            stream.is_some()
        });
        let stream = stream.unwrap();
        let (card, served) = (Arc::clone(card), stream.try_clone().unwrap());
        // It ends with the connection.
        let thread = thread::spawn(move || drop(serve(served, &card)));
        let thread = Some(thread);
        self.card = Some(Inserted { stream, thread });
    }

    /// Pulls the card, and waits until the daemon has seen it.
    pub fn remove(&mut self) {
        let seen = || self.daemon.log().matches("Card Removed").count();
        let before = seen();
        self.card = None;
        wait_until(|| seen() > before);
    }

    /// Ends the daemon, with all that it knows of its clients. The card is no longer in.
    pub fn stop_daemon(&mut self) {
        self.card = None;
        self.daemon.terminate();
    }

    /// Starts another one.
    pub fn start_daemon(&mut self) {
        (self.daemon, self.port) = start(&self.namespace, &self.folder);
    }
}

impl Default for CardReader {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Inserted {
    fn drop(&mut self) {
        // An error means that the daemon was quicker.
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The daemon, and the port that its driver waits on.
fn start(namespace: &Namespace, folder: &TempDir) -> (Process, u16) {
    // Another program may take the ports before the driver does.
    for _ in 0..10 {
        let port = two_free_ports();
        let text = format!(
            "FRIENDLYNAME \"Virtual PCD\"\nDEVICENAME /dev/null:{port}\nLIBPATH {}\nCHANNELID {port}\n",
            pkcs11_module("libifdvpcd.so").display()
        );
        fs::write(folder.path().join("reader"), text).unwrap();
        let mut daemon = namespace.command("pcscd");
        daemon
            .args(["--foreground", "--info", "--config"])
            .arg(folder.path());
        let daemon = Process::start("pcscd", daemon);
        daemon.wait_for_log("daemon ready", TIMEOUT);
        if !daemon.log().contains("Could not initialize") {
            return (daemon, port);
        }
    }
    panic!("vpcd finds no two free ports")
}

/// The card's half of the driver's protocol: messages of a length in two bytes, those of one byte for the reader itself.
fn serve(mut stream: TcpStream, card: &Mutex<PivCard>) -> io::Result<()> {
    loop {
        // The driver sends a message in two parts, the second when the first is acknowledged.
        stream.set_quickack(true)?;
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut message)?;
        let mut card = card.lock().unwrap();
        let answer = match message[..] {
            // Off, on, reset.
            [0..=2] => {
                card.reset();
                continue;
            }
            [4] => ATR.to_vec(),
            _ => card.answer(&message),
        };
        let length = u16::try_from(answer.len()).expect("a short answer");
        stream.write_all(&[&length.to_be_bytes()[..], &answer].concat())?;
    }
}
