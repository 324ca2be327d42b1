//! `callboard subscriptions`

mod import;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Exit, Globals, fail, print, print_json, table};
use crate::app;
use crate::config::{Config, nearest};
use crate::diff;
use crate::model::{Destination, RunId, RunState, Scope, Selector, Subscription, Timestamp, Workspace, WorkspaceKey};
use crate::net::Net;
use crate::settings::Secret;
use crate::sources::dataworks::{Credentials, DataWorks};
use crate::sources::{Source, SourceError};
use crate::store::{self, Role, Store, StoreError, Subscribed};
use crate::surfaces::{dingtalk, discord, slack};

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
    /// Print those in the store as JSON, for `import` and for Git: in a steady order, a line for each field
    Export,
    /// Show how a file that `export` wrote and the store differ, and change nothing
    ///
    /// Exit status 0: they agree. 1: they differ.
    Diff {
        /// The file, or - for standard input
        file: PathBuf,
    },
    /// Add those in a file that `export` wrote; those that exist stay as they are, and what differs is shown
    ///
    /// DataWorks is asked for runs the store does not know, one after another, as fast as the budget allows. Those that
    /// have ended, or that DataWorks does not know, are left out.
    Import {
        /// The file, or - for standard input
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
    /// A channel's name, or a room of a bot as discord:ID or dingtalk:ID
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

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    /// What was asked for can't be: wrong use.
    #[error("{0}")]
    Misused(String),
    #[error("{0}")]
    Failed(String),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Refusal {
        Refusal::Failed(error.to_string())
    }
}

impl Subscriptions {
    pub async fn run(self, globals: &Globals) -> Exit {
        let config = match globals.load_in_part() {
            Ok(config) => config,
            Err(exit) => return exit,
        };
        let done = async {
            let store = store::open(&config.store, Role::Guest).await?;
            act(self.verb, &config, store.as_ref(), Timestamp::now()).await
        };
        match done.await {
            Ok(exit) => exit,
            Err(Refusal::Misused(said)) => fail(Exit::Misused, &said),
            Err(Refusal::Failed(said)) => fail(Exit::Failed, &said),
        }
    }
}

async fn act(verb: Verb, config: &Config, store: &dyn Store, now: Timestamp) -> Result<Exit, Refusal> {
    let mut loaded = store.load().await?;
    // What was stopped waits a day for whoever thinks better of it, and is nobody's any more until then.
    loaded.subscriptions.retain(|one| one.is_live(now));
    match verb {
        Verb::List { json } => {
            let all: Vec<Subscription> = loaded.subscriptions.into_iter().chain(config.standing(now)).collect();
            Ok(if json { print_json(&serde_json::json!(all)) } else { print(&listed(&all, config)) })
        }
        Verb::Export => Ok(print_json(&serde_json::json!(loaded.subscriptions))),
        Verb::Add(add) => add.act(config, store, &loaded.runs, now).await,
        Verb::Remove { id } => remove(&id, store, &loaded.subscriptions).await,
        Verb::Diff { file } => {
            let differences = import::differences(&import::read(&file)?, &loaded.subscriptions, config);
            Ok(match differences.is_empty() {
                true => print("the file and the store agree\n"),
                false => match print(&differences) {
                    Exit::Done => Exit::Failed,
                    other => other,
                },
            })
        }
        Verb::Import { file } => import::import(&file, config, store, &loaded, now).await,
    }
}

async fn remove(given: &str, store: &dyn Store, subscriptions: &[Subscription]) -> Result<Exit, Refusal> {
    let matching: Vec<&Subscription> = subscriptions.iter().filter(|one| one.id.starts_with(given)).collect();
    match matching.as_slice() {
        [one] if !given.is_empty() => {
            store.unsubscribe(&one.id).await?;
            Ok(print(&format!("{} removed\n", one.id)))
        }
        [] if given.starts_with("config:") => {
            Err(Refusal::Misused("that one stands in the configuration; change it there".to_owned()))
        }
        [] => Err(Refusal::Failed(format!(
            "no subscription's id begins with {given:?}; `callboard subscriptions list` shows them"
        ))),
        several => {
            Err(Refusal::Failed(format!("{} subscriptions begin with {given:?}; type more of the id", several.len())))
        }
    }
}

fn known<'a>(runs: &'a [(WorkspaceKey, RunState)], workspace: &WorkspaceKey, run: &RunId) -> Option<&'a RunState> {
    runs.iter().find(|(key, state)| key == workspace && state.snapshot.id == *run).map(|(_, state)| state)
}

impl Add {
    async fn act(
        self,
        config: &Config,
        store: &dyn Store,
        runs: &[(WorkspaceKey, RunState)],
        now: Timestamp,
    ) -> Result<Exit, Refusal> {
        let workspace = workspace(config, &self.workspace)?;
        self.check(config)?;
        let state = match &self.run {
            Some(run) => Some(match known(runs, &workspace.key(), run) {
                Some(state) => state.clone(),
                None => ask(&source(config)?, &workspace, run, now)
                    .await
                    .map_err(|error| Refusal::Failed(format!("run {run} in {}: {error}", workspace.name)))?,
            }),
            None => None,
        };
        if let Some(state) = state.as_ref().filter(|state| state.snapshot.status.is_terminal()) {
            let status = state.snapshot.status.as_str();
            return Err(Refusal::Failed(format!("that run has ended ({status}); nothing would follow")));
        }
        let subscription = self.subscription(workspace.key(), now);
        match store.subscribe(&subscription, state.as_ref()).await? {
            Subscribed::New { .. } => Ok(print(&format!("{} added\n", subscription.id))),
            Subscribed::Already { id } => Ok(print(&format!("{id} sends the same there already\n"))),
        }
    }

