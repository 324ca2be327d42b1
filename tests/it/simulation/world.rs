//! Everything around the bot: the pipelines as they truly are, and the destinations, which keep the rules that chat
//! platforms keep and write down what breaks them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use callboard::channels::{Channel, DIALECTS};
use callboard::model::{
    Change, Content, Dialect, Folding, Message, Outcome, Pace, Repetitions, RunId, Snapshot, Stage, Status, Terms,
    Timestamp, Workspace,
};
use tokio::sync::oneshot;

use super::scenario::{Condition, PLACES};
use super::views;
use crate::memory::MemoryStore;

const SECOND: Duration = Duration::from_secs(1);
pub const NONCE_KEPT: Duration = Duration::from_secs(90);
const STAGES: [&str; 2] = ["BUILD", "PROD"];

/// On which terms each of [`PLACES`] takes messages.
pub fn terms(place: usize) -> Terms {
    const THREE_A_MINUTE: &[Pace] = &[Pace { count: 3, window: Duration::from_secs(60) }];
    const ONE_A_SECOND: &[Pace] = &[Pace { count: 1, window: Duration::from_secs(1) }];
    const FIVE_IN_FIVE: &[Pace] = &[Pace { count: 5, window: Duration::from_secs(5) }];
    let (paces, repetitions): (&'static [Pace], _) = match place {
        0 => (THREE_A_MINUTE, Repetitions::Shown),
        1 | 2 => (FIVE_IN_FIVE, Repetitions::MergedFor(NONCE_KEPT)),
        3 => (&[], Repetitions::Merged),
        5 => (ONE_A_SECOND, Repetitions::Shown),
        _ => (&[], Repetitions::Shown),
    };
    Terms { paces, repetitions }
}

/// The rooms of one bot share an account.
pub fn account(place: usize) -> Option<&'static str> {
    (place == 1 || place == 2).then_some("nonce")
}

/// The template set of some standing subscriptions: their messages are others than those of the default one.
pub const STANDING_TEMPLATE: &str = "release";

/// One change as one destination was to hear it: place, template, run, sequence.
pub type Key = (usize, Option<String>, RunId, i64);

/// A request at a destination's door.
#[derive(Debug, Clone)]
pub struct Arrival {
    pub keys: Vec<Key>,
    pub message: uuid::Uuid,
    /// The delivery that led it, and its attempt.
    pub lead: (u64, usize),
    pub folding: Option<Folding>,
    /// People see it: it arrived, and the platform did not recognise a repetition.
    pub seen: bool,
    /// It said that it has it.
    pub confirmed: bool,
}

#[derive(Default)]
pub struct World {
    /// Seconds since the beginning, by a clock that never goes back.
    pub steady: Duration,
    /// How far the bot's clock is behind.
    pub behind: Duration,
    /// How far it is ahead.
    ahead: Duration,
    pub runs: Vec<Vec<Snapshot>>,
    pub places: Vec<Place>,
    pub arrivals: Vec<Arrival>,
    /// The first broken rule.
    pub broken: Option<String>,
    /// Notices as they arrived.
    pub notices: Vec<(String, bool)>,
    /// When the account of a bot takes messages again.
    account_opens: Duration,
    account_closed: Duration,
    account_why: &'static str,
    pub trace: Option<Vec<String>>,
    /// When the process began, and whether it has looked at the workspace.
    pub began: Duration,
    pub looked: bool,
    /// When each message failed first that is tried again, by the number of the delivery that leads it.
    pub failed_first: BTreeMap<u64, Duration>,
}

pub struct Place {
    pub condition: Condition,
    requests: Vec<Duration>,
    /// No request is allowed before.
    opens: Duration,
    why: &'static str,
    pub gone: bool,
    /// When it last took a message, or refused one for good.
    pub answered: Option<Duration>,
    /// The deliveries it refused for good since it took one.
    pub rejected: BTreeSet<u64>,
    under_way: usize,
    held: Vec<oneshot::Sender<()>>,
    /// When each message id arrived first, and what it said.
    received: BTreeMap<uuid::Uuid, (Duration, String)>,
}

