//! A store in memory: every rule of the contract said a second time, in the simplest way.
//!
//! For the simulation, and for comparing with what is written in SQL. Each future is ready at its first poll; there is
//! no clock and no chance in it, and everything comes in one order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use callboard::model::{
    AuditRow, ChangeKind, Claimed, Clock, Decision, Delivery, DeliveryState, Destination, Entry, Folding, Link,
    MOST_COUNTED, MOST_FOLDED, News, Place, Plan, Queue, RunId, RunState, Scope, Subscription, Timestamp, Waiting,
    WorkspaceKey,
};
use callboard::planted::{Bug, is_planted};
use callboard::store::{
    Announcement, Attempt, AuditFilter, Audited, Claims, DeliveryFilter, DeliveryRow, Held, Ledger, Loaded, Moved,
    Moves, Next, Overview, PlaceRow, Policy, Poll, Recorded, Room, Settlement, Sharing, Store, StoreError, Subscribed,
    Told, WorkspaceState,
};
use uuid::Uuid;

/// No retry waits longer: a moment further away was set by a clock that was ahead.
/// The last lane.
const PROGRESS: u8 = 2;
const LONGEST_WAIT_MS: i64 = 29 * 3600 * 1000;

/// Around a verb of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Around {
    /// A fault means: nothing was written.
    Before,
    /// A fault means: it was written, and the caller hears that it failed.
    After,
}

