//! What users, operators and other programs do with one device, through the real engine.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use p11_model_module::{Answer, Event, Role, Token, device, load, pin, public_key};
use p11_proto::message::{ChangePin, InitToken, ListTokens, Sign};
use p11_proto::{ErrorCode, Pin, Request, Scheme, UriText};
use p11_server::{Access, Engine, Error, Service, Settings, Timeouts};
use p11_uri::{ObjectInfo, TokenInfo};
use tempfile::TempDir;

use crate::clock;
use crate::rules::Rules;

/// A device, and what its server is told at the start.
#[derive(Clone, Debug)]
pub struct Setting {
    pub tokens: Vec<Token>,
    pub in_tpm: bool,
    /// How many wrong PINs are counted, and whether flags tell.
    pub tries: u32,
    pub has_flags: bool,
    pub server: Option<u8>,
}

/// The PIN that a request brings, and its user.
pub type Own = Option<(u32, u8)>;

#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// A signature.
    Ask(usize, Own),
    /// The same, whose login is answered with what tells nothing.
    Unclear(usize, Own),
    /// The same, whose login kills the process.
    Dies(usize, Own),
    /// The security officer resets the PIN, and the logins are answered like that.
    Officer(usize, u8, Answer),
    /// A signature that has the module reloaded, and is tried once more.
    Retry(usize, Own),
    /// A signature for which somebody types at the PIN pad.
    Type(usize, u8),
    /// The token is pulled out and put back.
    Lost(usize),
    /// The module is initialised anew.
    Reload,
    Restart,
    Sighup(Option<u8>),
    /// Another program changes the PIN; what is logged in stays so.
    ChangedElsewhere(usize, u8),
    ChangePin(usize, Own, u8),
    Reset(usize, u8, u8),
    /// Another program makes the token blank, if it is not, and a request initialises it.
    InitToken(usize, u8, u8),
    Time(u64),
}

/// What took the place of the server's PIN on a token whose PIN was changed through us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Replaced {
    Nothing,
    Servers(u8),
    Clients,
}

/// The engine of one device, until it is restarted; then the next one.
pub struct Game {
    engine: Option<Engine>,
    server: Option<u8>,
    replaced: Vec<Replaced>,
    memory: Memory,
    pub rules: Rules,
}

/// The folder of refusals, which outlives the process.
struct Memory(TempDir);

/// A user that may do everything.
struct User(u32);

impl Access for User {
    fn check(&self, _: &TokenInfo, _: Option<&ObjectInfo>) -> Result<(), Error> {
        Ok(())
    }

    fn user(&self) -> u32 {
        self.0
    }
}

impl Game {
    pub fn new(setting: &Setting) -> Game {
        let Setting {
            tokens,
            in_tpm,
            tries,
            has_flags,
            server,
        } = setting;
        device().replace(tokens.clone(), *in_tpm, *tries, *has_flags);
        let mut game = Game {
            engine: None,
            server: *server,
            replaced: vec![Replaced::Nothing; tokens.len()],
            memory: Memory::new(),
            rules: Rules::new(*in_tpm),
        };
        game.start();
        game
    }

    fn start(&mut self) {
        let mut timeouts = Timeouts::default();
        // Of reloads and of tokens that fail. They are about no PIN.
        timeouts.first_pause = Duration::ZERO;
        timeouts.longest_pause = Duration::ZERO;
        let engine = Engine::load_with(&load(), self.settings(), timeouts);
        self.engine = Some(engine.unwrap());
    }

    fn settings(&self) -> Settings {
        let mut settings = Settings::default();
        settings.pin = self.server.map(|number| Pin::from(pin(number)));
        settings.refusals = Some(self.memory.folder());
        settings
    }

