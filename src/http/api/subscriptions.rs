//! Subscriptions: list, add, show, remove.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::http::{Method, StatusCode};
use futures_util::FutureExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::tokens::TokenScope;
use super::{Answer, BASE, Call, Failure, Route, describe};
use crate::fate::Configured;
use crate::meter::CallError;
use crate::model::{Destination, RunId, Scope, Selector, Snapshot, Subscription, Timestamp, Workspace};
use crate::schedule::Purpose;
use crate::sources::SourceErrorKind;
use crate::tracker::{Sight, Watched};

/// Subscriptions that a destination may hold.
const PER_DESTINATION: usize = 500;

pub(super) const LIST: Route = Route {
    method: Method::GET,
    path: "/subscriptions",
    scope: TokenScope::ReadSubscriptions,
    about: "List the subscriptions of the workspaces that the token opens, oldest first",
    query: Some(describe::<Wanted>),
    body: None,
    answers: &[(200, "The subscriptions", Some(describe::<Listed>))],
    run: |call| list(call).boxed(),
};

pub(super) const ADD: Route = Route {
    method: Method::POST,
    path: "/subscriptions",
    scope: TokenScope::WriteSubscriptions,
    about: "Subscribe a destination to a run, or to every run of a workspace",
    query: None,
    body: Some(describe::<NewSubscription>),
    answers: &[
        (200, "The same is sent there already, by this subscription", Some(describe::<SubscriptionView>)),
        (201, "Subscribed", Some(describe::<SubscriptionView>)),
    ],
    run: |call| add(call).boxed(),
};

pub(super) const SHOW: Route = Route {
    method: Method::GET,
    path: "/subscriptions/{id}",
    scope: TokenScope::ReadSubscriptions,
    about: "Show a subscription",
    query: None,
    body: None,
    answers: &[(200, "The subscription", Some(describe::<SubscriptionView>))],
    run: |call| async move { Answer::of(StatusCode::OK, &view(&call, &*find(&call)?)) }.boxed(),
};

