//! What became of a delivery, what it waits for and what comes next. Pure; the chat, the command line and the board say
//! it in the same words.

use serde::Serialize;
use uuid::Uuid;

use crate::model::{Dead, DeliveryState, Destination, Timestamp};
use crate::store::{Attempt, DeliveryRow, PlaceRow};
use crate::text::clean_line_cut;

/// A reason is shown up to here, in characters.
const REASON: usize = 160;

/// Whether a destination is configured. `Anew`: otherwise than when it refused for good, so that it is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Configured {
    No,
    Yes,
    Anew,
}

/// Asks the configuration for a destination, and for what it died of.
pub type Configuration = Box<dyn Fn(&Destination, Option<&Dead>) -> Configured + Send + Sync>;

/// How a destination stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Condition {
    Well,
    Unconfigured,
    /// Nothing leaves until a person acts.
    Dead {
        since: Timestamp,
        reason: String,
    },
    /// Nothing leaves before `until`. With `since` its attempts fail since then; else it asked for a pause.
    Closed {
        until: Timestamp,
        since: Option<Timestamp>,
        reason: String,
    },
    /// Its attempts fail since then; it may be tried.
    Failing {
        since: Timestamp,
        reason: String,
    },
}

/// The condition of `to`, by what is remembered of it and of the account it belongs to.
pub fn condition(to: &Destination, places: &[PlaceRow], configuration: &Configuration, now: Timestamp) -> Condition {
    let find = |to: &Destination| places.iter().find(|row| row.to == *to).map(|row| &row.place);
    let own = find(to);
    let dead = own.and_then(|place| place.dead.as_ref());
    match (configuration(to, dead), dead) {
        (Configured::No, _) => return Condition::Unconfigured,
        (Configured::Anew, _) => return Condition::Well,
        (Configured::Yes, Some(Dead { since, reason, .. })) => {
            return Condition::Dead { since: *since, reason: reason.clone() };
        }
        (Configured::Yes, None) => {}
    }
    let account = to.account().filter(|account| account != to).and_then(|account| find(&account));
    let said = |place: &crate::model::Place| place.said.clone().unwrap_or_default();
    let all = || account.into_iter().chain(own);
    let closed = all().filter_map(|place| Some((place.closed_until.filter(|until| *until > now)?, place)));
    if let Some((until, place)) = closed.max_by_key(|(until, _)| *until) {
        return Condition::Closed { until, since: place.failing_since, reason: said(place) };
    }
    let failing = all().find_map(|place| Some((place.failing_since.or(place.rejecting_since)?, place)));
    failing.map_or(Condition::Well, |(since, place)| Condition::Failing { since, reason: said(place) })
}

/// What needs somebody's eye: destinations that are dead, fail, are closed although they should not be, or are owed
/// something without being configured. By name.
pub fn troubled<'a>(
    places: &'a [PlaceRow],
    configuration: &Configuration,
    now: Timestamp,
) -> Vec<(&'a PlaceRow, Condition)> {
    let judged = places.iter().map(|row| (row, condition(&row.to, places, configuration, now)));
    judged
        .filter(|(row, condition)| match condition {
            Condition::Well | Condition::Closed { since: None, .. } => false,
            Condition::Unconfigured => row.open > 0,
            // What only its account suffers from is told once, of the account.
            Condition::Closed { .. } | Condition::Failing { .. } => {
                row.place.failing_since.is_some() || row.place.rejecting_since.is_some()
            }
            Condition::Dead { .. } => true,
        })
        .collect()
}

/// Writes a moment for a reader.
pub type Moment<'a> = &'a dyn Fn(Timestamp) -> String;

impl Condition {
    /// A sentence about the destination that is called `name`, without its full stop; `None`: all is well.
    pub fn words(&self, name: &str, at: Moment<'_>) -> Option<String> {
        let because = |reason: &str| if reason.is_empty() { String::new() } else { format!(" ({})", short(reason)) };
        match self {
            Condition::Well => None,
            Condition::Unconfigured => Some(format!("{name} is not in the configuration; nothing is sent to it")),
            Condition::Dead { since, reason } => {
                Some(format!("nothing is sent to {name} since {}: {}", at(*since), short(reason)))
            }
            Condition::Closed { until, since: Some(since), reason } => {
                Some(format!("{name} fails since {}{}; next try {}", at(*since), because(reason), at(*until)))
            }
            Condition::Closed { until, since: None, reason } => {
                Some(format!("{name} takes nothing before {}{}", at(*until), because(reason)))
            }
            Condition::Failing { since, reason } => {
                Some(format!("{name} fails since {}{}", at(*since), because(reason)))
            }
        }
    }

