//! Comparisons of how long something takes, undisturbed and disturbed.
//!
//! Other programs use the machine while tests run. So both are measured in one run, in short rounds that alternate:
//! what else the machine does slows both alike. Compared are quantiles of all rounds together.

use std::{thread, time::Duration};

use p11_fault_module::Random;

/// How many rounds each side has.
const ROUNDS: usize = 6;

/// How often it is done in each round.
const TIMES: usize = 50;

/// How often it is done before, without a look at the time. To connect hundreds of clients takes this process and those
/// between it and the server much of the machine, and on a busy one they wait for their share for some 100 ms more.
const SETTLING: usize = 40;

/// The longest pause before it is done again, in µs. Without pauses most of these would fall between two
/// disturbances, since one that waits for the end of a disturbance is only one.
const PAUSE: u64 = 2000;

/// Quantiles in percent. The last is only shown where a comparison fails: three of so few times are beyond it.
const QUANTILES: [usize; 3] = [50, 90, 99];
const COMPARED: usize = 2;

/// How many times as long it may take.
const TIMES_AS_LONG: u32 = 3;

/// Takes the time of something beside what `calm` begins and beside what `disturb` begins (each ends when dropped), and
/// fails where it is more than three times as long beside the latter, and `extra`.
pub fn assert_undisturbed<C, D>(
    mut time: impl FnMut() -> Duration,
    calm: impl Fn() -> C,
    disturb: impl Fn() -> D,
    extra: Duration,
) {
    let mut random = Random::new(1);
    let mut round = |times: &mut Vec<Duration>| {
        for number in 0..SETTLING + TIMES {
            thread::sleep(Duration::from_micros(random.below(PAUSE)));
            let took = time();
            if number >= SETTLING {
                times.push(took);
            }
        }
    };
    let (mut undisturbed, mut disturbed) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let calm = calm();
        round(&mut undisturbed);
        drop(calm);
        let disturbance = disturb();
        round(&mut disturbed);
        drop(disturbance);
    }
    let quantiles = |mut times: Vec<Duration>| {
        times.sort_unstable();
        QUANTILES.map(|percent| times[times.len() * percent / 100])
    };
    let (undisturbed, disturbed) = (quantiles(undisturbed), quantiles(disturbed));
    let mut pairs = undisturbed.iter().zip(&disturbed).take(COMPARED);
    assert!(
        pairs.all(|(undisturbed, disturbed)| *disturbed <= TIMES_AS_LONG * *undisturbed + extra),
        "{QUANTILES:?} %: {undisturbed:?} undisturbed, {disturbed:?} disturbed; {TIMES_AS_LONG} times and {extra:?} are allowed"
    );
}
