//! One life of the bot, step by step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use callboard::dispatcher::{Dispatcher, Outlet, Outlets, Wording};
use callboard::metrics::Metrics;
use callboard::model::{
    Clock, DeliveryState, Destination, Draft, Folding, Message, Muted, Prefer, Scope, Selector, Subscription,
    Timestamp, Tone,
};
use callboard::render::Rendered;
use callboard::store::{Ledger, Store, StoreError};
use callboard::tracker::{Page, Sight, Spans, Tracker, Watched};
use futures_util::FutureExt;
use tokio::runtime::Runtime;

use super::Broken;
use super::oracle::{Oracle, named};
use super::scenario::{Amendment, Condition, Event, OPERATORS, On, PLACES, Scenario, Verb};
use super::views;
use super::world::{self, Door, Key, STANDING_TEMPLATE, World};
use crate::memory::{Around, Faults, MemoryStore};

/// What a set of lives has to see, or it proves too little.
pub const WHAT_MUST_HAPPEN: [&str; 17] = [
    "amended",
    "delivered",
    "seen twice",
    "digest",
    "catch-up",
    "dead",
    "notice",
    "crash",
    "crash in a verb",
    "store failure",
    "stale poll",
    "unknown at a start",
    "given up",
    "pruned",
    "out of tries",
    "refuses",
    "outage",
];

/// What a message may have heard at its last try, by what its row says.
const COSTS_A_TRY: [&str; 4] = ["Down", "Mute", "Deaf", "a fault of callboard's own"];