    /// Whether what it names is there.
    fn check(&self, config: &Config) -> Result<(), Refusal> {
        match Destination::from(self.to.clone()) {
            Destination::Channel(name) if !config.channels.contains_key(&name) => {
                return Err(unknown("channel", &name, config.channels.keys().map(String::as_str)));
            }
            Destination::Room { surface, .. } => {
                let discord = config.discord.iter().map(|_| discord::NAME);
                let slack = config.slack.iter().filter(|app| app.bot_token.is_some()).map(|_| slack::NAME);
                let bots = discord.chain(slack).chain(config.dingtalk.iter().map(|_| dingtalk::NAME));
                if !bots.clone().any(|bot| bot == surface) {
                    return Err(unknown("bot", &surface, bots));
                }
            }
            _ => {}
        }
        let wrong = |set| app::unknown_set(&app::renderer(&config.templates), set);
        match self.template.as_deref().and_then(wrong) {
            Some(said) => Err(Refusal::Misused(said)),
            None => Ok(()),
        }
    }

    fn subscription(self, workspace: WorkspaceKey, now: Timestamp) -> Subscription {
        let scope = match self.run {
            Some(run) => Scope::Run { workspace, run },
            None => Scope::Workspace { workspace },
        };
        Subscription {
            id: uuid::Uuid::now_v7().to_string(),
            scope,
            to: Destination::from(self.to),
            on: self.on.into_iter().collect(),
            stages: self.stages,
            creators: self.creators,
            template: self.template,
            by: "cli".to_owned(),
            roles: Vec::new(),
            until: None,
            muted: None,
            stopped: None,
            created_at: now,
        }
    }
}

fn unknown<'a>(what: &str, given: &str, known: impl Iterator<Item = &'a str> + Clone) -> Refusal {
    let all = known.clone().collect::<Vec<_>>();
    Refusal::Misused(match nearest(given, known) {
        Some(close) => format!("there is no {what} {given:?}; did you mean {close:?}?"),
        None if all.is_empty() => format!("there is no {what} {given:?}; none is configured"),
        None => format!("there is no {what} {given:?}; configured: {}", all.join(", ")),
    })
}

fn workspace(config: &Config, name: &str) -> Result<Workspace, Refusal> {
    let found = config.workspaces().into_iter().find(|workspace| workspace.name == name);
    found.ok_or_else(|| unknown("workspace", name, config.workspaces.iter().map(|one| one.name.as_str())))
}

/// What is asked for runs that the store does not know.
fn source(config: &Config) -> Result<DataWorks, Refusal> {
    let misused = |said: &dyn std::fmt::Display| Refusal::Misused(said.to_string());
    if let Some(Credentials { access_key_id, access_key_secret, security_token }) = &config.dataworks.credentials {
        let secrets = [("access_key_id", Some(access_key_id)), ("access_key_secret", Some(access_key_secret))];
        for (key, secret) in secrets.into_iter().chain([("security_token", security_token.as_ref())]) {
            if let Some(Err(error)) = secret.map(Secret::read) {
                return Err(misused(&format!("dataworks.credentials.{key}: {error}")));
            }
        }
    }
    let net = Net::new(&config.network).map_err(|error| misused(&format!("network: {error}")))?;
    app::dataworks(config, &net).map_err(|error| misused(&error))
}

/// Where a run stands that the store does not know.
async fn ask(source: &DataWorks, workspace: &Workspace, run: &RunId, now: Timestamp) -> Result<RunState, SourceError> {
    Ok(diff::baseline(source.get(workspace, run).await?, now))
}

fn listed(subscriptions: &[Subscription], config: &Config) -> String {
    if subscriptions.is_empty() {
        return "no subscriptions\n".to_owned();
    }
    let workspaces = config.workspaces();
    let rows: Vec<[String; 6]> = subscriptions.iter().map(|one| row(one, &workspaces)).collect();
    table(["ID", "WORKSPACE", "RUN", "TO", "BY", "ON"], &rows)
}

fn row(one: &Subscription, workspaces: &[Workspace]) -> [String; 6] {
    let key = one.scope.workspace();
    let workspace = workspaces.iter().find(|w| w.key() == *key).map_or(key.0.clone(), |w| w.name.clone());
    let run = match &one.scope {
        Scope::Run { run, .. } => run.to_string(),
        Scope::Workspace { .. } => "every run".to_owned(),
        Scope::Next { .. } => "the next run".to_owned(),
    };
    let mut on = one.on.iter().map(|selector| selector.as_str()).collect::<Vec<_>>().join(",");
    let filters = [("stages", &one.stages), ("creators", &one.creators)];
    for (name, filter) in filters.iter().filter(|(_, filter)| !filter.is_empty()) {
        on.push_str(&format!(" {name}={}", filter.join(",")));
    }
    if let Some(until) = one.until {
        on.push_str(&format!(" until={}", until.strftime("%Y-%m-%dT%H:%MZ")));
    }
    if let Some(template) = &one.template {
        on.push_str(&format!(" template={template}"));
    }
    // What nobody can type here is shortened.
    let id = if one.by == "config" { one.id.chars().take(15).collect() } else { one.id.clone() };
    [id, workspace, run, one.to.to_string(), one.by.clone(), on]
}
