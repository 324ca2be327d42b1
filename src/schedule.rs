//! Which workspace to poll when, within the call budget. Pure: time is an argument, jitter derives from names.

mod access;
mod budget;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use jiff::SignedDuration;

pub use self::access::{Access, Turn};
pub use self::budget::{Budget, Limits, Purpose, Verdict};
use crate::model::{Timestamp, WorkspaceKey, elapsed};

/// How often a workspace is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intervals {
    pub fastest: Duration,
    pub slowest: Duration,
}

/// What the last poll of a workspace showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// Something changed just now, or a stage runs.
    Moving,
    /// Everything waits for people or has ended.
    Quiet,
    /// Nobody subscribes to anything here.
    Unwatched,
}

/// Failed polls are repeated no later than this, unless the slowest interval is longer.
const LONGEST_BACKOFF: Duration = Duration::from_secs(300);
/// The same for a workspace that the key may not see: a person has to act first.
const LONGEST_IF_DENIED: Duration = Duration::from_secs(600);
/// After an outage of everything, polls begin again one after another, this far apart …
const APART: Duration = Duration::from_secs(1);
/// … or closer, so that the last one waits no longer than this.
const SPREAD: Duration = Duration::from_secs(60);
/// A poll is earlier by at most this share of its interval, so that polls spread.
const JITTER_PERMILLE: u32 = 100;
/// The same after one that failed, where many workspaces may have begun to fail at once.
const JITTER_OF_FAILED_PERMILLE: u32 = 500;
/// Quiet polls until the slowest interval is reached from the fastest: each is half as long again as the one before.
const GROWTH: f64 = 1.5;
/// An unwatched workspace is looked at this many times less often than a quiet one.
const UNWATCHED: u32 = 10;

#[derive(Debug, Clone)]
struct Entry {
    due: Timestamp,
    /// The place in the queue of those that are due: kept while the budget makes them wait.
    since: Timestamp,
    running: bool,
    /// Somebody else polls it.
    resting: bool,
    polls: u64,
    /// Quiet polls in a row.
    quiet: u32,
    /// Failed polls in a row.
    failed: u32,
}

impl Entry {
    fn is_idle(&self) -> bool {
        !self.running && !self.resting
    }
}

/// When each workspace is due.
#[derive(Debug, Clone)]
pub struct Schedule {
    intervals: Intervals,
    at: Timestamp,
    entries: HashMap<WorkspaceKey, Entry>,
}

impl Schedule {
    /// All workspaces due at once; the budget spreads them.
    pub fn new(intervals: Intervals, workspaces: impl IntoIterator<Item = WorkspaceKey>, now: Timestamp) -> Schedule {
        let entry = Entry { due: now, since: now, running: false, resting: false, polls: 0, quiet: 0, failed: 0 };
        Schedule { intervals, at: now, entries: workspaces.into_iter().map(|key| (key, entry.clone())).collect() }
    }

    /// Time has come to `now`. A clock that was set back takes the plan with it.
    pub fn pass(&mut self, now: Timestamp) {
        let back = elapsed(now, self.at);
        for entry in self.entries.values_mut().filter(|_| !back.is_zero()) {
            entry.due = before(entry.due, back);
            entry.since = before(entry.since, back);
        }
        self.at = now;
    }

    /// Workspaces that are due and not being polled, the longest due first: so that a short budget is shared fairly.
    pub fn due(&self, now: Timestamp) -> Vec<WorkspaceKey> {
        let mut due: Vec<_> = self.entries.iter().filter(|(_, entry)| entry.is_idle() && entry.due <= now).collect();
        due.sort_by(|(a_key, a), (b_key, b)| (a.since, a_key).cmp(&(b.since, b_key)));
        due.into_iter().map(|(key, _)| key.clone()).collect()
    }

