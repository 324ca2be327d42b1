//! What is remembered of a destination, when it takes the next message, and what an attempt changes for it.

use std::time::Duration;

use uuid::Uuid;

use super::{H, LONGEST_WAIT, M, S, WAITS, jittered, later};
use crate::model::{Dead, Outcome, Place, Terms, Timestamp, elapsed};
use crate::planted::{Bug, is_planted};

/// A destination that fails is probed again at least this often, unless it asked for more: what is owed to it keeps its
/// own schedule, but one message finds out that it works again. Two days of outage make some 56 requests.
const LONGEST_CLOSURE: u64 = H;
/// A bot whose credentials are refused is tried again between these: other chats ban who insists.
const DENIED: (u64, u64) = (M, 10 * M);
/// A moment further away than this was set by a clock that was ahead.
const BEYOND_ANY_WAIT: Duration = Duration::from_secs(25 * H);
/// Failing for so long without a success, a destination is given up until a person acts.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(5 * 24 * H);
/// The same where the last try of a message failed, which takes 80 hours at least: nothing else may be owed to it.
const GIVEN_UP_WITH_A_MESSAGE: Duration = Duration::from_secs(3 * 24 * H);
/// So many messages refused for good, one after the other, are no longer a matter of each message.
const REJECTIONS: usize = 5;
/// After the first message too many, and at most.
const SPACING_MS: (u64, u64) = (1_000, 60_000);
/// Discord bans an address after 10,000 refused requests in ten minutes
/// (<https://docs.discord.com/developers/topics/rate-limits#invalid-request-limit-aka-cloudflare-bans>); long before
/// that, a bot rests.
const REFUSALS: usize = 50;
const AT_ONCE: usize = 8;
const REFUSED_WITHIN: Duration = Duration::from_secs(10 * M);

/// From when on a destination takes a message, the past included; `None`: not before a person acts. `account` is what
/// all rooms of its bot have in common. `steady_since`: the clock has not gone back since then; a send that seems to lie
/// in the future was at that time or before.
pub fn opens_at(
    place: &Place,
    account: Option<&Place>,
    terms: Terms,
    now: Timestamp,
    steady_since: Timestamp,
) -> Option<Timestamp> {
    if place.dead.is_some() && !is_planted(Bug::DeadIsTriedOn) {
        return None;
    }
    let account = account.filter(|_| !is_planted(Bug::AccountIsIgnored));
    let closed = [Some(place), account].into_iter().flatten().filter_map(|place| place.closed_until);
    let paced = terms.paces.iter().filter_map(|pace| {
        let count = pace.count + usize::from(is_planted(Bug::PaceOffByOne));
        let oldest_that_counts = place.sent.len().checked_sub(count).and_then(|index| place.sent.get(index))?;
        Some(later(past(*oldest_that_counts, now, steady_since), pace.window))
    });
    let spaced =
        place.sent.last().map(|sent| later(past(*sent, now, steady_since), Duration::from_millis(place.spacing_ms)));
    let rested = account
        .filter(|account| account.refused.len() >= REFUSALS)
        .and_then(|account| Some(later(past(*account.refused.first()?, now, steady_since), REFUSED_WITHIN)));
    let opens = closed.chain(paced).chain(spaced).chain(rested);
    Some(opens.filter(|at| elapsed(now, *at) < BEYOND_ANY_WAIT).max().unwrap_or(Timestamp::MIN))
}

fn past(moment: Timestamp, now: Timestamp, steady_since: Timestamp) -> Timestamp {
    match moment > now {
        true if is_planted(Bug::ClockBackOpensPaces) => Timestamp::UNIX_EPOCH,
        true => steady_since.min(now),
        false => moment,
    }
}

/// How many messages of one bot may be under way: a slow one leaves room for others, and one whose credentials were
/// refused tries with a single message, however many rooms wait.
pub fn at_once(account: &Place) -> usize {
    if account.failing_since.is_some() { 1 } else { AT_ONCE }
}

