//! Tens of thousands of sequences against model tokens that count tries, in simulated time.

use std::collections::HashSet;
use std::fmt;

use proptest::prelude::*;

use super::PAUSE;
use super::model::{Counter, How, Replaced, SO, Step, Token, World};

/// Sequences as plain bytes, which are made and shrunk quickly.
fn steps(tokens: usize) -> impl Strategy<Value = Vec<Step>> {
    let steps = proptest::collection::vec(any::<[u8; 5]>(), 1..40);
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
    let how = match user % 2 {
        0 => How::Unclear,
        _ => How::Dies,
    };
    match kind % 32 {
        0..8 => Step::Ask(token, own),
        8 => Step::Unclear(token, own),
        9 => Step::Retry(token, own),
        10 | 11 => Step::SignAgain(token, 1 + u32::from(user % 3)),
        12 | 13 => Step::Type(token, new),
        14..17 => Step::Lost(token),
        17 => Step::Reload,
        18 => Step::Restart,
        19 => Step::Sighup((number % 4 > 0).then_some(new)),
        20 => Step::ChangedElsewhere(token, new),
        21 | 22 => Step::ChangePin(token, own, new),
        23 | 24 => Step::Reset(token, so, new),
        25 => Step::InitToken(token, so, new),
        26 | 27 => Step::Dies(token, own),
        28 => Step::Officer(token, so, how),
        _ => Step::Time(seconds),
    }
}

fn token() -> impl Strategy<Value = Token> {
    (1_u8..5, prop::bool::weighted(0.1)).prop_map(|(right, has_pad)| Token {
        right,
        has_pad,
        open: None,
        replaced: Replaced::Nothing,
        is_stale: false,
        refused: HashSet::new(),
    })
}

fn counter() -> impl Strategy<Value = Counter> {
    (prop_oneof![Just(3_u32), Just(10)], any::<bool>()).prop_map(|(tries, has_flags)| Counter {
        tries,
        has_flags,
        wrong: 0,
        refusals: 0,
        unclear: 0,
        once_more: false,
        stale: 0,
    })
}

/// A device, and what happens to it. Its `Debug` is what proptest prints of the smallest one that fails: the lines of a test.
struct Case {
    is_tpm: bool,
    tokens: Vec<Token>,
    counter: Counter,
    server: Option<u8>,
    steps: Vec<Step>,
}

impl Case {
    fn world(&self) -> World {
        let (tokens, counter) = (self.tokens.clone(), self.counter.clone());
        World::new(tokens, counter, self.is_tpm, self.server)
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counter {
            tries, has_flags, ..
        } = self.counter;
        let (count, is_tpm, server) = (self.tokens.len(), self.is_tpm, self.server);
        writeln!(f, "plain({count}, {is_tpm}, {server:?})")?;
        writeln!(f, "    with {tries} tries, flags: {has_flags}")?;
        for (index, token) in self.tokens.iter().enumerate() {
            let Token { right, has_pad, .. } = token;
            writeln!(f, "    tokens[{index}]: right {right}, has_pad {has_pad}")?;
        }
        self.steps
            .iter()
            .try_for_each(|step| writeln!(f, "    Step::{step:?},"))
    }
}

/// What breaks the rules is answered, not panicked at: else each attempt of proptest to make it smaller would be a line of the log.
fn play(world: World, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut world = world;
    steps.iter().try_for_each(|step| {
        world.step(step);
        world.check(step).map_err(TestCaseError::fail)
    })
}

fn case(tokens: usize) -> impl Strategy<Value = Case> {
    let of_tokens = proptest::collection::vec(token(), tokens);
    let server = proptest::option::of(1_u8..5);
    let all = (any::<bool>(), of_tokens, counter(), server, steps(tokens));
    all.prop_map(|(is_tpm, tokens, counter, server, steps)| Case {
        is_tpm,
        tokens,
        counter,
        server,
        steps,
    })
}

/// Tokens without flags that take three wrong PINs.
fn plain(tokens: usize, is_tpm: bool, server: Option<u8>) -> World {
    let token = Token {
        right: 1,
        has_pad: false,
        open: None,
        replaced: Replaced::Nothing,
        is_stale: false,
        refused: HashSet::new(),
    };
    let counter = Counter {
        tries: 3,
        has_flags: false,
        wrong: 0,
        refusals: 0,
        unclear: 0,
        once_more: false,
        stale: 0,
    };
    World::new(vec![token; tokens], counter, is_tpm, server)
}

