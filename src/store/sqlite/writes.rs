//! The operations that write, each inside a savepoint of the writer's transaction.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::queues::{self, End, Found, Queue};
use super::statements as sql;
use super::{reads, rows};
use crate::model::{Destination, Notice, RunId, RunState, Scope, Subscription, Timestamp, WorkspaceKey};
use crate::store::{Announcement, NewDelivery, Poll, Recorded, Subscribed};

/// Of the column `urgent`: trouble, notices included.
const URGENT_MOST: i64 = 2;

pub fn subscribe(
    connection: &Connection,
    subscription: &Subscription,
    state: Option<&RunState>,
) -> rusqlite::Result<Subscribed> {
    let workspace = &subscription.scope.workspace().0;
    let run = match &subscription.scope {
        Scope::Run { run, .. } => Some(run.as_str()),
        Scope::Workspace { .. } => None,
    };
    let (to, template) = (subscription.to.to_string(), &subscription.template);
    let present = connection
        .prepare_cached(sql::FIND_SUBSCRIPTION)?
        .query_row(params![workspace, run, to, template], |row| row.get(0))
        .optional()?;
    if let Some(id) = present {
        return Ok(Subscribed::Already { id });
    }
    let (json, at) = (rows::to_json(subscription)?, subscription.created_at.as_millisecond());
    connection.prepare_cached(sql::INSERT_SUBSCRIPTION)?.execute(params![
        subscription.id,
        workspace,
        run,
        to,
        template,
        json,
        at
    ])?;
    let run = state.map(|state| {
        connection.prepare_cached(sql::INSERT_RUN_OR_BUMP)?.execute(params![
            workspace,
            state.snapshot.id.as_str(),
            state.version,
            rows::to_json(state)?
        ])?;
        let key = params![workspace, state.snapshot.id.as_str()];
        connection.prepare_cached(sql::RUN)?.query_row(key, rows::run)
    });
    Ok(Subscribed::New { run: run.transpose()?.map(Box::new) })
}

pub fn unsubscribe(connection: &Connection, id: &str) -> rusqlite::Result<bool> {
    Ok(connection.prepare_cached(sql::DELETE_SUBSCRIPTION)?.execute([id])? > 0)
}

pub fn record(connection: &Connection, poll: &Poll) -> rusqlite::Result<Recorded> {
    let workspace = &poll.key.0;
    for state in &poll.runs {
        let stored: Option<i64> = connection
            .prepare_cached(sql::RUN_VERSION)?
            .query_row(params![workspace, state.snapshot.id.as_str()], |row| row.get(0))
            .optional()?;
        if stored.unwrap_or(0) != state.version - 1 {
            return Ok(Recorded::Stale);
        }
    }
    for state in &poll.runs {
        connection.prepare_cached(sql::UPSERT_RUN)?.execute(params![
            workspace,
            state.snapshot.id.as_str(),
            state.version,
            rows::to_json(state)?
        ])?;
    }
    if let Some(state) = &poll.workspace {
        connection.prepare_cached(sql::UPSERT_WORKSPACE)?.execute(params![
            workspace,
            state.baseline_at.as_millisecond(),
            state.horizon.map(Timestamp::as_millisecond),
            state.seen_at.map(Timestamp::as_millisecond)
        ])?;
    }
    for change in &poll.changes {
        connection.prepare_cached(sql::INSERT_CHANGE)?.execute(params![
            workspace,
            change.run.id.as_str(),
            change.sequence,
            change.at.as_millisecond(),
            rows::to_json(change)?
        ])?;
    }
    owe(connection, poll)?;
    for id in &poll.ended {
        unsubscribe(connection, id)?;
    }
    for run in &poll.forgotten {
        connection.prepare_cached(sql::DELETE_RUN)?.execute(params![workspace, run.as_str()])?;
    }
    Ok(Recorded::Done)
}

/// Records messages owed, each once.
fn owe(connection: &Connection, poll: &Poll) -> rusqlite::Result<()> {
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
        let inserted = connection.prepare_cached(sql::INSERT_DELIVERY)?.execute(params![
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
        ])?;
        if inserted > 0 {
            let others = i64::try_from(delivery.subscriptions.len().saturating_sub(1)).unwrap_or(i64::MAX);
            owed += 1 + others;
            merged += others;
            grown.insert(Queue { destination, workspace: workspace.clone(), run: run.to_owned() });
        }
    }
    if owed > 0 {
        connection.prepare_cached(sql::COUNT_OWED)?.execute([owed, merged])?;
    }
    grown.iter().try_for_each(|queue| queue.mark_head(connection))
}