    /// The command that helps against it.
    pub fn remedy(&self, to: &Destination) -> Option<String> {
        match self {
            Condition::Dead { .. } => Some(format!("callboard deliveries retry --to {to}")),
            _ => None,
        }
    }

    /// Nothing leaves for now.
    pub fn holds(&self) -> bool {
        !matches!(self, Condition::Well | Condition::Failing { .. })
    }

    /// From when on something may leave, the present at the earliest; `None`: not before a person acts.
    fn opens_at(&self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Condition::Well | Condition::Failing { .. } => Some(now),
            Condition::Closed { until, .. } => Some(now.max(*until)),
            Condition::Unconfigured | Condition::Dead { .. } => None,
        }
    }
}

/// On one line, and not too long.
pub fn short(reason: &str) -> String {
    clean_line_cut(reason, REASON)
}

/// What became of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// `before`: an attempt that may have arrived as well.
    Delivered {
        at: Timestamp,
        before: Option<Timestamp>,
    },
    /// By the message of another delivery.
    Told {
        by: Uuid,
        at: Option<Timestamp>,
    },
    /// A person gave it up.
    Discarded {
        at: Option<Timestamp>,
    },
    Dead {
        since: Option<Timestamp>,
        reason: String,
    },
    UnderWay {
        since: Option<Timestamp>,
    },
    /// `unknown_since`: an attempt at it may have arrived; it is repeated all the same.
    Waits {
        behind: Behind,
        condition: Condition,
        unknown_since: Option<Timestamp>,
    },
}

/// What stands between a delivery and its next attempt, its destination aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behind {
    /// It is told by the message of that delivery.
    Lead(Uuid),
    /// An older one of its run goes first.
    Older(Uuid),
    /// Its destination takes one message at a time, and is busy with that one.
    Other(Uuid),
    /// Its schedule, which lasts longer than its destination is closed.
    Until(Timestamp),
    /// Nothing: its turn comes.
    Nothing,
}

/// `older`: the open delivery of the same run and destination that goes before it. `other`: what is in flight to the
/// same destination.
pub fn fate(
    row: &DeliveryRow,
    attempts: &[Attempt],
    older: Option<Uuid>,
    other: Option<Uuid>,
    condition: Condition,
    now: Timestamp,
) -> Fate {
    let attempted = attempts.last().map(|attempt| attempt.started_at);
    match (row.state, row.folded_into) {
        (DeliveryState::Delivered, _) => {
            let at = row.settled_at.or(attempted).unwrap_or(row.delivery.created_at);
            Fate::Delivered { at, before: maybe_arrived(attempts) }
        }
        (DeliveryState::Superseded, Some(by)) => Fate::Told { by, at: row.settled_at },
        (DeliveryState::Superseded, None) => Fate::Discarded { at: row.settled_at },
        (DeliveryState::Dead, _) => {
            Fate::Dead { since: row.settled_at, reason: row.reason.clone().unwrap_or_default() }
        }
        (DeliveryState::InFlight, _) => Fate::UnderWay { since: attempted },
        (DeliveryState::Pending | DeliveryState::Unknown, lead) => {
            let later = row.next_at.filter(|next_at| condition.opens_at(now).is_some_and(|opens| *next_at > opens));
            let behind = match (lead, older, later, other) {
                (Some(lead), ..) => Behind::Lead(lead),
                (None, Some(older), ..) => Behind::Older(older),
                (None, None, Some(later), _) => Behind::Until(later),
                (None, None, None, Some(other)) => Behind::Other(other),
                (None, None, None, None) => Behind::Nothing,
            };
            Fate::Waits { behind, condition, unknown_since: row.delivery.unknown_since }
        }
    }
}

/// When the first attempt began that may have arrived, the last one aside.
fn maybe_arrived(attempts: &[Attempt]) -> Option<Timestamp> {
    let (_, earlier) = attempts.split_last()?;
    let unknown = earlier.iter().find(|attempt| attempt.outcome.as_deref() == Some("unknown"));
    unknown.map(|attempt| attempt.started_at)
}

