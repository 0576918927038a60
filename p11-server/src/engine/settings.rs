//! What the operator decides about the engine, and its deadlines.

use std::ffi::CString;
use std::path::PathBuf;
use std::time::Duration;

use p11_proto::Pin;
use p11_uri::Uri;

/// What the operator decides and may change while the engine runs.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Settings {
    /// The PIN for requests that bring none.
    pub pin: Option<Pin>,
    /// Where the operator has set it, for people.
    pub pin_origin: Option<String>,
    /// Whether it is a default that nobody has set: it is tried once per token, while no try was used, and never for a new
    /// token.
    pub pin_is_default: bool,
    /// PINs that the operator has set elsewhere, each with where, and that are not used: only to tell which of them are out of
    /// date.
    pub other_pins: Vec<(String, Pin)>,
    /// The folder in which refused PINs are remembered from one process to the next, as salted digests: readable by the
    /// server's user alone, kept over a restart and gone after a boot. Read when the engine is loaded.
    pub refusals: Option<PathBuf>,
    /// The server's URI: its path attributes replace those of every request.
    pub scope: Uri,
    /// Whether the module shows tokens that other programs have made only when it is initialised again. Of
    /// SoftHSM that is known.
    pub reload_for_new_tokens: bool,
    /// How people are told of all that.
    pub wording: Wording,
}

/// What texts call the operator's decisions, and how each is changed, in the program that the engine works for. The default is
/// that of a program which calls the engine itself.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Wording {
    /// Whose the PIN and the URI are: "the server".
    pub owner: &'static str,
    /// Where the PIN is set.
    pub pin: &'static str,
    /// How other settings are taken over, and refused PINs freed.
    pub reload: &'static str,
    /// How refused PINs come to be remembered for the next process.
    pub refusals: &'static str,
}

impl Default for Wording {
    fn default() -> Self {
        Wording {
            owner: "this program",
            pin: "Settings::pin",
            reload: "call Engine::reconfigure",
            refusals: "Name one in Settings::refusals: of this user alone, and gone after a boot",
        }
    }
}

/// The query attribute of the server's URI that `C_Initialize` is told; p11-kit has it under this name in its files.
const INIT_TEXT: &str = "x-init-reserved";

impl Settings {
    /// What the module wants to be told by `C_Initialize`, as NSS's does.
    pub(crate) fn init_text(&self) -> Option<CString> {
        let mut query = self.scope.vendor_query();
        let (_, text) = query.find(|(name, _)| *name == INIT_TEXT)?;
        CString::new(text).ok()
    }
}

/// How long the engine waits, and for what. Tests shorten it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Timeouts {
    /// What a request to a token should take at most.
    pub request: Duration,
    /// The same for what a card may take minutes for: making an RSA key, initialising a token.
    pub long_request: Duration,
    /// What a login may take where a person types the PIN at the token.
    pub pin_pad: Duration,
    /// How long a request waits for others: a little less than for its answer, so that the client learns
    /// what it waited for.
    pub session: Duration,
    /// After how long a call keeps the slots from being looked at: what was known of its slot is kept.
    pub slow_slot: Duration,
    /// How long what was read of a token serves others who look for a key that is there.
    pub contents: Duration,
    /// How long a reload waits for running calls to return; none starts under a call that is older.
    pub drain: Duration,
    /// The first pause after a failed or repeated `C_Initialize`; it doubles up to `longest_pause`.
    pub first_pause: Duration,
    /// The longest of these pauses.
    pub longest_pause: Duration,
    /// After this long without a reload the next pause is the first again.
    pub quiet: Duration,
    /// How often a token or key that is not there may cause a reload: some modules do not look for new
    /// ones by themselves.
    pub missing: Duration,
    /// How long after a call with a PIN whose answer told nothing a PIN that the token never accepted waits before it is sent once
    /// more: so long may a resource manager be late.
    pub unclear: Duration,
    /// After this long without use a handle is checked before it signs, and a PIN's tries are looked at
    /// before it is sent.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            request: Duration::from_secs(30),
            long_request: Duration::from_secs(10 * 60),
            pin_pad: Duration::from_secs(2 * 60),
            session: Duration::from_secs(28),
            slow_slot: Duration::from_secs(2),
            contents: Duration::from_secs(2),
            drain: Duration::from_secs(5),
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(30),
            quiet: Duration::from_secs(20),
            missing: Duration::from_secs(30),
            unclear: Duration::from_secs(2 * 60),
            idle: Duration::from_secs(30),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // End-to-end tests run a server with shorter ones, so nothing else would notice a change here.
    #[test]
    fn the_usual_deadlines() {
        let Timeouts {
            request,
            long_request,
            pin_pad,
            session,
            slow_slot,
            contents,
            drain,
            first_pause,
            longest_pause,
            quiet,
            missing,
            unclear,
            idle,
        } = Timeouts::default();
        let calls = [request, long_request, pin_pad].map(|time| time.as_secs());
        assert_eq!(calls, [30, 600, 120]);
        let waits = [session, slow_slot, contents, drain].map(|time| time.as_secs());
        assert_eq!(waits, [28, 2, 2, 5]);
        let pauses = [first_pause, longest_pause, quiet, missing].map(|time| time.as_secs());
        assert_eq!(pauses, [1, 30, 20, 30]);
        assert_eq!((unclear.as_secs(), idle.as_secs()), (120, 30));
    }
}
