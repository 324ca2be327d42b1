//! What follows an attempt, how fast a destination may be used, and what one message tells. Pure: time and randomness
//! are arguments.

mod destinations;
mod folding;

use std::time::Duration;

pub use self::destinations::{Ended, Turn, at_once, began, ended, opens_at};
pub use self::folding::{is_merged, plan};
use crate::model::{Outcome, Timestamp};
use crate::planted::{Bug, is_planted};

const S: u64 = 1;
const M: u64 = 60;
const H: u64 = 3600;

/// Waits before the second, third, … attempt, in seconds: 18 attempts over 99.9 hours, dense at first because most
/// outages of a chat are short. Svix spans 27.6 hours, the Standard Webhooks example 75.6.
const WAITS: [u64; 17] = [
    2 * S,
    10 * S,
    30 * S,
    2 * M,
    5 * M,
    15 * M,
    30 * M,
    H,
    2 * H,
    4 * H,
    6 * H,
    8 * H,
    10 * H,
    12 * H,
    14 * H,
    18 * H,
    24 * H,
];
/// A wait is this much longer or shorter by chance.
const JITTER: f64 = 0.2;
/// The longest wait a platform may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * H);

/// What becomes of a delivery after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Delivered,
    /// Another attempt, not before this moment and not before its destination is open; `unknown`: the last one may have
    /// arrived.
    Again {
        at: Timestamp,
        unknown: bool,
    },
    /// This message will never pass.
    Rejected,
    /// That was the last attempt.
    GivenUp,
}

/// `attempt` counts those that used up a try, this one included, from 1; `chance` is uniform in 0..1.
pub fn follow_up(outcome: &Outcome, attempt: u32, now: Timestamp, chance: f64) -> Verdict {
    let again = |after: Option<Duration>, unknown: bool| match wait(attempt, after, chance) {
        Some(wait) => Verdict::Again { at: later(now, wait), unknown },
        None => Verdict::GivenUp,
    };
    match outcome {
        Outcome::Delivered { .. } => Verdict::Delivered,
        Outcome::Retry { .. } if is_planted(Bug::RefusalIsSuccess) => Verdict::Delivered,
        Outcome::Unknown { .. } if is_planted(Bug::SilenceIsSuccess) => Verdict::Delivered,
        Outcome::Limited { .. } if is_planted(Bug::LimitsKill) => Verdict::Rejected,
        Outcome::Retry { after, .. } => again(*after, false),
        Outcome::Unknown { after, .. } => again(*after, !is_planted(Bug::UnknownIsRetried)),
        // A message of several falls apart, and each is looked at by itself.
        Outcome::Reject { .. } | Outcome::Withheld { .. } => Verdict::Rejected,
        // Nothing is wrong with the message: it waits for its destination.
        Outcome::Limited { .. } | Outcome::Dead { .. } | Outcome::Denied { .. } => {
            Verdict::Again { at: now, unknown: false }
        }
    }
}

/// How long to wait after this attempt; what the platform asks for moves it later, never earlier. `None`: that was
/// the last one.
fn wait(attempt: u32, asked: Option<Duration>, chance: f64) -> Option<Duration> {
    let index = usize::try_from(attempt.saturating_sub(1)).ok()?;
    let planned = jittered(*WAITS.get(index)?, chance);
    Some(planned.max(asked.unwrap_or_default().min(LONGEST_WAIT)))
}

fn jittered(seconds: u64, chance: f64) -> Duration {
    Duration::from_secs(seconds).mul_f64(1.0 - JITTER + 2.0 * JITTER * chance.clamp(0.0, 1.0))
}

fn later(now: Timestamp, wait: Duration) -> Timestamp {
    now.checked_add(wait).unwrap_or(Timestamp::MAX)
}
#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn retry(after: Option<u64>) -> Outcome {
        Outcome::Retry { after: after.map(Duration::from_secs), reason: "503".to_owned() }
    }

    fn limited(after: Option<u64>, account: bool) -> Outcome {
        Outcome::Limited { after: after.map(Duration::from_secs), account, reason: "429".to_owned() }
    }

    fn waited(outcome: &Outcome, attempt: u32, chance: f64) -> Option<f64> {
        match follow_up(outcome, attempt, now(), chance) {
            Verdict::Again { at, .. } => Some(at.duration_since(now()).as_secs_f64()),
            _ => None,
        }
    }

    #[test]
    fn eighteen_attempts_span_four_days() {
        let waits: Vec<f64> = (1..18).map(|attempt| waited(&retry(None), attempt, 0.5).unwrap()).collect();
        let hours = waits.iter().sum::<f64>() / 3600.0;
        assert!((99.0..101.0).contains(&hours), "{hours} h");
        assert_eq!(follow_up(&retry(None), 18, now(), 0.5), Verdict::GivenUp);
    }

    #[test]
    fn what_the_platform_asks_for_moves_an_attempt_later_never_earlier() {
        assert_eq!(waited(&retry(Some(60)), 1, 0.5), Some(60.0));
        assert_eq!(waited(&retry(Some(1)), 5, 0.5), Some(300.0));
        assert_eq!(waited(&retry(Some(10_000_000)), 1, 0.5), Some(86_400.0), "a day is the longest");
    }

    #[test]
    fn a_destination_that_asks_for_fewer_messages_costs_none_of_them_an_attempt_at_life() {
        assert_eq!(waited(&limited(None, false), 500, 0.5), Some(0.0));
        assert_eq!(waited(&Outcome::Dead { reason: String::new() }, 500, 0.5), Some(0.0));
    }

    proptest! {
        #[test]
        fn chance_moves_a_wait_by_a_fifth_at_most(attempt in 1u32..18, chance in 0.0f64..1.0) {
            let planned = waited(&retry(None), attempt, 0.5).unwrap();
            let actual = waited(&retry(None), attempt, chance).unwrap();
            prop_assert!((actual / planned - 1.0).abs() <= 0.2 + 1e-9);
        }
    }
}