/// Found by the sequences below: a restart is no reason to send a PIN of the server to a token while another one of the same TPM has
/// refused it.
#[test]
fn a_restart_spends_no_more_of_a_tpm() {
    let steps = [
        Step::Ask(1, Some((1, 2))),
        Step::Sighup(Some(3)),
        Step::Ask(0, Some((1, 2))),
        Step::Restart,
        Step::Ask(1, None),
    ];
    play(plain(2, true, None), &steps).unwrap();
}

/// Found by the sequences below: a new PIN of the server is sent beyond the budget to one token of a TPM only.
#[test]
fn a_new_pin_is_beyond_the_budget_of_a_tpm_once() {
    let steps = [
        Step::Ask(1, None),
        Step::Sighup(Some(2)),
        Step::Ask(0, Some((1, 3))),
        Step::Ask(1, None),
    ];
    play(plain(2, true, Some(1)), &steps).unwrap();
}

/// Found by the sequences below: what was unclear, and is refused when it is sent again, was two refusals.
#[test]
fn an_unclear_answer_is_a_refusal_where_the_next_one_is() {
    let steps = [
        Step::Sighup(Some(3)),
        Step::Unclear(0, None),
        Step::Reload,
        Step::Ask(0, Some((1, 2))),
    ];
    play(plain(1, false, None), &steps).unwrap();
}

/// Found by the sequences below: an answer that tells nothing uses up what a new PIN may have beyond the budget of a TPM.
#[test]
fn an_unclear_answer_to_a_new_pin_may_be_its_refusal_by_the_tpm() {
    let steps = [
        Step::InitToken(0, SO, 1),
        Step::Sighup(Some(2)),
        Step::Unclear(2, None),
        Step::Type(1, 1),
        Step::Ask(0, None),
    ];
    let mut world = plain(3, true, None);
    (world.tokens[1].right, world.tokens[1].has_pad) = (3, true);
    play(world, &steps).unwrap();
}

/// Found by the sequences below: a TPM forgets no refusal where a token of it accepts another PIN, is reset, or is made anew.
#[test]
fn a_tpm_forgets_no_refusal() {
    let steps = [
        Step::Reset(0, SO, 1),
        Step::Sighup(Some(2)),
        Step::Unclear(0, None),
        Step::Ask(0, Some((1, 1))),
        Step::Reset(0, 201, 1),
        Step::Lost(0),
        Step::Ask(0, None),
    ];
    play(plain(1, true, None), &steps).unwrap();
}

/// Found by the sequences below: a new PIN has no more than the budget where all of that is left.
#[test]
fn a_new_pin_is_within_the_budget_where_nothing_was_refused() {
    let steps = [
        Step::Reset(0, SO, 2),
        Step::Sighup(Some(3)),
        Step::Reset(0, 202, 1),
        Step::Type(1, 2),
        Step::Ask(0, None),
    ];
    let mut world = plain(2, true, None);
    world.tokens[1].has_pad = true;
    play(world, &steps).unwrap();
}

/// Found by the sequences below: an unclear answer was about the PIN of its time.
#[test]
fn what_was_unclear_before_a_change_stays_a_try_of_the_tpm() {
    let steps = [
        Step::Ask(1, None),
        Step::Sighup(Some(4)),
        Step::Unclear(1, None),
        Step::ChangePin(1, Some((1, 1)), 4),
        Step::Ask(2, None),
        Step::ChangePin(0, None, 1),
    ];
    play(plain(3, true, Some(1)), &steps).unwrap();
}

/// Found by the sequences below: what a restart grants ends where the operator frees all.
#[test]
fn what_a_restart_grants_is_not_kept_beside_what_is_freed() {
    let steps = [
        Step::Type(1, 2),
        Step::Restart,
        Step::Sighup(Some(2)),
        Step::Type(1, 2),
        Step::Type(1, 2),
        Step::Ask(0, None),
    ];
    let mut world = plain(2, true, None);
    world.tokens[1].has_pad = true;
    play(world, &steps).unwrap();
}

/// Found by the sequences below: another program may have set the very PIN whose answer was unclear, so that it is right now and was
/// not then.
#[test]
fn what_was_unclear_stays_a_try_of_the_tpm_where_the_pin_is_accepted_later() {
    let steps = [
        Step::Unclear(0, None),
        Step::Reload,
        Step::ChangedElsewhere(0, 1),
        Step::Ask(0, None),
        Step::Reset(0, 202, 1),
        Step::ChangePin(1, None, 1),
    ];
    let mut world = plain(2, true, Some(1));
    (world.tokens[0].right, world.tokens[1].right) = (3, 2);
    play(world, &steps).unwrap();
}

