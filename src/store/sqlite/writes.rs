//! The operations that write, each inside a savepoint of the writer's transaction.

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use super::rows;
use super::statements as sql;
use crate::model::{Delivery, Destination, RunState, Scope, Subscription, Timestamp};
use crate::store::{Poll, Recorded, Subscribed};

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
            state.horizon.map(Timestamp::as_millisecond)
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
    for owed in &poll.deliveries {
        let (to, run) = (owed.to.to_string(), owed.run.as_str());
        let inserted = connection.prepare_cached(sql::INSERT_DELIVERY)?.execute(params![
            owed.id.to_string(),
            workspace,
            run,
            owed.sequence,
            to,
            owed.template,
            owed.subscriptions.join(","),
            owed.at.as_millisecond()
        ])?;
        if inserted > 0 {
            connection.prepare_cached(sql::MARK_HEAD)?.execute(params![to, workspace, run])?;
        }
    }
    for id in &poll.ended {
        unsubscribe(connection, id)?;
    }
    for run in &poll.forgotten {
        connection.prepare_cached(sql::DELETE_RUN)?.execute(params![workspace, run.as_str()])?;
    }
    Ok(Recorded::Done)
}

/// Merges the destinations' queues by what is due longest: one seek for each destination and three for each claim,
/// however much waits behind.
/// No retry waits longer: a day and its jitter.
const LONGEST_WAIT_MS: i64 = 29 * 3600 * 1000;

pub fn claim(
    connection: &Connection,
    now: Timestamp,
    limit: usize,
    except: &[Destination],
) -> rusqlite::Result<Vec<Delivery>> {
    let now = now.as_millisecond();
    let mut queues = due(connection, except)?;
    // A moment further away than any wait was set by a clock that was ahead.
    queues.retain(|(_, next_at)| *next_at <= now || *next_at > now + LONGEST_WAIT_MS);
    queues.sort_by(|(a_name, a), (b_name, b)| (a, a_name).cmp(&(b, b_name)));
    queues.truncate(limit);
    let mut claimed = Vec::new();
    for (destination, _) in queues {
        let number: i64 = connection.prepare_cached(sql::NEXT_CLAIMABLE)?.query_row([destination], |row| row.get(0))?;
        match connection.prepare_cached(sql::CLAIM)?.query_row([number], rows::delivery) {
            Ok(delivery) => {
                connection.prepare_cached(sql::INSERT_ATTEMPT)?.execute(params![number, delivery.attempt, now])?;
                claimed.push(delivery);
            }
            // One bad row must not stop all the others.
            Err(rusqlite::Error::FromSqlConversionFailure(..)) => {
                tracing::error!(number, "a stored change can't be read; its delivery is given up");
                let queue = connection.prepare_cached(sql::BURY)?.query_row(params![number, now], Queue::of_row)?;
                queue.mark_head(connection)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(claimed)
}

/// Each destination that waits for a claim, and since or until when; those in `except` left out.
pub fn due(connection: &Connection, except: &[Destination]) -> rusqlite::Result<Vec<(String, i64)>> {
    let except: HashSet<String> = except.iter().map(Destination::to_string).collect();
    let mut statement = connection.prepare_cached(sql::NEXT_DESTINATION)?;
    let mut found: Vec<(String, i64)> = Vec::new();
    let mut after = String::new();
    while let Some((destination, next_at)) =
        statement.query_row([&after], |row| Ok((row.get::<_, String>(0)?, row.get(1)?))).optional()?
    {
        after.clone_from(&destination);
        if !except.contains(&destination) {
            found.push((destination, next_at));
        }
    }
    Ok(found)
}

pub fn retry(connection: &Connection, id: Uuid, now: Timestamp) -> rusqlite::Result<bool> {
    change_state(connection, sql::RETRY, id, now)
}

pub fn discard(connection: &Connection, id: Uuid, now: Timestamp) -> rusqlite::Result<bool> {
    change_state(connection, sql::DISCARD, id, now)
}

fn change_state(connection: &Connection, statement: &str, id: Uuid, now: Timestamp) -> rusqlite::Result<bool> {
    let queue = connection
        .prepare_cached(statement)?
        .query_row(params![id.to_string(), now.as_millisecond()], Queue::of_row)
        .optional()?;
    let Some(queue) = queue else { return Ok(false) };
    queue.mark_head(connection)?;
    Ok(true)
}

/// The rows whose order holds.
struct Queue {
    destination: String,
    workspace: String,
    run: String,
}

impl Queue {
    fn of_row(row: &Row<'_>) -> rusqlite::Result<Queue> {
        Ok(Queue { destination: row.get(0)?, workspace: row.get(1)?, run: row.get(2)? })
    }

    fn mark_head(&self, connection: &Connection) -> rusqlite::Result<()> {
        connection.prepare_cached(sql::MARK_HEAD)?.execute(params![self.destination, self.workspace, self.run])?;
        Ok(())
    }
}

/// Deletes what `statement` finds by each number and `before`, and counts it.
pub fn delete(connection: &Connection, statement: &str, numbers: &[i64], before: Timestamp) -> rusqlite::Result<u64> {
    let mut statement = connection.prepare_cached(statement)?;
    let mut deleted = 0;
    for number in numbers {
        deleted += statement.execute(params![number, before.as_millisecond()])?;
    }
    Ok(u64::try_from(deleted).unwrap_or(u64::MAX))
}
