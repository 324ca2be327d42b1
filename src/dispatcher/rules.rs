//! What was configured, as the store asks for it while it claims and settles.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use uuid::Uuid;

use crate::channels::{Channel, Door};
use crate::delivery::{self, Ended, Turn};
use crate::model::{
    Claimed, Content, Destination, Draft, Folding, News, Notice, NoticeKind, Place, Plan, Prefer, Queue, Repetitions,
    Terms, Timestamp, elapsed,
};
use crate::planted::{Bug, is_planted};
use crate::store::{Announcement, Next, Policy, Settlement};
use crate::tracker::Tracker;

/// What waits for a first look at its workspace waits no longer than this.
const PATIENCE: Duration = Duration::from_secs(10);

/// A way out with what its messages are written in.
#[derive(Clone)]
pub struct Outlet {
    pub channel: Arc<dyn Channel>,
    pub locale: String,
    pub timezone: String,
    pub prefer: Prefer,
    /// Another one than a dead destination had: it was configured anew, and is worth a try.
    pub identity: String,
}

impl Outlet {
    /// In English and UTC.
    pub fn of(channel: Arc<dyn Channel>) -> Outlet {
        let (locale, timezone) = ("en".to_owned(), "UTC".to_owned());
        Outlet { channel, locale, timezone, prefer: Prefer::default(), identity: String::new() }
    }
}

/// Every way out: configured channels by name, rooms by their surface.
#[derive(Clone, Default)]
pub struct Outlets {
    pub channels: HashMap<String, Outlet>,
    pub rooms: HashMap<String, Outlet>,
    /// By surface: bots that can look whether they may write in a room.
    pub doors: HashMap<String, Arc<dyn Door>>,
    /// Channels that hear of every trouble.
    pub operators: BTreeSet<String>,
    /// Groups of channels that hear the same: they hear of each other's troubles.
    pub siblings: Vec<BTreeSet<String>>,
}

impl Outlets {
    /// The outlet of a destination and the address on it.
    pub fn find<'a>(&'a self, to: &'a Destination) -> Option<(&'a Outlet, &'a str)> {
        match to {
            Destination::Channel(name) => Some((self.channels.get(name)?, "")),
            Destination::Room { surface, room } => Some((self.rooms.get(surface)?, room)),
        }
    }

    /// Whether messages would reach this destination, as far as can be told; `Err` is for the person who wants them.
    pub async fn admits(self: Arc<Self>, to: Destination) -> Result<(), String> {
        if self.find(&to).is_none() {
            let nothing = "I can answer here but not post by myself, so nothing can be watched from here. Whoever runs \
                           me can change that: I need a token to post with.";
            return Err(nothing.to_owned());
        }
        match &to {
            Destination::Room { surface, room } => match self.doors.get(surface) {
                Some(door) => door.admits(room).await,
                None => Ok(()),
            },
            Destination::Channel(_) => Ok(()),
        }
    }

    /// The kind of each.
    pub fn kinds(&self) -> impl Iterator<Item = &'static str> {
        self.channels.values().chain(self.rooms.values()).map(|outlet| outlet.channel.dialect().kind)
    }

    /// The metric label of a destination.
    pub fn kind(&self, to: &Destination) -> &'static str {
        self.find(to).map_or("none", |(outlet, _)| outlet.channel.dialect().kind)
    }

    /// Who hears of a trouble of this destination, itself left out.
    pub fn told_of(&self, to: Option<&Destination>) -> Vec<(Uuid, Destination)> {
        let name = match to {
            Some(Destination::Channel(name)) => Some(name),
            _ => None,
        };
        let siblings = self.siblings.iter().filter(|group| name.is_some_and(|name| group.contains(name))).flatten();
        let told: BTreeSet<&String> =
            self.operators.iter().chain(siblings).filter(|told| Some(*told) != name).collect();
        let told = told.into_iter().filter(|told| self.channels.contains_key(*told));
        told.map(|told| (Uuid::now_v7(), Destination::Channel(told.clone()))).collect()
    }
}

/// The policy of a running service.
pub struct Rules {
    outlets: Arc<Outlets>,
    tracker: Arc<Tracker>,
    time: Mutex<Time>,
}

/// What the clock did.
#[derive(Debug, Clone, Copy)]
struct Time {
    last: Timestamp,
    /// The start of the process by the present clock, at the latest.
    began_at: Timestamp,
    steady_since: Timestamp,
}

impl Rules {
    pub fn new(outlets: Arc<Outlets>, tracker: Arc<Tracker>, now: Timestamp) -> Rules {
        Rules { outlets, tracker, time: Mutex::new(Time { last: now, began_at: now, steady_since: now }) }
    }

    /// Notices a clock that went back.
    pub fn pass(&self, now: Timestamp) {
        let mut time = self.time.lock().unwrap_or_else(PoisonError::into_inner);
        if now < time.last {
            time.steady_since = now;
            time.began_at = time.began_at.min(now);
        }
        time.last = now;
    }

