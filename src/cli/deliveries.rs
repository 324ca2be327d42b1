//! `callboard deliveries`

use clap::{Args, Subcommand};

use super::{Exit, Globals, counted, fail, print, print_json, table};
use crate::model::{Change, ChangeKind, DeliveryState, News, Timestamp};
use crate::store::{self, Attempt, DeliveryFilter, DeliveryRow, Role, Store, StoreError};
use crate::text::clean_line;

/// Look at what is owed, was delivered or given up, and act on it
///
/// Works beside a running service and without one.
#[derive(Debug, Args)]
pub struct Deliveries {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List deliveries, newest first
    List {
        /// Only those in this state: pending, in_flight, delivered, unknown, dead, superseded
        #[arg(long, value_parser = state)]
        state: Option<DeliveryState>,
        /// Only those to this destination: a channel's name, or surface:room
        #[arg(long, value_name = "DESTINATION")]
        to: Option<String>,
        /// Only those of this run
        #[arg(long, value_name = "ID")]
        run: Option<String>,
        /// At most so many
        #[arg(long, default_value_t = 50)]
        limit: usize,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one delivery with its attempts
    Show {
        /// The delivery's id or its beginning
        id: String,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Bring a dead delivery back; a running service sends it within a second
    Retry {
        /// The delivery's id or its beginning; or `dead` for every dead one
        id: String,
    },
    /// Give up a delivery for good; a running service does not send it any more
    Discard {
        /// The delivery's id or its beginning
        id: String,
    },
}

fn state(text: &str) -> Result<DeliveryState, String> {
    use DeliveryState::{Dead, Delivered, InFlight, Pending, Superseded, Unknown};
    let all = [Pending, InFlight, Delivered, Unknown, Dead, Superseded];
    let known = || all.map(DeliveryState::as_str).join(", ");
    all.into_iter().find(|state| state.as_str() == text).ok_or_else(|| format!("it is none of {}", known()))
}

impl Deliveries {
    pub async fn run(self, globals: &Globals) -> Exit {
        let config = match globals.load_in_part() {
            Ok(config) => config,
            Err(exit) => return exit,
        };
        // Looking must not make an empty store in a wrong place.
        if let Err(said) = config.store.exists() {
            return match self.verb {
                Verb::List { json: true, .. } => print_json(&serde_json::json!([])),
                Verb::List { .. } => print(&format!("no deliveries: {said}\n")),
                _ => fail(Exit::Failed, &said),
            };
        }
        let done = async {
            let store = store::open(&config.store, Role::Guest).await?;
            self.verb.act(store.as_ref(), Timestamp::now()).await
        };
        done.await.unwrap_or_else(|error: StoreError| fail(Exit::Failed, &error.to_string()))
    }
}

impl Verb {
    async fn act(self, store: &dyn Store, now: Timestamp) -> Result<Exit, StoreError> {
        match self {
            Verb::List { state, to, run, limit, json } => {
                let run = match run.map(|run| run.parse()).transpose() {
                    Ok(run) => run,
                    Err(error) => return Ok(fail(Exit::Misused, &format!("--run: {error}"))),
                };
                let filter = DeliveryFilter { state, to: to.map(Into::into), run, limit };
                let rows = store.deliveries(&filter).await?;
                Ok(if json { print_json(&serde_json::json!(rows)) } else { print(&listed(&rows, limit)) })
            }
            Verb::Show { id, json } => {
                let Some((row, attempts)) = store.delivery(&id).await? else { return Ok(none(&id)) };
                if json {
                    let mut value = serde_json::json!(row);
                    if let Some(object) = value.as_object_mut() {
                        object.insert("attempts".to_owned(), serde_json::json!(attempts));
                    }
                    return Ok(print_json(&value));
                }
                Ok(print(&story(&row, &attempts)))
            }
            Verb::Retry { id } if id == "dead" => {
                let filter = DeliveryFilter { state: Some(DeliveryState::Dead), limit: 10_000, ..Default::default() };
                let mut count = 0;
                for row in store.deliveries(&filter).await? {
                    count += usize::from(store.retry(row.delivery.id, now).await?);
                }
                Ok(print(&match count {
                    0 => "no delivery is dead\n".to_owned(),
                    _ => format!("{} pending again; {SENT_WHEN}\n", counted(count, "message")),
                }))
            }
            Verb::Retry { id } => {
                let Some((row, _)) = store.delivery(&id).await? else { return Ok(none(&id)) };
                let id = row.delivery.id;
                Ok(match store.retry(id, now).await? {
                    true => print(&format!("{id} is pending again; {SENT_WHEN}\n")),
                    false => {
                        fail(Exit::Failed, &format!("{id} is {}; only what is dead can be retried", row.state.as_str()))
                    }
                })
            }
            Verb::Discard { id } => {
                let Some((row, _)) = store.delivery(&id).await? else { return Ok(none(&id)) };
                let id = row.delivery.id;
                Ok(match store.discard(id, now).await? {
                    true => print(&format!("{id} is given up for good\n")),
                    false => {
                        fail(Exit::Failed, &format!("{id} is {} already; nothing was changed", row.state.as_str()))
                    }
                })
            }
        }
    }
}

const SENT_WHEN: &str = "a running service sends within a second, else the next start does";

fn none(id: &str) -> Exit {
    fail(
        Exit::Failed,
        &format!("no delivery, or more than one, begins with {id:?}; `callboard deliveries list` shows their ids"),
    )
}

/// Names, states and reasons come from strangers: none of them acts on the terminal it is read on.
fn listed(rows: &[DeliveryRow], limit: usize) -> String {
    if rows.is_empty() {
        return "no deliveries\n".to_owned();
    }
    let row = |row: &DeliveryRow| {
        let DeliveryRow { delivery, state, reason, .. } = row;
        let (run, what) = match &delivery.news {
            News::Change(change) => (change.run.id.short(), brief(change)),
            News::Notice(notice) => ("", notice.kind.name().to_owned()),
        };
        [
            delivery.id.to_string(),
            state.as_str().to_owned(),
            delivery.created_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            delivery.to.to_string(),
            run.to_owned(),
            what,
            reason.clone().unwrap_or_default(),
        ]
        .map(|cell| clean_line(&cell))
    };
    let lines: Vec<[String; 7]> = rows.iter().map(row).collect();
    let mut text = table(["ID", "STATE", "CREATED", "TO", "RUN", "CHANGE", "SAID"], &lines);
    if rows.len() == limit {
        text.push_str(&format!("the newest {limit}; --limit shows more\n"));
    }
    text
}

fn brief(change: &Change) -> String {
    let what = change.stage().map_or(change.kind.name(), |stage| stage.code.as_str());
    match &change.kind {
        ChangeKind::StageChanged { to, .. } | ChangeKind::Finished { to, .. } => format!("{what} {to}"),
        ChangeKind::Waiting { .. } => format!("{what} waiting"),
        ChangeKind::Started | ChangeKind::Lost { .. } => what.to_owned(),
    }
}

fn story(row: &DeliveryRow, attempts: &[Attempt]) -> String {
    let DeliveryRow { delivery, state, next_at, settled_at, .. } = row;
    let told = match &delivery.news {
        News::Change(change) => {
            let (kind, run, title) = (change.kind.event_type(), &change.run.id, change.run.title());
            format!("{} {kind} of run {run} ({title}) in {}", change.sequence, change.workspace.name)
        }
        News::Notice(notice) => notice.kind.name().to_owned(),
    };
    let line = |label: &str, value: String| format!("{label}{}\n", clean_line(&value));
    let mut text = [
        line("delivery  ", delivery.id.to_string()),
        line("to        ", delivery.to.to_string()),
        line("tells     ", told),
        line("seen      ", delivery.news.at().to_string()),
        line(
            "state     ",
            format!("{}{}", state.as_str(), settled_at.map(|at| format!(" since {at}")).unwrap_or_default()),
        ),
    ]
    .concat();
    if let Some(next_at) = next_at {
        text.push_str(&line("next try  ", next_at.to_string()));
    }
    for attempt in attempts {
        let outcome = attempt.outcome.as_deref().unwrap_or("under way");
        let reason = attempt.reason.as_deref().filter(|reason| !reason.is_empty());
        let reason = reason.map(|said| format!(": {said}")).unwrap_or_default();
        text.push_str(&line("attempt ", format!("{} {} {outcome}{reason}", attempt.attempt, attempt.started_at)));
    }
    text
}
