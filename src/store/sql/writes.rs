//! The operations that write, each inside a savepoint of the writer's transaction.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::queues::{self, End, Found, Queue};
use super::session::{Result, Session, values};
use super::statements as sql;
use super::{reads, rows};
use crate::model::{Destination, Notice, RunId, RunState, Scope, Subscription, Timestamp, WorkspaceKey};
use crate::store::{Announcement, NewDelivery, Poll, Recorded, Subscribed};

/// Of the column `urgent`: trouble, notices included.
const URGENT_MOST: i64 = 2;

pub fn subscribe(session: &dyn Session, subscription: &Subscription, state: Option<&RunState>) -> Result<Subscribed> {
    let workspace = &subscription.scope.workspace().0;
    let run = column(&subscription.scope);
    let (to, template) = (subscription.to.to_string(), &subscription.template);
    if let Some(present) = present(session, subscription)? {
        if present.is_live(subscription.created_at) {
            return Ok(Subscribed::Already { id: present.id });
        }
        unsubscribe(session, &present.id)?;
    }
    let (json, at) = (rows::to_json(subscription)?, subscription.created_at.as_millisecond());
    session.execute(sql::INSERT_SUBSCRIPTION, values![subscription.id, workspace, run, to, template, json, at])?;
    let run = state.map(|state| {
        session.execute(
            sql::INSERT_RUN_OR_BUMP,
            values![workspace, state.snapshot.id.as_str(), state.version, rows::to_json(state)?],
        )?;
        let key = values![workspace, state.snapshot.id.as_str()];
        session.one(sql::RUN, key, rows::run)
    });
    Ok(Subscribed::New { run: run.transpose()?.map(Box::new) })
}

/// The column `run`.
fn column(scope: &Scope) -> Option<&str> {
    match scope {
        Scope::Run { run, .. } => Some(run.as_str()),
        Scope::Workspace { .. } => None,
        Scope::Next { .. } => Some(sql::NEXT),
    }
}

/// The one that is about the same and goes to the same place.
fn present(session: &dyn Session, subscription: &Subscription) -> Result<Option<Subscription>> {
    let Subscription { scope, to, template, .. } = subscription;
    let same = values![scope.workspace().0, column(scope), to.to_string(), template];
    session.first(sql::FIND_SUBSCRIPTION, same, |row| rows::json(row, 0))
}

pub fn amend(session: &dyn Session, subscriptions: &[Subscription]) -> Result<Vec<String>> {
    let mut amended = Vec::new();
    for new in subscriptions {
        let old: Option<Subscription> = session.first(sql::SUBSCRIPTION, values![new.id], |row| rows::json(row, 0))?;
        if old.is_some_and(|old| old.is_same(new)) {
            replace(session, new)?;
            if let Some(run) = new.scope.run() {
                session.execute(sql::BUMP_RUN, values![new.scope.workspace().0, run.as_str()])?;
            }
            amended.push(new.id.clone());
        }
    }
    Ok(amended)
}

fn replace(session: &dyn Session, subscription: &Subscription) -> Result<()> {
    let row = values![subscription.id, column(&subscription.scope), rows::to_json(subscription)?];
    session.execute(sql::AMEND_SUBSCRIPTION, row).map(drop)
}

/// What waits for the run that this poll saw start is on that run from now on. False when the poll does not know all of
/// it.
fn begin(session: &dyn Session, poll: &Poll) -> Result<bool> {
    let Some(start) = Poll::next_run(&poll.changes) else { return Ok(poll.begun.is_empty()) };
    let waiting: Vec<Subscription> =
        session.all(sql::WAITING_SUBSCRIPTIONS, values![poll.key.0], |row| rows::json(row, 0))?;
    let begun = waiting.iter().filter_map(|waiting| waiting.taking(&start.run.id, start.at));
    if !begun.eq(poll.begun.iter().cloned()) {
        return Ok(false);
    }
    for begun in &poll.begun {
        match present(session, begun)? {
            // Somebody subscribed to it before it was seen.
            Some(_) => unsubscribe(session, &begun.id).map(drop)?,
            None => replace(session, begun)?,
        }
    }
    Ok(true)
}