/// A message is about to leave.
pub fn began(place: &mut Place, terms: Terms, now: Timestamp) {
    let kept = terms.paces.iter().map(|pace| pace.count).max().unwrap_or(1);
    keep(&mut place.sent, kept, now);
}

fn keep(moments: &mut Vec<Timestamp>, count: usize, now: Timestamp) {
    moments.iter_mut().for_each(|moment| *moment = (*moment).min(now));
    moments.push(now);
    if is_planted(Bug::PaceForgets) && moments.len() > count {
        moments.clear();
    }
    moments.drain(..moments.len().saturating_sub(count));
}

/// What an attempt changed for its destination that people should hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Nothing is sent any more until a person acts.
    Died,
    /// It was dead since then, and works again.
    Returned(Timestamp),
    /// One message after the other is refused for good.
    Refuses,
    /// They were since then, and it took one again.
    Accepts(Timestamp),
    /// The bot's credentials are refused.
    Denied,
    /// They were refused since then, and pass again.
    Admitted(Timestamp),
}

/// An attempt, as it ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended<'a> {
    pub message: Uuid,
    pub outcome: &'a Outcome,
    /// The message has no try left.
    pub was_last: bool,
    /// See [`Dead`].
    pub identity: &'a str,
    pub at: Timestamp,
    pub chance: f64,
}

/// What it changes.
pub fn ended(place: &mut Place, mut account: Option<&mut Place>, ended: Ended<'_>) -> Vec<Turn> {
    let Ended { message, outcome, was_last, identity, at: now, chance } = ended;
    // The pace counts from when a message can have arrived last.
    if let Some(sent) = place.sent.last_mut() {
        *sent = now;
    }
    let refused = matches!(
        outcome,
        Outcome::Limited { .. } | Outcome::Reject { .. } | Outcome::Dead { .. } | Outcome::Denied { .. }
    );
    if let Some(account) = account.as_deref_mut().filter(|_| refused) {
        keep(&mut account.refused, REFUSALS, now);
    }
    match (outcome, account) {
        (Outcome::Delivered { pause, .. }, account) => {
            // A wait that the platform asked for meanwhile holds.
            let admitted = account.and_then(|account| {
                account.closed_until = account.closed_until.filter(|_| account.failing_since.is_none());
                succeeded(account)
            });
            succeeded(place);
            place.rejected.clear();
            let accepts = place.rejecting_since.take().map(Turn::Accepts);
            place.closed_until = pause.map(|pause| later(now, pause.min(LONGEST_WAIT)));
            place.spacing_ms = relaxed(place.spacing_ms);
            let returned = place.returning.take();
            let turns = [returned.map(Turn::Returned), accepts, admitted.map(Turn::Admitted)];
            turns.into_iter().flatten().collect()
        }
        (Outcome::Withheld { .. }, _) => Vec::new(),
        (Outcome::Reject { reason }, _) => {
            succeeded(place);
            place.closed_until = None;
            rejected(place, message, reason, now)
        }
        (Outcome::Retry { .. } | Outcome::Unknown { .. }, _) if is_planted(Bug::NoBackoff) => Vec::new(),
        (Outcome::Retry { after, .. } | Outcome::Unknown { after, .. }, _) => {
            failed(place, outcome.reason(), now);
            place.closed_until = Some(later(now, closure(place.failures, *after, (S, LONGEST_CLOSURE), chance)));
            let was_last = was_last && !is_planted(Bug::LastTryIsSilent);
            let patience = if was_last { GIVEN_UP_WITH_A_MESSAGE } else { GIVEN_UP_AFTER };
            let lasts = place.failing_since.is_some_and(|since| elapsed(since, now) >= patience);
            // What a person brought back, and nothing has passed since, is not back.
            let is_over = lasts || was_last && place.returning.is_some();
            is_over.then(|| died(place, outcome.reason(), identity, now)).into_iter().collect()
        }
        (Outcome::Limited { after, account: true, .. }, Some(account)) => {
            limited(account, *after, outcome.reason(), now, chance);
            Vec::new()
        }
        // From then on messages keep a distance that shrinks with each that passes.
        (Outcome::Limited { after, .. }, _) => {
            limited(place, *after, outcome.reason(), now, chance);
            place.spacing_ms = place.spacing_ms.saturating_mul(2).clamp(SPACING_MS.0, SPACING_MS.1);
            // Once is a hint; again, people should see it.
            if place.failures > 1 {
                place.failing_since.get_or_insert(now);
            }
            Vec::new()
        }
        (Outcome::Denied { .. }, Some(account)) => {
            let is_first = account.failing_since.is_none();
            failed(account, outcome.reason(), now);
            account.closed_until = Some(later(now, closure(account.failures, None, DENIED, chance)));
            if is_planted(Bug::DenialHammers) {
                account.closed_until = None;
            }
            is_first.then_some(Turn::Denied).into_iter().collect()
        }
        (Outcome::Dead { .. } | Outcome::Denied { .. }, _) => vec![died(place, outcome.reason(), identity, now)],
    }
}

