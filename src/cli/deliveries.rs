//! `callboard deliveries`

mod story;

use std::collections::BTreeSet;

use clap::{ArgGroup, Args, Subcommand};

use self::story::Known;
use super::{Exit, Globals, counted, fail, print, print_json};
use crate::config::{Config, nearest};
use crate::fate::Condition;
use crate::model::{DeliveryState, Destination, Timestamp};
use crate::store::{self, DeliveryFilter, DeliveryRow, PlaceRow, Role, Store, StoreError};

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
    /// Show one delivery: who asked for it, each attempt, and what comes next
    Show {
        /// The delivery's id, its beginning or its end, as a message marked as a possible repetition shows it
        id: String,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Bring back what was given up, a delivery or a destination; a running service sends within a second
    ///
    /// Of a destination it forgets what was against it: that it is dead, that it failed and waits for its next try, and
    /// the wait or the slower pace that the platform asked for.
    #[command(group = ArgGroup::new("what").required(true).args(["id", "to"]))]
    Retry {
        /// The delivery's id, its beginning or its end; or `dead` for every dead one. Their destinations are brought
        /// back too where they are dead
        id: Option<String>,
        /// A destination to try again at once, whatever was against it: a channel's name, or surface:room; of a whole
        /// bot, surface and a colon
        #[arg(long, value_name = "DESTINATION")]
        to: Option<String>,
    },
    /// Give up a delivery for good; a running service does not send it any more
    Discard {
        /// The delivery's id, its beginning or its end
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
            self.verb.act(&config, store.as_ref(), Timestamp::now()).await
        };
        done.await.unwrap_or_else(|error: StoreError| fail(Exit::Failed, &error.to_string()))
    }
}

impl Verb {
    async fn act(self, config: &Config, store: &dyn Store, now: Timestamp) -> Result<Exit, StoreError> {
        match self {
            Verb::List { state, to, run, limit, json } => {
                let run = match run.map(|run| run.parse()).transpose() {
                    Ok(run) => run,
                    Err(error) => return Ok(fail(Exit::Misused, &format!("--run: {error}"))),
                };
                let known = Known::read(config, store, now).await?;
                let to = to.map(Destination::from);
                if let Some(stranger) = to.as_ref().filter(|to| known.is_stranger(to)) {
                    return Ok(fail(Exit::Misused, &unknown(&stranger.to_string(), &known.names())));
                }
                let filter = DeliveryFilter { state, to, run, limit };
                let rows = store.deliveries(&filter).await?;
                if json {
                    return Ok(print_json(&serde_json::json!(rows)));
                }
                Ok(print(&known.listed(&rows, limit).await?))
            }
            Verb::Show { id, json } => {
                let known = Known::read(config, store, now).await?;
                let Some((row, attempts)) = store.delivery(&id).await? else { return none(&id, &known).await };
                let story = known.story(row, attempts).await?;
                Ok(if json { print_json(&story.json()) } else { print(&story.text()) })
            }
            Verb::Retry { id: _, to: Some(to) } => retry_destination(&to, config, store, now).await,
            Verb::Retry { id: Some(id), .. } if id == "dead" => retry_dead(config, store, now).await,
            Verb::Retry { id, .. } => retry_one(&id.unwrap_or_default(), config, store, now).await,
            Verb::Discard { id } => {
                let Some((row, _)) = store.delivery(&id).await? else {
                    return none(&id, &Known::read(config, store, now).await?).await;
                };
                let id = row.delivery.id;
                Ok(match store.discard(id, now).await? {
                    true => print(&format!("{id} is superseded: given up for good\n")),
                    false => {
                        fail(Exit::Failed, &format!("{id} is {} already; nothing was changed", row.state.as_str()))
                    }
                })
            }
        }
    }
}

/// Dead deliveries brought back at once.
const DEAD: usize = 10_000;
/// Destinations named in one line.
const NAMED: usize = 20;

async fn retry_dead(config: &Config, store: &dyn Store, now: Timestamp) -> Result<Exit, StoreError> {
    let filter = DeliveryFilter { state: Some(DeliveryState::Dead), limit: DEAD, ..Default::default() };
    let mut count = 0;
    let mut to = BTreeSet::new();
    for row in store.deliveries(&filter).await? {
        count += usize::from(store.retry(row.delivery.id, now).await?);
        to.insert(row.delivery.to);
    }
    let known = Known::read(config, store, now).await?;
    let mut text = match count {
        0 => "no delivery is dead\n".to_owned(),
        _ => format!("{} pending again; {SENT_WHEN}\n", counted(count, "message")),
    };
    for row in known.dead() {
        if to.contains(&row.to) {
            text.push_str(&revive(row, &known).await?);
        } else if row.open > 0 {
            let waiting = waiting(row.open);
            let to = &row.to;
            text.push_str(&format!(
                "{to} is dead and {waiting}; `callboard deliveries retry --to {to}` brings it back\n"
            ));
        }
    }
    Ok(print(&text))
}

