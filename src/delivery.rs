//! What follows an attempt, and how fast a destination may be used. Pure: time and randomness are arguments.

use std::collections::VecDeque;
use std::time::Duration;

use crate::model::{Outcome, Pace, Timestamp};

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
/// A destination that fails is probed again at least this often, unless it asked for more: what is owed to it keeps its
/// own schedule, but one message finds out that it works again.
const LONGEST_CLOSURE: Duration = Duration::from_secs(15 * M);
/// The longest wait a platform may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(86_400);

/// What becomes of a delivery after an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Delivered,
    /// Another attempt at this moment; `unknown`: the last one may have arrived.
    Again {
        at: Timestamp,
        unknown: bool,
    },
    /// This delivery ends here.
    Dead,
    /// This delivery ends here, and nothing more is sent to the destination until a person acts.
    DeadDestination,
}

/// `attempt` counts from 1; `chance` is uniform in 0..1.
pub fn follow_up(outcome: &Outcome, attempt: u32, now: Timestamp, chance: f64) -> Verdict {
    let again = |after: Option<Duration>, unknown: bool| match wait(attempt, after, chance) {
        Some(wait) => Verdict::Again { at: now.checked_add(wait).unwrap_or(Timestamp::MAX), unknown },
        None => Verdict::Dead,
    };
    match outcome {
        Outcome::Delivered { .. } => Verdict::Delivered,
        Outcome::Retry { after, .. } => again(*after, false),
        Outcome::Unknown { after, .. } => again(*after, true),
        Outcome::Reject { .. } => Verdict::Dead,
        Outcome::Dead { .. } => Verdict::DeadDestination,
    }
}

/// How long a destination stays closed after its `failures`th failed attempt in a row, whichever deliveries they were
/// of: each of them is a probe, and one that only its own destination dislikes holds up no other.
pub fn closed_until(outcome: &Outcome, failures: u32, now: Timestamp, chance: f64) -> Option<Timestamp> {
    let asked = match outcome {
        Outcome::Retry { after, .. } | Outcome::Unknown { after, .. } => *after,
        _ => return None,
    };
    let last = u32::try_from(WAITS.len()).unwrap_or(u32::MAX);
    let planned = wait(failures.clamp(1, last), None, chance)?.min(LONGEST_CLOSURE);
    let wait = planned.max(asked.unwrap_or_default().min(LONGEST_WAIT));
    Some(now.checked_add(wait).unwrap_or(Timestamp::MAX))
}

/// How long to wait after this attempt; what the platform asks for moves it later, never earlier. `None`: that was
/// the last one.
fn wait(attempt: u32, asked: Option<Duration>, chance: f64) -> Option<Duration> {
    let index = usize::try_from(attempt.saturating_sub(1)).ok()?;
    let seconds = *WAITS.get(index)?;
    let factor = 1.0 - JITTER + 2.0 * JITTER * chance.clamp(0.0, 1.0);
    let planned = Duration::from_secs(seconds).mul_f64(factor);
    Some(planned.max(asked.unwrap_or_default().min(LONGEST_WAIT)))
}

/// The sends of one destination, in a sliding window: a fixed one would let twice the limit pass around its edge.
#[derive(Debug, Clone, Default)]
pub struct Pacer {
    sent: VecDeque<Timestamp>,
}

impl Pacer {
    /// When the next message may leave; `now` or earlier: at once.
    pub fn ready_at(&self, pace: Pace) -> Timestamp {
        let oldest_that_counts = self.sent.len().checked_sub(pace.count).and_then(|index| self.sent.get(index));
        oldest_that_counts.and_then(|sent| sent.checked_add(pace.window).ok()).unwrap_or(Timestamp::MIN)
    }

    pub fn sent(&mut self, pace: Pace, now: Timestamp) {
        self.sent.push_back(now);
        while self.sent.len() > pace.count {
            self.sent.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn retry(after: Option<u64>) -> Outcome {
        Outcome::Retry { after: after.map(Duration::from_secs), reason: String::new() }
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
        assert_eq!(follow_up(&retry(None), 18, now(), 0.5), Verdict::Dead);
    }

    #[test]
    fn what_the_platform_asks_for_moves_an_attempt_later_never_earlier() {
        assert_eq!(waited(&retry(Some(60)), 1, 0.5), Some(60.0));
        assert_eq!(waited(&retry(Some(1)), 5, 0.5), Some(300.0));
        assert_eq!(waited(&retry(Some(10_000_000)), 1, 0.5), Some(86_400.0), "a day is the longest");
    }

    #[test]
    fn one_message_that_fails_for_ever_holds_its_destination_up_no_longer_than_the_others_do() {
        // The destination has answered others in between: its own count begins anew.
        let wait = closed_until(&retry(None), 1, now(), 0.5).unwrap().duration_since(now()).as_secs();
        assert_eq!(wait, 2);
    }

    proptest! {
        #[test]
        fn chance_moves_a_wait_by_a_fifth_at_most(attempt in 1u32..18, chance in 0.0f64..1.0) {
            let planned = waited(&retry(None), attempt, 0.5).unwrap();
            let actual = waited(&retry(None), attempt, chance).unwrap();
            prop_assert!((actual / planned - 1.0).abs() <= 0.2 + 1e-9);
        }

        #[test]
        fn in_no_window_more_than_the_pace_leaves(
            count in 1usize..20,
            window in 1u64..120,
            wishes in prop::collection::vec(0u64..5_000, 1..300),
        ) {
            let pace = Pace { count, window: Duration::from_secs(window) };
            let mut pacer = Pacer::default();
            let mut wishes = wishes;
            wishes.sort_unstable();
            let mut sent: Vec<Timestamp> = Vec::new();
            for wish in wishes {
                let at = now() + Duration::from_secs(wish);
                if pacer.ready_at(pace) <= at {
                    pacer.sent(pace, at);
                    sent.push(at);
                }
            }
            for first in &sent {
                let end = *first + pace.window;
                prop_assert!(sent.iter().filter(|at| (*first..end).contains(at)).count() <= count);
            }
        }
    }
}