/// Says since when it had failed.
fn succeeded(place: &mut Place) -> Option<Timestamp> {
    place.failures = 0;
    place.said = None;
    place.failing_since.take()
}

/// It answers, and the next message deserves its own try; but nothing has passed for a while.
fn rejected(place: &mut Place, message: Uuid, reason: &str, now: Timestamp) -> Vec<Turn> {
    if place.rejected.len() < REJECTIONS && !place.rejected.contains(&message) {
        place.rejected.push(message);
    }
    if place.rejected.len() < REJECTIONS || is_planted(Bug::RejectionsAreSilent) {
        return Vec::new();
    }
    place.said = Some(reason.to_owned());
    let is_new = place.rejecting_since.is_none();
    place.rejecting_since.get_or_insert(now);
    is_new.then_some(Turn::Refuses).into_iter().collect()
}

fn failed(place: &mut Place, reason: &str, now: Timestamp) {
    place.failures = place.failures.saturating_add(1);
    place.failing_since.get_or_insert(now);
    place.said = Some(reason.to_owned());
}

/// The platform knows best how long.
fn limited(place: &mut Place, after: Option<Duration>, reason: &str, now: Timestamp, chance: f64) {
    let after = after.filter(|_| !is_planted(Bug::WaitIsIgnored));
    place.failures = place.failures.saturating_add(1);
    place.said = Some(reason.to_owned());
    place.closed_until = Some(later(now, closure(place.failures, after, (5 * S, LONGEST_CLOSURE), chance)));
}

fn relaxed(spacing_ms: u64) -> u64 {
    let spacing_ms = spacing_ms / 10 * 9;
    if spacing_ms < SPACING_MS.0 / 4 { 0 } else { spacing_ms }
}

fn died(place: &mut Place, reason: &str, identity: &str, now: Timestamp) -> Turn {
    let (reason, identity) = (reason.to_owned(), identity.to_owned());
    place.dead = Some(Dead { since: now, reason, identity });
    Turn::Died
}

