//! What a notice's template may say.

use super::clean;
use super::facts::{Facts, NAME, View, millis_between};
use super::words::{abbreviation, moment};
use crate::model::{Notice, NoticeKind, Timestamp, Tone};

const REASON: usize = 300;
/// Workspaces named; the others are counted.
const WORKSPACES: usize = 10;

pub(super) fn tone(notice: &Notice) -> Tone {
    if notice.kind.is_end() { Tone::Good } else { Tone::Bad }
}

pub(super) fn facts(notice: &Notice, view: &View<'_>) -> Facts {
    use NoticeKind::{BotBack, BotDenied, SourceBack, SourceDenied};
    use NoticeKind::{DestinationAccepting, DestinationBack, DestinationDead, DestinationRefusing};
    let mut facts = Facts {
        symbol: tone(notice).symbol(),
        notice: Some(notice.kind.name()),
        at: moment(notice.at, view.zone, view.now),
        zone: abbreviation(view.zone, view.now),
        delayed: super::facts::delayed(notice.at, view),
        ..Facts::default()
    };
    let mut began = |since: Timestamp| {
        facts.since = Some(moment(since, view.zone, view.now));
        facts.lasted = view.words.duration(millis_between(since, notice.at));
    };
    match &notice.kind {
        DestinationBack { since, .. }
        | DestinationAccepting { since, .. }
        | BotBack { since, .. }
        | SourceBack { since, .. } => began(*since),
        _ => {}
    }
    match &notice.kind {
        DestinationDead { reason, .. }
        | DestinationRefusing { reason, .. }
        | BotDenied { reason, .. }
        | SourceDenied { reason, .. } => {
            facts.reason = Some(clean::line(reason, REASON)).filter(|reason| !reason.is_empty());
        }
        _ => {}
    }
    match &notice.kind {
        DestinationDead { destination, .. }
        | DestinationBack { destination, .. }
        | DestinationRefusing { destination, .. }
        | DestinationAccepting { destination, .. } => {
            facts.destination = Some(clean::line(&destination.to_string(), NAME));
        }
        BotDenied { surface, .. } | BotBack { surface, .. } => facts.bot = Some(clean::line(surface, NAME)),
        SourceDenied { workspaces, .. } | SourceBack { workspaces, .. } => {
            let names: Vec<String> = workspaces.iter().map(|name| clean::line(name, NAME)).collect();
            facts.workspaces = Some(view.words.names(&names, WORKSPACES));
        }
    }
    facts
}
