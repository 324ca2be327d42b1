//! What must reach whom, by the subscriptions and the recorded changes alone.

use std::collections::{BTreeMap, BTreeSet};

use std::time::Duration;

use callboard::model::{Change, ChangeKind, RunId, Status, Subscription, Timestamp, elapsed};

use super::scenario::{On, PLACES};
use super::views;
use super::world::{Key, STANDING_TEMPLATE, World};
use crate::memory::MemoryStore;

/// A subscription as the oracle knows it.
#[derive(Debug, Clone)]
struct Wanted {
    id: String,
    place: usize,
    template: Option<String>,
    on: On,
    /// Only of this run, until it ends.
    run: Option<RunId>,
    until: Option<Timestamp>,
    muted: Option<Timestamp>,
    stopped: Option<Timestamp>,
}

#[derive(Default)]
pub struct Oracle {
    wanted: Vec<Wanted>,
    /// How many subscriptions asked for each message.
    pub expected: BTreeMap<Key, usize>,
    /// Nobody knows whether a subscription on this run is there.
    doubtful: BTreeSet<(usize, RunId)>,
    was_doubtful: BTreeSet<(usize, RunId)>,
    /// How many changes were looked at.
    recorded: u64,
    /// The last sequence of each run that was looked at.
    looked: BTreeMap<RunId, i64>,
    /// The last status of each stage that a change named.
    told: BTreeMap<(RunId, String), Status>,
}

impl Oracle {
    pub fn stands(&mut self, id: String, place: usize, on: On, template: bool) {
        let template = template.then(|| STANDING_TEMPLATE.to_owned());
        let (until, muted, stopped) = (None, None, None);
        self.wanted.push(Wanted { id, place, template, on, run: None, until, muted, stopped });
    }

    pub fn watches(&mut self, id: String, place: usize, run: RunId) {
        // What was stopped or is over makes room for it.
        self.wanted.retain(|wanted| !(wanted.place == place && wanted.run.as_ref() == Some(&run)));
        let (until, muted, stopped) = (None, None, None);
        let (template, on, run) = (None, On::Everything, Some(run));
        self.wanted.push(Wanted { id, place, template, on, run, until, muted, stopped });
    }

    /// By a watch that goes on, was stopped, or is over.
    pub fn kept(&self, place: usize, run: &RunId) -> Option<String> {
        let here = |wanted: &&Wanted| wanted.place == place && wanted.run.as_ref() == Some(run);
        self.wanted.iter().find(here).map(|wanted| wanted.id.clone())
    }

    pub fn is_watched(&self, place: usize, run: &RunId, now: Timestamp) -> bool {
        let kept = self.kept(place, run);
        let goes_on = |wanted: &Wanted| wanted.stopped.is_none() && wanted.until.is_none_or(|until| now < until);
        self.wanted.iter().any(|wanted| Some(&wanted.id) == kept.as_ref() && goes_on(wanted))
    }

    pub fn amended(&mut self, to: &Subscription) {
        let same = self.wanted.iter_mut().filter(|wanted| wanted.id == to.id);
        same.for_each(|wanted| {
            let muted = to.muted.as_ref().map(|muted| muted.until);
            (wanted.until, wanted.muted, wanted.stopped) = (to.until, muted, to.stopped);
        });
    }

    /// What is over, or was stopped long ago, is deleted; or nobody knows whether it is.
    pub fn swept(&mut self, now: Timestamp, done: bool) {
        let is_past =
            |at: Option<Timestamp>, seconds| at.is_some_and(|at| elapsed(at, now) >= Duration::from_secs(seconds));
        let over: Vec<Wanted> = self
            .wanted
            .iter()
            .filter(|wanted| is_past(wanted.until, 60) || is_past(wanted.stopped, 24 * 3600 + 60))
            .cloned()
            .collect();
        for wanted in over {
            match wanted.run {
                Some(run) if !done => self.doubts(wanted.place, run),
                _ => self.unwatched(&wanted.id),
            }
        }
    }

    pub fn unwatched(&mut self, id: &str) {
        self.wanted.retain(|wanted| wanted.id != id);
    }

