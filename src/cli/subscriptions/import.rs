//! `callboard subscriptions import`

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use super::{Refusal, ask, known, source};
use crate::cli::{Exit, counted, fail, print};
use crate::config::Config;
use crate::model::{Destination, RunId, RunState, Scope, Subscription, Timestamp, WorkspaceKey};
use crate::sources::SourceErrorKind;
use crate::store::{Loaded, Store, Subscribed};

/// A list is read up to here, in bytes.
const LIST_AT_MOST: u64 = 64 << 20;

/// What is known of a run that a subscription is on.
enum Standing {
    Going(Box<RunState>),
    Ended,
    Unknown,
    /// Why DataWorks could not be asked for it.
    Unasked(String),
}

type Standings = BTreeMap<(WorkspaceKey, RunId), Standing>;

/// Asks first and adds then, so that a configuration that is no good for asking adds nothing.
pub(super) async fn import(
    file: &Path,
    config: &Config,
    store: &dyn Store,
    loaded: &Loaded,
    now: Timestamp,
) -> Result<Exit, Refusal> {
    let subscriptions = read(file)?;
    let standings = stand(&subscriptions, config, &loaded.runs, now).await?;
    let (mut added, mut existed, mut different, mut ended, mut unasked) = (0, 0, 0, 0, 0);
    let mut unknown = Vec::new();
    for subscription in &subscriptions {
        let standing = match &subscription.scope {
            Scope::Workspace { .. } | Scope::Next { .. } => None,
            Scope::Run { workspace, run } => standings.get(&(workspace.clone(), run.clone())),
        };
        let state = match standing {
            None => None,
            Some(Standing::Going(state)) => Some(&**state),
            Some(Standing::Ended) => {
                ended += 1;
                continue;
            }
            Some(Standing::Unknown) => {
                unknown.push(run_of(subscription));
                continue;
            }
            Some(Standing::Unasked(_)) => {
                unasked += 1;
                continue;
            }
        };
        match store.subscribe(subscription, state).await? {
            Subscribed::New { .. } => added += 1,
            Subscribed::Already { id } => {
                existed += 1;
                let stored = loaded.subscriptions.iter().find(|stored| stored.id == id);
                different += usize::from(stored.is_some_and(|stored| asked(stored) != asked(subscription)));
            }
        }
    }
    let mut said = format!("{added} added, {existed} existed");
    if ended > 0 {
        said.push_str(&format!(", {ended} left out because their run has ended"));
    }
    if !unknown.is_empty() {
        let (count, runs) = (unknown.len(), unknown.join(", "));
        said.push_str(&format!(", {count} left out because DataWorks knows no such run: {runs}"));
    }
    if different > 0 {
        said.push_str(&format!(", {different} of these ask for something else than the file and stay as they are: `callboard subscriptions diff` shows how"));
    }
    let told = print(&format!("{said}\n"));
    if unasked == 0 || told != Exit::Done {
        return Ok(told);
    }
    for (workspace, run, said) in standings.iter().filter_map(|((workspace, run), standing)| match standing {
        Standing::Unasked(said) => Some((workspace, run, said)),
        _ => None,
    }) {
        fail(Exit::Failed, &format!("run {run} in {workspace}: {said}"));
    }
    let left_out = counted(unasked, "subscription");
    Ok(fail(Exit::Failed, &format!("{left_out} left out because of that; import the same file again later")))
}

pub(super) fn read(file: &Path) -> Result<Vec<Subscription>, Refusal> {
    let standard = file == Path::new("-");
    let called = if standard { "standard input".to_owned() } else { file.display().to_string() };
    let named = |said: &dyn std::fmt::Display| Refusal::Failed(format!("{called}: {said}"));
    let all = |from: &mut dyn Read| {
        let mut text = String::new();
        from.take(LIST_AT_MOST).read_to_string(&mut text).map(|_| text)
    };
    let text = match standard {
        true => all(&mut std::io::stdin().lock()),
        false => std::fs::File::open(file).and_then(|mut file| all(&mut file)),
    };
    let text = text.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => named(&"there is no such file"),
        kind => named(&format!("it can't be read: {kind}")),
    })?;
    serde_json::from_str(&text).map_err(|error| named(&format!("it is no list that `export` wrote: {error}")))
}