pub fn unsubscribe(session: &dyn Session, id: &str) -> Result<bool> {
    Ok(session.execute(sql::DELETE_SUBSCRIPTION, values![id])? > 0)
}

pub fn once(session: &dyn Session, key: &str, now: Timestamp, until: Timestamp) -> Result<bool> {
    session.execute(sql::FORGET_SEEN, values![now.as_millisecond()])?;
    Ok(session.execute(sql::INSERT_SEEN, values![key, until.as_millisecond()])? > 0)
}

pub fn record(session: &dyn Session, poll: &Poll) -> Result<Recorded> {
    let workspace = &poll.key.0;
    for state in &poll.runs {
        let stored: Option<i64> =
            session.first(sql::RUN_VERSION, values![workspace, state.snapshot.id.as_str()], |row| row.get(0))?;
        if stored.unwrap_or(0) != state.version - 1 {
            return Ok(Recorded::Stale);
        }
    }
    if !begin(session, poll)? {
        return Ok(Recorded::Stale);
    }
    for state in &poll.runs {
        session.execute(
            sql::UPSERT_RUN,
            values![workspace, state.snapshot.id.as_str(), state.version, rows::to_json(state)?],
        )?;
    }
    if let Some(state) = &poll.workspace {
        session.execute(
            sql::UPSERT_WORKSPACE,
            values![
                workspace,
                state.baseline_at.as_millisecond(),
                state.horizon.map(Timestamp::as_millisecond),
                state.seen_at.map(Timestamp::as_millisecond)
            ],
        )?;
    }
    for change in &poll.changes {
        session.execute(
            sql::INSERT_CHANGE,
            values![
                workspace,
                change.run.id.as_str(),
                change.sequence,
                change.at.as_millisecond(),
                rows::to_json(change)?
            ],
        )?;
    }
    owe(session, poll)?;
    for id in &poll.ended {
        unsubscribe(session, id)?;
    }
    for run in &poll.forgotten {
        session.execute(sql::DELETE_RUN, values![workspace, run.as_str()])?;
    }
    Ok(Recorded::Done)
}

/// Records messages owed, each once.
fn owe(session: &dyn Session, poll: &Poll) -> Result<()> {
    let workspace = &poll.key.0;
    let troubles: BTreeSet<(&RunId, i64)> = poll
        .changes
        .iter()
        .filter(|change| change.is_trouble())
        .map(|change| (&change.run.id, change.sequence))
        .collect();
    let (mut owed, mut merged) = (0_i64, 0_i64);
    let mut grown = BTreeSet::new();
    for delivery in &poll.deliveries {
        let (destination, run) = (delivery.to.to_string(), delivery.run.as_str());
        let asked = delivery.subscriptions.join(",");
        let inserted = session.execute(
            sql::INSERT_DELIVERY,
            values![
                delivery.id.to_string(),
                workspace,
                run,
                delivery.sequence,
                destination,
                delivery.template,
                asked,
                delivery.at.as_millisecond(),
                urgency(delivery, troubles.contains(&(&delivery.run, delivery.sequence))),
                delivery.missed
            ],
        )?;
        if inserted > 0 {
            let others = i64::try_from(delivery.subscriptions.len().saturating_sub(1)).unwrap_or(i64::MAX);
            owed += 1 + others;
            merged += others;
            grown.insert(Queue { destination, workspace: workspace.clone(), run: run.to_owned() });
        }
    }
    if owed > 0 {
        session.execute(sql::COUNT_OWED, values![owed, merged])?;
    }
    grown.iter().try_for_each(|queue| queue.mark_head(session))
}

/// The column `urgent`.
fn urgency(delivery: &NewDelivery, is_trouble: bool) -> i64 {
    if is_trouble && delivery.urgent { URGENT_MOST } else { i64::from(delivery.urgent) }
}

