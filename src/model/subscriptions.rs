//! Subscriptions: who wants which changes where.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Change, ChangeKind, RunId, Status, Timestamp, WorkspaceKey};

/// What a subscription asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Selector {
    /// A run seen first after its workspace's baseline.
    Started,
    /// Any change of a stage's status.
    Stage,
    /// A person must act.
    Waiting,
    /// A stage or the run went to Fail.
    Failed,
    /// The run ended with Success.
    Succeeded,
    /// The run ended, however.
    Finished,
    /// The run ended with Termination or Cancel.
    Stopped,
}

impl Selector {
    pub const ALL: [Selector; 7] = [
        Selector::Started,
        Selector::Stage,
        Selector::Waiting,
        Selector::Failed,
        Selector::Succeeded,
        Selector::Finished,
        Selector::Stopped,
    ];

    /// What a `/watch` means.
    pub fn watch() -> BTreeSet<Selector> {
        BTreeSet::from([Selector::Stage, Selector::Waiting, Selector::Finished])
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Selector::Started => "started",
            Selector::Stage => "stage",
            Selector::Waiting => "waiting",
            Selector::Failed => "failed",
            Selector::Succeeded => "succeeded",
            Selector::Finished => "finished",
            Selector::Stopped => "stopped",
        }
    }

    pub fn matches(self, change: &Change) -> bool {
        match (self, &change.kind) {
            (Selector::Started, ChangeKind::Started)
            | (Selector::Stage, ChangeKind::StageChanged { .. })
            | (Selector::Waiting, ChangeKind::Waiting { .. })
            | (Selector::Finished, ChangeKind::Finished { .. } | ChangeKind::Lost { .. }) => true,
            (Selector::Failed, ChangeKind::StageChanged { to, .. } | ChangeKind::Finished { to, .. }) => {
                *to == Status::Fail
            }
            (Selector::Succeeded, ChangeKind::Finished { to, .. }) => *to == Status::Success,
            (Selector::Stopped, ChangeKind::Finished { to, .. }) => matches!(to, Status::Termination | Status::Cancel),
            _ => false,
        }
    }
}

/// Where messages go: a configured channel (`ops`) or a room a bot sits in (`discord:123456789012345678`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Destination {
    Channel(String),
    Room { surface: String, room: String },
}

impl Destination {
    /// What all rooms of a bot have in common: its credentials and some of its limits.
    pub fn account(&self) -> Option<Destination> {
        match self {
            Destination::Channel(_) => None,
            Destination::Room { surface, .. } => {
                Some(Destination::Room { surface: surface.clone(), room: String::new() })
            }
        }
    }
}

impl From<String> for Destination {
    fn from(text: String) -> Destination {
        match text.split_once(':') {
            Some((surface, room)) => Destination::Room { surface: surface.to_owned(), room: room.to_owned() },
            None => Destination::Channel(text),
        }
    }
}

impl From<Destination> for String {
    fn from(destination: Destination) -> String {
        destination.to_string()
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Destination::Channel(name) => f.write_str(name),
            Destination::Room { surface, room } => write!(f, "{surface}:{room}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "scope", rename_all = "snake_case")]
pub enum Scope {
    /// One run; the subscription ends with it.
    Run { workspace: WorkspaceKey, run: RunId },
    /// Every run of a workspace.
    Workspace { workspace: WorkspaceKey },
    /// The next run of a workspace that starts: from its start on, it is [`Scope::Run`].
    Next { workspace: WorkspaceKey },
}

impl Scope {
    pub fn workspace(&self) -> &WorkspaceKey {
        match self {
            Scope::Run { workspace, .. } | Scope::Workspace { workspace } | Scope::Next { workspace } => workspace,
        }
    }

    /// The one run it is about.
    pub fn run(&self) -> Option<&RunId> {
        match self {
            Scope::Run { run, .. } => Some(run),
            Scope::Workspace { .. } | Scope::Next { .. } => None,
        }
    }
}

/// Who wants which changes where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// A UUID; for standing ones from the configuration `config:` and a digest of what they say.
    pub id: String,
    #[serde(flatten)]
    pub scope: Scope,
    pub to: Destination,
    pub on: BTreeSet<Selector>,
    /// Only changes of these stages (by code, any case); empty: all. Changes of the run itself always pass.
    #[serde(default)]
    pub stages: Vec<String>,
    /// Only runs of these creators; empty: all.
    #[serde(default)]
    pub creators: Vec<String>,
    /// Another template set than the default.
    #[serde(default)]
    pub template: Option<String>,
    /// Who asked: `config`, `cli`, or `discord:<user id>`.
    pub by: String,
    /// What that person belonged to then ([`super::Asker::roles`]): their rights are looked at again later.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    pub created_at: Timestamp,
    /// It ends then, if its run has not ended before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub muted: Option<Muted>,
    /// Ended by a person who may still think better of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Timestamp>,
}

/// Only what somebody must act on is posted for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Muted {
    pub until: Timestamp,
    /// As [`Subscription::by`].
    pub by: String,
}

/// Whether a subscription asks for a change, and where not, what keeps it away: the first of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Match {
    Matched,
    /// Another run, or another workspace.
    NotScope,
    /// Another person's run.
    Creator,
    /// Another stage.
    Stage,
    /// Another kind of change.
    Selector,
    /// Whoever began it, or its room, may not know of the workspace any more; nothing of the subscription says so.
    NotAllowed,
    /// A person stopped it.
    Stopped,
    /// Its time was over.
    Ended,
    /// Nothing that anybody must act on, while it was muted.
    Muted,
}