    pub fn step(&mut self, step: &Step) {
        match *step {
            Step::Ask(token, own) => drop(self.ask(token, own)),
            Step::Unclear(token, own) => {
                drop(self.sign(token, own, Answer::Unclear));
            }
            Step::Dies(token, own) => drop(self.sign(token, own, Answer::Dies)),
            Step::Officer(token, so, answer) => self.reset(token, so, 1, answer),
            Step::Retry(token, own) => {
                device().forget_initialization();
                drop(self.ask(token, own));
            }
            Step::Type(token, number) => {
                device().tokens[token].typed = Some(number);
                drop(self.ask(token, None));
                device().tokens[token].typed = None;
            }
            Step::Lost(token) => device().reinsert(token),
            Step::Reload => {
                device().forget_initialization();
                let list = Request::ListTokens(ListTokens::default());
                self.call(0, &list, Answer::Plainly).unwrap();
            }
            Step::Restart => self.restart(),
            Step::Sighup(server) => self.sighup(server),
            Step::ChangedElsewhere(token, new) => {
                let mut device = device();
                let is_another = device.tokens[token].right != new;
                device.change_elsewhere(token, new);
                self.rules.changed_elsewhere(token, is_another);
            }
            Step::ChangePin(token, own, new) => self.change_pin(token, own, new),
            Step::Reset(token, so, new) => self.reset(token, so, new, Answer::Plainly),
            Step::InitToken(token, so, new) => self.init_token(token, so, new),
            Step::Time(seconds) => clock::pass(Duration::from_secs(seconds)),
        }
    }

    /// A signature.
    pub fn ask(&mut self, token: usize, own: Own) -> Result<(), Error> {
        self.sign(token, own, Answer::Plainly)
    }

    fn sign(&mut self, token: usize, own: Own, answer: Answer) -> Result<(), Error> {
        let scheme = Scheme::EcdsaP256Sha256.number();
        let (message, identity) = (b"message".to_vec(), public_key().identity());
        let sign = Sign::new(uri(token), scheme, message, identity);
        let sign = sign.pin(own.map(|(_, number)| Pin::from(pin(number))));
        let outcome = self.call(user(own), &Request::Sign(sign), answer);
        self.told(token, own, &outcome);
        outcome
    }

    /// What a user has learned of the PIN that came with a request.
    fn told(&mut self, token: usize, own: Own, outcome: &Result<(), Error>) {
        let Some((user, number)) = own.filter(|_| !device().tokens[token].has_pad) else {
            return;
        };
        match outcome {
            Ok(()) => self.rules.told_right(token, user),
            // That no other is tried tells as much: the right one may be.
            Err(error)
                if error.code() == ErrorCode::PinIncorrect
                    || error.to_string().contains("no other is tried") =>
            {
                self.rules.told_wrong(token, user, number);
            }
            Err(_) => {}
        }
    }

    fn change_pin(&mut self, token: usize, own: Own, new: u8) {
        let server = self.server_pin(token);
        let change = ChangePin::new(pin(new))
            .uri(uri(token))
            .old_pin(own.map(|(_, number)| Pin::from(pin(number))));
        let request = Request::ChangePin(change);
        let outcome = self.call(user(own), &request, Answer::Plainly);
        self.told(token, own, &outcome);
        let old = own.map(|(_, number)| number).or(server);
        if let (Ok(()), Some(old)) = (outcome, old) {
            self.replaced[token] = match server == Some(old) {
                true => Replaced::Servers(new),
                false => Replaced::Clients,
            };
        }
    }

    fn reset(&mut self, token: usize, so: u8, new: u8, answer: Answer) {
        let was_the_servers = self.server_pin(token) == Some(device().tokens[token].right);
        let change = ChangePin::new(pin(new)).uri(uri(token)).reset(true);
        let request = Request::ChangePin(change.so_pin(Pin::from(pin(so))));
        if self.call(1, &request, answer).is_ok() {
            self.replaced[token] = match was_the_servers {
                true => Replaced::Servers(new),
                false => Replaced::Clients,
            };
        }
    }