pub fn announce(session: &dyn Session, announcement: &Announcement) -> Result<bool> {
    let Announcement { notice, to } = announcement;
    let subject = notice.kind.subject();
    let last = session.first(sql::LAST_NOTICE, values![&subject], |row| {
        Ok((row.get::<i64>(0)?, rows::json::<Notice>(row, 1).ok()))
    })?;
    let begun = last.as_ref().and_then(|(_, notice)| notice.as_ref()).is_some_and(|last| !last.kind.is_end());
    if notice.kind.is_end() != begun {
        return Ok(false);
    }
    let sequence = last.map_or(0, |(sequence, _)| sequence) + 1;
    let at = notice.at.as_millisecond();
    let change = values![rows::OF_NOTICES, subject, sequence, at, rows::to_json(notice)?];
    session.execute(sql::INSERT_CHANGE, change)?;
    let mut owed = 0_i64;
    for (id, to) in to {
        let (destination, none) = (to.to_string(), None::<String>);
        let row =
            values![id.to_string(), rows::OF_NOTICES, subject, sequence, destination, none, "", at, URGENT_MOST, false];
        if session.execute(sql::INSERT_DELIVERY, row)? > 0 {
            owed += 1;
            let workspace = rows::OF_NOTICES.to_owned();
            Queue { destination, workspace, run: subject.clone() }.mark_head(session)?;
        }
    }
    session.execute(sql::COUNT_OWED, values![owed, 0_i64])?;
    Ok(true)
}

pub fn saw(session: &dyn Session, seen: &[(WorkspaceKey, Timestamp)]) -> Result<()> {
    for (key, at) in seen {
        session.execute(sql::SAW_WORKSPACE, values![key.0, at.as_millisecond()])?;
    }
    Ok(())
}

pub fn revive(session: &dyn Session, to: &Destination, now: Timestamp) -> Result<bool> {
    let remembered = queues::place(session, to)?;
    let name = to.to_string();
    // Of a bot, everything owed to its rooms: all that begins with `surface:`, and `;` comes after `:`.
    let last = match to {
        Destination::Room { surface, room } if room.is_empty() => format!("{surface};"),
        _ => name.clone(),
    };
    let waiting = reads::open_between(session, &name, &last)?;
    if remembered.is_none() && waiting.is_empty() {
        return Ok(false);
    }
    let before = remembered.unwrap_or_default();
    let mut place = before.clone();
    place.revive();
    queues::put_place(session, to, &before, &place)?;
    for (destination, _) in waiting {
        session.execute(sql::MAKE_DUE, values![destination, now.as_millisecond()])?;
    }
    Ok(true)
}

/// Of itself alone: what was folded into a message that died is brought back by its own id.
pub fn retry(session: &dyn Session, id: Uuid, now: Timestamp) -> Result<bool> {
    let Some(found) = Found::by_id(session, id)?.filter(|found| found.state == "dead") else { return Ok(false) };
    session.execute(sql::RETRY, values![found.number, now.as_millisecond()])?;
    found.queue.mark_head(session)?;
    Ok(true)
}

/// What it was to tell beside its own waits for itself again. What is folded into another message is left out there,
/// unless that may have arrived: its words stay the same then. What is under way can't be taken back.
pub fn discard(session: &dyn Session, id: Uuid, now: Timestamp) -> Result<bool> {
    let Some(found) = Found::by_id(session, id)? else { return Ok(false) };
    match found.state.as_str() {
        "pending" | "unknown" => {
            let tried = session.first(sql::MAY_BE_TOLD, values![found.number], |_| Ok(()))?;
            if tried.is_some() {
                return Ok(false);
            }
            queues::free(session, found.number)?;
            session.execute(sql::UNFOLD_FROM, values![found.number])?;
        }
        "dead" => {}
        _ => return Ok(false),
    }
    let end = End { state: "superseded", at: now.as_millisecond(), reason: Some("discarded"), message_id: None };
    end.of(session, found.number)?;
    Ok(true)
}