pub(super) const REMOVE: Route = Route {
    method: Method::DELETE,
    path: "/subscriptions/{id}",
    scope: TokenScope::WriteSubscriptions,
    about: "End a subscription; what is already on its way may still arrive",
    query: None,
    body: None,
    answers: &[(204, "It has ended", None)],
    run: |call| remove(call).boxed(),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// Only those of this workspace, by name
    workspace: Option<String>,
    /// Only those to this destination: a channel's name, or surface:room
    to: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Subscriptions")]
struct Listed {
    subscriptions: Vec<SubscriptionView>,
}

/// A subscription as the API shows it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Subscription")]
struct SubscriptionView {
    id: String,
    /// The workspace's name.
    workspace: String,
    /// What of it.
    scope: ScopeView,
    /// The run, where it is of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<String>,
    /// A channel's name, or surface:room.
    to: String,
    on: BTreeSet<Selector>,
    /// Only changes of these stages, by code; none: all.
    stages: Vec<String>,
    /// Only runs of these creators; none: all.
    creators: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    template: Option<String>,
    /// Who asked: `config`, `cli`, `api:NAME`, or a surface and a person's id.
    by: String,
    #[schemars(with = "String")]
    created_at: Timestamp,
    /// It ends then, if its run has not ended before.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    until: Option<Timestamp>,
    /// Until then only what somebody must act on is posted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    muted_until: Option<Timestamp>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "Scope")]
enum ScopeView {
    /// One run.
    Run,
    /// Every run.
    Workspace,
    /// The next run that starts.
    Next,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewSubscription {
    /// The workspace's name.
    workspace: String,
    /// One run of it, by its whole id: the subscription ends with the run. Absent: every run.
    run: Option<String>,
    /// A channel's name, or a room as surface:room.
    to: String,
    /// Which changes.
    #[serde(default = "Selector::watch")]
    on: BTreeSet<Selector>,
    #[serde(default)]
    stages: Vec<String>,
    #[serde(default)]
    creators: Vec<String>,
    /// Another template set than the default.
    template: Option<String>,
    /// It ends then, if its run has not ended before.
    #[schemars(with = "Option<String>")]
    until: Option<Timestamp>,
}

fn view(call: &Call<'_>, subscription: &Subscription) -> SubscriptionView {
    let key = subscription.scope.workspace();
    SubscriptionView {
        id: subscription.id.clone(),
        workspace: call.opened(key).map_or_else(|| key.to_string(), |workspace| workspace.name.clone()),
        scope: match &subscription.scope {
            Scope::Run { .. } => ScopeView::Run,
            Scope::Workspace { .. } => ScopeView::Workspace,
            Scope::Next { .. } => ScopeView::Next,
        },
        run: match &subscription.scope {
            Scope::Run { run, .. } => Some(run.to_string()),
            Scope::Workspace { .. } | Scope::Next { .. } => None,
        },
        to: subscription.to.to_string(),
        on: subscription.on.clone(),
        stages: subscription.stages.clone(),
        creators: subscription.creators.clone(),
        template: subscription.template.clone(),
        by: subscription.by.clone(),
        created_at: subscription.created_at,
        until: subscription.until,
        muted_until: subscription.muted.as_ref().map(|muted| muted.until).filter(|until| *until > call.now),
    }
}

async fn list(call: Call<'_>) -> Result<Answer, Failure> {
    let wanted: Wanted = call.query()?;
    let workspace = wanted.workspace.as_deref().map(|name| call.workspace(name)).transpose()?.map(Workspace::key);
    let to = wanted.to.map(Destination::from);
    let found = call.pages.tracker.select(|subscription| {
        let key = subscription.scope.workspace();
        subscription.is_live(call.now)
            && call.opened(key).is_some()
            && workspace.as_ref().is_none_or(|workspace| workspace == key)
            && to.as_ref().is_none_or(|to| *to == subscription.to)
    });
    let subscriptions = found.iter().map(|subscription| view(&call, subscription)).collect();
    Answer::of(StatusCode::OK, &Listed { subscriptions })
}

fn find(call: &Call<'_>) -> Result<Arc<Subscription>, Failure> {
    let found = call.pages.tracker.subscription(&call.id);
    found
        .filter(|found| found.is_live(call.now) && call.opened(found.scope.workspace()).is_some())
        .ok_or_else(|| Failure::not_found("subscription"))
}

async fn remove(call: Call<'_>) -> Result<Answer, Failure> {
    let found = find(&call)?;
    if found.by == "config" {
        return Err(Failure::conflict("that one stands in the configuration; change it there"));
    }
    call.audit("unsubscribe").await?;
    call.pages.tracker.unsubscribe(&found.id).await?;
    tracing::info!(token = call.token.name, subscription = found.id, "a subscription was ended over the API");
    Ok(Answer::empty())
}

async fn add(call: Call<'_>) -> Result<Answer, Failure> {
    let new: NewSubscription = call.json()?;
    let workspace = call.workspace(&new.workspace)?.clone();
    let to = Destination::from(new.to.clone());
    if !call.token.reaches(&to) || (call.pages.configuration)(&to, None) == Configured::No {
        return Err(Failure::wrong(format!("to: there is no {to} that this token may have messages sent to")));
    }
    if new.on.is_empty() {
        return Err(Failure::wrong("on: is empty, so nothing would ever be sent"));
    }
    if let Some(set) =
        new.template.as_deref().filter(|set| !call.pages.automation.templates.iter().any(|own| own == set))
    {
        let known = call.pages.automation.templates.join(", ");
        return Err(Failure::wrong(format!("template: there is no template set {set:?}; there are {known}")));
    }
    if new.until.is_some_and(|until| until <= call.now) {
        return Err(Failure::wrong("until: has passed"));
    }
    let run: Option<RunId> = new
        .run
        .as_deref()
        .map(str::parse)
        .transpose()
        .map_err(|error: crate::model::NotARunId| Failure::wrong(format!("run: {error}")))?;
    let (key, snapshot) = (
        workspace.key(),
        match &run {
            Some(run) => Some(look(&call, &workspace, run).await?),
            None => None,
        },
    );
    let subscription = Subscription {
        id: uuid::Uuid::now_v7().to_string(),
        scope: match run {
            Some(run) => Scope::Run { workspace: key.clone(), run },
            None => Scope::Workspace { workspace: key.clone() },
        },
        to,
        on: new.on,
        stages: new.stages,
        creators: new.creators,
        template: new.template,
        by: call.token.person(),
        roles: Vec::new(),
        until: new.until,
        muted: None,
        stopped: None,
        created_at: call.now,
    };
    subscribe(&call, subscription, snapshot).await
}

async fn subscribe(call: &Call<'_>, subscription: Subscription, snapshot: Option<Snapshot>) -> Result<Answer, Failure> {
    let tracker = &call.pages.tracker;
    if tracker.in_destination(&subscription.to).len() >= PER_DESTINATION {
        return Err(Failure::conflict(format!("to: has {PER_DESTINATION} subscriptions already; end some first")));
    }
    let what = match subscription.scope.run() {
        Some(run) => run.short(),
        None => "every run",
    };
    let workspace = subscription.scope.workspace();
    call.audit(&format!("subscribe {} to {what} of {workspace}", subscription.to)).await?;
    let watched = match snapshot {
        Some(snapshot) => tracker.watch(subscription.clone(), snapshot).await?,
        None => tracker.follow(subscription.clone()).await?,
    };
    let (status, stored) = match watched {
        Watched::New => (StatusCode::CREATED, Arc::new(subscription)),
        Watched::Already => (StatusCode::OK, tracker.same(&subscription).unwrap_or_else(|| Arc::new(subscription))),
        Watched::Ended => return Err(Failure::conflict("run: has ended; nothing would follow")),
    };
    if watched == Watched::New {
        tracing::info!(token = call.token.name, subscription = stored.id, "a subscription was added over the API");
    }
    let location = Some(format!("{BASE}/subscriptions/{}", stored.id));
    Ok(Answer { location, ..Answer::of(status, &view(call, &stored))? })
}

/// Where the run stands now.
async fn look(call: &Call<'_>, workspace: &Workspace, run: &RunId) -> Result<Snapshot, Failure> {
    match call.pages.meter.get(workspace, run, Purpose::Command, call.now).await {
        Ok(snapshot) => {
            call.pages.tracker.observe(workspace, Sight::of_run(snapshot.clone()), call.now).await?;
            Ok(snapshot)
        }
        Err(CallError::Source(error)) if error.kind == SourceErrorKind::NoSuchRun => {
            Err(Failure::wrong(format!("run: {} has no run {run}", workspace.name)))
        }
        Err(error) => match call.pages.tracker.state(&workspace.key(), run) {
            Some(state) => Ok(state.snapshot.clone()),
            None => Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, format!("run: it can't be asked for: {error}"))),
        },
    }
}
