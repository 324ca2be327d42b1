//! What deliveries and destinations look like on a terminal. Names, states and reasons come from strangers: none of
//! them acts on the terminal it is read on.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use uuid::Uuid;

use super::super::table;
use crate::app;
use crate::channels;
use crate::config::Config;
use crate::delivery;
use crate::fate::{self, Behind, Condition, Configuration, Configured, Fate};
use crate::model::{
    Change, ChangeKind, Dead, Delivery, DeliveryState, Destination, Folding, News, Place, Plan, Prefer, Queue,
    Repetitions, RunId, Scope, Subscription, Terms, Timestamp, Waiting,
};
use crate::store::{Attempt, DeliveryFilter, DeliveryRow, PlaceRow, Store, StoreError};
use crate::surfaces::{discord, slack};
use crate::text::{clean_line, clean_line_cut, stopped};

/// Destinations in trouble named under a list.
const TROUBLED: usize = 20;
/// Deliveries looked through for those of one run or one message.
const LOOKED_THROUGH: usize = 1_000;
/// What a notice is about is shown in a list up to here, in characters.
const ABOUT: usize = 40;
/// Ids in one line.
const NAMED: usize = 5;

/// What the store and the configuration know of destinations.
pub struct Known<'a> {
    pub store: &'a dyn Store,
    config: &'a Config,
    places: Vec<PlaceRow>,
    /// What is in flight, by its destination.
    in_flight: BTreeMap<Destination, Uuid>,
    configuration: Configuration,
    pub now: Timestamp,
}

/// A delivery and everything around it.
pub struct Story {
    row: DeliveryRow,
    attempts: Vec<Attempt>,
    /// Those that asked for it, each with what it is now.
    asked: Vec<(String, Option<Subscription>)>,
    /// Deliveries that its message tells as well.
    tells: Vec<Uuid>,
    condition: Condition,
    fate: Fate,
    /// Names of workspaces by their keys.
    workspaces: BTreeMap<String, String>,
}