/// The open delivery that goes before `row`: the oldest of its run to its destination.
pub fn older<'a>(row: &DeliveryRow, of_run: impl Iterator<Item = &'a DeliveryRow>) -> Option<&'a DeliveryRow> {
    let place = |row: &DeliveryRow| {
        let change = row.delivery.news.change()?;
        Some((change.workspace.key(), change.run.id.clone(), change.sequence))
    };
    let (workspace, run, sequence) = place(row)?;
    let is_open = |row: &DeliveryRow| {
        matches!(row.state, DeliveryState::Pending | DeliveryState::InFlight | DeliveryState::Unknown)
    };
    let before = of_run.filter(|other| is_open(other) && other.delivery.to == row.delivery.to).filter_map(|other| {
        let (its_workspace, its_run, its_sequence) = place(other)?;
        (its_workspace == workspace && its_run == run && its_sequence < sequence).then_some((its_sequence, other))
    });
    before.min_by_key(|(sequence, _)| *sequence).map(|(_, other)| other)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{Change, ChangeKind, Delivery, News, Place, Snapshot, Status, Workspace};

    fn now() -> Timestamp {
        "2026-11-24T08:00:00Z".parse().unwrap()
    }

    fn after(seconds: u64) -> Timestamp {
        now() + Duration::from_secs(seconds)
    }

    fn to(name: &str) -> Destination {
        Destination::from(name.to_owned())
    }

    fn remembered(name: &str, place: Place) -> PlaceRow {
        PlaceRow { to: to(name), place, open: 3 }
    }

    fn failing(until: Option<Timestamp>) -> Place {
        let said = Some("503".to_owned());
        Place { failures: 2, failing_since: Some(now()), said, closed_until: until, ..Place::default() }
    }

    fn dead() -> Place {
        let dead = Dead { since: now(), reason: "it no longer exists".to_owned(), identity: "old".to_owned() };
        Place { dead: Some(dead), ..Place::default() }
    }

    fn configured(answer: Configured) -> Configuration {
        Box::new(move |_, dead| if answer == Configured::Anew && dead.is_none() { Configured::Yes } else { answer })
    }

    fn told(condition: &Condition) -> String {
        condition.words("ops", &|at| at.strftime("%H:%M:%S").to_string()).unwrap_or_else(|| "well".to_owned())
    }

    #[test]
    fn a_destination_says_why_nothing_leaves() {
        let places = [
            remembered("dead", dead()),
            remembered("failing", failing(Some(after(60)))),
            remembered("tried", failing(Some(now()))),
            remembered("paused", Place { closed_until: Some(after(5)), ..Place::default() }),
            remembered("discord:", failing(Some(after(90)))),
            remembered("discord:1", Place::default()),
            remembered("discord:2", failing(Some(after(9)))),
        ];
        let yes = configured(Configured::Yes);
        let said = |name| told(&condition(&to(name), &places, &yes, after(1)));
        assert_eq!(said("nobody"), "well");
        assert_eq!(said("dead"), "nothing is sent to ops since 08:00:00: it no longer exists");
        assert_eq!(said("failing"), "ops fails since 08:00:00 (503); next try 08:01:00");
        assert_eq!(said("tried"), "ops fails since 08:00:00 (503)");
        assert_eq!(said("paused"), "ops takes nothing before 08:00:05");
        assert_eq!(said("discord:1"), "ops fails since 08:00:00 (503); next try 08:01:30", "its bot is refused");
        assert_eq!(said("discord:2"), said("discord:1"), "what lasts longest counts");
        let no = configured(Configured::No);
        let unconfigured = told(&condition(&to("dead"), &places, &no, now()));
        assert_eq!(unconfigured, "ops is not in the configuration; nothing is sent to it");
        let anew = configured(Configured::Anew);
        assert_eq!(condition(&to("dead"), &places, &anew, now()), Condition::Well, "it is tried again by itself");
    }

    #[test]
    fn trouble_is_told_once_and_only_where_there_is_some() {
        let idle = PlaceRow { open: 0, ..remembered("gone", dead()) };
        let places = [
            remembered("dead", dead()),
            remembered("paused", Place { closed_until: Some(after(5)), ..Place::default() }),
            remembered("discord:", failing(Some(after(90)))),
            remembered("discord:1", Place::default()),
            idle,
        ];
        let here = |to: &Destination| to.to_string() != "gone";
        let configuration: Configuration =
            Box::new(move |to, _| if here(to) { Configured::Yes } else { Configured::No });
        let found = troubled(&places, &configuration, now());
        let names: Vec<String> = found.iter().map(|(row, _)| row.to.to_string()).collect();
        assert_eq!(names, ["dead", "discord:"], "a pause is none, nor is what is neither configured nor owed anything");
    }

    fn row(sequence: i64, state: DeliveryState) -> DeliveryRow {
        let stages = Vec::new();
        let run = Snapshot {
            id: "7b1e04c2".parse().unwrap(),
            description: String::new(),
            creator: String::new(),
            status: Status::Running,
            message: String::new(),
            created_at: None,
            modified_at: None,
            stages,
        };
        let workspace = Workspace { name: "w".to_owned(), region: "cn-shanghai".to_owned(), project_id: 1 };
        let (url, kind) = (String::new(), ChangeKind::Started);
        let change = Change { workspace, run, url, sequence, at: now(), unseen_since: None, kind };
        let delivery = Delivery {
            id: Uuid::from_u128(u128::try_from(sequence).unwrap()),
            to: to("ops"),
            template: None,
            news: News::Change(change),
            attempt: 0,
            tries: 0,
            created_at: now(),
            unknown_since: None,
            told_elsewhere: false,
        };
        DeliveryRow {
            delivery,
            state,
            next_at: None,
            reason: None,
            settled_at: Some(after(9)),
            subscriptions: Vec::new(),
            folded_into: None,
            folding: None,
        }
    }

    fn attempt(number: u32, outcome: &str) -> Attempt {
        let started_at = after(number.into());
        Attempt { attempt: number, started_at, ended_at: None, outcome: Some(outcome.to_owned()), reason: None }
    }

    #[test]
    fn what_may_stand_there_twice_is_said_only_where_an_earlier_attempt_may_have_arrived() {
        let told = |attempts: &[Attempt]| {
            fate(&row(1, DeliveryState::Delivered), attempts, None, None, Condition::Well, after(60))
        };
        let (at, first) = (after(9), Some(after(1)));
        assert_eq!(told(&[attempt(1, "unknown"), attempt(2, "delivered")]), Fate::Delivered { at, before: first });
        assert_eq!(told(&[attempt(1, "retry"), attempt(2, "delivered")]), Fate::Delivered { at, before: None });
        assert_eq!(told(&[attempt(1, "delivered")]), Fate::Delivered { at, before: None });
    }

    #[test]
    fn what_waits_says_what_it_waits_for_first() {
        let lead = Uuid::from_u128(7);
        let pending = row(3, DeliveryState::Pending);
        let rows = [row(1, DeliveryState::Delivered), row(2, DeliveryState::Unknown), pending.clone()];
        let behind = |row: &DeliveryRow| {
            let before = older(row, rows.iter()).map(|older| older.delivery.id);
            match fate(row, &[], before, None, Condition::Well, after(1)) {
                Fate::Waits { behind, .. } => behind,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(behind(&pending), Behind::Older(Uuid::from_u128(2)), "the first one has ended");
        assert_eq!(behind(&DeliveryRow { folded_into: Some(lead), ..pending.clone() }), Behind::Lead(lead));
        assert_eq!(behind(&DeliveryRow { next_at: Some(after(5)), ..rows[1].clone() }), Behind::Until(after(5)));
        assert_eq!(behind(&DeliveryRow { next_at: Some(after(1)), ..rows[1].clone() }), Behind::Nothing);
        let waiting = DeliveryRow { next_at: Some(after(5)), ..row(2, DeliveryState::Pending) };
        let closed = |until| Condition::Closed { until, since: None, reason: String::new() };
        let kept = |condition: Condition, other| match fate(&waiting, &[], None, other, condition, after(1)) {
            Fate::Waits { behind, .. } => behind,
            ended => panic!("{ended:?}"),
        };
        assert_eq!(kept(closed(after(4)), None), Behind::Until(after(5)), "its own schedule lasts longer");
        assert_eq!(kept(closed(after(6)), None), Behind::Nothing, "its destination stays closed longer");
        assert_eq!(kept(closed(after(6)), Some(lead)), Behind::Other(lead));
        let told = DeliveryRow { folded_into: Some(lead), ..row(4, DeliveryState::Superseded) };
        let at = Some(after(9));
        assert_eq!(fate(&told, &[], None, None, Condition::Well, now()), Fate::Told { by: lead, at });
        let given_up = row(4, DeliveryState::Superseded);
        assert_eq!(fate(&given_up, &[], None, None, Condition::Well, now()), Fate::Discarded { at });
    }
}