/// For so long a subscription that a person stopped can be taken up again.
pub const UNDONE_WITHIN: Duration = Duration::from_secs(24 * 3600);

impl Subscription {
    pub fn matches(&self, change: &Change) -> bool {
        self.explain(change) == Match::Matched
    }

    /// Neither stopped nor over at that time.
    pub fn is_live(&self, at: Timestamp) -> bool {
        self.stopped.is_none() && self.until.is_none_or(|until| at < until)
    }

    /// While only what somebody must act on is posted.
    pub fn muted_at(&self, at: Timestamp) -> Option<&Muted> {
        self.muted.as_ref().filter(|muted| at < muted.until)
    }

    /// The two are about the same and go to the same place in the same words: there is one of them.
    pub fn is_same(&self, other: &Subscription) -> bool {
        self.scope == other.scope && self.to == other.to && self.template == other.template
    }

    /// What becomes of it when a run of its workspace starts, where it waits for one.
    pub fn taking(&self, run: &RunId, at: Timestamp) -> Option<Subscription> {
        let Scope::Next { workspace } = &self.scope else { return None };
        let scope = Scope::Run { workspace: workspace.clone(), run: run.clone() };
        self.is_live(at).then(|| Subscription { scope, ..self.clone() })
    }

    pub fn explain(&self, change: &Change) -> Match {
        let is_in_scope = match &self.scope {
            Scope::Run { workspace, run } => *run == change.run.id && *workspace == change.workspace.key(),
            Scope::Workspace { workspace } => *workspace == change.workspace.key(),
            Scope::Next { .. } => false,
        };
        let is_of_stage = match change.stage() {
            Some(stage) if !self.stages.is_empty() => {
                self.stages.iter().any(|code| code.eq_ignore_ascii_case(&stage.code))
            }
            _ => true,
        };
        if !is_in_scope {
            Match::NotScope
        } else if self.stopped.is_some() {
            Match::Stopped
        } else if !self.is_live(change.at) {
            Match::Ended
        } else if !self.creators.is_empty() && !self.creators.contains(&change.run.creator) {
            Match::Creator
        } else if !is_of_stage {
            Match::Stage
        } else if !self.on.iter().any(|selector| selector.matches(change)) {
            Match::Selector
        } else if self.muted_at(change.at).is_some() && !change.is_urgent() {
            Match::Muted
        } else {
            Match::Matched
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Snapshot, Stage, Workspace};

    fn change(run: &str, project_id: i64, creator: &str, kind: ChangeKind) -> Change {
        let stage = |code: &str, step| Stage {
            code: code.to_owned(),
            name: String::new(),
            step,
            kind: "Deploy".to_owned(),
            status: Status::Running,
            message: String::new(),
        };
        let run = Snapshot {
            id: run.parse().unwrap(),
            description: String::new(),
            creator: creator.to_owned(),
            status: Status::Running,
            message: String::new(),
            created_at: None,
            modified_at: None,
            stages: vec![stage("BUILD", 1), stage("PROD", 2)],
        };
        let workspace = Workspace { name: "warehouse".to_owned(), region: "cn-shanghai".to_owned(), project_id };
        let at = Timestamp::UNIX_EPOCH;
        Change { workspace, run, url: String::new(), sequence: 1, at, unseen_since: None, kind }
    }

    fn kinds() -> impl Strategy<Value = ChangeKind> {
        let status = || {
            prop::sample::select(vec![
                Status::Running,
                Status::Success,
                Status::Fail,
                Status::Cancel,
                Status::Unknown("Paused".to_owned()),
            ])
        };
        let stage = || prop::sample::select(vec!["BUILD", "PROD", "GONE"]).prop_map(str::to_owned);
        prop_oneof![
            Just(ChangeKind::Started),
            (stage(), status()).prop_map(|(stage, to)| ChangeKind::StageChanged {
                stage,
                from: Status::Init,
                to,
                took_ms: None
            }),
            stage().prop_map(|stage| ChangeKind::Waiting { stage, since: Timestamp::UNIX_EPOCH }),
            status().prop_map(|to| ChangeKind::Finished { from: Status::Running, to, took_ms: None }),
            Just(ChangeKind::Lost { last_seen: Timestamp::UNIX_EPOCH }),
        ]
    }

    fn subscriptions() -> impl Strategy<Value = Subscription> {
        let workspace = prop::sample::select(vec![1, 2]).prop_map(|id| WorkspaceKey(format!("cn-shanghai/{id}")));
        let run = prop::option::of(prop::sample::select(vec!["a", "b", "next"]));
        let moment = || prop::option::of((-1_i64..=1).prop_map(|second| Timestamp::from_second(second).unwrap()));
        let on = prop::collection::btree_set(prop::sample::select(Selector::ALL.to_vec()), 0..4);
        let some = |names: Vec<&'static str>| {
            prop::sample::subsequence(names, 0..=2)
                .prop_map(|names| names.into_iter().map(str::to_owned).collect::<Vec<_>>())
        };
        let life = (moment(), moment(), moment());
        (workspace, run, on, some(vec!["prod", "Build"]), some(vec!["1", "2"]), life).prop_map(
            |(workspace, run, on, stages, creators, (until, muted, stopped))| Subscription {
                id: "a".to_owned(),
                scope: match run {
                    Some("next") => Scope::Next { workspace },
                    Some(run) => Scope::Run { workspace, run: run.parse().unwrap() },
                    None => Scope::Workspace { workspace },
                },
                to: Destination::Channel("ops".to_owned()),
                on,
                stages,
                creators,
                template: None,
                by: "cli".to_owned(),
                roles: Vec::new(),
                until,
                muted: muted.map(|until| Muted { until, by: "discord:7".to_owned() }),
                stopped,
                created_at: Timestamp::UNIX_EPOCH,
            },
        )
    }