    /// When the next workspace becomes due.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.entries.values().filter(|entry| entry.is_idle()).map(|entry| entry.due).min()
    }

    pub fn began(&mut self, key: &WorkspaceKey) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.running = true;
            entry.polls = entry.polls.wrapping_add(1);
        }
    }

    /// A poll that worked.
    pub fn went(&mut self, key: &WorkspaceKey, activity: Activity, now: Timestamp) {
        let Intervals { fastest, slowest } = self.intervals;
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.running = false;
        entry.failed = 0;
        entry.quiet = if activity == Activity::Moving { 0 } else { entry.quiet.saturating_add(1) };
        let interval = match activity {
            Activity::Moving => fastest,
            Activity::Quiet => grown(fastest, entry.quiet).min(slowest),
            Activity::Unwatched => slowest.saturating_mul(UNWATCHED),
        };
        entry.due = after(now, jittered(interval, JITTER_PERMILLE, key, entry.polls));
        entry.since = entry.due;
    }

    /// A poll that failed: the next one later and later, up to five minutes.
    pub fn failed(&mut self, key: &WorkspaceKey, now: Timestamp) {
        self.back_off(key, LONGEST_BACKOFF, now);
    }

    /// A poll that the key has no permission for: the next one later and later, up to ten minutes.
    pub fn denied(&mut self, key: &WorkspaceKey, now: Timestamp) {
        self.back_off(key, LONGEST_IF_DENIED, now);
    }

    fn back_off(&mut self, key: &WorkspaceKey, longest: Duration, now: Timestamp) {
        let Intervals { fastest, slowest } = self.intervals;
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.running = false;
        entry.failed = entry.failed.saturating_add(1);
        let doubled = fastest.saturating_mul(1 << entry.failed.min(16)).min(longest.max(slowest));
        entry.since = now;
        entry.due = after(now, jittered(doubled, JITTER_OF_FAILED_PERMILLE, key, entry.polls));
    }

    /// What kept these workspaces from being polled is over: they are due one after another, the one that waits longest
    /// first, whatever their intervals said.
    pub fn spread(&mut self, keys: &[WorkspaceKey], now: Timestamp) {
        let mut waiting: Vec<_> = keys.iter().filter_map(|key| Some((self.entries.get(key)?.since, key))).collect();
        waiting.sort();
        let count = u32::try_from(waiting.len()).unwrap_or(u32::MAX).max(1);
        let apart = APART.min(SPREAD / count);
        for ((_, key), place) in waiting.into_iter().zip(1_u32..) {
            if let Some(entry) = self.entries.get_mut(key) {
                entry.due = after(now, apart.saturating_mul(place));
                entry.since = entry.due;
            }
        }
    }

    /// No call was made: the budget allows the next one at `until`. Keeps its place in the queue.
    pub fn postponed(&mut self, key: &WorkspaceKey, until: Timestamp) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.running = false;
            entry.due = entry.due.max(until);
        }
    }

    /// Polled by somebody else from now on, until [`Schedule::resume`].
    pub fn rest(&mut self, key: &WorkspaceKey) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.resting = true;
        }
    }

    /// Due now, if it rested. Says whether it did.
    pub fn resume(&mut self, key: &WorkspaceKey) -> bool {
        let Some(entry) = self.entries.get_mut(key).filter(|entry| entry.resting) else { return false };
        entry.resting = false;
        (entry.due, entry.since) = (self.at, self.at);
        (entry.quiet, entry.failed) = (0, 0);
        true
    }

    /// Somebody has just subscribed here: look again within the fastest interval.
    pub fn hurry(&mut self, key: &WorkspaceKey, now: Timestamp) {
        let soon = after(now, self.intervals.fastest);
        if let Some(entry) = self.entries.get_mut(key) {
            entry.quiet = 0;
            if entry.failed == 0 {
                entry.due = entry.due.min(soon);
            }
        }
    }
}

