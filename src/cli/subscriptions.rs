//! `callboard subscriptions`

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Exit, Globals, fail, print, print_json};
use crate::app;
use crate::config::Config;
use crate::diff;
use crate::model::{Destination, RunId, RunState, Scope, Selector, Subscription, Timestamp, Workspace};
use crate::net::Net;
use crate::sources::Source;
use crate::store::{self, Role, Store, Subscribed};

/// List, add and remove subscriptions
///
/// Works beside a running service, which takes changes over within a second, and without one. Standing subscriptions of
/// the configuration are listed too, but only the configuration changes them.
#[derive(Debug, Args)]
pub struct Subscriptions {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List subscriptions
    List {
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Add one, on a workspace or on one run
    Add(Add),
    /// Remove one
    Remove {
        /// The subscription's id or its beginning
        id: String,
    },
    /// Print those in the store as JSON, for `import`
    Export,
    /// Add those in a file that `export` wrote; those that exist stay as they are
    Import {
        /// The file
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
struct Add {
    /// The workspace's name in the configuration
    #[arg(long)]
    workspace: String,
    /// One run of it; the subscription ends with the run. Absent: every run
    #[arg(long, value_name = "ID")]
    run: Option<RunId>,
    /// A channel's name, or a room as surface:room
    #[arg(long, value_name = "DESTINATION")]
    to: String,
    /// Which changes, separated by commas: started, stage, waiting, failed, succeeded, finished, stopped
    #[arg(long, value_delimiter = ',', value_parser = selector, default_value = "stage,waiting,finished")]
    on: Vec<Selector>,
    /// Only these stages, by code, separated by commas
    #[arg(long, value_delimiter = ',')]
    stages: Vec<String>,
    /// Only runs of these creators, by account id, separated by commas
    #[arg(long, value_delimiter = ',')]
    creators: Vec<String>,
    /// Another template set than the default
    #[arg(long, value_name = "SET")]
    template: Option<String>,
}

fn selector(text: &str) -> Result<Selector, String> {
    let known = || Selector::ALL.map(Selector::as_str).join(", ");
    Selector::ALL
        .into_iter()
        .find(|selector| selector.as_str() == text)
        .ok_or_else(|| format!("it is none of {}", known()))
}

impl Subscriptions {
    pub async fn run(self, globals: &Globals) -> Exit {
        let config = match &self.verb {
            Verb::Add(Add { run: Some(_), .. }) => globals.load(),
            _ => globals.load_without_secrets(),
        };
        let config = match config {
            Ok(config) => config,
            Err(exit) => return exit,
        };
        let store = match store::open(&config.store, Role::Guest).await {
            Ok(store) => store,
            Err(error) => return fail(Exit::Failed, &error.to_string()),
        };
        let done = act(self.verb, &config, store.as_ref(), Timestamp::now());
        done.await.unwrap_or_else(|said| fail(Exit::Failed, &said))
    }
}

async fn act(verb: Verb, config: &Config, store: &dyn Store, now: Timestamp) -> Result<Exit, String> {
    let loaded = store.load().await.map_err(|error| error.to_string())?;
    match verb {
        Verb::List { json } => {
            let all: Vec<Subscription> = loaded.subscriptions.into_iter().chain(config.standing(now)).collect();
            Ok(if json { print_json(&serde_json::json!(all)) } else { print(&table(&all, config)) })
        }
        Verb::Export => Ok(print_json(&serde_json::json!(loaded.subscriptions))),
        Verb::Add(add) => {
            let subscription = add.subscription(config, now)?;
            let state = match &subscription.scope {
                Scope::Run { workspace, run } => {
                    let known = loaded.runs.iter().find(|(key, state)| key == workspace && state.snapshot.id == *run);
                    Some(match known {
                        Some((_, state)) => state.clone(),
                        None => ask(config, &add.workspace, run, now).await?,
                    })
                }
                Scope::Workspace { .. } => None,
            };
            if state.as_ref().is_some_and(|state| state.snapshot.status.is_terminal()) {
                return Err("that run has ended; nothing would follow".to_owned());
            }
            match store.subscribe(&subscription, state.as_ref()).await.map_err(|error| error.to_string())? {
                Subscribed::New => Ok(print(&format!("{} added\n", subscription.id))),
                Subscribed::Already { id } => Ok(print(&format!("{id} asks for the same already\n"))),
            }
        }
        Verb::Remove { id } => {
            let matching = loaded.subscriptions.iter().filter(|subscription| subscription.id.starts_with(&id));
            let ids: Vec<&str> = matching.map(|subscription| subscription.id.as_str()).collect();
            match ids.as_slice() {
                [id] => {
                    store.unsubscribe(id).await.map_err(|error| error.to_string())?;
                    Ok(print(&format!("{id} removed\n")))
                }
                [] if id.starts_with("config:") => {
                    Err("that one stands in the configuration; change it there".to_owned())
                }
                [] => {
                    Err(format!("no subscription's id begins with {id:?}; `callboard subscriptions list` shows them"))
                }
                several => Err(format!("{} subscriptions begin with {id:?}; type more of the id", several.len())),
            }
        }
        Verb::Import { file } => import(&file, store, &loaded.runs).await,
    }
}

async fn import(
    file: &std::path::Path,
    store: &dyn Store,
    runs: &[(crate::model::WorkspaceKey, RunState)],
) -> Result<Exit, String> {
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let text = std::fs::read_to_string(file).map_err(|error| named(&error))?;
    let subscriptions: Vec<Subscription> = serde_json::from_str(&text).map_err(|error| named(&error))?;
    let (mut added, mut existing, mut over) = (0, 0, 0);
    for subscription in &subscriptions {
        let state = match &subscription.scope {
            Scope::Workspace { .. } => None,
            // A run the store does not know was of another installation, or has ended long ago.
            Scope::Run { workspace, run } => {
                match runs.iter().find(|(key, state)| key == workspace && state.snapshot.id == *run) {
                    Some((_, state)) if !state.snapshot.status.is_terminal() => Some(state),
                    _ => {
                        over += 1;
                        continue;
                    }
                }
            }
        };
        match store.subscribe(subscription, state).await.map_err(|error| error.to_string())? {
            Subscribed::New => added += 1,
            Subscribed::Already { .. } => existing += 1,
        }
    }
    Ok(print(&format!("{added} added, {existing} existed, {over} were on runs that are not followed any more\n")))
}

impl Add {
    fn subscription(&self, config: &Config, now: Timestamp) -> Result<Subscription, String> {
        let workspace = workspace(config, &self.workspace)?.key();
        let to = Destination::from(self.to.clone());
        if let Destination::Channel(name) = &to
            && !config.channels.contains_key(name)
        {
            let known: Vec<&str> = config.channels.keys().map(String::as_str).collect();
            return Err(format!("there is no channel {name:?}; configured: {}", known.join(", ")));
        }
        let scope = match &self.run {
            Some(run) => Scope::Run { workspace, run: run.clone() },
            None => Scope::Workspace { workspace },
        };
        Ok(Subscription {
            id: uuid::Uuid::now_v7().to_string(),
            scope,
            to,
            on: self.on.iter().copied().collect(),
            stages: self.stages.clone(),
            creators: self.creators.clone(),
            template: self.template.clone(),
            by: "cli".to_owned(),
            created_at: now,
        })
    }
}

fn workspace(config: &Config, name: &str) -> Result<Workspace, String> {
    let all = config.workspaces();
    let names = all.iter().map(|workspace| workspace.name.as_str()).collect::<Vec<_>>().join(", ");
    let found = all.into_iter().find(|workspace| workspace.name == name);
    found.ok_or_else(|| format!("there is no workspace {name:?}; configured: {names}"))
}

/// Where a run stands that the store does not know.
async fn ask(config: &Config, name: &str, run: &RunId, now: Timestamp) -> Result<RunState, String> {
    let net = Net::new(&config.network).map_err(|error| error.to_string())?;
    let source = app::dataworks(config, &net).map_err(|error| error.to_string())?;
    let snapshot = source.get(&workspace(config, name)?, run).await.map_err(|error| error.to_string())?;
    Ok(diff::baseline(snapshot, now))
}

fn table(subscriptions: &[Subscription], config: &Config) -> String {
    if subscriptions.is_empty() {
        return "no subscriptions\n".to_owned();
    }
    let workspaces = config.workspaces();
    let line = |subscription: &Subscription| {
        let key = subscription.scope.workspace();
        let workspace = workspaces.iter().find(|w| w.key() == *key).map_or(key.0.clone(), |w| w.name.clone());
        let scope = match &subscription.scope {
            Scope::Run { run, .. } => format!("run {run} in {workspace}"),
            Scope::Workspace { .. } => format!("every run in {workspace}"),
        };
        let on = subscription.on.iter().map(|selector| selector.as_str()).collect::<Vec<_>>().join(",");
        format!("{}  {scope} → {} on {on}, by {}\n", subscription.id, subscription.to, subscription.by)
    };
    subscriptions.iter().map(line).collect()
}