/// How long a destination stays closed after its `failures`th failed attempt in a row, whichever deliveries they were
/// of: each of them is a probe, and one that only its own destination dislikes holds up no other.
fn closure(failures: u32, asked: Option<Duration>, (shortest, longest): (u64, u64), chance: f64) -> Duration {
    let index = usize::try_from(failures.saturating_sub(1)).unwrap_or(usize::MAX);
    let seconds = WAITS.get(index).copied().unwrap_or(longest).clamp(shortest, longest);
    jittered(seconds, chance).max(asked.unwrap_or_default().min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Pace, Repetitions};

    const SLOW: Terms =
        Terms { paces: &[Pace { count: 18, window: Duration::from_secs(60) }], repetitions: Repetitions::Shown };
    const TWO_PACES: [Pace; 2] =
        [Pace { count: 5, window: Duration::from_secs(1) }, Pace { count: 100, window: Duration::from_secs(60) }];
    const FAST: Terms = Terms { paces: &[], repetitions: Repetitions::Merged };

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn after(seconds: u64) -> Timestamp {
        now() + Duration::from_secs(seconds)
    }

    fn retry(after: Option<u64>) -> Outcome {
        Outcome::Retry { after: after.map(Duration::from_secs), reason: "503".to_owned() }
    }

    fn limited(after: Option<u64>, account: bool) -> Outcome {
        Outcome::Limited { after: after.map(Duration::from_secs), account, reason: "429".to_owned() }
    }

    fn delivered() -> Outcome {
        Outcome::Delivered { message_id: None, pause: None }
    }

    fn unknown() -> Outcome {
        Outcome::Unknown { after: None, reason: "no answer".to_owned() }
    }

    fn open_in(place: &Place, account: Option<&Place>, terms: Terms, at: Timestamp) -> Option<i64> {
        let opens = opens_at(place, account, terms, at, Timestamp::MIN)?;
        Some(if opens <= at { 0 } else { opens.duration_since(at).as_secs() })
    }

    fn attempt(message: u128, outcome: &Outcome, at: Timestamp) -> Ended<'_> {
        Ended {
            message: Uuid::from_u128(message),
            outcome,
            was_last: false,
            identity: "as configured",
            at,
            chance: 0.5,
        }
    }

    fn end(place: &mut Place, outcome: &Outcome, at: Timestamp) -> Option<Turn> {
        end_in(place, None, outcome, at)
    }

    fn end_in(place: &mut Place, account: Option<&mut Place>, outcome: &Outcome, at: Timestamp) -> Option<Turn> {
        let turns = ended(place, account, attempt(1, outcome, at));
        assert!(turns.len() <= 1, "{turns:?}");
        turns.first().copied()
    }

    #[test]
    fn two_days_of_outage_cost_a_destination_sixty_requests_at_most_and_five_days_its_life() {
        let (mut place, mut at, mut requests) = (Place::default(), now(), 0);
        let died_at = loop {
            requests += u32::from(at <= after(48 * H));
            match end(&mut place, &retry(None), at) {
                None => at = opens_at(&place, None, FAST, at, now()).unwrap(),
                turn => {
                    assert_eq!(turn, Some(Turn::Died));
                    break at;
                }
            }
        };
        assert!((40..=60).contains(&requests), "{requests} requests in two days");
        let days = died_at.duration_since(now()).as_secs_f64() / 86_400.0;
        assert!((5.0..5.1).contains(&days), "given up after {days} days");
        assert_eq!(open_in(&place, None, FAST, after(365 * 24 * H)), None, "until a person acts");
    }

    #[test]
    fn one_message_that_fails_for_ever_holds_its_destination_up_no_longer_than_the_others_do() {
        let mut place = Place::default();
        for round in 0..20 {
            end(&mut place, &retry(None), after(round * 10));
            assert_eq!(open_in(&place, None, FAST, after(round * 10)), Some(2), "others have passed in between");
            end(&mut place, &delivered(), after(round * 10 + 5));
            assert_eq!(open_in(&place, None, FAST, after(round * 10 + 5)), Some(0));
        }
    }

    #[test]
    fn after_a_message_too_many_the_others_keep_a_distance_that_shrinks_as_they_pass() {
        let mut place = Place::default();
        began(&mut place, FAST, now());
        end(&mut place, &limited(Some(30), false), now());
        assert_eq!(open_in(&place, None, FAST, now()), Some(30));
        let mut distances = Vec::new();
        let mut at = after(30);
        for _ in 0..40 {
            began(&mut place, FAST, at);
            end(&mut place, &delivered(), at);
            let opens = opens_at(&place, None, FAST, at, now()).unwrap().max(at);
            distances.push(opens.duration_since(at).as_millis());
            at = opens;
        }
        assert!((800..=1_000).contains(&distances[0]), "{distances:?}");
        assert!(distances.is_sorted_by(|a, b| a >= b), "{distances:?}");
        assert_eq!(distances.last(), Some(&0), "{distances:?}");
    }

    #[test]
    fn what_concerns_the_whole_bot_closes_all_its_rooms_and_is_told_once() {
        let (mut room, mut other, mut account) = (Place::default(), Place::default(), Place::default());
        end_in(&mut room, Some(&mut account), &limited(Some(40), true), now());
        assert_eq!(open_in(&other, Some(&account), FAST, now()), Some(40), "all rooms wait");
        let denied = Outcome::Denied { reason: "401".to_owned() };
        let mut turns = Vec::new();
        let mut requests = 0;
        let mut at = after(100);
        while at < after(100 + 600) {
            turns.extend(end_in(&mut other, Some(&mut account), &denied, at));
            requests += 1;
            at = opens_at(&room, Some(&account), FAST, at, now()).unwrap();
        }
        assert_eq!(turns, [Turn::Denied]);
        assert!(requests <= 10, "{requests} requests in ten minutes");
        assert_eq!(end_in(&mut room, Some(&mut account), &delivered(), at), Some(Turn::Admitted(after(100))));
        assert_eq!(open_in(&other, Some(&account), FAST, at), Some(0));
    }

    #[test]
    fn a_bot_that_is_refused_everywhere_rests_long_before_it_is_banned() {
        let (mut account, mut requests) = (Place::default(), 0);
        for second in 0..600 {
            let mut room = Place::default();
            if open_in(&room, Some(&account), FAST, after(second)) == Some(0) {
                end_in(&mut room, Some(&mut account), &Outcome::Dead { reason: String::new() }, after(second));
                requests += 1;
            }
        }
        assert_eq!(requests, 50, "in ten minutes, over all rooms");
    }

    #[test]
    fn dead_is_dead_until_a_person_acts_and_its_return_is_told_when_it_is_true() {
        let mut place = Place::default();
        let turn = end(&mut place, &Outcome::Dead { reason: "404".to_owned() }, now());
        assert_eq!((turn, open_in(&place, None, FAST, after(H))), (Some(Turn::Died), None));
        place.revive();
        assert_eq!(open_in(&place, None, FAST, after(H)), Some(0));
        assert_eq!(end(&mut place, &retry(None), after(H)), None, "not reached yet");
        assert_eq!(end(&mut place, &delivered(), after(2 * H)), Some(Turn::Returned(now())));
        assert_eq!(end(&mut place, &delivered(), after(3 * H)), None);
    }

    #[test]
    fn the_last_try_of_a_message_gives_up_a_destination_that_took_nothing_for_days() {
        let last = |place: &mut Place, outcome: &Outcome, at: Timestamp| {
            ended(place, None, Ended { was_last: true, ..attempt(1, outcome, at) })
        };
        let mut place = Place::default();
        end(&mut place, &retry(None), now());
        assert_eq!(last(&mut place.clone(), &retry(None), after(71 * H)), [], "others may have passed before");
        assert_eq!(last(&mut place, &retry(None), after(80 * H)), [Turn::Died]);
        place.revive();
        assert_eq!(last(&mut place.clone(), &retry(None), after(81 * H)), [Turn::Died], "it is not back");
        assert_eq!(end(&mut place, &delivered(), after(81 * H)), Some(Turn::Returned(after(80 * H))));
        assert_eq!(last(&mut place, &retry(None), after(82 * H)), [], "it takes messages, but not this one");
    }

    #[test]
    fn five_messages_refused_in_a_row_are_a_trouble_that_holds_nothing_up() {
        let refused = Outcome::Reject { reason: "status 400".to_owned() };
        let mut place = Place::default();
        let reject = |place: &mut Place, message: u128| {
            let turns = ended(place, None, attempt(message, &refused, after(message as u64)));
            assert_eq!(open_in(place, None, FAST, after(message as u64)), Some(0), "each has its own try");
            turns
        };
        for _ in 0..9 {
            assert_eq!(reject(&mut place, 1), [], "always the same one");
        }
        end(&mut place, &delivered(), after(1));
        let turns: Vec<Turn> = (1..=9).flat_map(|message| reject(&mut place, message)).collect();
        assert_eq!((turns, place.rejecting_since), (vec![Turn::Refuses], Some(after(5))), "told once");
        assert_eq!((place.said.as_deref(), place.rejected.len()), (Some("status 400"), 5));
        end(&mut place, &Outcome::Dead { reason: "404".to_owned() }, after(10));
        place.revive();
        let both = ended(&mut place, None, attempt(1, &delivered(), after(20)));
        assert_eq!(both, [Turn::Returned(after(10)), Turn::Accepts(after(5))]);
        assert_eq!((place.said, place.rejecting_since), (None, None));
    }

    #[test]
    fn a_clock_that_goes_back_neither_closes_a_destination_for_ever_nor_opens_it_too_early() {
        let mut place = Place::default();
        let ahead = after(10 * H);
        for _ in 0..18 {
            began(&mut place, SLOW, ahead);
        }
        let opens = opens_at(&place, None, SLOW, now(), now()).unwrap();
        assert_eq!(opens, after(60), "as if all had left when the clock went back");
        place.closed_until = Some(after(40 * 24 * H));
        assert_eq!(opens_at(&place, None, FAST, after(70), now()).unwrap(), now(), "no wait is that long");
    }

    proptest! {
        /// Over any restarts: all that is remembered is the place, as the store keeps it.
        #[test]
        fn in_no_window_more_than_the_pace_leaves(
            wishes in prop::collection::vec((0u64..900, 0u64..3, 0u8..8), 1..200),
        ) {
            let terms = Terms { paces: &TWO_PACES, repetitions: Repetitions::Shown };
            let mut place = Place::default();
            let (mut at, mut sent) = (now(), Vec::new());
            for (pause, took, restarts) in wishes {
                at += Duration::from_millis(pause);
                if opens_at(&place, None, terms, at, Timestamp::MIN).unwrap() > at {
                    continue;
                }
                began(&mut place, terms, at);
                at += Duration::from_millis(took);
                sent.push(at);
                end(&mut place, &unknown(), at);
                place.closed_until = None;
                if restarts == 0 {
                    place = serde_json::from_str(&serde_json::to_string(&place).unwrap()).unwrap();
                }
            }
            for pace in TWO_PACES {
                for (first, after) in sent.iter().zip(sent.iter().skip(pace.count)) {
                    prop_assert!(elapsed(*first, *after) >= pace.window, "{} messages within it", pace.count + 1);
                }
            }
        }

        #[test]
        fn whatever_happens_to_a_destination_it_opens_again_or_is_dead(
            events in prop::collection::vec((0u8..8, 0u64..100_000, 0.0f64..1.0), 1..60),
        ) {
            let (mut place, mut account, mut at) = (Place::default(), Place::default(), now());
            for (event, seconds, chance) in events {
                at += Duration::from_secs(seconds);
                let outcome = match event {
                    0 => delivered(),
                    1 => Outcome::Delivered { message_id: None, pause: Some(Duration::from_secs(seconds * 1000)) },
                    2 => retry(Some(seconds * 1000)),
                    3 => limited(Some(seconds), true),
                    4 => limited(None, false),
                    5 => Outcome::Denied { reason: String::new() },
                    6 => Outcome::Reject { reason: String::new() },
                    _ => unknown(),
                };
                began(&mut place, SLOW, at);
                ended(&mut place, Some(&mut account), Ended { chance, ..attempt(1, &outcome, at) });
                match opens_at(&place, Some(&account), SLOW, at, now()) {
                    Some(opens) => prop_assert!(elapsed(at, opens) <= BEYOND_ANY_WAIT, "{opens}"),
                    None => prop_assert!(place.dead.is_some()),
                }
                prop_assert!(place.sent.len() <= 18 && account.refused.len() <= REFUSALS);
            }
        }
    }
}
