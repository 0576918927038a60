//! The table of states: what becomes of a PIN, by how its token stands towards it, and by whose it is.
//!
//! Nothing here, in [`pin_guard`](super::pin_guard) or in [`misses`](super::misses) calls the module, reads a clock or a
//! file.

use std::time::Duration;

use crate::engine::module::TokenFlags;

/// How a token stands towards one PIN: the first of these that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Its user has missed too often, and waits for so long.
    Waiting(Duration),
    /// The token is logged in with this PIN.
    Open,
    /// The token is logged in with another PIN.
    OpenOther,
    /// The token takes no PIN.
    Locked,
    /// The token has one try left.
    FinalTry,
    /// The token has refused this PIN.
    Refused,
    /// The last answer to this PIN told nothing, or the process has died before there was one. It waits for so long.
    Unclear(Duration),
    /// That was so twice, and the token has never accepted it.
    UnclearTwice,
    /// The token has accepted this PIN last.
    Accepted,
    /// The token, or its TPM, has refused as many as it may.
    Spent,
    /// It is the default PIN, and a try was used.
    TryUsed,
    /// None of these, in a request that had the module reloaded and tries once more.
    Reloaded,
    /// None of these.
    New,
}

/// What becomes of a PIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It may be sent to the token.
    Send,
    /// The token is logged in with it already.
    Use,
    /// Neither.
    Refuse,
    /// Neither, and it is a miss of its user.
    Miss,
}

/// The table. What is typed at a PIN pad is not known before.
///
/// A client's PIN that may not be sent is a miss, so that trying does not tell quickly which one would be sent.
#[rustfmt::skip]
pub(crate) fn fate(state: State, owner: Owner) -> Fate {
    use Fate::{Miss, Refuse, Send, Use};
    /// That cannot be.
    const NEVER: Fate = Refuse;
    let [server, default, client, pin_pad] = match state {
        //                      server's  default   a client's  PIN pad
        State::Waiting(_)   => [NEVER,    NEVER,    Refuse,     NEVER],
        State::Open         => [Use,      Use,      Use,        NEVER],
        State::OpenOther    => [Refuse,   Refuse,   Miss,       NEVER],
        State::Locked       => [Refuse,   Refuse,   Refuse,     Refuse],
        State::FinalTry     => [Refuse,   Refuse,   Refuse,     Refuse],
        State::Refused      => [Refuse,   Refuse,   Miss,       NEVER],
        State::Unclear(_)   => [Refuse,   Refuse,   Refuse,     Refuse],
        State::UnclearTwice => [Refuse,   Refuse,   Refuse,     Refuse],
        State::Accepted     => [Send,     Send,     Send,       NEVER],
        State::Spent        => [Refuse,   Refuse,   Miss,       Refuse],
        State::TryUsed      => [NEVER,    Refuse,   NEVER,      NEVER],
        State::Reloaded     => [Send,     Send,     Refuse,     Send],
        State::New          => [Send,     Send,     Send,       Send],
    };
    match owner {
        Owner::Server => server,
        Owner::Default => default,
        Owner::Client(_) => client,
        Owner::PinPad => pin_pad,
    }
}

/// Whether a PIN may be sent again whose answer told nothing, or never came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    Now,
    /// After a reload and this.
    In(Duration),
    /// Not until the token accepts another one, or the operator frees it.
    Never,
}

/// The table of these. How often it was sent like that is counted over restarts, each of which is a reload after which the pause
/// begins anew; whether the token has accepted it before is known of this process alone.
#[rustfmt::skip]
pub(super) fn again(was_accepted: bool, times: u32, is_reloaded: bool, pause: Duration) -> Again {
    match (was_accepted, times, is_reloaded, pause.is_zero()) {
        // accepted  times  reloaded  pause over
        (false,      1,     true,     true )     => Again::Now,
        (false,      1,     _,        _    )     => Again::In(pause),
        (false,      _,     _,        _    )     => Again::Never,
        (true,       1,     true,     _    )     => Again::Now,
        (true,       _,     _,        true )     => Again::Now,
        (true,       _,     _,        false)     => Again::In(pause),
    }
}

/// Who has given a PIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The operator has set it.
    Server,
    /// Nobody has: it is the one that thin-edge uses by default.
    Default,
    /// A request of this user has brought it.
    Client(u32),
    /// Somebody types it at the token.
    PinPad,
}

/// Whose PIN it is on the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Role {
    /// The normal user's.
    User,
    /// The security officer's.
    So,
}

/// What a token says of its tries (`CK_TOKEN_INFO.flags`, PKCS#11 section 3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tries {
    pub locked: bool,
    pub final_try: bool,
    pub some_used: bool,
}

impl Tries {
    /// What the flags say of one role's PIN.
    pub fn of(flags: &TokenFlags, role: Role) -> Tries {
        match role {
            Role::User => Tries {
                locked: flags.user_pin_locked(),
                final_try: flags.user_pin_final_try(),
                some_used: flags.user_pin_count_low(),
            },
            Role::So => Tries {
                locked: flags.so_pin_locked(),
                final_try: flags.so_pin_final_try(),
                some_used: flags.so_pin_count_low(),
            },
        }
    }
}