impl Default for Place {
    fn default() -> Place {
        Place {
            condition: Condition::Good,
            requests: Vec::new(),
            opens: Duration::ZERO,
            why: "",
            gone: false,
            answered: None,
            rejected: BTreeSet::new(),
            under_way: 0,
            held: Vec::new(),
            received: BTreeMap::new(),
        }
    }
}

pub fn workspace() -> Workspace {
    Workspace { name: "warehouse".into(), region: "cn-shanghai".into(), project_id: 10_000 }
}

pub fn run_id(run: usize) -> RunId {
    format!("run-{run}").parse().unwrap()
}

impl World {
    pub fn new(runs: usize) -> World {
        let places = PLACES.iter().map(|_| Place::default()).collect();
        World { runs: vec![Vec::new(); runs], places, ..World::default() }
    }

    pub fn begin() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    /// What the bot's clock shows.
    pub fn now(&self) -> Timestamp {
        // Far enough from the beginning for any step back.
        World::begin() + Duration::from_secs(1_000_000) + self.steady + self.ahead - self.behind
    }

    /// By its clock, everything that the bot waited for is over. It may use every pace once more; see Known limits.
    pub fn jumps_ahead(&mut self, span: Duration) {
        self.ahead += span;
        self.looked = true;
        self.account_opens = Duration::ZERO;
        for place in &mut self.places {
            place.opens = Duration::ZERO;
            place.requests.clear();
        }
    }

    pub fn breaks(&mut self, rule: impl Into<String>) {
        if self.broken.is_none() {
            let rule = rule.into();
            self.note(|| format!("BROKEN {rule}"));
            self.broken = Some(rule);
        }
    }