    fn time(&self) -> Time {
        *self.time.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn terms(&self, to: &Destination) -> Terms {
        let nothing_known = Terms { paces: &[], repetitions: Repetitions::Shown };
        self.outlets.find(to).map_or(nothing_known, |(outlet, _)| outlet.channel.terms())
    }

    fn identity<'a>(&'a self, to: &'a Destination) -> &'a str {
        self.outlets.find(to).map_or("", |(outlet, _)| &outlet.identity)
    }

    fn is_mended(&self, to: &Destination, place: &Place) -> bool {
        place.dead.as_ref().is_some_and(|dead| dead.identity != self.identity(to))
    }

    /// What a message says, by what was claimed for it.
    pub fn draft(&self, claimed: &Claimed, now: Timestamp) -> Draft {
        let Claimed { lead, folded, folding, .. } = claimed;
        let changes = || std::iter::once(lead).chain(folded).filter_map(|one| one.news.change().cloned());
        let content = match (&lead.news, folding) {
            (News::Notice(notice), _) => Content::Notice(notice.clone()),
            (News::Change(_), Some(why)) => Content::Digest { changes: by_run(changes().collect()), why: *why },
            (News::Change(change), None) => Content::Change(change.clone()),
        };
        let late = *folding == Some(Folding::Late);
        let present = lead
            .news
            .change()
            .filter(|_| late)
            .and_then(|change| Some(self.tracker.state(&change.workspace.key(), &change.run.id)?.snapshot.clone()));
        let repetitions = self.terms(&lead.to).repetitions;
        let is_seen = |since| !delivery::is_merged(repetitions, since, lead.told_elsewhere, now);
        let repeated = lead.unknown_since.is_some_and(is_seen);
        let id = if is_planted(Bug::NewIdEachTime) { Uuid::now_v7() } else { claimed.message_id };
        let repeated = repeated && !is_planted(Bug::UnmarkedRepetition);
        Draft { id, content, repeated, present }
    }
}

/// Grouped by run, in the order in which the runs come first.
fn by_run(changes: Vec<crate::model::Change>) -> Vec<crate::model::Change> {
    let mut order: Vec<_> = Vec::new();
    for change in &changes {
        if !order.contains(&change.run.id) {
            order.push(change.run.id.clone());
        }
    }
    let mut changes = changes;
    changes.sort_by_key(|change| (order.iter().position(|run| *run == change.run.id), change.sequence));
    if is_planted(Bug::DigestReversed) {
        changes.reverse();
    }
    if is_planted(Bug::DigestDropsOne) && changes.len() > 1 {
        changes.pop();
    }
    changes
}

impl Policy for Rules {
    fn opens_at(&self, to: &Destination, place: &Place, account: Option<&Place>, now: Timestamp) -> Option<Timestamp> {
        self.outlets.find(to)?;
        let (terms, steady_since) = (self.terms(to), self.time().steady_since);
        if self.is_mended(to, place) {
            let mut mended = place.clone();
            mended.revive();
            return delivery::opens_at(&mended, account, terms, now, steady_since);
        }
        delivery::opens_at(place, account, terms, now, steady_since)
    }

    fn at_once(&self, account: &Place) -> usize {
        delivery::at_once(account)
    }

    fn plan(&self, queue: &Queue<'_>, now: Timestamp) -> Plan {
        let prefer = self.outlets.find(queue.to).map_or(Prefer::default(), |(outlet, _)| outlet.prefer);
        let began_at = self.time().began_at;
        let looked = elapsed(began_at, now) >= PATIENCE || self.tracker.looked_since(&queue.head.workspace, began_at);
        delivery::plan(queue, self.terms(queue.to), prefer, looked, now)
    }

    fn began(&self, to: &Destination, place: &mut Place, now: Timestamp) {
        if self.is_mended(to, place) {
            place.revive();
        }
        delivery::began(place, self.terms(to), now);
    }

    fn ended(
        &self,
        settlement: &Settlement,
        to: &Destination,
        place: &mut Place,
        account: Option<&mut Place>,
    ) -> Vec<Announcement> {
        let Settlement { id, outcome, ended_at, chance, next, .. } = settlement;
        let ended = Ended {
            message: *id,
            outcome,
            was_last: *next == Next::Dead,
            identity: self.identity(to),
            at: *ended_at,
            chance: *chance,
        };
        let turns = delivery::ended(place, account, ended);
        let surface = || match to {
            Destination::Room { surface, .. } => surface.clone(),
            Destination::Channel(name) => name.clone(),
        };
        let told = |turn| {
            let (destination, reason) = (to.clone(), outcome.reason().to_owned());
            let kind = match turn {
                Turn::Died => NoticeKind::DestinationDead { destination, reason },
                Turn::Returned(since) => NoticeKind::DestinationBack { destination, since },
                Turn::Refuses => NoticeKind::DestinationRefusing { destination, reason },
                Turn::Accepts(since) => NoticeKind::DestinationAccepting { destination, since },
                Turn::Denied => NoticeKind::BotDenied { surface: surface(), reason },
                Turn::Admitted(since) => NoticeKind::BotBack { surface: surface(), since },
            };
            Announcement { notice: Notice { at: *ended_at, kind }, to: self.outlets.told_of(Some(to)) }
        };
        turns.into_iter().map(told).collect()
    }

    fn message_id(&self) -> Uuid {
        Uuid::now_v7()
    }
}