async fn retry_one(id: &str, config: &Config, store: &dyn Store, now: Timestamp) -> Result<Exit, StoreError> {
    let known = Known::read(config, store, now).await?;
    let Some((row, _)) = store.delivery(id).await? else { return none(id, &known).await };
    let id = row.delivery.id;
    let dead = known.dead().find(|place| place.to == row.delivery.to);
    let is_open = matches!(row.state, DeliveryState::Pending | DeliveryState::Unknown);
    let mut text = match store.retry(id, now).await? {
        true => format!("{id} is pending again; {SENT_WHEN}\n"),
        false if is_open && dead.is_some() => String::new(),
        false => {
            return Ok(fail(
                Exit::Failed,
                &format!("{id} is {}; only what is dead can be retried", row.state.as_str()),
            ));
        }
    };
    if let Some(dead) = dead {
        text.push_str(&revive(dead, &known).await?);
    }
    if known.condition(&row.delivery.to) == Condition::Unconfigured {
        let to = &row.delivery.to;
        text.push_str(&format!("{to} is not in the configuration, so it waits until that is put back\n"));
    }
    Ok(print(&text))
}

async fn retry_destination(
    given: &str,
    config: &Config,
    store: &dyn Store,
    now: Timestamp,
) -> Result<Exit, StoreError> {
    let to = Destination::from(given.to_owned());
    let known = Known::read(config, store, now).await?;
    let remembered = known.place(&to);
    if known.condition(&to) == Condition::Unconfigured {
        return Ok(match remembered {
            Some(row) if row.open > 0 => fail(
                Exit::Failed,
                &format!(
                    "{to} is not in the configuration, and {}; put it back and start the service, or give them up with \
                     `callboard deliveries discard`",
                    waiting(row.open)
                ),
            ),
            _ => fail(Exit::Misused, &unknown(given, &known.names())),
        });
    }
    match remembered {
        Some(row) => Ok(print(&revive(row, &known).await?)),
        None => Ok(print(&format!("{to} is well: nothing waits for it and no failure is remembered\n"))),
    }
}

/// Forgets what is against the destination and says what that was and what follows.
async fn revive(row: &PlaceRow, known: &Known<'_>) -> Result<String, StoreError> {
    let to = &row.to;
    let overridden = known.against(row);
    // Counted before a running service takes them.
    let late = known.late(to).await?;
    known.store.revive(to, known.now).await?;
    let filter =
        DeliveryFilter { state: Some(DeliveryState::Dead), to: Some(to.clone()), limit: DEAD, ..Default::default() };
    let dead = known.store.deliveries(&filter).await?.len();
    let mut text = overridden.map(|said| format!("{said}; that is forgotten\n")).unwrap_or_default();
    text.push_str(&match known.open(to) {
        0 => format!("{to} is tried again; nothing waits for it\n"),
        open => format!("{to} is tried again: {}; {SENT_WHEN}\n", waiting(open)),
    });
    if late {
        text.push_str("what is late by now comes in one message for each run\n");
    }
    if let Some(said) = known.of_bot(to) {
        text.push_str(&format!("{said}\n"));
    }
    if dead > 0 {
        let dead = counted(dead, "message");
        text.push_str(&format!(
            "{dead} to it stay dead; `callboard deliveries list --state dead --to {to}` shows them\n"
        ));
    }
    Ok(text)
}

/// `1 message waits`, `12 messages wait`
fn waiting(open: u64) -> String {
    if open == 1 { "1 message waits".to_owned() } else { format!("{open} messages wait") }
}

fn unknown(given: &str, known: &BTreeSet<String>) -> String {
    let shown = known.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = known.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    match nearest(given, known.iter().map(String::as_str)) {
        _ if known.is_empty() => format!("there is no destination {given:?}; none is configured and nothing is owed"),
        Some(close) => format!("there is no destination {given:?}; did you mean {close:?}? Known: {shown}{more}"),
        None => format!("there is no destination {given:?}; known: {shown}{more}"),
    }
}

const SENT_WHEN: &str = "a running service sends within a second, else the next start does";

/// Candidates shown of an id that could mean several.
const CANDIDATES: usize = 5;

/// Says that no delivery is called so, or which ones may be meant.
async fn none(given: &str, known: &Known<'_>) -> Result<Exit, StoreError> {
    let typed = given.trim().to_ascii_lowercase();
    let all = known.store.deliveries(&DeliveryFilter { limit: DEAD, ..Default::default() }).await?;
    let meant = |fits: &dyn Fn(&str) -> bool| -> Vec<DeliveryRow> {
        all.iter().filter(|row| !typed.is_empty() && fits(&row.delivery.id.to_string())).cloned().collect()
    };
    let beginning = meant(&|id| id.starts_with(&typed));
    let (how, mut meant) =
        if beginning.is_empty() { ("end", meant(&|id| id.ends_with(&typed))) } else { ("begin", beginning) };
    let count = meant.len();
    if count < 2 {
        let said = format!("no delivery's id begins or ends with {given:?}; `callboard deliveries list` shows them");
        return Ok(fail(Exit::Failed, &said));
    }
    meant.truncate(CANDIDATES);
    let shown = if count > CANDIDATES { format!("; the newest {CANDIDATES}") } else { String::new() };
    let table = known.table(&meant).await?;
    let said = format!("{count} ids {how} with {given:?}; type more of one, or its end{shown}:\n{}", table.trim_end());
    Ok(fail(Exit::Failed, &said))
}
