//! What one message tells: one change, what was missed of a run, or all that waits.

use std::time::Duration;

use super::{H, M, S, later};
use crate::model::{MOST_FOLDED, Place, Plan, Prefer, Queue, Repetitions, Terms, Timestamp, Waiting, elapsed};
use crate::planted::{Bug, is_planted};

/// What cannot leave within this time is folded.
const CARRIED_WITHIN: Duration = Duration::from_secs(M);
/// Older than this, it is no news any more but something to catch up on.
const FRESH: Duration = Duration::from_secs(10 * M);
/// The same for what somebody may still have to act on, and for ends.
const FRESH_IF_URGENT: Duration = Duration::from_secs(6 * H);
/// While a look at the workspace is awaited.
const LOOK_AGAIN: Duration = Duration::from_secs(S);

/// How the message is made whose turn it is. `looked`: its workspace was looked at since the process began, or that
/// takes too long.
pub fn plan(queue: &Queue<'_>, terms: Terms, prefer: Prefer, looked: bool, now: Timestamp) -> Plan {
    let head = &queue.head;
    if let Some(since) = head.unknown_since {
        return if prefer == Prefer::NoDuplicate
            && !is_planted(Bug::DuplicatesForLossy)
            && !is_merged(terms.repetitions, since, head.told_elsewhere, now)
        {
            Plan::GiveUp { reason: "it may have arrived, and this channel prefers a loss to a repetition" }
        } else {
            Plan::Single
        };
    }
    if is_late(head, now) && !is_planted(Bug::StaleIsNews) {
        // The run may have moved on meanwhile: one message for all of it.
        return if looked || is_planted(Bug::NoLookBeforeCatchUp) {
            Plan::CatchUp { rows: queue.run.len() }
        } else {
            Plan::Hold(later(now, LOOK_AGAIN))
        };
    }
    let carried = if is_planted(Bug::EagerDigests) { Some(1) } else { carried(queue.place, terms) };
    if carried.is_some_and(|carried| queue.waiting > carried) {
        return Plan::Digest { rows: MOST_FOLDED };
    }
    Plan::Single
}

/// Whether a repetition of what was sent first at `since` goes unseen; one that was told under another id never does.
pub fn is_merged(repetitions: Repetitions, since: Timestamp, told_elsewhere: bool, now: Timestamp) -> bool {
    match repetitions {
        _ if told_elsewhere => false,
        Repetitions::Shown => false,
        Repetitions::MergedFor(span) => now >= since && elapsed(since, now) < span,
        Repetitions::Merged => true,
    }
}

fn is_late(waiting: &Waiting, now: Timestamp) -> bool {
    let fresh = if waiting.urgent { FRESH_IF_URGENT } else { FRESH };
    waiting.missed || elapsed(waiting.created_at, now) > fresh
}

/// How many messages the destination takes within [`CARRIED_WITHIN`]; `None`: any number.
fn carried(place: &Place, terms: Terms) -> Option<usize> {
    let by_pace = |count: usize, window: Duration| {
        let messages = CARRIED_WITHIN.as_millis().saturating_mul(count as u128) / window.as_millis().max(1);
        usize::try_from(messages).unwrap_or(usize::MAX)
    };
    let paced = terms.paces.iter().map(|pace| by_pace(pace.count, pace.window));
    let spaced = (place.spacing_ms > 0).then(|| by_pace(1, Duration::from_millis(place.spacing_ms)));
    paced.chain(spaced).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Destination, Pace, WorkspaceKey};

    const SLOW: Terms =
        Terms { paces: &[Pace { count: 18, window: Duration::from_secs(60) }], repetitions: Repetitions::Shown };
    const FAST: Terms = Terms { paces: &[], repetitions: Repetitions::Merged };

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn after(seconds: u64) -> Timestamp {
        now() + Duration::from_secs(seconds)
    }

    fn waiting(age: u64, urgent: bool) -> Waiting {
        Waiting {
            workspace: WorkspaceKey("cn-shanghai/10000".to_owned()),
            created_at: now() - Duration::from_secs(age),
            urgent,
            missed: false,
            attempt: 0,
            unknown_since: None,
            told_elsewhere: false,
        }
    }

    fn planned(run: &[Waiting], waiting: usize, terms: Terms, prefer: Prefer, looked: bool) -> Plan {
        let (to, place) = (Destination::Channel("ops".to_owned()), Place::default());
        let queue = Queue { to: &to, place: &place, head: run[0].clone(), run: run.to_vec(), waiting };
        plan(&queue, terms, prefer, looked, now())
    }

    #[test]
    fn what_the_pace_carries_within_a_minute_leaves_one_by_one_and_more_is_folded() {
        let plan = |count, terms| planned(&[waiting(5, false)], count, terms, Prefer::NoLoss, true);
        assert_eq!(plan(18, SLOW), Plan::Single);
        assert_eq!(plan(19, SLOW), Plan::Digest { rows: MOST_FOLDED });
        assert_eq!(plan(200, FAST), Plan::Single, "nothing says that it can't be carried");
    }

    #[test]
    fn old_progress_is_no_news_and_waits_for_a_look_at_the_present() {
        let plan = |run: &[Waiting], looked| planned(run, run.len(), FAST, Prefer::NoLoss, looked);
        assert_eq!(plan(&[waiting(599, false), waiting(10, true)], true), Plan::Single);
        assert_eq!(plan(&[waiting(601, false), waiting(10, true)], true), Plan::CatchUp { rows: 2 });
        assert_eq!(plan(&[waiting(601, false)], false), Plan::Hold(after(1)));
        assert_eq!(plan(&[waiting(5 * H, true)], false), Plan::Single, "somebody may still have to act");
        assert_eq!(plan(&[waiting(7 * H, true)], true), Plan::CatchUp { rows: 1 });
        let missed = Waiting { missed: true, ..waiting(0, true) };
        assert_eq!(plan(&[missed], true), Plan::CatchUp { rows: 1 }, "nobody saw when it happened");
    }

    #[test]
    fn what_may_have_arrived_is_repeated_as_it_was_unless_the_channel_prefers_a_loss() {
        let sent = |ago| Waiting { unknown_since: Some(now() - Duration::from_secs(ago)), ..waiting(8 * H, false) };
        let nonce = Terms { repetitions: Repetitions::MergedFor(Duration::from_secs(90)), ..FAST };
        let shown = Terms { repetitions: Repetitions::Shown, ..FAST };
        let plan = |ago, terms, prefer| planned(&[sent(ago)], 100, terms, prefer, true);
        let given_up = |plan| matches!(plan, Plan::GiveUp { .. });
        assert_eq!(plan(10, shown, Prefer::NoLoss), Plan::Single);
        assert!(given_up(plan(10, shown, Prefer::NoDuplicate)));
        assert_eq!(plan(89, nonce, Prefer::NoDuplicate), Plan::Single, "Discord merges it");
        assert!(given_up(plan(91, nonce, Prefer::NoDuplicate)));
        assert_eq!(plan(9 * H, FAST, Prefer::NoDuplicate), Plan::Single, "the receiver merges it");
        let came_apart = Waiting { told_elsewhere: true, ..sent(10) };
        assert_eq!(planned(std::slice::from_ref(&came_apart), 100, FAST, Prefer::NoLoss, true), Plan::Single);
        assert!(given_up(planned(&[came_apart], 100, FAST, Prefer::NoDuplicate, true)), "it knows another id");
    }
}