fn grown(fastest: Duration, quiet: u32) -> Duration {
    let factor = GROWTH.powi(i32::try_from(quiet.min(32)).unwrap_or(32));
    Duration::try_from_secs_f64(fastest.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

/// Up to `most` thousandths shorter, always the same for the same poll of the same workspace: polls spread, runs repeat.
fn jittered(interval: Duration, most: u32, key: &WorkspaceKey, polls: u64) -> Duration {
    let mut hasher = DefaultHasher::new();
    (key, polls).hash(&mut hasher);
    let permille = u32::try_from(hasher.finish() % u64::from(most)).unwrap_or(0);
    interval.saturating_sub(interval / 1000 * permille)
}

/// `now` plus a duration, saturating at the end of time.
pub fn after(now: Timestamp, duration: Duration) -> Timestamp {
    let signed = SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
    now.checked_add(signed).unwrap_or(Timestamp::MAX)
}

fn before(moment: Timestamp, duration: Duration) -> Timestamp {
    let signed = SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
    moment.checked_sub(signed).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn key(n: usize) -> WorkspaceKey {
        WorkspaceKey(format!("cn-shanghai/{n}"))
    }

    const INTERVALS: Intervals = Intervals { fastest: Duration::from_secs(5), slowest: Duration::from_secs(60) };

    /// Seconds until the workspace is due again.
    fn wait(schedule: &Schedule, now: Timestamp) -> f64 {
        schedule.next_due().unwrap().duration_since(now).as_secs_f64()
    }

    #[test]
    fn a_quiet_workspace_is_asked_less_and_less_and_a_moving_one_at_once_again() {
        let mut schedule = Schedule::new(INTERVALS, [key(1)], at(0));
        let mut waits = Vec::new();
        for _ in 0..10 {
            schedule.went(&key(1), Activity::Quiet, at(0));
            waits.push(wait(&schedule, at(0)));
        }
        assert!(waits[0] <= 7.5 && waits[9] > 50.0 && waits[9] <= 60.0, "{waits:?}");
        schedule.went(&key(1), Activity::Moving, at(0));
        assert!(wait(&schedule, at(0)) <= 5.0);
    }

    #[test]
    fn failing_polls_back_off_to_five_minutes() {
        let mut schedule = Schedule::new(INTERVALS, [key(1)], at(0));
        for _ in 0..20 {
            schedule.failed(&key(1), at(0));
        }
        let longest = wait(&schedule, at(0));
        assert!((150.0..=300.0).contains(&longest), "{longest}");
        for _ in 0..20 {
            schedule.denied(&key(1), at(0));
        }
        let longest = wait(&schedule, at(0));
        assert!((300.0..=600.0).contains(&longest), "without permission: {longest}");
    }

    /// How many workspaces become due within the busiest second.
    fn busiest_second(schedule: &Schedule) -> usize {
        let mut dues: Vec<Timestamp> = schedule.entries.values().map(|entry| entry.due).collect();
        dues.sort();
        let second = Duration::from_secs(1);
        let within = |from: Timestamp| dues.iter().filter(|due| (from..from + second).contains(*due)).count();
        dues.iter().map(|due| within(*due)).max().unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]
        #[test]
        fn what_failed_together_for_long_does_not_come_back_together(seed in 0usize..1_000_000, hours in 1i64..4) {
            let mut schedule = Schedule::new(INTERVALS, (seed..seed + 200).map(key), at(0));
            let end = at(hours * 3600);
            while let Some(now) = schedule.next_due().filter(|due| *due < end) {
                for key in schedule.due(now) {
                    schedule.began(&key);
                    schedule.failed(&key, now);
                }
            }
            let busiest = busiest_second(&schedule);
            prop_assert!(busiest <= 12, "{busiest} of 200 polls in one second");
            prop_assert_eq!(schedule.due(end + LONGEST_BACKOFF).len(), 200, "none waits longer than five minutes");
        }

        #[test]
        fn after_refused_credentials_polls_begin_again_over_a_minute(count in 1usize..500) {
            let keys: Vec<_> = (0..count).map(key).collect();
            let mut schedule = Schedule::new(INTERVALS, keys.clone(), at(0));
            schedule.spread(&keys, at(7_200));
            let busiest = busiest_second(&schedule);
            prop_assert!(busiest <= count.div_ceil(60) + 1, "{busiest} of {count} polls in one second");
            prop_assert_eq!((schedule.due(at(7_200)).len(), schedule.due(at(7_260)).len()), (0, count));
        }
    }

    #[test]
    fn a_few_workspaces_need_no_minute_to_come_back_and_others_keep_their_time() {
        let mut schedule = Schedule::new(INTERVALS, [key(1), key(2), key(3)], at(0));
        schedule.went(&key(3), Activity::Unwatched, at(0));
        schedule.spread(&[key(1), key(2)], at(100));
        assert_eq!(schedule.due(at(102)), [key(1), key(2)]);
    }

    #[test]
    fn a_workspace_that_waited_longest_comes_first() {
        let mut schedule = Schedule::new(INTERVALS, [key(1), key(2), key(3)], at(0));
        schedule.went(&key(2), Activity::Moving, at(0));
        for n in [1, 3] {
            schedule.postponed(&key(n), at(9));
        }
        assert_eq!(schedule.due(at(10)), [key(1), key(3), key(2)], "waiting for the budget costs nobody the place");
    }

    #[test]
    fn a_short_budget_is_shared_fairly() {
        let keys: Vec<_> = (0..6).map(key).collect();
        let mut schedule = Schedule::new(INTERVALS, keys.clone(), at(0));
        let mut budget = Budget::new(Limits { calls_per_second: 5.0, calls_per_day: Some(1_000.0) }, at(0));
        let mut polls: HashMap<WorkspaceKey, u32> = HashMap::new();
        for second in 0..86_400 {
            schedule.pass(at(second));
            for key in schedule.due(at(second)) {
                match budget.take(Purpose::Poll, at(second)) {
                    Ok(()) => {
                        *polls.entry(key.clone()).or_default() += 1;
                        schedule.went(&key, Activity::Quiet, at(second));
                    }
                    Err(until) => schedule.postponed(&key, until),
                }
            }
        }
        let (least, most) = (polls.values().min().unwrap(), polls.values().max().unwrap());
        assert!(polls.len() == 6 && most * 20 <= least * 21, "{polls:?}");
    }

    #[test]
    fn a_clock_that_was_ahead_stops_nothing() {
        let month = 30 * 86_400;
        let mut schedule = Schedule::new(INTERVALS, [key(1)], at(0));
        let mut budget = Budget::new(Limits { calls_per_second: 5.0, calls_per_day: Some(1_000.0) }, at(0));
        schedule.pass(at(month));
        schedule.went(&key(1), Activity::Moving, at(month));
        budget.answered(Verdict::Throttled { after: Some(Duration::from_secs(5)) }, at(month));
        schedule.pass(at(0));
        assert!(wait(&schedule, at(0)) <= 5.0);
        assert!(budget.take(Purpose::Poll, at(0)).is_err(), "the pause goes on");
        assert!(budget.take(Purpose::Poll, at(30)).is_ok(), "and ends in time");
    }

    fn spend_a_day(budget: &mut Budget, purpose: Purpose) -> u64 {
        (0..86_400 * 2)
            .map(|half| u64::from(budget.take(purpose, at(0) + Duration::from_millis(half * 500)).is_ok()))
            .sum()
    }

    #[test]
    fn a_day_never_costs_more_than_the_day_allows() {
        for calls in [100.0, 1_000.0, 10_000.0] {
            let mut budget = Budget::new(Limits { calls_per_second: 5.0, calls_per_day: Some(calls) }, at(0));
            let spent = spend_a_day(&mut budget, Purpose::Poll);
            #[expect(clippy::cast_precision_loss, reason = "small")]
            let share = spent as f64 / calls;
            assert!((0.75..=1.0).contains(&share), "{spent} of {calls}");
        }
    }

    #[test]
    fn people_are_answered_when_polls_have_used_up_their_part() {
        let mut budget = Budget::new(Limits { calls_per_second: 50.0, calls_per_day: Some(100.0) }, at(0));
        let first_refused = (0..).find(|second| budget.take(Purpose::Poll, at(*second)).is_err()).unwrap();
        assert!(first_refused < 60, "a day's calls are not spent in a minute");
        assert!(budget.take(Purpose::Command, at(first_refused)).is_ok());
    }

    #[test]
    fn a_throttled_answer_pauses_and_halves_the_rate_and_time_heals_it() {
        let mut budget = Budget::new(Limits { calls_per_second: 5.0, calls_per_day: None }, at(0));
        budget.answered(Verdict::Throttled { after: Some(Duration::from_secs(7)) }, at(0));
        assert_eq!(budget.take(Purpose::Command, at(1)), Err(at(7)));
        let in_a_minute = |budget: &mut Budget, from: Timestamp| {
            let moments = (0..60_000).step_by(25).map(|ms| from + Duration::from_millis(ms));
            moments.filter(|moment| budget.take(Purpose::Poll, *moment).is_ok()).count()
        };
        let throttled = in_a_minute(&mut budget, at(8));
        assert!((110..180).contains(&throttled), "about half of 240, growing: {throttled}");
        let healed = in_a_minute(&mut budget, at(3600));
        assert!((235..=245).contains(&healed), "the whole rate again: {healed}");
    }

    #[test]
    fn a_used_up_quota_stops_everything_until_midnight_in_china() {
        let mut budget = Budget::new(Limits { calls_per_second: 5.0, calls_per_day: None }, at(0));
        let now: Timestamp = "2026-11-24T15:59:00Z".parse().unwrap();
        budget.answered(Verdict::QuotaGone, now);
        assert_eq!(budget.take(Purpose::Command, now), Err("2026-11-24T16:00:00Z".parse().unwrap()));
        assert!(budget.take(Purpose::Command, "2026-11-24T16:00:01Z".parse().unwrap()).is_ok());
    }

    proptest! {
        #[test]
        fn no_second_sees_more_than_its_share(starts in prop::collection::vec(0u64..20_000, 1..400)) {
            let mut budget = Budget::new(Limits { calls_per_second: 5.0, calls_per_day: None }, at(0));
            let mut starts = starts;
            starts.sort_unstable();
            let taken: Vec<u64> = starts
                .into_iter()
                .filter(|ms| budget.take(Purpose::Poll, at(0) + Duration::from_millis(*ms)).is_ok())
                .collect();
            for first in &taken {
                let within = taken.iter().filter(|ms| (*first..first + 1000).contains(ms)).count();
                prop_assert!(within <= 5, "{within} calls within a second");
            }
        }
    }
}