    /// The store failed in the middle of it.
    pub fn doubts(&mut self, place: usize, run: RunId) {
        self.wanted.retain(|wanted| !(wanted.place == place && wanted.run.as_ref() == Some(&run)));
        self.was_doubtful.insert((place, run.clone()));
        self.doubtful.insert((place, run));
    }

    pub fn is_doubtful(&self, key: &Key) -> bool {
        key.1.is_none() && self.doubtful.contains(&(key.0, key.2.clone()))
    }

    pub fn was_doubtful(&self, key: &Key) -> bool {
        self.was_doubtful.contains(&(key.0, key.2.clone()))
    }

    /// Looks at what was recorded since the last look, and checks that the changes of a run are gapless and follow from
    /// each other.
    pub fn look(&mut self, store: &MemoryStore, world: &mut World) {
        for (recorded, news) in views::changes(store, self.recorded) {
            self.recorded = recorded;
            let Some(change) = news.change() else { continue };
            let run = &change.run.id;
            let looked = self.looked.get(run).copied().unwrap_or(0);
            if change.sequence != looked + 1 {
                world.breaks(format!("recorded: {run} goes from change {looked} to {}", change.sequence));
            }
            self.looked.insert(run.clone(), change.sequence);
            self.follows(change, world);
            for wanted in &self.wanted {
                if wanted.wants(change) {
                    let key = (wanted.place, wanted.template.clone(), run.clone(), change.sequence);
                    *self.expected.entry(key).or_insert(0) += 1;
                }
            }
            if matches!(change.kind, ChangeKind::Finished { .. } | ChangeKind::Lost { .. }) {
                let run = run.clone();
                self.wanted.retain(|wanted| wanted.run.as_ref() != Some(&run));
                self.doubtful.retain(|(_, doubtful)| *doubtful != run);
            }
        }
    }

    fn follows(&mut self, change: &Change, world: &mut World) {
        let run = &change.run.id;
        match &change.kind {
            ChangeKind::StageChanged { stage, from, to, .. } => {
                let told = self.told.insert((run.clone(), stage.clone()), to.clone());
                if told.as_ref().is_some_and(|told| told != from) {
                    world.breaks(format!("recorded: {stage} of {run} was {told:?} and goes from {from} to {to}"));
                }
                if !world.truly(run, stage, to) {
                    world.breaks(format!("recorded: {stage} of {run} was never {to}"));
                }
                let backwards = (from == &Status::Success && *to == Status::Running)
                    || (from != &Status::Init && *to == Status::Init);
                if backwards {
                    world.breaks(format!("flapping: {stage} of {run} goes back from {from} to {to}"));
                }
            }
            ChangeKind::Started => {
                for stage in &change.run.stages {
                    self.told.insert((run.clone(), stage.code.clone()), stage.status.clone());
                }
            }
            _ => {}
        }
    }
}

impl Wanted {
    fn wants(&self, change: &Change) -> bool {
        if self.run.as_ref().is_some_and(|run| *run != change.run.id) {
            return false;
        }
        let must_act = match &change.kind {
            ChangeKind::Waiting { .. } | ChangeKind::Finished { .. } | ChangeKind::Lost { .. } => true,
            ChangeKind::StageChanged { to, .. } => *to == Status::Fail,
            ChangeKind::Started => false,
        };
        let is_muted = self.muted.is_some_and(|until| change.at < until) && !must_act;
        if self.stopped.is_some() || self.until.is_some_and(|until| change.at >= until) || is_muted {
            return false;
        }
        let failed = match &change.kind {
            ChangeKind::StageChanged { to, .. } | ChangeKind::Finished { to, .. } => *to == Status::Fail,
            _ => false,
        };
        let ended = matches!(change.kind, ChangeKind::Finished { .. } | ChangeKind::Lost { .. });
        match self.on {
            On::Failures => failed,
            On::Ends => ended,
            // `/watch` does not take the beginning.
            On::Everything => self.run.is_none() || !matches!(change.kind, ChangeKind::Started),
        }
    }
}

pub fn named(key: &Key) -> String {
    let (place, template, run, sequence) = key;
    format!("change {sequence} of {run} for {}{}", PLACES[*place], template.as_deref().map_or("", |_| " (template)"))
}