    fn init_token(&mut self, token: usize, so: u8, new: u8) {
        if device().is_made(token) {
            device().make_blank(token);
            self.rules.reset(token);
        }
        let init = InitToken::new(format!("t{token}"))
            .uri(UriText::from(format!("pkcs11:slot-id={token}")))
            .so_pin(Pin::from(pin(so)))
            .pin(Pin::from(pin(new)));
        if self
            .call(1, &Request::InitToken(init), Answer::Plainly)
            .is_ok()
        {
            self.replaced[token] = Replaced::Clients;
        }
    }

    fn restart(&mut self) {
        // The old one writes nothing any more.
        self.engine = None;
        self.memory.bring_back();
        device().restart();
        self.rules.restarted(self.server);
        for replaced in &mut self.replaced {
            if let Replaced::Servers(_) = replaced {
                *replaced = Replaced::Nothing;
            }
        }
        self.start();
    }

    fn sighup(&mut self, server: Option<u8>) {
        let has_other_pin = server != self.server;
        self.server = server;
        for replaced in &mut self.replaced {
            if let (true, Replaced::Servers(_)) = (has_other_pin, &*replaced) {
                *replaced = Replaced::Nothing;
            }
        }
        self.engine.as_ref().unwrap().reconfigure(self.settings());
        self.rules.freed();
    }

    /// A request of a user, and how calls with a PIN are answered meanwhile.
    fn call(&mut self, user: u32, request: &Request, answer: Answer) -> Result<(), Error> {
        let folder = self.memory.folder();
        {
            let mut device = device();
            device.answer = answer;
            device.at_death = Some(Box::new(move || Memory::put_away(&folder)));
        }
        let engine = self.engine.as_ref().unwrap();
        let outcome = engine.call(request, &User(user)).map(drop);
        let events = std::mem::take(&mut device().events);
        for event in &events {
            self.note(event);
        }
        self.rules.answered();
        if device().is_dead() {
            self.restart();
        }
        outcome
    }

    fn note(&mut self, event: &Event) {
        let sent = match event {
            Event::Sent(sent) => sent,
            Event::Changed { token, old, new } => return self.rules.changed(*token, *old, *new),
            Event::Reset(token) => return self.rules.reset(*token),
            Event::Reloaded => return self.rules.reloaded(),
        };
        let server = self.server_pin(sent.token);
        self.rules.sent(sent, server);
        let is_refused = sent.answer == Answer::Plainly && !sent.is_right && !sent.was_locked;
        if is_refused && sent.role == Role::User && server == Some(sent.pin) {
            self.replaced[sent.token] = Replaced::Nothing;
        }
    }

    fn server_pin(&self, token: usize) -> Option<u8> {
        match self.replaced[token] {
            Replaced::Nothing => self.server,
            Replaced::Servers(pin) => Some(pin),
            Replaced::Clients => None,
        }
    }
}

impl Memory {
    fn new() -> Memory {
        let in_memory = tempfile::tempdir_in("/dev/shm");
        let memory = Memory(in_memory.or_else(|_| tempfile::tempdir()).unwrap());
        fs::create_dir(memory.folder()).unwrap();
        memory
    }

    fn folder(&self) -> PathBuf {
        self.0.path().join("refusals")
    }

    fn away(folder: &std::path::Path) -> PathBuf {
        folder.with_extension("away")
    }

    /// What a process that has died would write goes nowhere.
    fn put_away(folder: &std::path::Path) {
        fs::rename(folder, Memory::away(folder)).unwrap();
    }

    fn bring_back(&self) {
        let folder = self.folder();
        let _ = fs::rename(Memory::away(&folder), folder);
    }
}

fn user(own: Own) -> u32 {
    own.map_or(0, |(user, _)| user)
}

fn uri(token: usize) -> UriText {
    UriText::from(format!("pkcs11:token=t{token}"))
}