/// What only the file or only the store asks for, and what both ask for differently: a line for each. Empty where they
/// agree. The same is what sends the same run or workspace to the same place by the same template; who asked, and under
/// which id, is no difference.
pub(super) fn differences(file: &[Subscription], store: &[Subscription], config: &Config) -> String {
    let in_store: HashMap<_, _> = store.iter().map(|one| (key(one), one)).collect();
    let in_file: HashMap<_, _> = file.iter().map(|one| (key(one), one)).collect();
    let mut lines = Vec::new();
    for (one, other) in file.iter().map(|one| (one, in_store.get(&key(one)))) {
        match other {
            None => lines.push(format!("+ {}\n", line(one, config))),
            Some(other) if asked(one) != asked(other) => {
                lines.push(format!("- {}\n+ {}\n", line(other, config), line(one, config)));
            }
            Some(_) => {}
        }
    }
    let missing = store.iter().filter(|one| !in_file.contains_key(&key(one)));
    lines.extend(missing.map(|one| format!("- {}\n", line(one, config))));
    lines.concat()
}

/// What makes two subscriptions the same.
fn key(one: &Subscription) -> (&Scope, &Destination, &Option<String>) {
    (&one.scope, &one.to, &one.template)
}

/// What of a subscription may differ.
fn asked(one: &Subscription) -> impl PartialEq {
    let sorted = |list: &[String]| list.iter().cloned().collect::<BTreeSet<_>>();
    (one.on.clone(), sorted(&one.stages), sorted(&one.creators), one.until)
}

fn line(one: &Subscription, config: &Config) -> String {
    let [_, workspace, run, to, by, on] = super::row(one, &config.workspaces());
    format!("{workspace} {run} to {to}: {on} (by {by})")
}

fn run_of(subscription: &Subscription) -> String {
    subscription.scope.run().map(ToString::to_string).unwrap_or_default()
}

/// Where the run of each subscription stands; what the store does not know is asked for, each run once.
async fn stand(
    subscriptions: &[Subscription],
    config: &Config,
    runs: &[(WorkspaceKey, RunState)],
    now: Timestamp,
) -> Result<Standings, Refusal> {
    let mut standings = Standings::new();
    let mut to_ask = Vec::new();
    for subscription in subscriptions {
        let Scope::Run { workspace, run } = &subscription.scope else { continue };
        let key = (workspace.clone(), run.clone());
        match known(runs, workspace, run) {
            _ if standings.contains_key(&key) || to_ask.contains(&key) => {}
            Some(state) if state.lost => drop(standings.insert(key, Standing::Unknown)),
            Some(state) => drop(standings.insert(key, standing(state.clone()))),
            None => to_ask.push(key),
        }
    }
    if to_ask.is_empty() {
        return Ok(standings);
    }
    let source = source(config)?;
    let workspaces = config.workspaces();
    let apart = Duration::try_from_secs_f64(1.0 / config.dataworks.budget.per_second()).unwrap_or_default();
    // What would meet every other run too: nothing more is asked then.
    let mut in_the_way: Option<String> = None;
    let mut asked = false;
    for (workspace, run) in to_ask {
        let found = match (workspaces.iter().find(|one| one.key() == workspace), &in_the_way) {
            (None, _) => Standing::Unasked("this workspace is not in the configuration".to_owned()),
            (_, Some(said)) => Standing::Unasked(said.clone()),
            (Some(one), None) => {
                if std::mem::replace(&mut asked, true) {
                    tokio::time::sleep(apart).await;
                }
                match ask(&source, one, &run, now).await {
                    Ok(state) => standing(state),
                    Err(error) if error.kind == SourceErrorKind::NoSuchRun => Standing::Unknown,
                    Err(error) => {
                        let said = error.to_string();
                        if meets_all(&error.kind) {
                            in_the_way = Some(said.clone());
                        }
                        Standing::Unasked(said)
                    }
                }
            }
        };
        standings.insert((workspace, run), found);
    }
    Ok(standings)
}

fn standing(state: RunState) -> Standing {
    if state.snapshot.status.is_terminal() { Standing::Ended } else { Standing::Going(Box::new(state)) }
}

fn meets_all(kind: &SourceErrorKind) -> bool {
    use SourceErrorKind::{Credentials, QuotaGone, Throttled};
    matches!(kind, Throttled { .. } | QuotaGone { .. } | Credentials { .. })
}
