//! Sequences that failed once, or would have.

use p11_model_module::{Answer, SO, Token};

use crate::game::{Setting, Step};
use crate::play;

/// Tokens without flags that take three wrong PINs.
fn plain(tokens: usize, in_tpm: bool, server: Option<u8>) -> Setting {
    Setting {
        tokens: vec![Token::new(1); tokens],
        in_tpm,
        tries: 3,
        has_flags: false,
        server,
    }
}

/// Found by the sequences of `main`: a restart is no reason to send a PIN of the server to a token while another one of the same TPM has
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
    play(&plain(2, true, None), &steps).unwrap();
}

/// Found by the sequences of `main`: a new PIN of the server is sent beyond the budget to one token of a TPM only.
#[test]
fn a_new_pin_is_beyond_the_budget_of_a_tpm_once() {
    let steps = [
        Step::Ask(1, None),
        Step::Sighup(Some(2)),
        Step::Ask(0, Some((1, 3))),
        Step::Ask(1, None),
    ];
    play(&plain(2, true, Some(1)), &steps).unwrap();
}

/// Found by the sequences of `main`: what was unclear, and is refused when it is sent again, was two refusals.
#[test]
fn an_unclear_answer_is_a_refusal_where_the_next_one_is() {
    let steps = [
        Step::Sighup(Some(3)),
        Step::Unclear(0, None),
        Step::Reload,
        Step::Ask(0, Some((1, 2))),
    ];
    play(&plain(1, false, None), &steps).unwrap();
}

/// Found by the sequences of `main`: an answer that tells nothing uses up what a new PIN may have beyond the budget of a TPM.
#[test]
fn an_unclear_answer_to_a_new_pin_may_be_its_refusal_by_the_tpm() {
    let steps = [
        Step::InitToken(0, SO, 1),
        Step::Sighup(Some(2)),
        Step::Unclear(2, None),
        Step::Type(1, 1),
        Step::Ask(0, None),
    ];
    let mut setting = plain(3, true, None);
    (setting.tokens[1].right, setting.tokens[1].has_pad) = (3, true);
    play(&setting, &steps).unwrap();
}

/// Found by the sequences of `main`: a TPM forgets no refusal where a token of it accepts another PIN, is reset, or is made anew.
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
    play(&plain(1, true, None), &steps).unwrap();
}

/// Found by the sequences of `main`: a new PIN has no more than the budget where all of that is left.
#[test]
fn a_new_pin_is_within_the_budget_where_nothing_was_refused() {
    let steps = [
        Step::Reset(0, SO, 2),
        Step::Sighup(Some(3)),
        Step::Reset(0, 202, 1),
        Step::Type(1, 2),
        Step::Ask(0, None),
    ];
    let mut setting = plain(2, true, None);
    setting.tokens[1].has_pad = true;
    play(&setting, &steps).unwrap();
}

/// Found by the sequences of `main`: an unclear answer was about the PIN of its time.
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
    play(&plain(3, true, Some(1)), &steps).unwrap();
}

/// Found by the sequences of `main`: what a restart grants ends where the operator frees all.
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
    let mut setting = plain(2, true, None);
    setting.tokens[1].has_pad = true;
    play(&setting, &steps).unwrap();
}

/// Found by the sequences of `main`: another program may have set the very PIN whose answer was unclear, so that it is right now and was
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
    let mut setting = plain(2, true, Some(1));
    (setting.tokens[0].right, setting.tokens[1].right) = (3, 2);
    play(&setting, &steps).unwrap();
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
    let mut setting = plain(2, true, None);
    setting.tokens[1].has_pad = true;
    play(&setting, &steps).unwrap();
}

/// The server's wrong PIN, and a client's, in one life of the process after the other.
#[test]
fn what_nobody_was_told_is_counted_over_restarts() {
    for step in [
        Step::Unclear(0, None),
        Step::Dies(0, None),
        Step::Dies(0, Some((1, 3))),
        Step::Officer(0, 201, Answer::Unclear),
        Step::Officer(0, 201, Answer::Dies),
    ] {
        for is_tpm in [false, true] {
            let steps = [step, Step::Restart, Step::Time(200)];
            play(&plain(1, is_tpm, Some(2)), &steps.repeat(4)).unwrap();
        }
    }
}