/// Called with a verb's name; what it returns is what the caller hears.
pub type Faults = Arc<dyn Fn(&'static str, Around) -> Option<StoreError> + Send + Sync>;

/// One process's view of the truth.
pub struct MemoryStore {
    truth: Arc<Mutex<Truth>>,
    faults: Mutex<Option<Faults>>,
    recovered: Mutex<Vec<(Destination, u64)>>,
    /// Writes of this process.
    own: AtomicU64,
}

impl MemoryStore {
    /// An empty one.
    pub fn new() -> MemoryStore {
        MemoryStore::over(Arc::new(Mutex::new(Truth::default())))
    }

    fn over(truth: Arc<Mutex<Truth>>) -> MemoryStore {
        MemoryStore { truth, faults: Mutex::default(), recovered: Mutex::default(), own: AtomicU64::new(0) }
    }

    /// What is durable now, on its own and without faults: what a process finds that starts after all others died here.
    pub fn snapshot(&self) -> MemoryStore {
        MemoryStore::over(Arc::new(Mutex::new(self.lock().clone())))
    }

    /// Another process beside this one, on the same truth.
    pub fn guest(&self) -> MemoryStore {
        MemoryStore::over(Arc::clone(&self.truth))
    }

    /// From now on each verb asks `faults`, before and after; `None`: nothing fails.
    pub fn set_faults(&self, faults: Option<Faults>) {
        *self.faults.lock().unwrap() = faults;
    }

    /// What an owner does when it opens the store after a death: what was in flight may have arrived.
    pub fn recover(&self) {
        let recovered = self.lock().recover();
        *self.recovered.lock().unwrap() = recovered;
    }

    /// The truth as it is, for whoever checks it.
    pub fn look<T>(&self, at: impl FnOnce(&Truth) -> T) -> T {
        at(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Truth> {
        self.truth.lock().unwrap()
    }

    fn verb<T>(
        &self,
        name: &'static str,
        act: impl FnOnce(&mut Truth) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let faults = self.faults.lock().unwrap().clone();
        let fault = |around| faults.as_ref().and_then(|faults| faults(name, around)).map_or(Ok(()), Err);
        fault(Around::Before)?;
        let result = {
            let mut truth = self.lock();
            let before = truth.writes;
            let result = act(&mut truth);
            self.own.fetch_add(truth.writes - before, Ordering::Relaxed);
            result
        };
        fault(Around::After)?;
        result
    }
}

impl Clone for MemoryStore {
    fn clone(&self) -> MemoryStore {
        self.snapshot()
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn load(&self) -> Result<Loaded, StoreError> {
        self.verb("load", |truth| Ok(truth.load()))
    }
    async fn subscribe(&self, subscription: &Subscription, state: Option<&RunState>) -> Result<Subscribed, StoreError> {
        self.verb("subscribe", |truth| truth.subscribe(subscription, state))
    }
    async fn unsubscribe(&self, id: &str) -> Result<bool, StoreError> {
        self.verb("unsubscribe", |truth| Ok(truth.unsubscribe(id)))
    }
    async fn amend(&self, subscriptions: &[Subscription]) -> Result<Vec<String>, StoreError> {
        self.verb("amend", |truth| Ok(truth.amend(subscriptions)))
    }
    async fn record(&self, poll: &Poll) -> Result<Recorded, StoreError> {
        self.verb("record", |truth| truth.record(poll))
    }
    async fn claim(&self, now: Timestamp, room: Room, policy: &Arc<dyn Policy>) -> Result<Claims, StoreError> {
        self.verb("claim", |truth| Ok(truth.claim(now, room, policy.as_ref())))
    }
    async fn release(&self, under_way: &[(Uuid, u32)]) -> Result<(), StoreError> {
        self.verb("release", |truth| {
            truth.release(under_way);
            Ok(())
        })
    }
    async fn settle(&self, settlement: &Settlement, policy: &Arc<dyn Policy>) -> Result<(), StoreError> {
        self.verb("settle", |truth| {
            truth.settle(settlement, policy.as_ref());
            Ok(())
        })
    }
    async fn announce(&self, announcement: &Announcement) -> Result<bool, StoreError> {
        self.verb("announce", |truth| Ok(truth.announce(announcement)))
    }
    async fn saw(&self, seen: &[(WorkspaceKey, Timestamp)]) -> Result<(), StoreError> {
        self.verb("saw", |truth| {
            truth.saw(seen);
            Ok(())
        })
    }
    async fn once(&self, key: &str, now: Timestamp, until: Timestamp) -> Result<bool, StoreError> {
        self.verb("once", |truth| {
            truth.seen.retain(|_, until| *until >= now);
            let is_new = !truth.seen.contains_key(key);
            truth.seen.entry(key.to_owned()).or_insert(until);
            Ok(is_new)
        })
    }
    async fn audit(&self, entries: &[Entry]) -> Result<(), StoreError> {
        self.verb("audit", |truth| {
            for entry in entries {
                let entry = Entry { at: ms(entry.at), ..entry.clone() };
                truth.audit.push(truth.audit_head.append(entry));
                truth.audit_head = truth.audit.last().unwrap().link();
            }
            Ok(())
        })
    }
    async fn audited(&self, filter: &AuditFilter) -> Result<Audited, StoreError> {
        self.verb("audited", |truth| {
            let AuditFilter { person, denied, after, limit } = filter;
            let is_meant = |row: &&AuditRow| {
                person.as_ref().is_none_or(|person| *person == row.entry.person)
                    && !(*denied && row.entry.decision == Decision::Allowed)
                    && after.is_none_or(|after| row.number > after)
            };
            let mut rows: Vec<AuditRow> = truth.audit.iter().filter(is_meant).cloned().collect();
            if after.is_none() {
                rows.reverse();
            }
            rows.truncate(*limit);
            Ok(Audited { rows, anchor: truth.audit_anchor.clone(), head: truth.audit_head.clone() })
        })
    }
    async fn places(&self) -> Result<Vec<PlaceRow>, StoreError> {
        self.verb("places", |truth| Ok(truth.places()))
    }
    async fn revive(&self, to: &Destination, now: Timestamp) -> Result<bool, StoreError> {
        self.verb("revive", |truth| Ok(truth.revive(to, now)))
    }
    async fn history(&self, workspace: &WorkspaceKey, run: &RunId, limit: usize) -> Result<Vec<Told>, StoreError> {
        self.verb("history", |truth| Ok(truth.history(workspace, run, limit)))
    }
    async fn deliveries(&self, filter: &DeliveryFilter) -> Result<Vec<DeliveryRow>, StoreError> {
        self.verb("deliveries", |truth| Ok(truth.deliveries(filter)))
    }
    async fn delivery(&self, id: &str) -> Result<Option<(DeliveryRow, Vec<Attempt>)>, StoreError> {
        self.verb("delivery", |truth| Ok(truth.delivery(id)))
    }
    async fn retry(&self, id: Uuid, now: Timestamp) -> Result<bool, StoreError> {
        self.verb("retry", |truth| Ok(truth.retry(id, now)))
    }
    async fn discard(&self, id: Uuid, now: Timestamp) -> Result<bool, StoreError> {
        self.verb("discard", |truth| Ok(truth.discard(id, now)))
    }
    async fn probe(&self) -> Result<(), StoreError> {
        self.verb("probe", |_| Ok(()))
    }
    async fn verify(&self) -> Result<(), StoreError> {
        Ok(())
    }
    async fn hold(&self, names: &[String]) -> Result<Held, StoreError> {
        Ok(Held::all(names))
    }
    async fn retire(&self) -> Result<(), StoreError> {
        Ok(())
    }
    fn clock(&self) -> Option<Clock> {
        None
    }
    async fn share(&self, _: &str, _: Sharing) -> Result<(), StoreError> {
        Err(StoreError::Failed("nobody else serves from it".to_owned()))
    }
    async fn overview(&self) -> Result<Overview, StoreError> {
        let recovered = self.recovered.lock().unwrap().clone();
        self.verb("overview", |truth| Ok(truth.overview(recovered)))
    }
    async fn moved(&self, since: Option<i64>) -> Result<Moved, StoreError> {
        self.verb("moved", |truth| {
            let mark = i64::try_from(truth.writes - self.own.load(Ordering::Relaxed)).unwrap();
            Ok(Moved { mark, moves: if since == Some(mark) { Moves::None } else { Moves::All } })
        })
    }
    async fn stirred(&self) {
        std::future::pending::<()>().await;
    }
    async fn prune(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.verb("prune", |truth| Ok(truth.prune(before)))
    }
}

// -------------------------------------------------------------------------------------------------------- the truth

/// To the millisecond, as every store keeps it.
fn ms(at: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(at.as_millisecond()).unwrap()
}

#[derive(Clone, Default)]
pub struct Truth {
    pub workspaces: BTreeMap<WorkspaceKey, WorkspaceState>,
    pub runs: BTreeMap<(WorkspaceKey, RunId), RunState>,
    pub subscriptions: BTreeMap<String, Subscription>,
    /// By workspace, run and sequence. Notices have no workspace, and their subject in the run's place.
    pub changes: BTreeMap<(String, String, i64), Kept>,
    pub changes_recorded: u64,
    /// In order of recording.
    pub rows: BTreeMap<u64, Row>,
    pub rows_recorded: u64,
    /// The numbers of all open rows, and of some that have ended since the last claim.
    pub open: BTreeSet<u64>,
    pub places: BTreeMap<String, Place>,
    /// All that was ever owed, and what became of what was deleted since.
    pub deleted: Ledger,
    pub merged: u64,
    /// What must happen once, and until when that is remembered.
    pub seen: BTreeMap<String, Timestamp>,
    pub audit: Vec<AuditRow>,
    pub audit_anchor: Link,
    pub audit_head: Link,
    /// Of all processes.
    pub writes: u64,
}

#[derive(Clone)]
pub struct Kept {
    pub news: Arc<News>,
    pub recorded: u64,
}

/// Which message id the next attempt has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum MessageId {
    OfDelivery,
    Other(Uuid),
    /// Its words have changed since the last attempt.
    Fresh,
}

#[derive(Clone)]
pub struct Row {
    pub id: Uuid,
    pub to: Destination,
    pub template: Option<String>,
    pub key: (String, String, i64),
    pub news: Arc<News>,
    pub subscriptions: Vec<String>,
    pub urgent: bool,
    pub missed: bool,
    pub state: DeliveryState,
    pub attempts: Vec<Attempt>,
    pub tries: u32,
    pub next_at: Timestamp,
    pub created_at: Timestamp,
    pub settled_at: Option<Timestamp>,
    pub reason: Option<String>,
    pub unknown_since: Option<Timestamp>,
    /// The row whose message tells it too.
    pub carrier: Option<u64>,
    pub folding: Option<Folding>,
    pub message_id: MessageId,
    pub alone: bool,
    pub told_elsewhere: bool,
}

impl Row {
    pub fn is_open(&self) -> bool {
        matches!(self.state, DeliveryState::Pending | DeliveryState::InFlight | DeliveryState::Unknown)
    }

    fn attempt(&self) -> u32 {
        u32::try_from(self.attempts.len()).unwrap()
    }

    fn queue(&self) -> (&str, &str) {
        (&self.key.0, &self.key.1)
    }

    fn delivery(&self) -> Delivery {
        Delivery {
            id: self.id,
            to: self.to.clone(),
            template: self.template.clone(),
            news: News::clone(&self.news),
            attempt: self.attempt(),
            tries: self.tries,
            created_at: self.created_at,
            unknown_since: self.unknown_since,
            told_elsewhere: self.told_elsewhere,
        }
    }

    fn waiting(&self) -> Waiting {
        Waiting {
            workspace: WorkspaceKey(self.key.0.clone()),
            created_at: self.created_at,
            urgent: self.urgent,
            missed: self.missed,
            attempt: self.attempt(),
            unknown_since: self.unknown_since,
            told_elsewhere: self.told_elsewhere,
        }
    }

    /// 0 goes first: trouble, notices included, then what ended well.
    fn lane(&self) -> u8 {
        match &*self.news {
            _ if !self.urgent => PROGRESS,
            News::Change(change) if !change.is_trouble() => 1,
            _ => 0,
        }
    }

    fn end(&mut self, state: DeliveryState, at: Timestamp, reason: Option<String>) {
        self.state = state;
        self.settled_at = Some(ms(at));
        self.reason = reason.filter(|reason| !reason.is_empty());
        self.carrier = None;
    }
}

// ------------------------------------------------------------------------------------------ runs and subscriptions

impl Truth {
    fn load(&self) -> Loaded {
        let mut subscriptions: Vec<_> = self.subscriptions.values().cloned().collect();
        subscriptions.sort_by_key(|subscription| ms(subscription.created_at));
        let runs = self.runs.iter().map(|((key, _), state)| (key.clone(), state.clone())).collect();
        Loaded { subscriptions, runs, workspaces: self.workspaces.values().cloned().collect() }
    }

    fn subscribe(&mut self, new: &Subscription, state: Option<&RunState>) -> Result<Subscribed, StoreError> {
        let same = |old: &&Subscription| old.scope == new.scope && old.to == new.to && old.template == new.template;
        if let Some(old) = self.subscriptions.values().find(same).cloned() {
            let is_over = old.until.is_some_and(|until| until <= new.created_at);
            if old.stopped.is_none() && !is_over {
                return Ok(Subscribed::Already { id: old.id });
            }
            self.subscriptions.remove(&old.id);
        }
        if self.subscriptions.contains_key(&new.id) {
            return Err(StoreError::Failed("two subscriptions have one id".to_owned()));
        }
        self.subscriptions.insert(new.id.clone(), new.clone());
        self.writes += 1;
        let run = state.map(|state| {
            let key = (new.scope.workspace().clone(), state.snapshot.id.clone());
            let kept = self
                .runs
                .entry(key)
                .and_modify(|kept| kept.version += i64::from(!is_planted(Bug::SubscribeUnseen)))
                .or_insert_with(|| state.clone());
            Box::new(kept.clone())
        });
        Ok(Subscribed::New { run })
    }

    fn unsubscribe(&mut self, id: &str) -> bool {
        let had = self.subscriptions.remove(id).is_some();
        self.writes += u64::from(had);
        had
    }

    fn amend(&mut self, subscriptions: &[Subscription]) -> Vec<String> {
        let mut amended = Vec::new();
        for new in subscriptions {
            let same = |old: &Subscription| old.scope == new.scope && old.to == new.to && old.template == new.template;
            if !self.subscriptions.get(&new.id).is_some_and(same) {
                continue;
            }
            self.subscriptions.insert(new.id.clone(), new.clone());
            self.writes += 1;
            amended.push(new.id.clone());
            if let Scope::Run { workspace, run } = &new.scope
                && let Some(kept) = self.runs.get_mut(&(workspace.clone(), run.clone()))
            {
                kept.version += 1;
            }
        }
        amended
    }

    /// Those that wait for a run, as they are once it has started: each of them, and each once.
    fn taking(&self, poll: &Poll) -> Vec<Subscription> {
        let starts = poll.changes.iter().filter(|change| matches!(change.kind, ChangeKind::Started));
        let Some(start) = starts.min_by_key(|change| (change.run.created_at, &change.run.id)) else {
            return Vec::new();
        };
        let (workspace, run) = (&poll.key, &start.run.id);
        let waits = |one: &&Subscription| {
            one.scope == Scope::Next { workspace: workspace.clone() }
                && one.stopped.is_none()
                && one.until.is_none_or(|until| until > start.at)
        };
        let scope = Scope::Run { workspace: workspace.clone(), run: run.clone() };
        let takes = |one: &Subscription| Subscription { scope: scope.clone(), ..one.clone() };
        self.subscriptions.values().filter(waits).map(takes).collect()
    }

    fn record(&mut self, poll: &Poll) -> Result<Recorded, StoreError> {
        let workspace = &poll.key;
        if self.taking(poll) != poll.begun && !is_planted(Bug::StaleIsRecorded) {
            return Ok(Recorded::Stale);
        }
        for state in &poll.runs {
            let stored = self.runs.get(&(workspace.clone(), state.snapshot.id.clone())).map_or(0, |kept| kept.version);
            if stored != state.version - 1 && !is_planted(Bug::StaleIsRecorded) {
                return Ok(Recorded::Stale);
            }
        }
        let key = |run: &RunId, sequence| (workspace.0.clone(), run.as_str().to_owned(), sequence);
        let new: BTreeSet<_> = poll.changes.iter().map(|change| key(&change.run.id, change.sequence)).collect();
        for owed in &poll.deliveries {
            let key = key(&owed.run, owed.sequence);
            if !new.contains(&key) && !self.changes.contains_key(&key) {
                return Err(StoreError::Failed("a delivery of a change that nobody recorded".to_owned()));
            }
        }
        self.writes += 1;
        for begun in &poll.begun {
            let is_twice = self
                .subscriptions
                .values()
                .any(|old| old.scope == begun.scope && old.to == begun.to && old.template == begun.template);
            match is_twice {
                true => drop(self.subscriptions.remove(&begun.id)),
                false => drop(self.subscriptions.insert(begun.id.clone(), begun.clone())),
            }
        }
        for state in &poll.runs {
            self.runs.insert((workspace.clone(), state.snapshot.id.clone()), state.clone());
        }
        if let Some(state) = &poll.workspace {
            let before = self.workspaces.get(workspace).and_then(|known| known.seen_at);
            let known = WorkspaceState { seen_at: state.seen_at.or(before), ..state.clone() };
            self.workspaces.insert(workspace.clone(), known);
        }
        for change in &poll.changes {
            self.keep(key(&change.run.id, change.sequence), News::Change(change.clone()));
        }
        for owed in &poll.deliveries {
            let news = Arc::clone(&self.changes[&key(&owed.run, owed.sequence)].news);
            self.owe(Row {
                id: owed.id,
                to: owed.to.clone(),
                template: owed.template.clone(),
                key: key(&owed.run, owed.sequence),
                subscriptions: owed.subscriptions.clone(),
                urgent: owed.urgent,
                missed: owed.missed,
                ..Row::new(news, owed.at)
            });
        }
        for id in &poll.ended {
            self.subscriptions.remove(id);
        }
        for run in &poll.forgotten {
            let of_run = |(key, of, _): &(String, String, i64)| *key == workspace.0 && of == run.as_str();
            if !self.changes.keys().any(of_run) {
                self.runs.remove(&(workspace.clone(), run.clone()));
            }
        }
        Ok(Recorded::Done)
    }

    fn keep(&mut self, key: (String, String, i64), news: News) {
        self.changes_recorded += 1;
        let recorded = self.changes_recorded;
        self.changes.entry(key).or_insert_with(|| Kept { news: Arc::new(news), recorded });
    }

    fn owe(&mut self, row: Row) {
        let of_change = |old: &Row| old.key.2 == row.key.2 && old.key == row.key;
        let same = |old: &Row| of_change(old) && old.to == row.to && old.template == row.template;
        if self.rows.values().any(same) {
            return;
        }
        let others = u64::try_from(row.subscriptions.len().saturating_sub(1)).unwrap();
        self.deleted.owed += 1 + others;
        self.merged += if is_planted(Bug::LedgerForgets) { 0 } else { others };
        self.rows_recorded += 1;
        self.rows.insert(self.rows_recorded, row);
        self.open.insert(self.rows_recorded);
    }

    fn announce(&mut self, announcement: &Announcement) -> bool {
        let Announcement { notice, to } = announcement;
        let subject = notice.kind.subject();
        let of_subject = (String::new(), subject.clone(), 0)..=(String::new(), subject.clone(), i64::MAX);
        let last = self.changes.range(of_subject).next_back();
        let in_trouble = last.is_some_and(|(_, kept)| match kept.news.as_ref() {
            News::Notice(notice) => !notice.kind.is_end(),
            News::Change(_) => false,
        });
        let is_silenced = notice.kind.is_end() || !is_planted(Bug::NoticeEachTime);
        if in_trouble != notice.kind.is_end() && is_silenced {
            return false;
        }
        let key = (String::new(), subject, last.map_or(0, |((_, _, sequence), _)| *sequence) + 1);
        self.keep(key.clone(), News::Notice(notice.clone()));
        for (id, to) in to {
            let news = Arc::clone(&self.changes[&key].news);
            self.owe(Row { id: *id, to: to.clone(), key: key.clone(), urgent: true, ..Row::new(news, notice.at) });
        }
        self.writes += 1;
        true
    }

    fn saw(&mut self, seen: &[(WorkspaceKey, Timestamp)]) {
        for (key, at) in seen {
            if let Some(known) = self.workspaces.get_mut(key) {
                known.seen_at = Some(ms(*at));
                self.writes += 1;
            }
        }
    }
}

impl Row {
    fn new(news: Arc<News>, at: Timestamp) -> Row {
        Row {
            id: Uuid::nil(),
            to: Destination::Channel(String::new()),
            template: None,
            key: Default::default(),
            news,
            subscriptions: Vec::new(),
            urgent: false,
            missed: false,
            state: DeliveryState::Pending,
            attempts: Vec::new(),
            tries: 0,
            next_at: ms(at),
            created_at: ms(at),
            settled_at: None,
            reason: None,
            unknown_since: None,
            carrier: None,
            folding: None,
            message_id: MessageId::OfDelivery,
            alone: false,
            told_elsewhere: false,
        }
    }
}

// ----------------------------------------------------------------------------------------------------------- claims

/// A destination that is open, and the row whose turn it is.
struct Turn {
    name: String,
    to: Destination,
    lane: u8,
    next_at: Timestamp,
    number: u64,
}

impl Truth {
    fn open_rows(&self) -> impl Iterator<Item = (u64, &Row)> {
        let rows = self.open.iter().filter_map(|number| Some((*number, self.rows.get(number)?)));
        rows.filter(|(_, row)| row.is_open())
    }

    /// The open rows of the same destination and run as this one, in order.
    fn queue_of(&self, number: u64) -> Vec<u64> {
        let Some(row) = self.rows.get(&number) else { return Vec::new() };
        let same = |other: &Row| other.to == row.to && other.queue() == row.queue();
        let mut queue: Vec<_> = self.open_rows().filter(|(_, other)| same(other)).collect();
        queue.sort_by_key(|(number, row)| (row.key.2, *number));
        queue.into_iter().map(|(number, _)| number).collect()
    }

    fn bound_to(&self, lead: u64) -> Vec<u64> {
        self.open_rows().filter(|(_, row)| row.carrier == Some(lead)).map(|(number, _)| number).collect()
    }

    fn is_foldable(&self, number: u64) -> bool {
        let row = &self.rows[&number];
        (row.state == DeliveryState::Pending || row.state == DeliveryState::Unknown && is_planted(Bug::UnknownIsFolded))
            && (row.unknown_since.is_none() || is_planted(Bug::UnknownIsFolded))
            && !row.alone
            && row.carrier.is_none()
            && !row.key.0.is_empty()
            && (row.folding.is_none() || self.bound_to(number).is_empty())
    }

    /// From the head of a queue on, what a message in this template may tell.
    fn foldable_from(&self, number: u64, template: Option<&String>) -> Vec<u64> {
        let fits = |number: &u64| self.is_foldable(*number) && self.rows[number].template.as_ref() == template;
        self.queue_of(number).into_iter().take_while(fits).collect()
    }

    fn place(&self, to: &Destination) -> Place {
        self.places.get(&to.to_string()).cloned().unwrap_or_default()
    }

    fn put_place(&mut self, to: &Destination, place: Place) {
        if place == Place::default() {
            self.places.remove(&to.to_string());
        } else {
            self.places.insert(to.to_string(), place);
        }
    }

    /// By destination: the heads of its queues that a claim may take, each with the lane of its queue.
    fn heads(&self) -> BTreeMap<String, Vec<(u64, u8)>> {
        type Queues<'a> = BTreeMap<(&'a Destination, &'a str, &'a str), ((i64, u64), u8)>;
        let mut queues = Queues::new();
        for (number, row) in self.open_rows() {
            let (workspace, run) = row.queue();
            let (head, lane) = queues.entry((&row.to, workspace, run)).or_insert(((row.key.2, number), PROGRESS));
            *head =
                if is_planted(Bug::ClaimsBehindHead) { (row.key.2, number) } else { (*head).min((row.key.2, number)) };
            *lane = (*lane).min(row.lane());
        }
        let mut heads: BTreeMap<String, Vec<(u64, u8)>> = BTreeMap::new();
        for ((to, _, _), ((_, number), lane)) in queues {
            let row = &self.rows[&number];
            let lane = if is_planted(Bug::ProgressFirst) { PROGRESS - lane } else { lane };
            if row.carrier.is_none() && row.state != DeliveryState::InFlight {
                heads.entry(to.to_string()).or_default().push((number, lane));
            }
        }
        heads
    }

    fn claim(&mut self, now: Timestamp, room: Room, policy: &dyn Policy) -> Claims {
        let rows = &self.rows;
        self.open.retain(|number| rows.get(number).is_some_and(Row::is_open));
        let mut claims = Claims::default();
        let later = |claims: &mut Claims, at: Timestamp| {
            claims.next_at = Some(claims.next_at.map_or(at, |earliest| earliest.min(at)));
        };
        let now_ms = ms(now);
        let ahead = Timestamp::from_millisecond(now.as_millisecond() + LONGEST_WAIT_MS).unwrap();
        let busy: BTreeSet<String> = self
            .open_rows()
            .filter(|(_, row)| row.state == DeliveryState::InFlight)
            .map(|(_, row)| row.to.to_string())
            .collect();
        let mut turns = Vec::new();
        for (name, heads) in self.heads() {
            if busy.contains(&name) && !is_planted(Bug::TwoAtATime) {
                continue;
            }
            let to = Destination::from(name.clone());
            let account = to.account().map(|account| self.place(&account));
            let Some(opens_at) = policy.opens_at(&to, &self.place(&to), account.as_ref(), now) else { continue };
            let due = heads.iter().filter_map(|(number, lane)| {
                let next_at = self.rows[number].next_at;
                (next_at <= now_ms || next_at > ahead).then_some((*lane, next_at > ahead, next_at, *number))
            });
            match due.min() {
                Some((lane, _, next_at, number)) if opens_at <= now => {
                    turns.push(Turn { name, to, lane, next_at, number });
                }
                Some(_) => later(&mut claims, opens_at),
                None => {
                    let nearest = heads.iter().map(|(number, _)| self.rows[number].next_at).min().unwrap();
                    later(&mut claims, if opens_at > now { nearest.max(opens_at) } else { nearest });
                }
            }
        }
        turns.sort_by(|a, b| (a.lane, a.next_at, &a.name).cmp(&(b.lane, b.next_at, &b.name)));
        let mut probes = 0;
        for turn in turns {
            if claims.claimed.len() >= room.messages {
                break;
            }
            let probe = self.place(&turn.to).failures > 0;
            if probe && probes >= room.probes {
                continue;
            }
            if let Some(account) = turn.to.account() {
                let of_bot = |row: &Row| row.to.account().as_ref() == Some(&account);
                let in_flight = |row: &&Row| row.state == DeliveryState::InFlight && of_bot(row);
                let under_way = self.open_rows().map(|(_, row)| row).filter(in_flight).count();
                if under_way >= policy.at_once(&self.place(&account)) {
                    continue;
                }
            }
            match self.take(&turn, now, policy) {
                Ok(message) => {
                    probes += usize::from(probe);
                    claims.claimed.push(message);
                }
                Err(at) => later(&mut claims, at),
            }
        }
        claims
    }

    /// Or when to ask again.
    fn take(&mut self, turn: &Turn, now: Timestamp, policy: &dyn Policy) -> Result<Claimed, Timestamp> {
        let number = turn.number;
        let head = self.rows[&number].clone();
        let bound = self.bound_to(number);
        let may_grow = self.is_foldable(number) && bound.is_empty();
        let run: Vec<u64> = if may_grow {
            self.foldable_from(number, head.template.as_ref()).into_iter().take(MOST_FOLDED).collect()
        } else {
            vec![number]
        };
        let of_place: Vec<u64> =
            self.open_rows().filter(|(_, row)| row.to == turn.to).map(|(number, _)| number).collect();
        let others = of_place.iter().filter(|other| **other != number && self.is_foldable(**other)).count();
        let queue = Queue {
            to: &turn.to,
            place: &self.place(&turn.to),
            head: head.waiting(),
            run: run.iter().map(|number| self.rows[number].waiting()).collect(),
            waiting: (others + 1).min(MOST_COUNTED),
        };
        let plan = policy.plan(&queue, now);
        let kept = head.folding.filter(|why| !may_grow || *why == Folding::Late);
        let (folding, more) = match plan {
            Plan::Hold(at) => return Err(at),
            Plan::GiveUp { reason } => {
                self.die(number, now, reason.to_owned());
                return Err(now);
            }
            Plan::Single => (kept, Vec::new()),
            Plan::CatchUp { rows } => {
                let unknown = head.unknown_since.is_some() && !is_planted(Bug::UnknownIsFolded);
                if unknown || head.key.0.is_empty() || !bound.is_empty() {
                    (head.folding, Vec::new())
                } else {
                    (Some(Folding::Late), run.into_iter().skip(1).take(rows.saturating_sub(1)).collect())
                }
            }
            Plan::Digest { rows } => {
                let more = if may_grow { self.pick(number, rows.min(MOST_FOLDED)) } else { Vec::new() };
                (if more.is_empty() { kept } else { Some(Folding::Rate) }, more)
            }
        };
        Ok(self.begin(turn, &head, folding, &more, now, policy))
    }

    /// What a digest of at most `rows` rows tells beside its lead.
    fn pick(&self, lead: u64, rows: usize) -> Vec<u64> {
        let row = &self.rows[&lead];
        let mut heads = self.heads().remove(&row.to.to_string()).unwrap_or_default();
        heads.sort_by_key(|(number, of_queue)| (*number != lead, *of_queue, *number));
        let picked = heads.iter().flat_map(|(number, _)| self.foldable_from(*number, row.template.as_ref()));
        picked.filter(|number| *number != lead).take(rows.saturating_sub(1)).collect()
    }

    fn begin(
        &mut self,
        turn: &Turn,
        head: &Row,
        folding: Option<Folding>,
        more: &[u64],
        now: Timestamp,
        policy: &dyn Policy,
    ) -> Claimed {
        for number in more {
            let row = self.rows.get_mut(number).unwrap();
            row.carrier = Some(turn.number);
            if row.folding.take().is_some() && !row.attempts.is_empty() {
                row.message_id = MessageId::Fresh;
            }
        }
        let reworded = !head.attempts.is_empty() && (!more.is_empty() || folding != head.folding);
        let row = self.rows.get_mut(&turn.number).unwrap();
        if reworded || row.message_id == MessageId::Fresh {
            row.message_id = MessageId::Other(policy.message_id());
        }
        let attempt = row.attempt() + 1;
        let begun = Attempt { attempt, started_at: ms(now), ended_at: None, outcome: None, reason: None };
        row.attempts.push(begun);
        if !is_planted(Bug::ClaimForgets) {
            row.state = DeliveryState::InFlight;
        }
        row.folding = folding;
        let lead = row.delivery();
        let message_id = match row.message_id {
            MessageId::Other(id) => id,
            MessageId::OfDelivery | MessageId::Fresh => row.id,
        };
        let mut place = self.place(&turn.to);
        let probe = place.failures > 0;
        policy.began(&turn.to, &mut place, now);
        self.put_place(&turn.to, place);
        let folded = self.bound_to(turn.number).iter().map(|number| self.rows[number].delivery()).collect();
        self.writes += 1;
        Claimed { message_id, lead, folded, folding, probe }
    }
}

// ----------------------------------------------------------------------------------------------------- how rows end

impl Truth {
    /// What was bound to a row waits for itself again, and may have been told where an attempt may have arrived.
    fn free(&mut self, lead: u64) -> Vec<u64> {
        let bound = self.bound_to(lead);
        let unknown_since = self.rows[&lead].unknown_since;
        let may_be_told = unknown_since.is_some() && !is_planted(Bug::ComesApartUnknown);
        for number in &bound {
            let row = self.rows.get_mut(number).unwrap();
            row.carrier = None;
            row.unknown_since = unknown_since;
            row.told_elsewhere = may_be_told;
        }
        if !bound.is_empty() {
            let row = self.rows.get_mut(&lead).unwrap();
            row.folding = None;
            row.message_id = MessageId::Fresh;
            row.told_elsewhere = may_be_told;
        }
        bound
    }

    fn die(&mut self, lead: u64, at: Timestamp, reason: String) {
        let bound = self.free(lead);
        for number in bound.into_iter().chain([lead]) {
            self.rows.get_mut(&number).unwrap().end(DeliveryState::Dead, at, Some(reason.clone()));
        }
    }

    fn tell_bound(&mut self, lead: u64, at: Timestamp) {
        for number in self.bound_to(lead) {
            let row = self.rows.get_mut(&number).unwrap();
            row.state = DeliveryState::Superseded;
            row.settled_at = Some(ms(at));
        }
    }

    fn release(&mut self, under_way: &[(Uuid, u32)]) {
        for row in self.rows.values_mut() {
            if row.state == DeliveryState::InFlight && !under_way.contains(&(row.id, row.attempt())) {
                row.state = if row.unknown_since.is_some() { DeliveryState::Unknown } else { DeliveryState::Pending };
                let begun = row.attempts.last_mut().unwrap();
                begun.ended_at = Some(begun.started_at);
                begun.outcome = Some("retry".to_owned());
                begun.reason = Some("the store did not say that it was claimed".to_owned());
                row.reason.clone_from(&begun.reason);
                self.writes += 1;
            }
        }
    }

    fn number_of(&self, id: Uuid) -> Option<u64> {
        self.rows.iter().find(|(_, row)| row.id == id).map(|(number, _)| *number)
    }

    fn settle(&mut self, settlement: &Settlement, policy: &dyn Policy) {
        let Some(number) = self.number_of(settlement.id) else { return };
        let reason = Some(settlement.outcome.reason().to_owned()).filter(|reason| !reason.is_empty());
        let row = self.rows.get_mut(&number).unwrap();
        let begun = row.attempts.iter_mut().find(|begun| begun.attempt == settlement.attempt);
        let begun = begun.filter(|begun| begun.outcome.is_none());
        if let Some(begun) = begun {
            begun.started_at = ms(settlement.started_at);
            begun.ended_at = Some(ms(settlement.ended_at));
            begun.outcome = Some(settlement.outcome.label().to_owned());
            begun.reason.clone_from(&reason);
            self.writes += 1;
        }
        let late = row.state == DeliveryState::Unknown && settlement.next == Next::Delivered;
        if (row.state == DeliveryState::InFlight || late) && row.attempt() == settlement.attempt {
            self.follow(number, settlement, reason);
            self.remember(number, settlement, policy);
        }
    }

    fn follow(&mut self, number: u64, settlement: &Settlement, reason: Option<String>) {
        let (started_at, ended_at) = (ms(settlement.started_at), ms(settlement.ended_at));
        match settlement.next {
            Next::Delivered => {
                self.tell_bound(number, ended_at);
                self.rows.get_mut(&number).unwrap().end(DeliveryState::Delivered, ended_at, None);
            }
            Next::Pending { at } => {
                let row = self.rows.get_mut(&number).unwrap();
                row.tries += u32::from(settlement.outcome.is_try());
                (row.state, row.next_at, row.reason) = (DeliveryState::Pending, ms(at), reason);
            }
            Next::Unknown { at } => {
                let row = self.rows.get_mut(&number).unwrap();
                row.tries += u32::from(settlement.outcome.is_try());
                (row.state, row.next_at, row.reason) = (DeliveryState::Unknown, ms(at), reason);
                row.unknown_since.get_or_insert(started_at);
            }
            Next::Rejected => {
                let freed = self.free(number);
                if freed.is_empty() || is_planted(Bug::RefusedDigestLost) {
                    return self.die(number, ended_at, reason.unwrap_or_default());
                }
                for number in freed.into_iter().chain([number]) {
                    let row = self.rows.get_mut(&number).unwrap();
                    (row.state, row.next_at, row.reason) = (DeliveryState::Pending, ended_at, reason.clone());
                    row.alone = true;
                }
            }
            Next::Dead => self.die(number, ended_at, reason.unwrap_or_default()),
        }
    }

    fn remember(&mut self, number: u64, settlement: &Settlement, policy: &dyn Policy) {
        let to = self.rows[&number].to.clone();
        let mut place = self.place(&to);
        let was_out = place.failures >= 2;
        let mut shared = to.account().map(|account| (self.place(&account), account));
        let announcements = policy.ended(settlement, &to, &mut place, shared.as_mut().map(|(account, _)| account));
        let is_back = place.failures == 0;
        self.put_place(&to, place);
        if let Some((place, account)) = shared {
            self.put_place(&account, place);
        }
        for announcement in &announcements {
            self.announce(announcement);
        }
        if was_out && is_back {
            self.make_due(&|other| *other == to, settlement.ended_at);
        }
    }

    fn make_due(&mut self, which: &dyn Fn(&Destination) -> bool, now: Timestamp) {
        for row in self.rows.values_mut().filter(|row| row.is_open() && which(&row.to)) {
            if row.state != DeliveryState::InFlight {
                row.next_at = row.next_at.min(ms(now));
            }
        }
    }

    fn revive(&mut self, to: &Destination, now: Timestamp) -> bool {
        let concerns = |other: &Destination| other == to || other.account().as_ref() == Some(to);
        let remembered = self.places.contains_key(&to.to_string());
        if !remembered && !self.open_rows().any(|(_, row)| concerns(&row.to)) {
            return false;
        }
        let mut place = self.place(to);
        place.revive();
        self.put_place(to, place);
        self.make_due(&concerns, now);
        self.writes += 1;
        true
    }

    fn retry(&mut self, id: Uuid, now: Timestamp) -> bool {
        let Some(number) = self.number_of(id) else { return false };
        let row = self.rows.get_mut(&number).unwrap();
        if row.state != DeliveryState::Dead {
            return false;
        }
        (row.state, row.next_at, row.settled_at, row.tries) = (DeliveryState::Pending, ms(now), None, 0);
        self.open.insert(number);
        self.writes += 1;
        true
    }

    fn discard(&mut self, id: Uuid, now: Timestamp) -> bool {
        let Some(number) = self.number_of(id) else { return false };
        match self.rows[&number].state {
            DeliveryState::Delivered | DeliveryState::Superseded | DeliveryState::InFlight => return false,
            DeliveryState::Dead => {}
            DeliveryState::Pending | DeliveryState::Unknown => {
                self.free(number);
                if let Some(lead) = self.rows[&number].carrier.and_then(|lead| self.rows.get_mut(&lead)) {
                    if lead.state != DeliveryState::Pending || lead.unknown_since.is_some() {
                        return false;
                    }
                    lead.message_id = MessageId::Fresh;
                }
            }
        }
        let row = self.rows.get_mut(&number).unwrap();
        row.end(DeliveryState::Superseded, now, Some("discarded".to_owned()));
        self.writes += 1;
        true
    }

    fn recover(&mut self) -> Vec<(Destination, u64)> {
        const CRASHED: &str = "the process ended while sending";
        let mut recovered: BTreeMap<String, u64> = BTreeMap::new();
        if is_planted(Bug::PlacesForgotten) {
            self.places.clear();
        }
        for row in self.rows.values_mut().filter(|row| row.state == DeliveryState::InFlight) {
            let begun = row.attempts.last_mut().unwrap();
            begun.outcome = Some("unknown".to_owned());
            begun.reason = Some(CRASHED.to_owned());
            if is_planted(Bug::DeathIsForgotten) {
                begun.outcome = Some("retry".to_owned());
                row.state = DeliveryState::Pending;
                continue;
            }
            row.unknown_since.get_or_insert(begun.started_at);
            row.state = DeliveryState::Unknown;
            row.reason = Some(CRASHED.to_owned());
            *recovered.entry(row.to.to_string()).or_default() += 1;
        }
        recovered.into_iter().map(|(name, count)| (Destination::from(name), count)).collect()
    }

    fn prune(&mut self, before: Timestamp) -> u64 {
        let before = ms(before);
        let audited_before = before - std::time::Duration::from_secs(370 * 86_400);
        while self.audit.first().is_some_and(|row| row.entry.at < audited_before) {
            self.audit_anchor = self.audit.remove(0).link();
        }
        let last = self.changes.values().max_by_key(|kept| kept.recorded).map(|kept| ms(kept.news.at()));
        let shown = before + std::time::Duration::from_secs(7 * 86_400);
        let at = last.map_or(shown, |last| last.max(shown));
        let waits = |row: &Row| matches!(row.state, DeliveryState::Pending | DeliveryState::Unknown);
        let is_old = |row: &Row| waits(row) && row.carrier.is_none() && row.created_at < before;
        let old: Vec<u64> = self.rows.iter().filter(|(_, row)| is_old(row)).map(|(number, _)| *number).collect();
        for lead in old {
            for number in self.free(lead).into_iter().chain([lead]) {
                let row = self.rows.get_mut(&number).unwrap();
                if row.created_at < before {
                    let reason = "it waited so long that nobody needs it any more";
                    row.end(DeliveryState::Dead, at, Some(reason.to_owned()));
                }
            }
        }
        let mut deleted = 0;
        let ended: Vec<u64> = self.rows.iter().filter(|(_, row)| !row.is_open()).map(|(number, _)| *number).collect();
        for number in ended {
            let is_old = self.rows.get(&number).is_some_and(|row| row.settled_at.is_some_and(|at| at < before));
            if !is_old {
                continue;
            }
            let goes = |(other, row): &(&u64, &Row)| **other == number || row.carrier == Some(number);
            let gone: Vec<u64> = self.rows.iter().filter(goes).map(|(number, _)| *number).collect();
            for number in gone {
                let row = self.rows.remove(&number).unwrap();
                *self.deleted.line(row.state, row.carrier.is_some()) += 1;
                deleted += 1;
            }
        }
        let used: BTreeSet<_> = self.rows.values().map(|row| row.key.clone()).collect();
        let keys: Vec<_> = self.changes.keys().cloned().collect();
        self.changes.retain(|key, kept| {
            let newest = !keys.iter().any(|other| (&other.0, &other.1) == (&key.0, &key.1) && other.2 > key.2);
            ms(kept.news.at()) >= before || used.contains(key) || (key.0.is_empty() && newest)
        });
        let owed: BTreeSet<String> = self.open_rows().map(|(_, row)| row.to.to_string()).collect();
        self.places.retain(|name, place| owed.contains(name) || !place.is_forgettable(before));
        self.writes += 1;
        deleted
    }
}

/// Where a row is counted.
trait Line {
    fn line(&mut self, state: DeliveryState, folded: bool) -> &mut u64;
}

impl Line for Ledger {
    fn line(&mut self, state: DeliveryState, folded: bool) -> &mut u64 {
        match state {
            DeliveryState::Delivered => &mut self.delivered,
            DeliveryState::Superseded if folded => &mut self.folded,
            DeliveryState::Superseded => &mut self.suppressed,
            DeliveryState::Dead => &mut self.dead,
            DeliveryState::Pending | DeliveryState::InFlight | DeliveryState::Unknown => &mut self.open,
        }
    }
}

// ------------------------------------------------------------------------------------------------------------ reads

impl Truth {
    fn places(&self) -> Vec<PlaceRow> {
        let mut places: BTreeMap<String, (Place, u64)> =
            self.places.iter().map(|(name, place)| (name.clone(), (place.clone(), 0))).collect();
        for (_, row) in self.open_rows() {
            places.entry(row.to.to_string()).or_default().1 += 1;
        }
        let row = |(name, (place, open))| PlaceRow { to: Destination::from(name), place, open };
        places.into_iter().map(row).collect()
    }

    fn row(&self, row: &Row) -> DeliveryRow {
        let folded_into = row.carrier.and_then(|lead| self.rows.get(&lead)).map(|lead| lead.id);
        DeliveryRow {
            delivery: row.delivery(),
            state: row.state,
            next_at: (row.is_open() && folded_into.is_none()).then_some(row.next_at),
            reason: row.reason.clone(),
            settled_at: row.settled_at,
            subscriptions: row.subscriptions.clone(),
            folded_into,
            folding: row.folding,
        }
    }

    fn history(&self, workspace: &WorkspaceKey, run: &RunId, limit: usize) -> Vec<Told> {
        let (workspace, run) = (&workspace.0, run.as_str());
        let changes: Vec<_> =
            self.changes.iter().filter(|(key, _)| key.0 == *workspace && key.1 == run).rev().take(limit).collect();
        let told = |(key, kept): (&(String, String, i64), &Kept)| {
            let owed = self.rows.values().filter(|row| row.key == *key);
            Some(Told {
                change: kept.news.change()?.clone(),
                deliveries: owed.map(|row| (self.row(row), row.attempts.clone())).collect(),
            })
        };
        changes.into_iter().rev().filter_map(told).collect()
    }

    fn deliveries(&self, filter: &DeliveryFilter) -> Vec<DeliveryRow> {
        let passes = |row: &&Row| {
            filter.state.is_none_or(|state| row.state == state)
                && filter.to.as_ref().is_none_or(|to| row.to == *to)
                && filter.run.as_ref().is_none_or(|run| row.key.1 == run.as_str() && !row.key.0.is_empty())
        };
        self.rows.values().rev().filter(passes).take(filter.limit).map(|row| self.row(row)).collect()
    }

    fn delivery(&self, id: &str) -> Option<(DeliveryRow, Vec<Attempt>)> {
        let id = id.trim().to_ascii_lowercase();
        let rows = |fits: &dyn Fn(&str) -> bool| -> Vec<_> {
            self.rows.values().filter(|row| !id.is_empty() && fits(&row.id.to_string())).collect()
        };
        let beginning = rows(&|all| all.starts_with(&id));
        let found = if beginning.is_empty() { rows(&|all| all.ends_with(&id)) } else { beginning };
        let mut found = found.into_iter();
        match (found.next(), found.next()) {
            (Some(row), None) => Some((self.row(row), row.attempts.clone())),
            _ => None,
        }
    }

    fn overview(&self, recovered: Vec<(Destination, u64)>) -> Overview {
        let mut states: BTreeMap<&str, (DeliveryState, u64)> = BTreeMap::new();
        let mut ledger = self.deleted;
        ledger.suppressed += self.merged;
        for row in self.rows.values() {
            states.entry(row.state.as_str()).or_insert((row.state, 0)).1 += 1;
            *ledger.line(row.state, row.carrier.is_some()) += 1;
        }
        Overview {
            deliveries: states.into_values().collect(),
            oldest_open: self.open_rows().map(|(_, row)| row.created_at).min(),
            changes: u64::try_from(self.changes.len()).unwrap(),
            subscriptions: u64::try_from(self.subscriptions.len()).unwrap(),
            ledger,
            recovered,
        }
    }
}

#[tokio::test]
async fn a_fault_leaves_nothing_or_leaves_it_unsaid() {
    let store = MemoryStore::new();
    let key = WorkspaceKey("cn-shanghai/10000".to_owned());
    let poll = Poll {
        key: key.clone(),
        workspace: Some(WorkspaceState { key, baseline_at: Timestamp::UNIX_EPOCH, horizon: None, seen_at: None }),
        runs: vec![],
        changes: vec![],
        deliveries: vec![],
        begun: Vec::new(),
        ended: vec![],
        forgotten: vec![],
    };
    let full_at = |moment| -> Option<Faults> {
        Some(Arc::new(move |verb, around| (verb == "record" && around == moment).then_some(StoreError::Full)))
    };
    store.set_faults(full_at(Around::Before));
    assert_eq!(store.record(&poll).await, Err(StoreError::Full));
    assert_eq!(store.load().await.unwrap().workspaces.len(), 0, "nothing was written");
    let snapshot = store.snapshot();
    store.set_faults(full_at(Around::After));
    assert_eq!(store.record(&poll).await, Err(StoreError::Full));
    assert_eq!(store.load().await.unwrap().workspaces.len(), 1, "it was written");
    assert_eq!(snapshot.load().await.unwrap().workspaces.len(), 0, "a snapshot stays as it was");
}