    pub fn note(&mut self, line: impl FnOnce() -> String) {
        let at = self.steady.as_secs_f64();
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{at:>10.1} {}", line()));
        }
    }

    // --------------------------------------------------------------------------------------------------- pipelines

    /// The run's next step: it appears, its stages begin and pass one after the other, it ends.
    pub fn advance(&mut self, run: usize) {
        let versions = &self.runs[run];
        let mut next = versions.last().cloned().unwrap_or_else(|| {
            let stage = |(index, code): (usize, &&str)| Stage {
                code: (*code).to_owned(),
                name: String::new(),
                step: index as i64 + 1,
                kind: "Deploy".into(),
                status: Status::Init,
                message: String::new(),
            };
            Snapshot {
                id: run_id(run),
                description: String::new(),
                creator: "1".into(),
                status: Status::Init,
                message: String::new(),
                created_at: Some(self.now()),
                modified_at: None,
                stages: STAGES.iter().enumerate().map(stage).collect(),
            }
        });
        if !versions.is_empty() {
            if next.status.is_terminal() {
                return;
            }
            next.status = Status::Running;
            match next.stages.iter_mut().find(|stage| stage.status != Status::Success) {
                Some(stage) if stage.status == Status::Running => stage.status = Status::Success,
                Some(stage) => stage.status = Status::Running,
                None => next.status = Status::Success,
            }
        }
        self.runs[run].push(next);
    }

    pub fn fail(&mut self, run: usize) {
        let Some(mut next) = self.runs[run].last().cloned() else { return };
        let running = next.stages.iter_mut().find(|stage| stage.status == Status::Running);
        if let Some(stage) = running {
            stage.status = Status::Fail;
            next.status = Status::Fail;
            self.runs[run].push(next);
        }
    }

    pub fn again(&mut self, run: usize) {
        let Some(mut next) = self.runs[run].last().cloned() else { return };
        if let Some(stage) = next.stages.iter_mut().find(|stage| stage.status == Status::Fail) {
            stage.status = Status::Running;
            next.status = Status::Running;
            self.runs[run].push(next);
        }
    }

    /// The stage was in this status at some time, or is skipped over on the way.
    pub fn truly(&self, run: &RunId, code: &str, status: &Status) -> bool {
        let versions = self.runs.iter().flatten().filter(|version| version.id == *run);
        versions.filter_map(|version| version.stage(code)).any(|stage| stage.status == *status)
    }

    /// The list as it is, or as it was `stale` versions ago.
    pub fn list(&self, stale: usize) -> Vec<Snapshot> {
        let seen = |versions: &Vec<Snapshot>| versions.get(versions.len().checked_sub(1 + stale)?).cloned();
        self.runs.iter().filter_map(seen).collect()
    }

    // ------------------------------------------------------------------------------------------------ destinations

    pub fn place_of(name: &str) -> usize {
        PLACES.iter().position(|place| *place == name).unwrap()
    }

    /// Credentials are those of all rooms of a bot.
    pub fn becomes(&mut self, place: usize, condition: Condition) {
        let denies = |condition| condition == Condition::Denying;
        let rooms = (0..PLACES.len()).filter(|room| account(*room).is_some() && account(*room) == account(place));
        if denies(condition) || denies(self.places[place].condition) {
            for room in rooms {
                self.places[room].condition = if denies(condition) { condition } else { Condition::Good };
            }
        }
        self.places[place].condition = condition;
    }

    /// A person mended it and said so.
    pub fn mend(&mut self, place: usize) {
        self.places[place].gone = false;
        self.places[place].opens = Duration::ZERO;
        if account(place).is_some() {
            self.account_opens = Duration::ZERO;
        }
    }

    pub fn answer_all(&mut self) {
        for place in &mut self.places {
            for held in place.held.drain(..) {
                // Whoever waited may be dead.
                let _ = held.send(());
            }
        }
    }

    /// What was under way died with the process; what it had been answered and had not written down, nobody knows.
    pub fn dies(&mut self, store: &MemoryStore) {
        for (number, place) in self.places.iter_mut().enumerate() {
            place.under_way = 0;
            place.held.clear();
            if views::in_flight(store, PLACES[number]).is_some() {
                (place.opens, place.gone) = (Duration::ZERO, false);
                place.rejected.clear();
                if account(number).is_some() {
                    self.account_opens = Duration::ZERO;
                }
            }
        }
    }

    fn keys(place: usize, message: &Message, template: &Option<String>) -> Vec<Key> {
        let key = |change: &Change| (place, template.clone(), change.run.id.clone(), change.sequence);
        match &message.content {
            Content::Change(change) => vec![key(change)],
            Content::Digest { changes, .. } => changes.iter().map(key).collect(),
            Content::Notice(_) => Vec::new(),
        }
    }

    /// A request is at the door: is it allowed to be there?
    fn check_request(&mut self, place: usize, store: &MemoryStore, message: &Message) {
        let now = self.steady;
        let name = PLACES[place];
        let (opens, why) = (self.places[place].opens, self.places[place].why);
        if now < opens {
            self.breaks(format!("limits: {name} was sent to {:?} too early ({why})", opens - now));
        }
        // What was claimed together with the message that closed it may be under way already.
        if account(place).is_some() && now < self.account_opens && now > self.account_closed {
            let (left, why) = (self.account_opens - now, self.account_why);
            self.breaks(format!("limits: the bot of {name} was used {left:?} too early ({why})"));
        }
        if self.places[place].gone {
            self.breaks(format!("dead: {name} was sent to before anybody acted"));
        }
        if self.places[place].under_way > 0 {
            self.breaks(format!("one at a time: two messages are under way to {name}"));
        }
        for pace in terms(place).paces {
            let requests = &self.places[place].requests;
            let within = requests.iter().filter(|at| now - **at < pace.window).count();
            if within >= pace.count {
                self.breaks(format!("limits: {name} got more than {} messages in {:?}", pace.count, pace.window));
            }
        }
        if views::in_flight(store, name).is_none() {
            self.breaks(format!("intent first: {name} was sent something that nobody claimed"));
        }
        if let Some(said) = views::overtaken(store, name, self.now()) {
            self.breaks(format!("priority: {name} is told progress while {said} waits"));
        }
        self.check_content(place, store, message);
        self.places[place].requests.push(now);
    }

    fn check_content(&mut self, place: usize, store: &MemoryStore, message: &Message) {
        let name = PLACES[place];
        let tried = views::in_flight(store, name);
        let tried_first = tried.as_ref().is_some_and(|tried| tried.attempt == 1);
        let repeats = tried.as_ref().is_some_and(|tried| tried.unknown_since.is_some());
        let marked = message.title.contains('↻');
        let merged = match terms(place).repetitions {
            Repetitions::Shown => false,
            Repetitions::Merged => true,
            Repetitions::MergedFor(_) => self.behind == Duration::ZERO,
        };
        if repeats && !merged && !marked && matches!(terms(place).repetitions, Repetitions::Shown) {
            self.breaks(format!("honesty: {name} gets a possible repetition without a word"));
        }
        let told_before = views::any_unknown(store, &World::keys(place, message, &tried.and_then(|row| row.template)));
        if told_before && !marked && matches!(terms(place).repetitions, Repetitions::Shown) {
            self.breaks(format!("honesty: {name} gets what it may have had in another message, without a word"));
        }
        if !repeats && marked {
            self.breaks(format!("honesty: {name} gets a first message marked as a repetition"));
        }
        match &message.content {
            Content::Change(change) => {
                let age = self.now().duration_since(change.at).as_secs();
                let is_old = age > 600 && !change.is_urgent() || age > 6 * 3600;
                if (is_old || change.unseen_since.is_some()) && !repeats {
                    self.breaks(format!("staleness: {name} hears as news what is {age} s old"));
                }
            }
            Content::Digest { changes, why: Folding::Rate } => {
                let waiting = views::open(store, name);
                let carried = if place == 0 { 3 } else { 60 };
                let has_pace = !terms(place).paces.is_empty() || self.places[place].why == "429";
                // One that was refused comes again as it was, however few wait by then.
                let is_new = tried_first && !repeats;
                if is_new && (!has_pace || waiting <= carried && self.places[place].why != "429") {
                    self.breaks(format!("one message for each change: {name} could carry {waiting} one by one"));
                }
                self.check_digest(name, changes);
            }
            Content::Digest { changes, why: Folding::Late } => {
                if changes.iter().any(|change| change.run.id != changes[0].run.id) {
                    self.breaks(format!("catch-up: {name} gets several runs in one"));
                }
                if !repeats && !self.looked && self.steady - self.began < Duration::from_secs(10) {
                    self.breaks(format!("catch-up: {name} hears what was missed before anybody looked"));
                }
                self.check_digest(name, changes);
            }
            Content::Notice(notice) => self.notices.push((notice.kind.subject(), notice.kind.is_end())),
        }
    }

    /// What another message may have told already, and nobody knows whether it did, is told as a possible repetition.
    fn check_elsewhere(&mut self, place: usize, store: &MemoryStore, message: &Message, keys: &[Key]) {
        let in_doubt = |arrival: &Arrival| {
            let (number, attempt) = arrival.lead;
            arrival.message != message.id
                && arrival.keys.iter().any(|key| keys.contains(key))
                && views::outcome(store, number, attempt).is_some_and(|outcome| outcome == "unknown")
        };
        if !message.title.contains('↻') && self.arrivals.iter().any(in_doubt) {
            let name = PLACES[place];
            self.breaks(format!("honesty: {name} gets under another id what it may have had, without a word"));
        }
    }

    /// Each run's changes in order, and together.
    fn check_digest(&mut self, name: &str, changes: &[Change]) {
        if changes.is_empty() {
            self.breaks(format!("digest: {name} gets one of nothing"));
        }
        for (before, after) in changes.iter().zip(changes.iter().skip(1)) {
            if before.run.id == after.run.id && before.sequence >= after.sequence {
                self.breaks(format!("order: {name} gets a digest with {} before {}", before.sequence, after.sequence));
            }
        }
    }

    /// The message arrives.
    fn arrive(&mut self, place: usize, message: &Message, keys: &[Key], confirmed: bool) {
        let now = self.steady;
        let says = format!("{:?} {}", keys, message.title.replace('↻', ""));
        let kept = match terms(place).repetitions {
            Repetitions::Shown => None,
            Repetitions::MergedFor(span) => Some(span),
            Repetitions::Merged => Some(Duration::MAX),
        };
        let before = self.places[place].received.get(&message.id).cloned();
        let merged = match (&before, kept) {
            (Some((at, _)), Some(span)) => now - *at < span,
            _ => false,
        };
        match before {
            Some((_, said)) if said != says => {
                self.breaks(format!("constant: {} got another text under the same id", PLACES[place]));
            }
            Some(_) => {}
            None => drop(self.places[place].received.insert(message.id, (now, says.clone()))),
        }
        if let Some(request) = self.arrivals.last_mut() {
            (request.seen, request.confirmed) = (!merged, confirmed);
        }
    }

    /// What the place heard and answered, for judging later what was told of it.
    fn remember(&mut self, place: usize, lead: u64, outcome: &Outcome) {
        let now = self.steady;
        match outcome {
            Outcome::Delivered { .. } => {
                self.places[place].answered = Some(now);
                self.places[place].rejected.clear();
            }
            Outcome::Reject { .. } => {
                self.places[place].answered = Some(now);
                self.places[place].rejected.insert(lead);
            }
            Outcome::Retry { .. } | Outcome::Unknown { .. } => {
                self.failed_first.entry(lead).or_insert(now);
            }
            _ => {}
        }
    }

    /// Nothing may be sent here again so soon.
    fn closes(&mut self, place: usize, wait: Duration, why: &'static str) {
        let opens = self.steady + wait;
        let place = &mut self.places[place];
        (place.opens, place.why) = (place.opens.max(opens), why);
    }

    fn closes_account(&mut self, wait: Duration, why: &'static str) {
        self.account_opens = self.account_opens.max(self.steady + wait);
        (self.account_closed, self.account_why) = (self.steady, why);
    }

    /// What the destination does with the message, and what the bot hears of it. `None`: when it is answered.
    fn respond(&mut self, place: usize, message: &Message, keys: &[Key]) -> Option<Outcome> {
        let condition = self.places[place].condition;
        let takes = match condition {
            Condition::Good | Condition::Full(_) | Condition::Slow | Condition::Mute => true,
            Condition::Picky => keys.len() <= 1,
            Condition::Fickle => keys.len() <= 1 || !self.places[place].received.contains_key(&message.id),
            _ => false,
        };
        let mute = condition == Condition::Mute || condition == Condition::Fickle && keys.len() > 1;
        if takes {
            self.arrive(place, message, keys, !mute);
        }
        let pause = match condition {
            Condition::Full(seconds) => Some(SECOND * u32::from(seconds)),
            _ => None,
        };
        match condition {
            Condition::Slow => None,
            Condition::Mute => Some(self.fails(place, condition)),
            Condition::Fickle if takes && mute => Some(self.fails(place, Condition::Mute)),
            _ if takes => {
                if let Some(pause) = pause {
                    self.closes(place, pause, "it was full");
                }
                Some(Outcome::Delivered { message_id: None, pause })
            }
            _ => Some(self.fails(place, condition)),
        }
    }

    fn fails(&mut self, place: usize, condition: Condition) -> Outcome {
        let reason = format!("{condition:?}");
        // What fails is left alone for two seconds, less a fifth by chance.
        let backoff = SECOND.mul_f64(1.6);
        match condition {
            Condition::Down => {
                self.closes(place, backoff, "it was down");
                Outcome::Retry { after: None, reason }
            }
            Condition::Mute | Condition::Deaf => {
                self.closes(place, backoff, "it did not answer");
                Outcome::Unknown { after: None, reason }
            }
            Condition::Limiting(after, whole) => {
                let wait = after.map_or(SECOND * 4, |after| SECOND * u32::from(after));
                let account = whole && account(place).is_some();
                if account {
                    self.closes_account(wait, "429");
                } else {
                    self.closes(place, wait, "429");
                }
                Outcome::Limited { after: after.map(|after| SECOND * u32::from(after)), account, reason }
            }
            Condition::Denying if account(place).is_some() => {
                self.closes_account(SECOND * 48, "401");
                Outcome::Denied { reason }
            }
            Condition::Denying => {
                self.places[place].gone = true;
                Outcome::Denied { reason }
            }
            Condition::Gone => {
                self.places[place].gone = true;
                Outcome::Dead { reason }
            }
            Condition::Panicking => {
                self.places[place].condition = Condition::Good;
                self.places[place].under_way -= 1;
                self.closes(place, backoff, "we broke");
                self.note(|| format!("{} panics", PLACES[place]));
                // No hook prints it.
                std::panic::resume_unwind(Box::new("simulated"))
            }
            Condition::Refusing => {
                self.places[place].condition = Condition::Good;
                Outcome::Reject { reason }
            }
            _ => Outcome::Reject { reason },
        }
    }
}

