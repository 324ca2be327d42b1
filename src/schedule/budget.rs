//! How many calls an account may still make.

use std::time::Duration;

use jiff::{ToSpan, tz};
use serde::{Deserialize, Serialize};

use super::{after, before};
use crate::model::{Timestamp, elapsed};

/// What an account may call in one region.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    pub calls_per_second: f64,
    /// `None`: no daily cap.
    pub calls_per_day: Option<f64>,
}

/// Why a call is made; people who wait for an answer come before polls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The list that begins a poll: it can be made later as well.
    Poll,
    /// What a poll asks for beyond its list.
    FollowUp,
    Command,
}

/// How a call ended, as far as the budget cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Answered,
    Throttled {
        after: Option<Duration>,
    },
    /// Today's quota is gone.
    QuotaGone,
}

/// Of the calls a second this share may come at once, at least one; the rest flows evenly, so that no second sees more
/// than the limit.
const BURST_OF_SECOND: f64 = 0.2;
/// Of the day's calls this share may be spent in a burst; the rest comes evenly over the day, so that the sum of both
/// never exceeds the day's cap.
const BURST_SHARE: f64 = 0.4;
/// Polls leave this share of the burst to commands.
const RESERVED_SHARE: f64 = 0.25;
/// The rate is never throttled below this share.
const LOWEST_FACTOR: f64 = 1.0 / 16.0;
/// What a good minute gives back of the rate.
const RECOVERY_PER_MINUTE: f64 = 0.1;
/// A throttled answer without a wait pauses this long.
const PAUSE: Duration = Duration::from_secs(2);
/// Fractions of a call that floating point may lose.
const ROUNDING: f64 = 1e-6;
const SECONDS_PER_DAY: f64 = 86_400.0;
/// A poll makes its calls in the name of the moment at which it began; further back than this, the clock was set.
const LATE: Duration = Duration::from_secs(120);
/// DataWorks' day is taken to begin at midnight in China.
const QUOTA_OFFSET_HOURS: i8 = 8;

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Bucket {
    tokens: f64,
    capacity: f64,
    per_second: f64,
}

impl Bucket {
    fn refill(&mut self, seconds: f64, factor: f64) {
        self.tokens = (self.tokens + seconds * self.per_second * factor).min(self.capacity);
    }

    /// Seconds until there is one token above `reserve`.
    fn wait(&self, reserve: f64, factor: f64) -> f64 {
        let short = reserve + 1.0 - self.tokens;
        if short < ROUNDING { 0.0 } else { short / (self.per_second * factor) }
    }
}

/// The call budget of one account in one region.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Budget {
    second: Bucket,
    day: Option<Bucket>,
    /// 1 unless throttled.
    factor: f64,
    at: Timestamp,
    blocked_until: Option<Timestamp>,
}

impl Budget {
    pub fn new(limits: Limits, now: Timestamp) -> Budget {
        let capacity = (limits.calls_per_second * BURST_OF_SECOND).max(1.0);
        let per_second = (limits.calls_per_second - capacity).max(limits.calls_per_second / 2.0);
        let day = limits.calls_per_day.map(|calls| {
            let capacity = (calls * BURST_SHARE).max(1.0);
            Bucket { tokens: capacity, capacity, per_second: (calls - capacity).max(1.0) / SECONDS_PER_DAY }
        });
        let second = Bucket { tokens: capacity, capacity, per_second };
        Budget { second, day, factor: 1.0, at: now, blocked_until: None }
    }

    /// As it was kept, under limits that may be others by now.
    #[must_use]
    pub fn under(self, limits: Limits) -> Budget {
        let fresh = Budget::new(limits, self.at);
        let tokens = |old: Bucket, new: Bucket| Bucket { tokens: old.tokens.min(new.capacity), ..new };
        let day = fresh.day.map(|new| self.day.map_or(new, |old| tokens(old, new)));
        Budget { second: tokens(self.second, fresh.second), day, ..self }
    }

    /// Takes one call out of the budget, or says when there will be one.
    pub fn take(&mut self, purpose: Purpose, now: Timestamp) -> Result<(), Timestamp> {
        self.pass(now);
        if let Some(until) = self.blocked_until {
            return Err(until);
        }
        let reserve = |bucket: &Bucket| match purpose {
            Purpose::Command => 0.0,
            Purpose::Poll | Purpose::FollowUp => {
                (bucket.capacity * RESERVED_SHARE).min(bucket.capacity - 1.0).floor().max(0.0)
            }
        };
        let second = self.second.wait(0.0, self.factor);
        let day = self.day.as_ref().map_or(0.0, |bucket| bucket.wait(reserve(bucket), 1.0));
        let wait = second.max(day);
        if wait > 0.0 {
            return Err(after(now, Duration::try_from_secs_f64(wait).unwrap_or(Duration::MAX)));
        }
        self.second.tokens -= 1.0;
        if let Some(bucket) = &mut self.day {
            bucket.tokens -= 1.0;
        }
        Ok(())
    }

    pub fn answered(&mut self, verdict: Verdict, now: Timestamp) {
        self.pass(now);
        match verdict {
            Verdict::Answered => {}
            Verdict::Throttled { after: wait } => {
                self.factor = (self.factor / 2.0).max(LOWEST_FACTOR);
                self.second.tokens = 0.0;
                self.blocked_until = Some(after(now, wait.unwrap_or(PAUSE)));
            }
            Verdict::QuotaGone => self.blocked_until = Some(next_quota_day(now)),
        }
    }

    /// Calls that could be made at once, a daily cap permitting. `None`: no daily cap.
    pub fn left(&self) -> Option<u64> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small non-negative count")]
        self.day.as_ref().map(|bucket| bucket.tokens.max(0.0) as u64)
    }

    pub fn blocked_until(&self) -> Option<Timestamp> {
        self.blocked_until
    }

    fn pass(&mut self, now: Timestamp) {
        // Whoever looked at the clock a little earlier comes a little later; time is not to pass twice for that.
        let now = if elapsed(now, self.at) < LATE { now.max(self.at) } else { now };
        let seconds = now.duration_since(self.at).as_secs_f64().max(0.0);
        // A clock that was set back must not close the budget until it has caught up.
        if now < self.at {
            self.blocked_until = self.blocked_until.map(|until| before(until, elapsed(now, self.at)));
        }
        self.at = now;
        self.factor = (self.factor + seconds / 60.0 * RECOVERY_PER_MINUTE).min(1.0);
        self.second.refill(seconds, self.factor);
        if let Some(bucket) = &mut self.day {
            bucket.refill(seconds, 1.0);
        }
        self.blocked_until = self.blocked_until.filter(|until| *until > now);
    }
}

/// The next midnight in China.
fn next_quota_day(now: Timestamp) -> Timestamp {
    let zone = tz::TimeZone::fixed(tz::offset(QUOTA_OFFSET_HOURS));
    let tomorrow = now.to_zoned_datetime(zone.clone()).date().checked_add(1.day());
    tomorrow
        .and_then(|date| date.to_zoned_datetime(zone))
        .map_or_else(|_| after(now, Duration::from_secs(86_400)), |midnight| midnight.timestamp())
}
