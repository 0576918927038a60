//! Tokens that count wrong PINs: what they hold, how they answer, and what was sent to them.

mod calls;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use cryptoki_sys::{
    CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CKR_DEVICE_REMOVED, CKR_GENERAL_ERROR,
    CKR_PIN_INCORRECT, CKR_PIN_LOCKED,
};
use p11_proto::spki::{Curve, PublicKey};

/// Who logs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The normal user.
    User,
    /// The security officer.
    So,
}

/// The security officer's PIN of every token.
pub const SO: u8 = 200;

/// A PIN, by its number.
pub fn pin(number: u8) -> String {
    format!("{number:06}")
}

/// How calls with a PIN are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// By what becomes of the PIN.
    Plainly,
    /// By what tells nothing. A wrong one has been counted, but for one that this process has seen accepted before.
    Unclear,
    /// Never: the process dies in the call.
    Dies,
}

/// A device with one token, or several, in slots of their own.
pub struct Device {
    /// In the order of their slots.
    pub tokens: Vec<Token>,
    /// Whether they lie in one TPM, which counts for all of them.
    pub in_tpm: bool,
    /// How the next calls with a PIN are answered.
    pub answer: Answer,
    /// What is done when the process dies in a call.
    pub at_death: Option<Box<dyn FnMut() + Send>>,
    /// What has come to the tokens, since the test has taken that away.
    pub events: Vec<Event>,
    /// How many wrong PINs a counter takes.
    tries: u32,
    /// Whether tokens tell of them by flags.
    has_flags: bool,
    /// Wrong PINs: of a TPM, or of each token's user and security officer.
    wrong: Vec<u32>,
    is_initialized: bool,
    /// Whether a call has found that it is not.
    is_missed: bool,
    is_dead: bool,
    sessions: BTreeMap<CK_SESSION_HANDLE, Session>,
    last_session: CK_SESSION_HANDLE,
}

/// A token.
#[derive(Clone, Debug)]
pub struct Token {
    /// The user's PIN.
    pub right: u8,
    /// Whether PINs are typed at it.
    pub has_pad: bool,
    /// Whether its key wants a login for each signature.
    pub always_authenticate: bool,
    /// What somebody is about to type.
    pub typed: Option<u8>,
    /// Whether it was initialised, and has a label and keys.
    is_made: bool,
    has_user_pin: bool,
    logged_in: Option<Role>,
    /// What this process has seen accepted last: the user's and the security officer's.
    accepted: [Option<u8>; 2],
}

/// What has come to a token.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// A PIN.
    Sent(Sent),
    /// Its user has changed the PIN.
    Changed {
        /// The index of the token.
        token: usize,
        /// The PIN until then.
        old: u8,
        /// The PIN from then on.
        new: u8,
    },
    /// The module was initialised anew, since a call has found that it was not.
    Reloaded,
    /// It was initialised, or the security officer has set the user's PIN: the index of the token.
    Reset(usize),
}

/// A PIN that was sent to a token.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// The index of the token.
    pub token: usize,
    /// Whose PIN it is.
    pub role: Role,
    /// Which.
    pub pin: u8,
    /// Whether it was typed at the token.
    pub is_typed: bool,
    /// Whether it is the one.
    pub is_right: bool,
    /// Whether the process has seen it accepted last.
    pub was_accepted: bool,
    /// Whether the token has said that a wrong one locks it, or that it is locked.
    pub was_final: bool,
    /// Whether the token was locked, and has not looked at it.
    pub was_locked: bool,
    /// Whether it was for a single signature.
    pub is_for_signature: bool,
    /// How it was answered.
    pub answer: Answer,
}

struct Session {
    token: usize,
    is_read_write: bool,
    /// What a search still has to tell.
    found: Vec<CK_OBJECT_HANDLE>,
    /// A signature that was begun, and whether it waits for a login.
    signing: Option<bool>,
}

/// The public half of the key of every token. Any point will do, since nobody verifies a signature.
pub fn public_key() -> &'static PublicKey {
    static KEY: OnceLock<PublicKey> = OnceLock::new();
    #[allow(
        clippy::expect_used,
        reason = "a panic is how a test says what is wrong"
    )]
    KEY.get_or_init(|| PublicKey::ec(Curve::P256, &[4; 65]).expect("it has the form of a point"))
}

impl Token {
    /// One with this PIN of its user, and a key that signs after a login.
    pub fn new(right: u8) -> Token {
        Token {
            right,
            has_pad: false,
            always_authenticate: false,
            typed: None,
            is_made: true,
            has_user_pin: true,
            logged_in: None,
            accepted: [None, None],
        }
    }

    fn log_out(&mut self) {
        self.logged_in = None;
    }
}

