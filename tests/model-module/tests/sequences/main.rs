//! Tens of thousands of sequences, played against the real engine with tokens that count tries, in simulated time.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod clock;
mod game;
mod kept;
mod rules;

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use p11_model_module::{Answer, Role, SO, Token, device};
use proptest::prelude::*;

use crate::game::{Game, Setting, Step};

/// How long a PIN of which nothing was told waits.
const PAUSE: u64 = 120;

/// A device, and what happens to it. Its `Debug` is what proptest prints of the smallest one that fails: the lines of a test.
struct Case {
    setting: Setting,
    steps: Vec<Step>,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Setting {
            tokens,
            in_tpm,
            tries,
            has_flags,
            server,
        } = &self.setting;
        writeln!(f, "plain({}, {in_tpm}, {server:?})", tokens.len())?;
        writeln!(f, "    with {tries} tries, flags: {has_flags}")?;
        for (index, token) in tokens.iter().enumerate() {
            let Token {
                right,
                has_pad,
                always_authenticate,
                ..
            } = token;
            writeln!(
                f,
                "    tokens[{index}]: right {right}, has_pad {has_pad}, always_authenticate {always_authenticate}"
            )?;
        }
        let mut steps = self.steps.iter();
        steps.try_for_each(|step| writeln!(f, "    Step::{step:?},"))
    }
}

/// Sequences as plain bytes, which are made and shrunk quickly.
fn steps(tokens: usize) -> impl Strategy<Value = Vec<Step>> {
    let steps = proptest::collection::vec(any::<[u8; 5]>(), 1..16);
    steps.prop_map(move |steps| steps.into_iter().map(|bytes| step(bytes, tokens)).collect())
}

fn step([kind, token, user, number, new]: [u8; 5], tokens: usize) -> Step {
    let token = usize::from(token) % tokens;
    // Half of the requests bring a PIN of their own, of one of three users.
    let own = (user % 2 == 1).then(|| (1 + u32::from(user / 2 % 3), 1 + number % 11));
    let new = 1 + new % 4;
    let so = match number % 4 {
        0 => 201 + number / 4 % 3,
        _ => SO,
    };
    let seconds = match user % 2 {
        0 => 1 + u64::from(number) % 9,
        _ => 100 + u64::from(number) * 20,
    };
    let answer = match user % 2 {
        0 => Answer::Unclear,
        _ => Answer::Dies,
    };
    match kind % 32 {
        0..8 | 10 | 11 | 27 => Step::Ask(token, own),
        8 => Step::Unclear(token, own),
        9 => Step::Retry(token, own),
        12 | 13 => Step::Type(token, new),
        14..17 => Step::Lost(token),
        17 => Step::Reload,
        18 => Step::Restart,
        19 => Step::Sighup((number % 4 > 0).then_some(new)),
        20 => Step::ChangedElsewhere(token, new),
        21 | 22 => Step::ChangePin(token, own, new),
        23 | 24 => Step::Reset(token, so, new),
        25 => Step::InitToken(token, so, new),
        26 => Step::Dies(token, own),
        28 => Step::Officer(token, so, answer),
        _ => Step::Time(seconds),
    }
}

/// Devices with one token, or with several.
fn cases(in_tpm: bool) -> impl Strategy<Value = Case> {
    let tokens = prop_oneof![3 => Just(1_usize), 3 => Just(2), 1 => Just(3)];
    let all = tokens.prop_flat_map(case);
    all.prop_map(move |mut case| {
        case.setting.in_tpm = in_tpm;
        case
    })
}

fn case(tokens: usize) -> impl Strategy<Value = Case> {
    let few = || prop::bool::weighted(0.1);
    let token = (1_u8..5, few(), few());
    let token = token.prop_map(|(right, has_pad, always_authenticate)| {
        let mut token = Token::new(right);
        (token.has_pad, token.always_authenticate) = (has_pad, always_authenticate);
        token
    });
    let of_tokens = proptest::collection::vec(token, tokens);
    let tries = prop_oneof![Just(3_u32), Just(10)];
    let server = proptest::option::of(1_u8..5);
    let setting = (of_tokens, any::<bool>(), tries, any::<bool>(), server);
    let setting = setting.prop_map(|(tokens, in_tpm, tries, has_flags, server)| Setting {
        tokens,
        in_tpm,
        tries,
        has_flags,
        server,
    });
    (setting, steps(tokens)).prop_map(|(setting, steps)| Case { setting, steps })
}

/// What breaks the rules is answered, not panicked at: else each attempt of proptest to make it smaller would be a line of the log.
fn play(setting: &Setting, steps: &[Step]) -> Result<(), TestCaseError> {
    let _alone = alone();
    let mut game = Game::new(setting);
    steps.iter().try_for_each(|step| {
        game.step(step);
        let broken = |why| TestCaseError::fail(format!("{why} after {step:?}"));
        game.rules.check().map_err(broken)
    })
}

/// There is one device, and one time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