/// A way out into the world.
pub struct Door {
    pub world: Arc<Mutex<World>>,
    pub store: Arc<MemoryStore>,
    /// The place, or the surface whose rooms are places.
    pub name: &'static str,
}

impl Door {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn place(&self, address: &str) -> usize {
        let name = if address.is_empty() { self.name.to_owned() } else { format!("{}:{address}", self.name) };
        World::place_of(&name)
    }
}

#[async_trait]
impl Channel for Door {
    fn dialect(&self) -> Dialect {
        DIALECTS[0]
    }

    fn terms(&self) -> Terms {
        terms(if self.name == "nonce" { 1 } else { World::place_of(self.name) })
    }

    async fn send(&self, address: &str, message: &Message, _: Timestamp) -> Outcome {
        let place = self.place(address);
        let lead;
        let held = {
            let mut world = self.world();
            world.check_request(place, &self.store, message);
            let under_way = views::in_flight(&self.store, PLACES[place]);
            let template = under_way.as_ref().and_then(|row| row.template.clone());
            let keys = World::keys(place, message, &template);
            lead = under_way.map_or((0, 1), |row| (row.number, row.attempt));
            let folding = match &message.content {
                Content::Digest { why, .. } => Some(*why),
                Content::Change(_) | Content::Notice(_) => None,
            };
            world.check_elsewhere(place, &self.store, message, &keys);
            world.arrivals.push(Arrival {
                keys: keys.clone(),
                message: message.id,
                lead,
                folding,
                seen: false,
                confirmed: false,
            });
            world.note(|| format!("{} is sent {:?} {}", PLACES[place], keys, message.content.event_type()));
            world.places[place].under_way += 1;
            match world.respond(place, message, &keys) {
                Some(outcome) => {
                    world.remember(place, lead.0, &outcome);
                    world.places[place].under_way -= 1;
                    return outcome;
                }
                None => {
                    let (answer, held) = oneshot::channel();
                    world.places[place].held.push(answer);
                    held
                }
            }
        };
        drop(held.await);
        let mut world = self.world();
        world.places[place].under_way = world.places[place].under_way.saturating_sub(1);
        // The pace counts from the answer on.
        let now = world.steady;
        if let Some(last) = world.places[place].requests.last_mut() {
            *last = (*last).min(now);
        }
        let outcome = Outcome::Delivered { message_id: None, pause: None };
        world.remember(place, lead.0, &outcome);
        outcome
    }

    async fn probe(&self) -> Result<(), String> {
        Ok(())
    }
}