impl<'a> Known<'a> {
    pub async fn read(config: &'a Config, store: &'a dyn Store, now: Timestamp) -> Result<Known<'a>, StoreError> {
        let places = store.places().await?;
        let state = Some(DeliveryState::InFlight);
        let filter = DeliveryFilter { state, limit: LOOKED_THROUGH, ..DeliveryFilter::default() };
        let in_flight = store.deliveries(&filter).await?.into_iter();
        let in_flight = in_flight.map(|row| (row.delivery.to, row.delivery.id)).collect();
        Ok(Known { store, config, places, in_flight, configuration: configuration(config), now })
    }

    pub fn place(&self, to: &Destination) -> Option<&PlaceRow> {
        self.places.iter().find(|row| row.to == *to)
    }

    pub fn condition(&self, to: &Destination) -> Condition {
        fate::condition(to, &self.places, &self.configuration, self.now)
    }

    /// Neither the configuration nor the store knows it.
    pub fn is_stranger(&self, to: &Destination) -> bool {
        self.place(to).is_none() && self.condition(to) == Condition::Unconfigured
    }

    /// How much is owed to a destination, or to all rooms of a bot.
    pub fn open(&self, to: &Destination) -> u64 {
        let is_meant = |row: &&PlaceRow| row.to == *to || row.to.account().as_ref() == Some(to);
        self.places.iter().filter(is_meant).map(|row| row.open).sum()
    }

    /// What keeps a destination from taking messages and is of its own, not of its bot.
    pub fn against(&self, row: &PlaceRow) -> Option<String> {
        let to = &row.to;
        let alone = fate::condition(to, std::slice::from_ref(row), &self.configuration, self.now);
        let because =
            |reason: &str| if reason.is_empty() { String::new() } else { format!(" ({})", fate::short(reason)) };
        let said = match alone {
            Condition::Dead { since, reason } => format!("{to} was dead since {}{}", second(since), because(&reason)),
            Condition::Closed { until, since, reason } => {
                let asked = if since.is_none() { ", as the platform asked" } else { "" };
                format!("{to} was closed until {}{asked}{}", second(until), because(&reason))
            }
            Condition::Failing { since, reason } => format!("{to} fails since {}{}", second(since), because(&reason)),
            Condition::Well | Condition::Unconfigured => return None,
        };
        Some(clean_line(&said))
    }

    /// What keeps the whole bot of a room from taking messages, whatever becomes of the room.
    pub fn of_bot(&self, to: &Destination) -> Option<String> {
        let bot = to.account().filter(|bot| bot != to)?;
        let condition = self.condition(&bot);
        let said = condition.words(&format!("its bot ({bot})"), &second).filter(|_| condition.holds())?;
        Some(clean_line(&format!("{said}; `callboard deliveries retry --to {bot}` tries it at once")))
    }

    /// Whether something is owed to a destination that is told as what was missed, and not as news.
    pub async fn late(&self, to: &Destination) -> Result<bool, StoreError> {
        let (place, terms) = (Place::default(), Terms { paces: &[], repetitions: Repetitions::Merged });
        let is_late = |row: DeliveryRow| {
            let Delivery { news, attempt, created_at, unknown_since, told_elsewhere, .. } = row.delivery;
            let News::Change(change) = news else { return false };
            let (urgent, missed) = (change.is_urgent(), change.unseen_since.is_some());
            let workspace = change.workspace.key();
            let head = Waiting { workspace, created_at, urgent, missed, attempt, unknown_since, told_elsewhere };
            let queue = Queue { to, place: &place, head, run: Vec::new(), waiting: 0 };
            let plan = delivery::plan(&queue, terms, Prefer::default(), true, self.now);
            matches!(plan, Plan::CatchUp { .. })
        };
        let filter = DeliveryFilter {
            state: Some(DeliveryState::Pending),
            to: Some(to.clone()),
            limit: LOOKED_THROUGH,
            ..DeliveryFilter::default()
        };
        Ok(self.store.deliveries(&filter).await?.into_iter().any(is_late))
    }

    /// Destinations that nothing is sent to until a person acts.
    pub fn dead(&self) -> impl Iterator<Item = &PlaceRow> {
        self.places.iter().filter(|row| matches!(self.condition(&row.to), Condition::Dead { .. }))
    }

    /// Every destination that is configured or remembered.
    pub fn names(&self) -> BTreeSet<String> {
        let remembered = self.places.iter().map(|row| row.to.to_string());
        self.config.channels.keys().cloned().chain(remembered).map(|name| clean_line(&name)).collect()
    }

    // ---------------------------------------------------------------------------------------------------- a list

    pub async fn listed(&self, rows: &[DeliveryRow], limit: usize) -> Result<String, StoreError> {
        let mut text = if rows.is_empty() { "no deliveries\n".to_owned() } else { self.table(rows).await? };
        if !rows.is_empty() && rows.len() == limit {
            text.push_str(&format!("the newest {limit}; --limit shows more\n"));
        }
        let troubled = fate::troubled(&self.places, &self.configuration, self.now);
        if !troubled.is_empty() {
            text.push_str("\ndestinations in trouble:\n");
        }
        for (row, condition) in troubled.iter().take(TROUBLED) {
            let said = condition.words(&row.to.to_string(), &second).unwrap_or_default();
            let waiting = super::waiting(row.open);
            let remedy = condition.remedy(&row.to);
            let remedy = remedy.map(|command| format!("; once that is mended: `{command}`")).unwrap_or_default();
            text.push_str(&format!("{}\n", clean_line(&format!("{} {waiting}{remedy}", stopped(&said)))));
        }
        if troubled.len() > TROUBLED {
            text.push_str(&format!("and {} more\n", troubled.len() - TROUBLED));
        }
        Ok(text)
    }

    pub async fn table(&self, rows: &[DeliveryRow]) -> Result<String, StoreError> {
        let mut runs: BTreeMap<RunId, Vec<DeliveryRow>> = BTreeMap::new();
        let mut lines = Vec::new();
        for row in rows {
            let (about, what) = match &row.delivery.news {
                News::Change(change) => (change.run.id.short().to_owned(), brief(change)),
                News::Notice(notice) => (clean_line_cut(&notice.kind.about(), ABOUT), notice.kind.name().to_owned()),
            };
            let why = match (row.state, row.delivery.news.change()) {
                (DeliveryState::Pending | DeliveryState::Unknown, Some(change)) => {
                    let run = &change.run.id;
                    if !runs.contains_key(run) {
                        runs.insert(run.clone(), self.of_run(run).await?);
                    }
                    self.waits_for(row, runs.get(run).map(Vec::as_slice).unwrap_or_default())
                }
                (DeliveryState::Pending | DeliveryState::Unknown, None) => self.waits_for(row, &[]),
                (DeliveryState::InFlight, _) => String::new(),
                _ => match row.folded_into {
                    Some(by) if row.state == DeliveryState::Superseded => format!("told by the message of {by}"),
                    _ => row.reason.clone().unwrap_or_default(),
                },
            };
            let cells = [
                row.delivery.id.to_string(),
                row.state.as_str().to_owned(),
                row.delivery.created_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
                row.delivery.to.to_string(),
                about,
                what,
                why,
            ];
            lines.push(cells.map(|cell| clean_line(&cell)));
        }
        Ok(table(["ID", "STATE", "CREATED", "TO", "ABOUT", "CHANGE", "WHY"], &lines))
    }

    /// The open deliveries of a run.
    async fn of_run(&self, run: &RunId) -> Result<Vec<DeliveryRow>, StoreError> {
        let filter = DeliveryFilter { run: Some(run.clone()), limit: LOOKED_THROUGH, ..DeliveryFilter::default() };
        self.store.deliveries(&filter).await
    }

    fn fate(&self, row: &DeliveryRow, attempts: &[Attempt], of_run: &[DeliveryRow]) -> Fate {
        let to = &row.delivery.to;
        let older = fate::older(row, of_run.iter()).map(|older| older.delivery.id);
        fate::fate(row, attempts, older, self.in_flight.get(to).copied(), self.condition(to), self.now)
    }

    /// Why an open delivery does not leave: what goes before it, how its destination stands, else what its last attempt
    /// said.
    fn waits_for(&self, row: &DeliveryRow, of_run: &[DeliveryRow]) -> String {
        let Fate::Waits { behind, condition, .. } = self.fate(row, &[], of_run) else { return String::new() };
        let waits = waits(behind, &condition, &row.delivery.to);
        match row.reason.as_deref().filter(|said| !said.is_empty() && condition == Condition::Well) {
            Some(said) => format!("{waits} ({})", fate::short(said)),
            None => waits,
        }
    }

    // ------------------------------------------------------------------------------------------------ one delivery

    pub async fn story(&self, row: DeliveryRow, attempts: Vec<Attempt>) -> Result<Story, StoreError> {
        let of_run = match row.delivery.news.change() {
            Some(change) => self.of_run(&change.run.id).await?,
            None => Vec::new(),
        };
        let condition = self.condition(&row.delivery.to);
        let fate = self.fate(&row, &attempts, &of_run);
        let mut tells = Vec::new();
        if row.folding.is_some() {
            let to = Some(row.delivery.to.clone());
            let filter = DeliveryFilter { to, limit: LOOKED_THROUGH, ..DeliveryFilter::default() };
            let all = self.store.deliveries(&filter).await?;
            let told = all.iter().filter(|other| other.folded_into == Some(row.delivery.id));
            tells = told.map(|other| other.delivery.id).collect();
            tells.reverse();
        }
        let loaded = self.store.load().await?.subscriptions;
        let all: Vec<Subscription> = loaded.into_iter().chain(self.config.standing(self.now)).collect();
        let find = |id: &String| (id.clone(), all.iter().find(|one| one.id == *id).cloned());
        let asked = row.subscriptions.iter().map(find).collect();
        let named = self.config.workspaces().into_iter().map(|workspace| (workspace.key().0, workspace.name));
        Ok(Story { row, attempts, asked, tells, condition, fate, workspaces: named.collect() })
    }
}