impl Device {
    pub(crate) const fn new() -> Device {
        Device {
            tokens: Vec::new(),
            in_tpm: false,
            answer: Answer::Plainly,
            at_death: None,
            events: Vec::new(),
            tries: 0,
            has_flags: false,
            wrong: Vec::new(),
            is_initialized: false,
            is_missed: false,
            is_dead: false,
            sessions: BTreeMap::new(),
            last_session: 0,
        }
    }

    /// Another device takes the place of this one.
    pub fn replace(&mut self, tokens: Vec<Token>, in_tpm: bool, tries: u32, has_flags: bool) {
        *self = Device {
            wrong: vec![0; 2 * tokens.len()],
            tokens,
            in_tpm,
            tries,
            has_flags,
            ..Device::new()
        };
    }

    /// Whether the process has died.
    pub fn is_dead(&self) -> bool {
        self.is_dead
    }

    /// A process has begun.
    pub fn restart(&mut self) {
        self.forget_initialization();
        (self.is_dead, self.is_missed) = (false, false);
        for token in &mut self.tokens {
            token.accepted = [None, None];
        }
    }

    /// The module knows of no `C_Initialize` any more.
    pub fn forget_initialization(&mut self) {
        self.is_initialized = false;
        self.sessions.clear();
        self.tokens.iter_mut().for_each(Token::log_out);
    }

    /// A token is pulled out and put back.
    pub fn reinsert(&mut self, index: usize) {
        self.sessions.retain(|_, session| session.token != index);
        self.tokens[index].log_out();
    }

    /// Another program gives a token's user another PIN. A card has counted nothing since.
    pub fn change_elsewhere(&mut self, index: usize, right: u8) {
        self.tokens[index].right = right;
        self.give_back(index, Role::User);
    }

    /// Another program has made a token blank. A card has counted nothing since.
    pub fn make_blank(&mut self, index: usize) {
        self.reinsert(index);
        let token = &mut self.tokens[index];
        (token.is_made, token.has_user_pin) = (false, false);
        for role in [Role::User, Role::So] {
            self.give_back(index, role);
        }
    }

    /// Whether a token was initialised.
    pub fn is_made(&self, index: usize) -> bool {
        self.tokens[index].is_made
    }

    /// Whether one more wrong PIN of the user locks a token that says so.
    pub fn is_final(&self, index: usize) -> bool {
        self.has_flags && self.left(index, Role::User) <= 1
    }

    fn counter(&self, index: usize, role: Role) -> usize {
        match self.in_tpm {
            true => 0,
            false => 2 * index + usize::from(role == Role::So),
        }
    }

    fn left(&self, index: usize, role: Role) -> u32 {
        self.tries
            .saturating_sub(self.wrong[self.counter(index, role)])
    }

    fn give_back(&mut self, index: usize, role: Role) {
        if !self.in_tpm {
            let counter = self.counter(index, role);
            self.wrong[counter] = 0;
        }
    }

    /// A PIN comes to a token.
    fn check(
        &mut self,
        index: usize,
        role: Role,
        number: u8,
        is_for_signature: bool,
    ) -> Result<(), CK_RV> {
        let token = &self.tokens[index];
        let right = match role {
            Role::User => token.right,
            Role::So => SO,
        };
        let is_typed = token.has_pad && role == Role::User;
        let was_accepted = !is_typed && token.accepted[role as usize] == Some(number);
        let left = self.left(index, role);
        let sent = Sent {
            token: index,
            role,
            pin: number,
            is_typed,
            is_right: number == right,
            was_accepted,
            was_final: self.has_flags && left <= 1,
            was_locked: left == 0,
            is_for_signature,
            answer: self.answer,
        };
        self.events.push(Event::Sent(sent));
        if left == 0 {
            return Err(CKR_PIN_LOCKED);
        }
        let counter = self.counter(index, role);
        match sent.answer {
            Answer::Plainly if sent.is_right => {
                self.give_back(index, role);
                self.tokens[index].accepted[role as usize] = (!is_typed).then_some(number);
                Ok(())
            }
            Answer::Plainly => {
                self.wrong[counter] += 1;
                if was_accepted {
                    self.tokens[index].accepted[role as usize] = None;
                }
                Err(CKR_PIN_INCORRECT)
            }
            Answer::Unclear | Answer::Dies => {
                let counts = !sent.is_right && !was_accepted;
                self.wrong[counter] += u32::from(counts);
                if sent.answer == Answer::Unclear {
                    return Err(CKR_GENERAL_ERROR);
                }
                self.is_dead = true;
                if let Some(at_death) = &mut self.at_death {
                    at_death();
                }
                Err(CKR_DEVICE_REMOVED)
            }
        }
    }
}
