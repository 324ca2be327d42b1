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
    let wait = wait(failures.clamp(1, last), asked, chance)?;
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
