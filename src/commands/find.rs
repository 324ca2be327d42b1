//! From what a person typed to a run: an id, the beginning of one, or a link out of the console.

use std::time::Duration;

use futures_util::future::join_all;
use url::Url;

use super::{Call, CommandError, Context, words};
use crate::meter::CallError;
use crate::model::{RunId, Snapshot, Text, Timestamp, Workspace, elapsed};
use crate::schedule::Purpose;
use crate::sources::SourceErrorKind;
use crate::text::stopped;
use crate::tracker::Sight;

/// The beginning of an id is enough from this length on.
const SHORTEST_BEGINNING: usize = 4;
/// Anything shorter is no whole id …
const WHOLE: usize = 20;
/// … and not worth asking more workspaces than this: a typing mistake must not spend the day's calls.
const FEW: usize = 3;
/// A list this young has just been asked for.
const JUST_NOW: Duration = Duration::from_secs(2);

/// A run that somebody means.
pub struct Found {
    pub workspace: Workspace,
    pub id: RunId,
    /// Asked for just now, where that was needed to find it.
    pub snapshot: Option<Snapshot>,
}

/// Looks where the tracker knows the run, then asks each workspace that may be meant. What the asker may do there is
/// looked at before anything is asked for.
pub async fn find(context: &Context, call: &Call<'_>, typed: &str, workspace: &str) -> Result<Found, CommandError> {
    let now = call.now();
    let visible = named(context, call.visible(context)?, workspace)?;
    if let [only] = visible.as_slice() {
        call.needs(context, only, call.info.role)?;
    }
    let Meant { id, project_id } = read(typed)?;
    let candidates = linked(&visible, project_id)?;
    if let Some(found) = known(context, &id, &candidates)? {
        call.needs(context, &found.workspace, call.info.role)?;
        return Ok(found);
    }
    let candidates = call.permitted(context, candidates)?;
    if id.as_str().len() < WHOLE && candidates.len() <= FEW {
        // Perhaps only the beginning of a run that no poll has shown yet.
        join_all(candidates.iter().map(|workspace| refresh(context, workspace, JUST_NOW, now))).await;
        if let Some(found) = known(context, &id, &candidates)? {
            return Ok(found);
        }
    }
    if id.as_str().len() < WHOLE && candidates.len() > FEW {
        return Err(not_found(&id, &candidates, &[]));
    }
    ask(context, id, candidates, now).await
}

pub struct Meant {
    pub id: RunId,
    /// Where a link said so.
    project_id: Option<i64>,
}

pub fn read(typed: &str) -> Result<Meant, CommandError> {
    let Ok(link) = Url::parse(typed).map_err(drop).and_then(|url| if url.has_host() { Ok(url) } else { Err(()) })
    else {
        // DataWorks writes ids in lower case; masked samples hold other letters.
        let is_hex = typed.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        let typed = if is_hex { typed.to_ascii_lowercase() } else { typed.to_owned() };
        let id = typed.parse().map_err(|error: crate::model::NotARunId| {
            CommandError::user(format!("That is no run id: {error}. /runs lists the recent ones."))
        })?;
        return Ok(Meant { id, project_id: None });
    };
    let project_id = link
        .query_pairs()
        .find(|(name, _)| matches!(name.as_ref(), "defaultProjectId" | "projectId" | "ProjectId"))
        .and_then(|(_, value)| value.parse().ok());
    let id = typed
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
        .find(|part| uuid::Uuid::try_parse(part).is_ok() && part.len() == 36)
        .and_then(|part| part.to_ascii_lowercase().parse().ok());
    match id {
        Some(id) => Ok(Meant { id, project_id }),
        None => Err(CommandError::user(
            "That link opens a workspace, not a run. Copy the run's id from Deploy › details, or pick one from /runs.",
        )),
    }
}

fn named(context: &Context, all: Vec<Workspace>, name: &str) -> Result<Vec<Workspace>, CommandError> {
    if name.is_empty() {
        return Ok(all);
    }
    let named = all.iter().find(|workspace| workspace.name.eq_ignore_ascii_case(name)).cloned();
    named.map(|workspace| vec![workspace]).ok_or_else(|| no_workspace(context, &all, name))
}

fn linked(all: &[Workspace], project_id: Option<i64>) -> Result<Vec<Workspace>, CommandError> {
    let linked: Vec<_> = all.iter().filter(|w| project_id.is_none_or(|id| id == w.project_id)).cloned().collect();
    if linked.is_empty() {
        let said = format!("That link belongs to a workspace I don't follow. I follow {}.", names(all));
        return Err(CommandError::user(said));
    }
    Ok(linked)
}