/// By what is written in the file: whether it differs from what a destination died of is seen only where its secrets
/// can be read.
fn configuration(config: &Config) -> Configuration {
    let slack = app::slack_bot(config).ok().flatten();
    let identity = |settings| channels::identity(settings, slack.as_ref());
    let channels: BTreeMap<String, String> =
        config.channels.iter().map(|(name, settings)| (name.clone(), identity(settings))).collect();
    let (in_discord, in_slack) = (config.discord.is_some(), slack.is_some());
    Box::new(move |to: &Destination, dead: Option<&Dead>| match to {
        Destination::Room { surface, .. } if surface == discord::NAME && in_discord => Configured::Yes,
        Destination::Room { surface, .. } if surface == slack::NAME && in_slack => Configured::Yes,
        Destination::Room { .. } => Configured::No,
        Destination::Channel(name) => match (channels.get(name), dead) {
            (None, _) => Configured::No,
            (Some(identity), Some(dead)) if !identity.is_empty() && *identity != dead.identity => Configured::Anew,
            (Some(_), _) => Configured::Yes,
        },
    })
}

fn second(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn brief(change: &Change) -> String {
    let what = change.stage().map_or(change.kind.name(), |stage| stage.code.as_str());
    match &change.kind {
        ChangeKind::StageChanged { to, .. } | ChangeKind::Finished { to, .. } => format!("{what} {to}"),
        ChangeKind::Waiting { .. } => format!("{what} waiting"),
        ChangeKind::Started | ChangeKind::Lost { .. } => what.to_owned(),
    }
}

impl Story {
    pub fn json(&self) -> Value {
        let mut value = json!(self.row);
        if let Some(object) = value.as_object_mut() {
            object.insert("attempts".to_owned(), json!(self.attempts));
            let asked = self.asked.iter().map(|(id, one)| json!({ "id": id, "now": one }));
            object.insert("asked_by".to_owned(), asked.collect());
            object.insert("tells".to_owned(), json!(self.tells));
            object.insert("destination".to_owned(), json!(self.condition));
            object.insert("next".to_owned(), json!(self.next()));
        }
        value
    }

    pub fn text(&self) -> String {
        let DeliveryRow { delivery, state, settled_at, .. } = &self.row;
        let told = match &delivery.news {
            News::Change(change) => {
                let (kind, run, title) = (change.kind.event_type(), &change.run.id, change.run.title());
                let (what, workspace) = (brief(change), &change.workspace.name);
                format!("{kind} ({what}) of run {run} ({title}) in {workspace}; change no. {}", change.sequence)
            }
            News::Notice(notice) => format!("the notice {} about {}", notice.kind.name(), notice.kind.about()),
        };
        let since = settled_at.map(|at| format!(" since {at}")).unwrap_or_default();
        // What no attempt said, such as that it is not repeated.
        let why = self.row.reason.as_deref().filter(|_| *state == DeliveryState::Dead);
        let why = why.map(|reason| format!(": {}", fate::short(reason))).unwrap_or_default();
        let mut lines = vec![
            ("delivery  ", delivery.id.to_string()),
            ("to        ", delivery.to.to_string()),
            ("tells     ", told),
            ("seen      ", delivery.news.at().to_string()),
        ];
        let asked = self.asked.iter().take(NAMED).map(|(id, one)| ("asked by  ", self.asking(id, one.as_ref())));
        lines.extend(asked);
        if self.asked.len() > NAMED {
            lines.push(("          ", format!("and {} more", self.asked.len() - NAMED)));
        }
        lines.push(("state     ", format!("{}{since}{why}", state.as_str())));
        for attempt in &self.attempts {
            let outcome = attempt.outcome.as_deref().unwrap_or("in flight");
            let reason = attempt.reason.as_deref().filter(|reason| !reason.is_empty());
            let reason = reason.map(|said| format!(": {said}")).unwrap_or_default();
            lines.push(("attempt ", format!("{} {} {outcome}{reason}", attempt.attempt, attempt.started_at)));
        }
        if let Some(why) = self.row.folding {
            lines.push(("with it   ", self.folding(why)));
        }
        lines.push(("next      ", self.next()));
        lines.iter().map(|(label, value)| format!("{label}{}\n", clean_line(value))).collect()
    }

    /// `0190…, every run in warehouse (failed; stages PROD), by cli`
    fn asking(&self, id: &str, now: Option<&Subscription>) -> String {
        // As in `subscriptions list`: what nobody can type is shortened.
        let id = if id.starts_with("config:") { id.get(..15).unwrap_or(id) } else { id };
        let Some(one) = now else { return format!("{id}, which has ended or was changed since") };
        let workspace = one.scope.workspace();
        let workspace = self.workspaces.get(&workspace.0).cloned().unwrap_or_else(|| workspace.to_string());
        let what = match &one.scope {
            Scope::Run { run, .. } => format!("run {} in {workspace}", run.short()),
            Scope::Workspace { .. } => format!("every run in {workspace}"),
            Scope::Next { .. } => format!("the next run in {workspace}"),
        };
        let on = one.on.iter().map(|selector| selector.as_str()).collect::<Vec<_>>().join(", ");
        let filters = [("stages", &one.stages), ("creators", &one.creators)];
        let filters = filters.iter().filter(|(_, names)| !names.is_empty());
        let filters: String = filters.map(|(name, names)| format!("; {name} {}", names.join(", "))).collect();
        format!("{id}, {what} ({on}{filters}), by {}", one.by)
    }

    fn folding(&self, why: Folding) -> String {
        let why = match why {
            Folding::Rate => "the destination takes no more messages than that",
            Folding::Late => "late, so one message for the run",
        };
        let shown = self.tells.iter().take(NAMED).map(Uuid::to_string).collect::<Vec<_>>().join(", ");
        match self.tells.len().checked_sub(NAMED) {
            _ if self.tells.is_empty() => why.to_owned(),
            Some(more @ 1..) => format!("{shown} and {more} more ({why})"),
            _ => format!("{shown} ({why})"),
        }
    }

    /// What became of it and what comes next, in one sentence.
    fn next(&self) -> String {
        let (id, to) = (self.row.delivery.id, &self.row.delivery.to);
        match &self.fate {
            Fate::Delivered { before: None, .. } => "nothing: it was delivered".to_owned(),
            Fate::Delivered { before: Some(at), .. } => {
                format!("nothing: it was delivered, perhaps twice: the attempt of {} may have arrived", second(*at))
            }
            Fate::Told { by, at } => {
                let when = at.map(|at| format!(" {}", second(at))).unwrap_or_default();
                format!("nothing: it was told{when} by the message of {by}")
            }
            Fate::Discarded { .. } => "nothing: a person gave it up".to_owned(),
            Fate::Dead { .. } => format!("nothing by itself; `callboard deliveries retry {id}` brings it back"),
            Fate::UnderWay { .. } => "it is being sent; its outcome is noted within seconds".to_owned(),
            Fate::Waits { behind, condition, unknown_since } => {
                let repeated = unknown_since
                    .map(|at| format!("; it may have arrived {} and is repeated all the same", second(at)))
                    .unwrap_or_default();
                let remedy = condition.remedy(to);
                let remedy = remedy.map(|command| format!("; once that is mended: `{command}`")).unwrap_or_default();
                format!("{}{remedy}{repeated}", waits(*behind, condition, to))
            }
        }
    }
}

fn waits(behind: Behind, condition: &Condition, to: &Destination) -> String {
    let turn = match behind {
        Behind::Lead(lead) => Some(format!("it is told by the message of {lead}")),
        Behind::Older(older) => Some(format!("{older} goes first, an older one of its run")),
        Behind::Other(other) => Some(format!("{to} takes one message at a time, and {other} is in flight")),
        Behind::Until(until) => Some(format!("tried again {}", second(until))),
        Behind::Nothing if condition.holds() => None,
        Behind::Nothing => Some("it is due; a running service sends it when its turn comes".to_owned()),
    };
    let place = condition.words(&to.to_string(), &second);
    [turn, place].into_iter().flatten().collect::<Vec<_>>().join("; ")
}