pub type Counts = Vec<(&'static str, u64)>;

/// What is wrong with the store right now.
#[derive(Default)]
struct Troubles {
    failing: Option<(Verb, bool, u8)>,
    dying: Option<(Verb, bool)>,
    died: bool,
    failed: bool,
}

/// A process, from its start to its end.
struct Process {
    runtime: Runtime,
    tracker: Arc<Tracker>,
    dispatcher: Arc<Dispatcher>,
}

struct Life {
    world: Arc<Mutex<World>>,
    store: Arc<MemoryStore>,
    /// Other processes beside the service, and whoever starts one.
    calm: MemoryStore,
    troubles: Arc<Mutex<Troubles>>,
    standing: Vec<Subscription>,
    process: Option<Process>,
    oracle: Oracle,
    /// Given up by a person.
    discarded: BTreeSet<Key>,
    /// Brought back by a person: what came after may have been told meanwhile.
    retried: BTreeSet<Key>,
    /// Deleted, and given up because they waited so long.
    pruned: BTreeSet<Key>,
    expired: BTreeSet<Key>,
    /// How the attempts of what was deleted ended, by its number and theirs.
    outcomes: BTreeMap<(u64, usize), Option<String>>,
    /// Rows whose death was judged.
    judged: BTreeSet<u64>,
    /// When a person last brought each place back.
    revived: BTreeMap<usize, Duration>,
    counts: BTreeMap<&'static str, u64>,
    watches: usize,
    was_stale: bool,
    /// Writes and requests at the last check.
    moved: (u64, usize),
}

pub fn live(scenario: &Scenario, traced: bool) -> Result<Counts, Broken> {
    let mut life = Life::new(scenario, traced);
    life.all(scenario);
    let world = life.world();
    match &world.broken {
        Some(rule) => {
            let (rule, trace) = (rule.clone(), world.trace.clone().unwrap_or_default());
            Err(Broken { rule, trace })
        }
        None => Ok(life.counts.clone().into_iter().collect()),
    }
}

pub fn trace(scenario: &Scenario) -> Vec<String> {
    let mut life = Life::new(scenario, true);
    life.all(scenario);
    life.world().trace.clone().unwrap_or_default()
}

impl Life {
    fn new(scenario: &Scenario, traced: bool) -> Life {
        // Jitter is part of the life.
        fastrand::seed(scenario.seed);
        let mut world = World::new(scenario.runs);
        world.trace = traced.then(Vec::new);
        let world = Arc::new(Mutex::new(world));
        let troubles = Arc::<Mutex<Troubles>>::default();
        let store = Arc::new(MemoryStore::new());
        store.set_faults(Some(hook(Arc::clone(&troubles))));
        let calm = store.guest();
        let mut oracle = Oracle::default();
        let mut standing = Vec::new();
        for (number, wish) in scenario.subscriptions.iter().enumerate() {
            let id = format!("config:{number}");
            let on = match wish.on {
                On::Everything => vec![Selector::Started, Selector::Stage, Selector::Waiting, Selector::Finished],
                On::Failures => vec![Selector::Failed],
                On::Ends => vec![Selector::Finished],
            };
            let template = wish.template.then(|| STANDING_TEMPLATE.to_owned());
            let scope = Scope::Workspace { workspace: world::workspace().key() };
            standing.push(Subscription { template, ..subscription(&id, scope, wish.place, &on) });
            oracle.stands(id, wish.place, wish.on, wish.template);
        }
        let (process, discarded, retried, counts) = (None, BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
        let mut life = Life {
            world,
            store,
            calm,
            troubles,
            standing,
            process,
            oracle,
            discarded,
            retried,
            pruned: BTreeSet::new(),
            expired: BTreeSet::new(),
            outcomes: BTreeMap::new(),
            judged: BTreeSet::new(),
            revived: BTreeMap::new(),
            counts,
            watches: 0,
            was_stale: false,
            moved: (0, 0),
        };
        life.start();
        life
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn troubles(&self) -> MutexGuard<'_, Troubles> {
        self.troubles.lock().unwrap()
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_insert(0) += 1;
    }

    fn now(&self) -> Timestamp {
        self.world().now()
    }

    fn all(&mut self, scenario: &Scenario) {
        self.poll(0);
        for event in &scenario.events {
            self.world().note(|| format!("── {event:?}"));
            self.happens(*event);
            self.after_each_step();
            if self.world().broken.is_some() {
                return;
            }
        }
        self.peace(scenario.seed.is_multiple_of(2));
        self.check_end();
    }

    // ------------------------------------------------------------------------------------------------ life and death

    fn start(&mut self) {
        let world = Arc::clone(&self.world);
        let clock: Clock = Arc::new(move || world.lock().unwrap_or_else(std::sync::PoisonError::into_inner).now());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        if views::has_in_flight(&self.store) {
            self.count("unknown at a start");
        }
        self.store.recover();
        let store: Arc<dyn Store> = self.store.clone();
        let metrics = Arc::new(Metrics::new());
        let spans = Spans { waiting_after: Duration::from_secs(20), blind_after: Duration::from_secs(600) };
        let link = Box::new(|_: &_, _: &_| String::new());
        let (outlets, standing) = (self.outlets(), self.standing.clone());
        // A store that fails at a start keeps the process from starting; it is tried until it works.
        let calm = std::mem::take(&mut *self.troubles());
        let tracker = runtime.block_on(Tracker::start(Arc::clone(&store), standing, link, spans, Arc::clone(&metrics)));
        *self.troubles() = calm;
        let tracker = Arc::new(tracker.unwrap());
        let wording: Wording = Box::new(|draft, _, _| Rendered { message: written(draft), fell_back: false });
        let dispatcher = Dispatcher::new(store, wording, outlets, Arc::clone(&tracker), metrics, clock);
        {
            let mut world = self.world();
            (world.began, world.looked) = (world.steady, false);
        }
        self.process = Some(Process { runtime, tracker, dispatcher: Arc::new(dispatcher) });
    }

    fn crash(&mut self) {
        self.count("crash");
        self.process = None;
        self.troubles().died = false;
        self.world().dies(&self.store);
        self.start();
    }

    fn outlets(&self) -> Outlets {
        let outlet = |name: &'static str| {
            let door = Door { world: Arc::clone(&self.world), store: Arc::clone(&self.store), name };
            let prefer = if prefers_loss(name) { Prefer::NoDuplicate } else { Prefer::NoLoss };
            Outlet { prefer, ..Outlet::of(Arc::new(door)) }
        };
        let mut outlets = Outlets::default();
        for name in PLACES.into_iter().filter(|name| !name.contains(':')) {
            outlets.channels.insert(name.to_owned(), outlet(name));
        }
        outlets.rooms.insert("nonce".to_owned(), outlet("nonce"));
        outlets.operators.insert(PLACES[OPERATORS].to_owned());
        outlets
    }

    /// Runs `work` in the process; what it spawned goes on until nothing moves by itself.
    fn within<T>(&self, work: impl AsyncFnOnce(&Process) -> T) -> T {
        let process = self.process.as_ref().unwrap();
        process.runtime.block_on(async {
            let result = work(process).await;
            settle_down().await;
            result
        })
    }

    // -------------------------------------------------------------------------------------------------------- events

    fn happens(&mut self, event: Event) {
        match event {
            Event::Wait(seconds) => self.pass(Duration::from_secs(u64::from(seconds)), true),
            Event::Advance(run) => self.world().advance(run),
            Event::Leap(run, steps) => (0..steps).for_each(|_| self.world().advance(run)),
            Event::Fail(run) => self.world().fail(run),
            Event::Again(run) => self.world().again(run),
            Event::Poll => self.poll(0),
            Event::StalePoll(versions) => {
                self.count("stale poll");
                self.poll(usize::from(versions));
            }
            Event::Watch(place, run) => self.watch(place, run),
            Event::Unwatch(place, run) => self.unwatch(place, run),
            Event::Amend(place, run, amendment) => self.amend(place, run, amendment),
            Event::Tick => self.tick(),
            Event::Becomes(place, condition) => self.world().becomes(place, condition),
            Event::Answer => {
                self.world().answer_all();
                self.within(async |_| {});
            }
            Event::StoreFails(verb, after, times) => self.troubles().failing = Some((verb, after, times)),
            Event::Crash => self.crash(),
            Event::CrashIn(verb, after) => self.troubles().dying = Some((verb, after)),
            Event::Downtime(minutes) => {
                self.process = None;
                self.world().dies(&self.store);
                self.world().steady += Duration::from_secs(60 * u64::from(minutes));
                self.start();
            }
            Event::Outage(place, hours) => self.outage(place, hours),
            Event::Blind(hours) => {
                self.hours(hours);
                self.poll(0);
            }
            Event::Prune(hours) => self.prune(hours),
            Event::Retry => self.retry(),
            Event::Discard(number) => self.discard(usize::from(number)),
            Event::Revive(place) => self.revive(place),
            Event::ClockBack(seconds) => self.world().behind += Duration::from_secs(u64::from(seconds)),
            Event::ClockAhead(seconds) => self.world().jumps_ahead(Duration::from_secs(u64::from(seconds))),
            Event::Guest(place, run) => self.guest(place, run),
            Event::Housekeeping => self.housekeeping(),
        }
        if self.troubles().died {
            self.count("crash in a verb");
            self.crash();
        }
        if std::mem::take(&mut self.troubles().failed) {
            self.count("store failure");
        }
    }

    fn sight(&self, stale: usize) -> Sight {
        let runs = self.world().list(stale);
        let ids = runs.iter().map(|run| run.id.clone()).collect();
        Sight { page: Some(Page { ids, full: false }), runs, missing: Vec::new() }
    }

    fn poll(&mut self, stale: usize) {
        // Two polls that agree on an older truth would rightly be believed.
        let stale = if std::mem::replace(&mut self.was_stale, stale > 0) { 0 } else { stale };
        self.was_stale &= stale > 0;
        let (sight, now) = (self.sight(stale), self.now());
        // A store that fails is as good as no poll.
        let seen = self.within(async |process| process.tracker.observe(&world::workspace(), sight, now).await);
        self.world().looked |= seen.is_ok();
        self.look();
    }

    fn look(&mut self) {
        let mut world = self.world.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.oracle.look(&self.store, &mut world);
    }

    /// As the command does it: the run is looked at, then subscribed to.
    fn watch(&mut self, place: usize, run: usize) {
        let Some(snapshot) = self.world().runs[run].last().cloned() else { return };
        let (now, id) = (self.now(), snapshot.id.clone());
        let sight = Sight::of_run(snapshot.clone());
        let seen = self.within(async |process| process.tracker.observe(&world::workspace(), sight, now).await);
        self.look();
        if seen.is_err() || self.troubles().died {
            return;
        }
        let watch = self.new_watch(place, run);
        let (ours, already) = (watch.id.clone(), self.oracle.is_watched(place, &id, now));
        let watched = self.within(async |process| process.tracker.watch(watch, snapshot).await);
        self.world().note(|| format!("{} watches run {run}: {watched:?}", PLACES[place]));
        match watched {
            Ok(Watched::New) => self.oracle.watches(ours, place, id),
            Ok(Watched::Already) if !already && !self.oracle.is_doubtful(&(place, None, id.clone(), 0)) => {
                self.world().breaks("watch: it says that it watches already, and does not");
            }
            Ok(Watched::Already | Watched::Ended) => {}
            Err(_) if already => {}
            Err(_) => self.oracle.doubts(place, id),
        }
    }

    fn new_watch(&mut self, place: usize, run: usize) -> Subscription {
        self.watches += 1;
        let scope = Scope::Run { workspace: world::workspace().key(), run: world::run_id(run) };
        let on: Vec<Selector> = Selector::watch().into_iter().collect();
        let created_at = self.now();
        Subscription { created_at, ..subscription(&format!("watch-{}", self.watches), scope, place, &on) }
    }

    fn unwatch(&mut self, place: usize, run: usize) {
        let id = world::run_id(run);
        let Some(ours) = self.oracle.kept(place, &id) else { return };
        let gone = self.within(async |process| process.tracker.unsubscribe(&ours).await);
        match gone {
            Ok(_) => self.oracle.unwatched(&ours),
            Err(_) => self.oracle.doubts(place, id),
        }
    }

    fn amend(&mut self, place: usize, run: usize, amendment: Amendment) {
        let (id, now) = (world::run_id(run), self.now());
        let Some(ours) = self.oracle.kept(place, &id) else { return };
        // Housekeeping may not have seen it yet.
        let known = self.within(async |process| process.tracker.select(|one| one.id == ours).pop());
        let Some(known) = known else { return };
        let later = |minutes: u8| now + Duration::from_secs(60 * u64::from(minutes));
        let mut new = (*known).clone();
        match amendment {
            Amendment::Mute(minutes) => new.muted = Some(Muted { until: later(minutes), by: "discord:7".to_owned() }),
            Amendment::For(minutes) => new.until = Some(later(minutes)),
            Amendment::Stop => new.stopped = Some(now),
            Amendment::Undo => new.stopped = None,
        }
        let changed = new.clone();
        let done = self.within(async |process| process.tracker.amend(vec![new]).await);
        self.world().note(|| format!("{} of run {run}: {amendment:?}: {done:?}", PLACES[place]));
        match done {
            Ok(0) => {}
            Ok(_) => {
                self.count("amended");
                self.oracle.amended(&changed);
            }
            Err(_) => self.oracle.doubts(place, id),
        }
    }

    /// Another process subscribes to a run that the store knows.
    fn guest(&mut self, place: usize, run: usize) {
        let id = world::run_id(run);
        let Some(state) = views::run(&self.store, &world::workspace().key(), &id) else { return };
        if state.snapshot.status.is_terminal() || self.oracle.is_watched(place, &id, self.now()) {
            return;
        }
        let watch = self.new_watch(place, run);
        let done = self.calm.subscribe(&watch, Some(&state)).now_or_never();
        if matches!(done, Some(Ok(callboard::store::Subscribed::New { .. }))) {
            self.oracle.watches(watch.id, place, id);
        }
    }

    fn housekeeping(&mut self) {
        let now = self.now();
        let swept = self.within(async |process| {
            let _ = process.tracker.take_over().await;
            let _ = process.tracker.keep_sight().await;
            process.dispatcher.wake();
            process.tracker.sweep(now).await.is_ok()
        });
        self.oracle.swept(now, swept);
    }

    fn tick(&mut self) {
        let now = self.now();
        self.within(async |process| process.dispatcher.tick(now).await);
    }

    /// Time passes as in a service: the dispatcher looks when it said it would, polls come every five seconds.
    fn pass(&mut self, span: Duration, polls: bool) {
        let end = self.world().steady + span;
        for _ in 0..200 {
            let (now, before) = (self.now(), self.world().arrivals.len());
            let next = self.within(async |process| process.dispatcher.tick(now).await);
            // What was sent leaves its destination free for the next one.
            let next = if self.world().arrivals.len() > before { Some(now) } else { next };
            if self.troubles().died || self.world().broken.is_some() {
                return;
            }
            let steady = self.world().steady;
            if steady >= end {
                break;
            }
            let sleep = next.map_or(Duration::MAX, |next| callboard::model::elapsed(now, next));
            let sleep = sleep.clamp(Duration::from_millis(1), end - steady);
            self.world().steady += sleep;
            self.within(async |_| tokio::time::advance(sleep).await);
        }
        let left = end.saturating_sub(self.world().steady);
        self.world().steady += left;
        if polls {
            self.poll(0);
        }
    }

    /// Nobody polls; the dispatcher does what it would.
    fn hours(&mut self, hours: u8) {
        let mut left = u64::from(hours);
        while left > 0 && self.world().broken.is_none() && !self.troubles().died {
            let span = left.min(6);
            self.pass(Duration::from_secs(3_600 * span), false);
            self.after_each_step();
            left -= span;
        }
    }

    fn outage(&mut self, place: usize, hours: u8) {
        self.count("outage");
        self.world().becomes(place, Condition::Down);
        self.hours(hours);
        self.world().becomes(place, Condition::Good);
    }

    fn prune(&mut self, hours: u8) {
        let before = self.now() - Duration::from_secs(3_600 * u64::from(hours));
        let rows = views::all(&self.store);
        assert!(matches!(self.calm.prune(before).now_or_never(), Some(Ok(_))));
        let left: BTreeMap<u64, _> = views::all(&self.store).into_iter().map(|row| (row.number, row)).collect();
        for row in rows {
            let was_open = row.is_open();
            match left.get(&row.number) {
                None if was_open || row.settled_at.is_none_or(|at| at >= before) => {
                    self.world().breaks(format!("no loss: {} was deleted too early", named(&row.key)));
                }
                None => {
                    self.count("pruned");
                    let outcomes = row.outcomes.into_iter().enumerate();
                    self.outcomes.extend(outcomes.map(|(index, outcome)| ((row.number, index + 1), outcome)));
                    self.pruned.insert(row.key);
                }
                Some(now) if was_open && now.state == DeliveryState::Dead => {
                    if row.created_at >= before {
                        self.world().breaks(format!("no loss: {} was given up too early", named(&row.key)));
                    }
                    self.expired.insert(row.key);
                }
                Some(_) => {}
            }
        }
    }

    fn retry(&mut self) {
        let now = self.now();
        for row in views::all(&self.store).into_iter().filter(|row| row.state == DeliveryState::Dead) {
            assert_eq!(self.calm.retry(row.id, now).now_or_never(), Some(Ok(true)));
            self.retried.insert(row.key);
        }
        self.within(async |process| process.dispatcher.wake());
    }

    fn discard(&mut self, number: usize) {
        let open: Vec<_> = views::all(&self.store).into_iter().filter(|row| row.is_open()).collect();
        let Some(row) = open.get(number % open.len().max(1)) else { return };
        if self.calm.discard(row.id, self.now()).now_or_never() == Some(Ok(true)) {
            self.discarded.insert(row.key.clone());
        }
    }

    fn revive(&mut self, place: usize) {
        let now = self.now();
        let to = Destination::from(PLACES[place].to_owned());
        for to in [Some(to.clone()), to.account()].into_iter().flatten() {
            assert!(matches!(self.calm.revive(&to, now).now_or_never(), Some(Ok(_))));
        }
        self.world().mend(place);
        let steady = self.world().steady;
        self.revived.insert(place, steady);
        self.within(async |process| process.dispatcher.wake());
    }

    // -------------------------------------------------------------------------------------------------------- checks

    fn after_each_step(&mut self) {
        let moved = (self.store.look(|truth| truth.writes), self.world().arrivals.len());
        if std::mem::replace(&mut self.moved, moved) == moved {
            return;
        }
        self.look();
        let ledger = self.ledger();
        if !ledger.is_balanced() {
            self.world().breaks(format!("conservation: {ledger:?}"));
        }
        let copies = self.copies();
        for (key, (copies, unknown)) in &copies {
            if copies.saturating_sub(1) > *unknown {
                let said = format!("bound: {} was seen {copies} times, with {unknown} unknown attempts", named(key));
                self.world().breaks(said);
            }
            if *copies > 1 && prefers_loss(PLACES[key.0]) {
                self.world().breaks(format!("no duplicate: {} was seen {copies} times", named(key)));
            }
        }
        if copies.values().any(|(copies, _)| *copies > 1) {
            self.count("seen twice");
        }
        self.check_rows();
        self.check_order();
        self.check_troubles();
    }

    /// How often people saw each change, and how many attempts at it may have arrived unknown to the bot.
    fn copies(&self) -> BTreeMap<Key, (u64, u64)> {
        let mut copies: BTreeMap<Key, (u64, u64)> = BTreeMap::new();
        for arrival in self.world().arrivals.iter().filter(|arrival| arrival.seen) {
            for key in &arrival.keys {
                copies.entry(key.clone()).or_default().0 += 1;
            }
        }
        for request in &self.world().arrivals {
            let (number, attempt) = request.lead;
            let outcome = match self.outcomes.get(&request.lead) {
                Some(outcome) => outcome.clone(),
                None => views::outcome(&self.store, number, attempt),
            };
            let unknown = outcome.is_none_or(|outcome| outcome == "unknown");
            for key in request.keys.iter().filter(|_| unknown) {
                copies.entry(key.clone()).or_default().1 += 1;
            }
        }
        copies
    }

    fn ledger(&self) -> Ledger {
        self.calm.overview().now_or_never().unwrap().unwrap().ledger
    }

    /// Exactly what is owed is there.
    fn check_rows(&mut self) {
        let rows: BTreeSet<Key> = views::all(&self.store).into_iter().map(|row| row.key).collect();
        let missing = {
            let is_known = |key: &Key| rows.contains(key) || self.pruned.contains(key) || self.oracle.is_doubtful(key);
            self.oracle.expected.keys().find(|key| !is_known(key))
        };
        if let Some(key) = missing {
            let said = format!("no loss: {} was never owed", named(key));
            self.world().breaks(said);
        }
        let more = rows.iter().find(|key| !self.oracle.expected.contains_key(*key));
        if let Some(key) = more.filter(|key| key.1.is_some() || !self.oracle.was_doubtful(key)) {
            let said = format!("nobody asked: {} is owed", named(key));
            self.world().breaks(said);
        }
    }

    /// First copies of a run's changes come in order.
    fn check_order(&self) {
        let mut world = self.world();
        let mut seen: BTreeMap<Key, usize> = BTreeMap::new();
        for (number, arrival) in world.arrivals.iter().enumerate() {
            for key in &arrival.keys {
                seen.entry(key.clone()).or_insert(number);
            }
        }
        let entries: Vec<_> = seen.into_iter().collect();
        for ((before, first), (after, second)) in entries.iter().zip(entries.iter().skip(1)) {
            let same_queue = before.0 == after.0 && before.1 == after.1 && before.2 == after.2;
            if same_queue && first > second && !self.retried.contains(before) {
                world.breaks(format!("order: {} came before {}", named(after), named(before)));
                return;
            }
        }
    }

    /// A destination that takes nothing any more is a trouble that was told, however it shows.
    fn check_troubles(&mut self) {
        let dead = |row: &views::Seen| row.state == DeliveryState::Dead && !self.judged.contains(&row.number);
        let dead: Vec<_> = views::all(&self.store).into_iter().filter(dead).collect();
        for row in dead {
            self.judged.insert(row.number);
            let place = row.key.0;
            let is_of_tries = COSTS_A_TRY.iter().any(|why| row.reason.contains(why));
            let failed = self.world().failed_first.get(&row.number).copied();
            let Some(failed) = failed.filter(|_| is_of_tries) else { continue };
            self.count("out of tries");
            let since = self.world().places[place].answered.max(self.revived.get(&place).copied());
            // A clock that went back makes the days shorter.
            let is_plain = since.is_none_or(|since| since < failed) && self.world().behind == Duration::ZERO;
            if is_plain && !views::in_trouble(&self.store, &format!("destination {}", PLACES[place])) {
                let said = format!("told: {} ran out of tries, and nobody hears of {}", named(&row.key), PLACES[place]);
                self.world().breaks(said);
            }
        }
        for (place, name) in PLACES.iter().enumerate() {
            let refuses = self.world().places[place].rejected.len() >= 5;
            if refuses && views::in_flight(&self.store, name).is_none() {
                self.count("refuses");
                if !views::in_trouble(&self.store, &format!("messages to {name}")) {
                    self.world().breaks(format!("told: {name} refuses each message, and nobody hears of it"));
                }
            }
        }
    }

    /// The faults stop, people mend what is dead, and time passes until nothing is owed.
    ///
    /// Where people bring every place back (`all`), everything is due at once, and the slowest pace carries what these
    /// lives owe within an hour. Where nobody does, a message may have its longest wait before it, 24 hours and a fifth,
    /// and those behind it go at once; a clock that went back makes that 29 hours at most. A second hour for what is
    /// written down late.
    fn peace(&mut self, all: bool) {
        self.world().note(|| "── peace".to_owned());
        *self.troubles() = Troubles::default();
        for place in 0..PLACES.len() {
            self.world().places[place].condition = Condition::Good;
        }
        self.world().answer_all();
        self.within(async |_| {});
        self.housekeeping();
        self.poll(0);
        self.poll(0);
        if all {
            (0..PLACES.len()).for_each(|place| self.revive(place));
        }
        for _ in 0..if all { 2 } else { 31 } {
            // What happened may be written down late.
            for place in views::dead(&self.store) {
                self.revive(place);
            }
            self.pass(Duration::from_secs(3_600), true);
            // What that poll found.
            self.pass(Duration::from_secs(600), false);
            self.after_each_step();
            if self.world().broken.is_some() || views::any_open(&self.store).is_none() {
                return;
            }
        }
        let open = views::any_open(&self.store).unwrap_or_default();
        self.world().breaks(format!("liveness: still owed after so long a peace: {open}"));
    }

    fn check_end(&mut self) {
        if self.world().broken.is_some() {
            return;
        }
        let mut arrived_once = BTreeSet::new();
        let mut foldings = Vec::new();
        for arrival in &self.world().arrivals {
            arrived_once.extend(arrival.keys.iter().filter(|_| arrival.confirmed).cloned());
            foldings.extend(arrival.folding);
        }
        for folding in foldings {
            self.count(if folding == Folding::Rate { "digest" } else { "catch-up" });
        }
        for row in views::all(&self.store) {
            let key = row.key;
            let arrived = arrived_once.contains(&key);
            match row.state {
                DeliveryState::Delivered => self.count("delivered"),
                DeliveryState::Dead => self.count("dead"),
                _ => {}
            }
            let told = matches!(row.state, DeliveryState::Delivered)
                || (row.state == DeliveryState::Superseded && !self.discarded.contains(&key));
            if told && !arrived {
                self.world().breaks(format!("no false success: {} is {:?} and never arrived", named(&key), row.state));
            }
            if row.state == DeliveryState::Dead {
                self.check_death(&row.reason, &key);
            }
        }
        let runs = self.world().runs.clone();
        for (run, versions) in runs.iter().enumerate() {
            let kept = views::run(&self.store, &world::workspace().key(), &world::run_id(run));
            if kept.map(|kept| kept.snapshot) != versions.last().cloned() {
                self.world().breaks(format!("recorded: run {run} is not where it is"));
            }
        }
        self.check_notices();
    }

    /// A message dies only of what it may die of.
    fn check_death(&mut self, reason: &str, key: &Key) {
        let lossy = prefers_loss(PLACES[key.0]) && reason.contains("may have arrived");
        if lossy && PLACES[key.0] == "hook" && !self.came_apart(key) {
            self.world().breaks(format!("no loss: {} would have been recognised", named(key)));
        }
        if lossy {
            self.count("given up");
        }
        let refused = ["Refusing", "Hostile"].iter().any(|why| reason.contains(why));
        // That it was told is judged when it happens.
        let out_of_tries = COSTS_A_TRY.iter().any(|why| reason.contains(why)) && self.is_worn_out(key);
        if !lossy && !refused && !out_of_tries && !self.expired.contains(key) {
            self.world().breaks(format!("no loss: {} died of {reason:?}", named(key)));
        }
    }

    /// It, or the message that was to tell it, used up its tries.
    fn is_worn_out(&self, key: &Key) -> bool {
        let world = self.world();
        let leads: BTreeSet<u64> =
            world.arrivals.iter().filter(|one| one.keys.contains(key)).map(|one| one.lead.0).collect();
        leads.iter().any(|lead| world.arrivals.iter().filter(|one| one.lead.0 == *lead).count() >= 18)
    }

    /// It was told together with others.
    fn came_apart(&self, key: &Key) -> bool {
        self.world().arrivals.iter().any(|arrival| arrival.keys.len() > 1 && arrival.keys.contains(key))
    }

    /// A trouble is told once, and its end only after it.
    fn check_notices(&mut self) {
        let told = views::announced(&self.store);
        let mut last = BTreeMap::new();
        for (subject, is_end) in &told {
            let before = last.insert(subject.clone(), *is_end);
            // The first ones may be deleted.
            let alternates = before.map_or(!is_end || !self.pruned.is_empty(), |before| before != *is_end);
            if !alternates {
                self.world().breaks(format!("notices: {subject} was told twice in a row (end: {is_end})"));
            }
        }
        let arrived = self.world().notices.len();
        if arrived > 0 {
            self.count("notice");
        }
    }
}

/// Of these, `hook` recognises what comes again under the same id.
fn prefers_loss(name: &str) -> bool {
    matches!(name, "lossy" | "hook")
}

/// Whatever can go on without time passing goes on.
async fn settle_down() {
    for _ in 0..3 {
        tokio::task::yield_now().await;
    }
}

fn hook(troubles: Arc<Mutex<Troubles>>) -> Faults {
    Arc::new(move |name, around| {
        let after = around == Around::After;
        let mut troubles = troubles.lock().unwrap();
        let failure = StoreError::Failed("simulated".to_owned());
        if troubles.died {
            return Some(failure);
        }
        let is_meant = |verb: Verb| match verb {
            Verb::Record => name == "record",
            Verb::Claim => name == "claim",
            Verb::Settle => name == "settle",
            Verb::Subscribe => matches!(name, "subscribe" | "unsubscribe"),
            Verb::Any => true,
        };
        if let Some((verb, when)) = troubles.dying
            && when == after
            && is_meant(verb)
        {
            troubles.dying = None;
            troubles.died = true;
            return Some(failure);
        }
        if let Some((verb, when, times)) = troubles.failing
            && when == after
            && is_meant(verb)
        {
            troubles.failing = times.checked_sub(1).filter(|left| *left > 0).map(|left| (verb, when, left));
            troubles.failed = true;
            return Some(failure);
        }
        None
    })
}

fn subscription(id: &str, scope: Scope, place: usize, on: &[Selector]) -> Subscription {
    Subscription {
        id: id.to_owned(),
        scope,
        to: Destination::from(PLACES[place].to_owned()),
        on: on.iter().copied().collect(),
        stages: Vec::new(),
        creators: Vec::new(),
        template: None,
        by: "simulation".to_owned(),
        roles: Vec::new(),
        until: None,
        muted: None,
        stopped: None,
        created_at: World::begin(),
    }
}

fn written(draft: &Draft) -> Message {
    Message {
        id: draft.id,
        title: if draft.repeated { "↻" } else { "" }.to_owned(),
        body: String::new(),
        plain: String::new(),
        tone: Tone::Good,
        url: String::new(),
        url_label: String::new(),
        buttons: Vec::new(),
        content: draft.content.clone(),
    }
}