/// The column `urgent`.
fn urgency(delivery: &NewDelivery, is_trouble: bool) -> i64 {
    if is_trouble && delivery.urgent { URGENT_MOST } else { i64::from(delivery.urgent) }
}

pub fn announce(connection: &Connection, announcement: &Announcement) -> rusqlite::Result<bool> {
    let Announcement { notice, to } = announcement;
    let subject = notice.kind.subject();
    let last = connection
        .prepare_cached(sql::LAST_NOTICE)?
        .query_row([&subject], |row| Ok((row.get::<_, i64>(0)?, rows::json::<Notice>(row, 1).ok())))
        .optional()?;
    let begun = last.as_ref().and_then(|(_, notice)| notice.as_ref()).is_some_and(|last| !last.kind.is_end());
    if notice.kind.is_end() != begun {
        return Ok(false);
    }
    let sequence = last.map_or(0, |(sequence, _)| sequence) + 1;
    let at = notice.at.as_millisecond();
    let change = params![rows::OF_NOTICES, subject, sequence, at, rows::to_json(notice)?];
    connection.prepare_cached(sql::INSERT_CHANGE)?.execute(change)?;
    let mut owed = 0_i64;
    for (id, to) in to {
        let (destination, none) = (to.to_string(), None::<String>);
        let row =
            params![id.to_string(), rows::OF_NOTICES, subject, sequence, destination, none, "", at, URGENT_MOST, false];
        if connection.prepare_cached(sql::INSERT_DELIVERY)?.execute(row)? > 0 {
            owed += 1;
            let workspace = rows::OF_NOTICES.to_owned();
            Queue { destination, workspace, run: subject.clone() }.mark_head(connection)?;
        }
    }
    connection.prepare_cached(sql::COUNT_OWED)?.execute([owed, 0])?;
    Ok(true)
}

pub fn saw(connection: &Connection, seen: &[(WorkspaceKey, Timestamp)]) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(sql::SAW_WORKSPACE)?;
    for (key, at) in seen {
        statement.execute(params![key.0, at.as_millisecond()])?;
    }
    Ok(())
}

pub fn revive(connection: &Connection, to: &Destination, now: Timestamp) -> rusqlite::Result<bool> {
    let remembered = queues::place(connection, to)?;
    let name = to.to_string();
    // Of a bot, everything owed to its rooms: all that begins with `surface:`, and `;` comes after `:`.
    let last = match to {
        Destination::Room { surface, room } if room.is_empty() => format!("{surface};"),
        _ => name.clone(),
    };
    let waiting = reads::open_between(connection, &name, &last)?;
    if remembered.is_none() && waiting.is_empty() {
        return Ok(false);
    }
    let before = remembered.unwrap_or_default();
    let mut place = before.clone();
    place.revive();
    queues::put_place(connection, to, &before, &place)?;
    for (destination, _) in waiting {
        connection.prepare_cached(sql::MAKE_DUE)?.execute(params![destination, now.as_millisecond()])?;
    }
    Ok(true)
}

/// Of itself alone: what was folded into a message that died is brought back by its own id.
pub fn retry(connection: &Connection, id: Uuid, now: Timestamp) -> rusqlite::Result<bool> {
    let Some(found) = Found::by_id(connection, id)?.filter(|found| found.state == "dead") else { return Ok(false) };
    connection.prepare_cached(sql::RETRY)?.execute(params![found.number, now.as_millisecond()])?;
    found.queue.mark_head(connection)?;
    Ok(true)
}

/// What it was to tell beside its own waits for itself again. What is folded into another message is left out there,
/// unless that may have arrived: its words stay the same then. What is under way can't be taken back.
pub fn discard(connection: &Connection, id: Uuid, now: Timestamp) -> rusqlite::Result<bool> {
    let Some(found) = Found::by_id(connection, id)? else { return Ok(false) };
    match found.state.as_str() {
        "pending" | "unknown" => {
            let tried =
                connection.prepare_cached(sql::MAY_BE_TOLD)?.query_row([found.number], |_| Ok(())).optional()?;
            if tried.is_some() {
                return Ok(false);
            }
            queues::free(connection, found.number)?;
            connection.prepare_cached(sql::UNFOLD_FROM)?.execute([found.number])?;
        }
        "dead" => {}
        _ => return Ok(false),
    }
    let end = End { state: "superseded", at: now.as_millisecond(), reason: Some("discarded"), message_id: None };
    end.of(connection, found.number)?;
    Ok(true)
}