/// What a restart grants is beyond the budget; where all of that is left, there is no need of it.
#[test]
fn a_restart_grants_nothing_where_nothing_was_refused() {
    let steps = [
        Step::Type(1, 2),
        Step::Sighup(Some(2)),
        Step::Restart,
        Step::Sighup(Some(2)),
        Step::Type(1, 2),
        Step::Type(1, 2),
        Step::Ask(0, None),
    ];
    let mut world = plain(2, true, None);
    world.tokens[1].has_pad = true;
    play(world, &steps).unwrap();
}

/// The server's wrong PIN, and a client's, in one life of the process after the other.
#[test]
fn what_nobody_was_told_is_counted_over_restarts() {
    for step in [
        Step::Unclear(0, None),
        Step::Dies(0, None),
        Step::Dies(0, Some((1, 3))),
        Step::Officer(0, 201, How::Unclear),
        Step::Officer(0, 201, How::Dies),
    ] {
        for is_tpm in [false, true] {
            let steps = [step, Step::Restart, Step::Time(200)];
            play(plain(1, is_tpm, Some(2)), &steps.repeat(4)).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        // PROPTEST_CASES may say more.
        cases: ProptestConfig::default().cases.max(20_000),
        max_shrink_iters: 100_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Never more refusals than the rules allow, and no more guesses.
    #[test]
    fn no_sequence_uses_up_more_tries_than_the_rules_allow(
        case in (1_usize..4).prop_flat_map(case),
    ) {
        play(case.world(), &case.steps)?;
    }

    /// Where the server's PIN is right, and stays so, it always gets in, whatever clients do.
    #[test]
    fn the_servers_own_right_pin_always_gets_in(case in case(1)) {
        let mut case = case;
        let right = case.tokens[0].right;
        (case.tokens[0].has_pad, case.server) = (false, Some(right));
        let mut world = case.world();
        for step in &case.steps {
            match step {
                Step::Ask(..) | Step::Retry(..) | Step::SignAgain(..) | Step::Lost(_) | Step::Reload
                | Step::Restart | Step::Time(_) => {}
                Step::ChangePin(_, _, new) if *new == right => {}
                _ => continue,
            }
            world.step(step);
            prop_assert!(world.ask(0, None, How::Plainly), "after {step:?}");
            prop_assert_eq!(world.counters[0].refusals, 0);
        }
    }

    /// Where a resource manager is late, the server's right PIN gets in by itself, whatever clients do, and however often the server is
    /// restarted meanwhile.
    #[test]
    fn the_servers_right_pin_gets_in_after_a_resource_manager_that_was_late(case in case(1)) {
        let mut case = case;
        let right = case.tokens[0].right;
        (case.tokens[0].has_pad, case.server) = (false, Some(right));
        let mut world = case.world();
        let late = PAUSE - std::time::Duration::from_secs(1);
        let mut passed = 0;
        for step in &case.steps {
            let step = match *step {
                Step::Ask(_, own) | Step::Retry(_, own) => Step::Unclear(0, own),
                Step::Time(seconds) if passed + seconds < late.as_secs() => {
                    passed += seconds;
                    Step::Time(seconds)
                }
                Step::Unclear(..) | Step::Lost(_) | Step::Reload | Step::Restart => *step,
                _ => continue,
            };
            world.step(&step);
        }
        world.step(&Step::Time(PAUSE.as_secs()));
        world.step(&Step::Reload);
        prop_assert!(world.ask(0, None, How::Plainly));
    }

    /// Where the server has none, or a wrong one, the PIN that the token has accepted gets in all the same.
    #[test]
    fn a_pin_that_was_accepted_is_not_held_up_by_refusals_of_others(case in case(1)) {
        let mut case = case;
        let right = case.tokens[0].right;
        case.tokens[0].has_pad = false;
        case.server = case.server.filter(|server| *server != right);
        let mut world = case.world();
        prop_assert!(world.ask(0, Some((77, right)), How::Plainly));
        for step in &case.steps {
            match step {
                Step::Ask(..) | Step::Retry(..) | Step::Lost(_) | Step::Reload | Step::Time(_) => {}
                _ => continue,
            }
            world.step(step);
            let counter = &world.counters[0];
            let is_final = counter.has_flags && counter.tries <= counter.wrong + 1;
            prop_assert!(is_final || world.ask(0, Some((77, right)), How::Plainly), "after {step:?}");
        }
    }
}