proptest! {
    #![proptest_config(config(4_000))]

    /// Never more refusals than the rules allow, and no more guesses, whatever happens.
    #[test]
    fn no_sequence_uses_up_more_tries_of_cards_than_the_rules_allow(case in cases(false)) {
        play(&case.setting, &case.steps)?;
    }

    /// The same where all tokens lie in one TPM.
    #[test]
    fn no_sequence_uses_up_more_tries_of_a_tpm_than_the_rules_allow(case in cases(true)) {
        play(&case.setting, &case.steps)?;
    }

    /// Where the server's PIN is right, and stays so, it always gets in, whatever clients do.
    #[test]
    fn the_servers_own_right_pin_always_gets_in(case in case(1)) {
        let _alone = alone();
        let (mut game, right) = with_right_pin(&case);
        for step in &case.steps {
            match step {
                Step::Ask(..) | Step::Retry(..) | Step::Lost(_) | Step::Reload
                | Step::Restart | Step::Time(_) => {}
                Step::ChangePin(_, _, new) if *new == right => {}
                _ => continue,
            }
            game.step(step);
            let asked = game.ask(0, None);
            prop_assert!(asked.is_ok(), "{asked:?} after {step:?}");
            prop_assert_eq!(game.rules.refusals(0, Role::User), 0);
        }
    }

    /// Where a resource manager is late, the server's right PIN gets in by itself, whatever clients do, and however often the server is
    /// restarted meanwhile.
    #[test]
    fn the_servers_right_pin_gets_in_after_a_resource_manager_that_was_late(case in case(1)) {
        let _alone = alone();
        let (mut game, _) = with_right_pin(&case);
        let mut passed = 0;
        for step in &case.steps {
            let step = match *step {
                Step::Ask(_, own) | Step::Retry(_, own) => Step::Unclear(0, own),
                Step::Time(seconds) if passed + seconds < PAUSE => {
                    passed += seconds;
                    Step::Time(seconds)
                }
                Step::Unclear(..) | Step::Lost(_) | Step::Reload | Step::Restart => *step,
                _ => continue,
            };
            game.step(&step);
        }
        game.step(&Step::Time(PAUSE));
        let asked = game.ask(0, None);
        prop_assert!(asked.is_ok(), "{asked:?}");
    }

    /// Where the server has none, or a wrong one, the PIN that the token has accepted gets in all the same.
    #[test]
    fn a_pin_that_was_accepted_is_not_held_up_by_refusals_of_others(case in case(1)) {
        let _alone = alone();
        let mut setting = case.setting.clone();
        let right = setting.tokens[0].right;
        setting.tokens[0].has_pad = false;
        setting.server = setting.server.filter(|server| *server != right);
        let mut game = Game::new(&setting);
        let asked = game.ask(0, Some((77, right)));
        prop_assert!(asked.is_ok(), "{asked:?}");
        for step in &case.steps {
            match step {
                Step::Ask(..) | Step::Retry(..) | Step::Lost(_) | Step::Reload | Step::Time(_) => {}
                _ => continue,
            }
            game.step(step);
            let is_final = device().is_final(0);
            let asked = game.ask(0, Some((77, right)));
            prop_assert!(is_final || asked.is_ok(), "{asked:?} after {step:?}");
        }
    }
}

proptest! {
    #![proptest_config(config(500))]

    /// Where the server's PIN is right, all together have ten guesses an hour; and after an hour at most, who has the right one is
    /// let in.
    #[test]
    fn guessing_costs_time_and_shuts_nobody_out_for_longer_than_an_hour(
        case in case(1),
        guesses in guesses(),
    ) {
        let _alone = alone();
        let (mut game, right) = with_right_pin(&case);
        for step in &guesses {
            game.step(step);
            let kept = game.rules.check();
            prop_assert!(kept.is_ok(), "{kept:?} after {step:?}");
        }
        game.step(&Step::Time(60 * 60));
        for user in 1..7 {
            let asked = game.ask(0, Some((user, right)));
            prop_assert!(asked.is_ok(), "{asked:?}");
        }
    }
}

/// Six users try PINs, one after the other.
fn guesses() -> impl Strategy<Value = Vec<Step>> {
    let step = any::<[u8; 3]>().prop_map(|[kind, user, number]| match kind % 16 {
        0 => Step::Lost(0),
        1 => Step::Retry(0, Some((1 + u32::from(user % 6), 5 + number % 99))),
        2..4 => Step::Time(1 + u64::from(number)),
        _ => Step::Ask(0, Some((1 + u32::from(user % 6), 5 + number % 99))),
    });
    proptest::collection::vec(step, 1..60)
}

/// A device with one token, and a server that has its PIN.
fn with_right_pin(case: &Case) -> (Game, u8) {
    let mut setting = case.setting.clone();
    let right = setting.tokens[0].right;
    (setting.tokens[0].has_pad, setting.server) = (false, Some(right));
    (Game::new(&setting), right)
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        // PROPTEST_CASES may say more.
        cases: ProptestConfig::default().cases.max(cases),
        max_shrink_iters: 20_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}
