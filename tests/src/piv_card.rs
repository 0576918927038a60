//! A PIV card (NIST SP 800-73-4): the keys, certificates and the PIN of one, and its answers to commands.
//!
//! It has as much as OpenSC asks of a card that signs. openssl makes the keys and signs with them.

use std::{fs, path::PathBuf, process::Command};

use tempfile::TempDir;

use crate::{
    keys::KeyKind,
    pki::certificate_for,
    tools::{command, run},
};

/// A card, which knows nobody's PIN yet.
pub struct PivCard {
    folder: TempDir,
    keys: Vec<PivKey>,
    pin: Vec<u8>,
    tries: u8,
    /// Whether the PIN was verified since the card was powered.
    is_verified: bool,
    /// Whether no key was used since then.
    is_fresh: bool,
    /// What commands have sent of a longer one (ISO 7816-4, chaining).
    chained: Vec<u8>,
    /// What is left of an answer that is longer than one may be.
    rest: Vec<u8>,
    is_piv: bool,
}

/// A place for a key, by its key reference, which says when it wants the PIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// For the holder to sign in: the PIN once.
    Authentication = 0x9a,
    /// For the holder's signature: the PIN before each.
    Signature = 0x9c,
    /// For the card itself: no PIN.
    Card = 0x9e,
}

struct PivKey {
    place: Place,
    kind: KeyKind,
    private: PathBuf,
    certificate: Vec<u8>,
}

/// `3B`: direct convention. `80`, `01`: T=1 alone. No historical bytes, and so nothing that a driver might know.
pub(crate) const ATR: &[u8] = &[0x3b, 0x80, 0x01, 0x81];

const APPLICATION: &[u8] = b"\xa0\x00\x00\x03\x08\x00\x00\x10\x00\x01\x00";
const TRIES: u8 = 5;

/// The two bytes that end each answer.
mod status {
    pub const OK: u16 = 0x9000;
    pub const MORE: u16 = 0x6100;
    pub const WRONG_PIN: u16 = 0x63c0;
    pub const WRONG_LENGTH: u16 = 0x6700;
    pub const NO_PIN: u16 = 0x6982;
    pub const LOCKED: u16 = 0x6983;
    pub const WRONG_DATA: u16 = 0x6a80;
    pub const NOT_FOUND: u16 = 0x6a82;
    pub const UNKNOWN: u16 = 0x6d00;
}