/// The same words for one that nobody has and one that the asker may not know of. `all`: those that they may.
pub fn no_workspace(context: &Context, all: &[Workspace], name: &str) -> CommandError {
    let said = format!("I follow no workspace {}. I follow {}.", words::cut(name, 40), names(all));
    let is_hidden = context.workspaces.iter().any(|workspace| workspace.name.eq_ignore_ascii_case(name));
    if is_hidden { CommandError::denied("workspace", said) } else { CommandError::user(said) }
}

pub fn names(workspaces: &[Workspace]) -> String {
    workspaces.iter().map(|workspace| workspace.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// The one known run that begins like this.
fn known(context: &Context, id: &RunId, candidates: &[Workspace]) -> Result<Option<Found>, CommandError> {
    if id.as_str().len() < SHORTEST_BEGINNING {
        return Ok(None);
    }
    let mut found: Vec<Found> = Vec::new();
    for (key, state) in context.tracker.find(id.as_str()) {
        let Some(workspace) = candidates.iter().find(|workspace| workspace.key() == key) else { continue };
        let this = Found { workspace: workspace.clone(), id: state.snapshot.id.clone(), snapshot: None };
        if this.id == *id {
            return Ok(Some(this));
        }
        found.push(this);
    }
    match found.len() {
        0 | 1 => Ok(found.pop()),
        _ => {
            found.sort_by(|a, b| a.id.cmp(&b.id));
            let list = found.iter().take(10).fold(Text::default(), |text, run| {
                text.line().code(run.id.as_str()).plain(format!(" in {}", run.workspace.name))
            });
            let mut text = Text::default().plain(format!("{} runs begin with {id}; type more of the id:", found.len()));
            text.0.extend(list.0);
            Err(CommandError::User(text))
        }
    }
}

/// Asks each workspace by its own call; one answer is enough.
async fn ask(context: &Context, id: RunId, candidates: Vec<Workspace>, now: Timestamp) -> Result<Found, CommandError> {
    let calls = candidates.iter().map(|workspace| context.meter.get(workspace, &id, Purpose::Command, now));
    let answers = join_all(calls).await;
    let mut failed = Vec::new();
    let mut denied = Vec::new();
    for (workspace, answer) in candidates.into_iter().zip(answers) {
        match answer {
            Ok(snapshot) => return Ok(Found { workspace, id: snapshot.id.clone(), snapshot: Some(snapshot) }),
            Err(CallError::Source(error)) if error.kind == SourceErrorKind::NoSuchRun => denied.push(workspace),
            Err(error) => failed.push((workspace, error)),
        }
    }
    Err(not_found(&id, &denied, &failed))
}

fn not_found(id: &RunId, denied: &[Workspace], failed: &[(Workspace, CallError)]) -> CommandError {
    let mut text = Text::default();
    if !denied.is_empty() {
        text = text
            .plain("No run ")
            .code(id.as_str())
            .plain(format!(
                " in {}. An id is 36 characters, as DataWorks shows it under Deploy › details; ",
                names(denied)
            ))
            .code("/runs")
            .plain(" lists the recent ones.");
    }
    let refused = failed.iter().find_map(|(_, error)| match error {
        CallError::Refused { said, .. } => Some(words::cut(said, 400)),
        _ => None,
    });
    let sentences: Vec<String> = match refused {
        // The same for every workspace, so it is said once.
        Some(said) => {
            vec![format!("DataWorks refuses my access for now: {} Watches stay.", stopped(&said))]
        }
        None => failed
            .iter()
            .take(5)
            .map(|(workspace, error)| {
                format!("I could not ask {}: {}", workspace.name, words::cut(&error.to_string(), 400))
            })
            .collect(),
    };
    for sentence in sentences {
        let space = if text.0.is_empty() { "" } else { "\n" };
        text = text.plain(format!("{space}{sentence}"));
    }
    CommandError::User(text)
}

/// Workspaces that nobody watches are polled seldom; whoever asks for the list wants it as it is. When it can't be had,
/// the answer says how old what is known is.
pub async fn refresh(context: &Context, workspace: &Workspace, max_age: Duration, now: Timestamp) {
    let seen_at = context.tracker.freshness(&workspace.key(), None).seen_at;
    if seen_at.is_some_and(|seen| elapsed(seen, now) < max_age) {
        return;
    }
    let Ok(listed) = context.meter.list(workspace, 1, Purpose::Command, now).await else { return };
    if let Err(error) = context.tracker.observe(workspace, Sight::of_page(listed), now).await {
        tracing::warn!(workspace = workspace.name, %error, "a fresh list can't be recorded");
    }
}