    proptest! {
        /// It matches when each filter lets it pass, and what it names is a filter that does not.
        #[test]
        fn the_explanation_names_a_filter_that_keeps_the_change_away(
            subscription in subscriptions(),
            kind in kinds(),
            (run, project, creator) in (
                prop::sample::select(vec!["a", "b"]),
                prop::sample::select(vec![1, 2]),
                prop::sample::select(vec!["1", "2", "3"]),
            ),
        ) {
            let change = change(run, project, creator, kind);
            let in_workspace = subscription.scope.workspace().0 == format!("cn-shanghai/{project}");
            let in_scope = in_workspace && match &subscription.scope {
                Scope::Run { run: own, .. } => own.as_str() == run,
                Scope::Workspace { .. } => true,
                Scope::Next { .. } => false,
            };
            let code = change.stage().map(|stage| stage.code.to_lowercase());
            let lists = |code: &String| subscription.stages.iter().any(|own| own.to_lowercase() == *code);
            let of_stage = subscription.stages.is_empty() || code.as_ref().is_none_or(lists);
            let of_creator = subscription.creators.is_empty() || subscription.creators.iter().any(|own| own == creator);
            let selected = subscription.on.iter().any(|selector| selector.matches(&change));
            let is_stopped = subscription.stopped.is_some();
            let is_over = subscription.until.is_some_and(|until| until <= change.at);
            let must_act = match &change.kind {
                ChangeKind::Waiting { .. } | ChangeKind::Finished { .. } | ChangeKind::Lost { .. } => true,
                ChangeKind::StageChanged { to, .. } => *to == Status::Fail,
                ChangeKind::Started => false,
            };
            let is_held = subscription.muted.as_ref().is_some_and(|muted| change.at < muted.until) && !must_act;
            let passes = in_scope && of_stage && of_creator && selected && !is_stopped && !is_over && !is_held;
            prop_assert_eq!(subscription.matches(&change), passes);
            let is_wrong = match subscription.explain(&change) {
                Match::Matched => !passes,
                Match::NotScope => in_scope,
                Match::Creator => of_creator,
                Match::Stage => of_stage,
                Match::Selector => selected,
                Match::NotAllowed => true,
                Match::Stopped => !is_stopped,
                Match::Ended => !is_over,
                Match::Muted => !is_held,
            };
            prop_assert!(!is_wrong, "{:?} says {:?}", subscription, subscription.explain(&change));
        }
    }
}