impl PivCard {
    /// A card without keys.
    pub fn new(pin: &str) -> Self {
        Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
            keys: Vec::new(),
            pin: padded(pin),
            tries: TRIES,
            is_verified: false,
            is_fresh: false,
            chained: Vec::new(),
            rest: Vec::new(),
            is_piv: true,
        }
    }

    /// A card with another application than PIV.
    pub fn of_another_kind() -> Self {
        Self {
            is_piv: false,
            ..Self::new("")
        }
    }

    /// Puts a key pair and its certificate into a place.
    pub fn add_key(&mut self, place: Place, kind: KeyKind) {
        let private = self.folder.path().join(format!("{place:?}.pem"));
        run(command("openssl")
            .arg("genpkey")
            .args(kind.openssl_arguments())
            .arg("-out")
            .arg(&private));
        let spki = run(command("openssl")
            .args(["pkey", "-pubout", "-outform", "DER", "-in"])
            .arg(&private));
        self.keys.push(PivKey {
            place,
            kind,
            private,
            certificate: certificate_for(&spki),
        });
    }

    /// Forgets what it was told, as without power.
    pub(crate) fn reset(&mut self) {
        (self.is_verified, self.is_fresh) = (false, false);
        self.chained.clear();
        self.rest.clear();
    }

    /// The answer to a command (ISO 7816-4, with lengths of one byte).
    pub(crate) fn answer(&mut self, command: &[u8]) -> Vec<u8> {
        let [class, instruction, p1, p2, rest @ ..] = command else {
            return status::WRONG_LENGTH.to_be_bytes().into();
        };
        if !self.is_piv {
            return status::UNKNOWN.to_be_bytes().into();
        }
        // Without data the next byte, if any, is the length of the answer.
        let data = match rest {
            [length, data @ ..] if data.len() >= usize::from(*length) => {
                &data[..usize::from(*length)]
            }
            _ => &[],
        };
        self.chained.extend_from_slice(data);
        if class & 0x10 != 0 {
            return status::OK.to_be_bytes().into();
        }
        let data = std::mem::take(&mut self.chained);
        let (answer, status) = match (instruction, p1, p2) {
            (0xa4, 0x04, 0x00) => select(&data),
            (0xcb, 0x3f, 0xff) => self.get_data(&data),
            (0xc0, 0x00, 0x00) => (std::mem::take(&mut self.rest), status::OK),
            (0x20, 0x00, 0x80) => (Vec::new(), self.verify(&data)),
            (0x24, 0x00, 0x80) => (Vec::new(), self.change_pin(&data)),
            (0x87, _, key) => self.sign(*key, &data),
            _ => (Vec::new(), status::UNKNOWN),
        };
        self.cut(answer, status)
    }

    /// No more than an answer may hold; the rest waits.
    fn cut(&mut self, mut answer: Vec<u8>, mut status: u16) -> Vec<u8> {
        if answer.len() > 256 {
            self.rest = answer.split_off(256);
            // 0 stands for 256 and more.
            status = status::MORE + u16::from(u8::try_from(self.rest.len()).unwrap_or(0));
        }
        answer.extend_from_slice(&status.to_be_bytes());
        answer
    }

    fn get_data(&self, data: &[u8]) -> (Vec<u8>, u16) {
        let certificate = |place| {
            self.keys
                .iter()
                .find(|key| key.place == place)
                .map(certificate)
        };
        let found = match data {
            // Discovery: the PIN is the application's own.
            [0x5c, 1, 0x7e] => Some(tlv(
                0x7e,
                &[tlv(0x4f, APPLICATION), b"\x5f\x2f\x02\x40\x00".to_vec()].concat(),
            )),
            // The holder's identifier, unsigned: FASC-N, GUID, date of expiry.
            [0x5c, 3, 0x5f, 0xc1, 0x02] => Some(tlv(
                0x53,
                &[
                    tlv(0x30, &[0x11; 25]),
                    tlv(0x34, b"a card of a test"),
                    tlv(0x35, b"20991231"),
                    tlv(0x3e, &[]),
                    tlv(0xfe, &[]),
                ]
                .concat(),
            )),
            [0x5c, 3, 0x5f, 0xc1, 0x05] => certificate(Place::Authentication),
            [0x5c, 3, 0x5f, 0xc1, 0x0a] => certificate(Place::Signature),
            [0x5c, 3, 0x5f, 0xc1, 0x01] => certificate(Place::Card),
            _ => None,
        };
        match found {
            Some(object) => (object, status::OK),
            None => (Vec::new(), status::NOT_FOUND),
        }
    }

    /// Without a PIN it is the question whether one is wanted.
    fn verify(&mut self, pin: &[u8]) -> u16 {
        if pin.is_empty() && self.is_verified {
            return status::OK;
        }
        if self.tries == 0 {
            return status::LOCKED;
        }
        if !pin.is_empty() {
            let is_right = pin == self.pin;
            (self.is_verified, self.is_fresh) = (is_right, is_right);
            self.tries = match is_right {
                true => TRIES,
                false => self.tries - 1,
            };
        }
        match self.is_verified {
            true => status::OK,
            false => status::WRONG_PIN + u16::from(self.tries),
        }
    }

    fn change_pin(&mut self, pins: &[u8]) -> u16 {
        if pins.len() != 16 {
            return status::WRONG_DATA;
        }
        let (old, new) = pins.split_at(8);
        let verdict = self.verify(old);
        if verdict == status::OK {
            self.pin = new.into();
        }
        verdict
    }

    /// GENERAL AUTHENTICATE with a challenge and an empty place for the answer: a signature, for RSA without padding.
    fn sign(&mut self, key: u8, template: &[u8]) -> (Vec<u8>, u16) {
        let Some(key) = self.keys.iter().find(|known| known.place as u8 == key) else {
            return (Vec::new(), status::NOT_FOUND);
        };
        let may = match key.place {
            Place::Authentication => self.is_verified,
            Place::Signature => self.is_fresh,
            Place::Card => true,
        };
        if !may {
            return (Vec::new(), status::NO_PIN);
        }
        self.is_fresh = false;
        let challenge = value(template, 0x7c).and_then(|inner| value(inner, 0x81));
        let Some(challenge) = challenge else {
            return (Vec::new(), status::WRONG_DATA);
        };
        let file = self.folder.path().join("challenge");
        fs::write(&file, challenge).unwrap();
        let signature = run(key.private_operation().arg("-in").arg(&file));
        (tlv(0x7c, &tlv(0x82, &signature)), status::OK)
    }
}

impl PivKey {
    fn private_operation(&self) -> Command {
        let mut openssl = command("openssl");
        openssl.arg("pkeyutl").arg("-inkey").arg(&self.private);
        match self.kind {
            KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096 => {
                openssl.args(["-decrypt", "-pkeyopt", "rsa_padding_mode:none"])
            }
            _ => openssl.arg("-sign"),
        };
        openssl
    }
}

fn select(application: &[u8]) -> (Vec<u8>, u16) {
    if application.len() < 5 || !APPLICATION.starts_with(application) {
        return (Vec::new(), status::NOT_FOUND);
    }
    let authority = tlv(0x79, &tlv(0x4f, &APPLICATION[..5]));
    let template = [tlv(0x4f, &APPLICATION[5..]), authority].concat();
    (tlv(0x61, &template), status::OK)
}

/// The object that holds a certificate, as it is: not compressed.
fn certificate(key: &PivKey) -> Vec<u8> {
    let parts = [tlv(0x70, &key.certificate), tlv(0x71, &[0]), tlv(0xfe, &[])];
    tlv(0x53, &parts.concat())
}

/// A PIN as it is sent.
fn padded(pin: &str) -> Vec<u8> {
    let mut bytes = pin.as_bytes().to_vec();
    bytes.resize(8, 0xff);
    bytes
}

/// Tag, length and value (ISO 7816-4, BER).
fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).expect("a short value");
    let [high, low] = length.to_be_bytes();
    let length: &[u8] = match length {
        ..0x80 => &[low],
        0x80..0x100 => &[0x81, low],
        _ => &[0x82, high, low],
    };
    [&[tag], length, value].concat()
}

/// The value of the first element of this tag.
fn value(mut elements: &[u8], tag: u8) -> Option<&[u8]> {
    loop {
        let (found, length, rest) = match elements {
            [tag, 0x82, high, low, rest @ ..] => (tag, u16::from_be_bytes([*high, *low]), rest),
            [tag, 0x81, low, rest @ ..] | [tag, low @ ..=0x7f, rest @ ..] => {
                (tag, u16::from(*low), rest)
            }
            _ => return None,
        };
        let (value, after) = rest.split_at_checked(usize::from(length))?;
        if *found == tag {
            return Some(value);
        }
        elements = after;
    }
}
