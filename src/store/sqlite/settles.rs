//! Settling: how an attempt ended, and what that means for the row, for what it told beside its own, and for the
//! destination.

use std::collections::BTreeSet;
use std::sync::Arc;

use rusqlite::{Connection, ToSql, params};
use uuid::Uuid;

use super::queues::{self, End, Found};
use super::statements as sql;
use super::writes;
use crate::model::{Destination, Outcome};
use crate::store::{Next, Policy, Settlement};

/// From as many failures in a row on, the destination was out, and what waits for it waits no longer once it is back.
const OUTAGE: u32 = 2;
const UNHEARD: &str = "the store did not say that it was claimed";

pub fn settle(connection: &Connection, settlement: &Settlement, policy: &Arc<dyn Policy>) -> rusqlite::Result<()> {
    let Some(lead) = Found::by_id(connection, settlement.id)? else { return Ok(()) };
    let (started_at, ended_at) = (settlement.started_at.as_millisecond(), settlement.ended_at.as_millisecond());
    let reason = Some(settlement.outcome.reason()).filter(|reason| !reason.is_empty());
    let label = settlement.outcome.label();
    let attempt = params![lead.number, settlement.attempt, started_at, ended_at, label, reason];
    connection.prepare_cached(sql::SETTLE_ATTEMPT)?.execute(attempt)?;
    if lead.state == "in_flight" && lead.attempt == settlement.attempt {
        follow(connection, &lead, settlement, reason)?;
        remember(connection, &lead, settlement, policy)?;
    }
    Ok(())
}

/// What was claimed, and its claimer never heard of it, is claimed again.
pub fn release(connection: &Connection, under_way: &[Uuid]) -> rusqlite::Result<()> {
    let under_way: BTreeSet<String> = under_way.iter().map(Uuid::to_string).collect();
    let in_flight: Vec<(i64, u32, String)> = connection
        .prepare_cached(sql::ALL_IN_FLIGHT)?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (number, attempt, _) in in_flight.into_iter().filter(|(_, _, id)| !under_way.contains(id)) {
        connection.prepare_cached(sql::RELEASE_ATTEMPT)?.execute(params![number, attempt, UNHEARD])?;
        connection.prepare_cached(sql::RELEASE_DELIVERY)?.execute(params![number, UNHEARD])?;
    }
    Ok(())
}

fn message_id(settlement: &Settlement) -> Option<&dyn ToSql> {
    match &settlement.outcome {
        Outcome::Delivered { message_id: Some(id), .. } => Some(id),
        _ => None,
    }
}

fn follow(
    connection: &Connection,
    lead: &Found,
    settlement: &Settlement,
    reason: Option<&str>,
) -> rusqlite::Result<()> {
    let ended_at = settlement.ended_at.as_millisecond();
    let again = |state: &str, at: i64, unknown_at: Option<i64>| {
        let tried = settlement.outcome.is_try();
        let parameters = params![lead.number, state, at, reason, unknown_at, tried];
        connection.prepare_cached(sql::AGAIN)?.execute(parameters).map(drop)
    };
    match settlement.next {
        Next::Delivered => {
            queues::end_bound(connection, lead.number, ended_at, message_id(settlement))?;
            let message_id = match &settlement.outcome {
                Outcome::Delivered { message_id, .. } => message_id.as_deref(),
                _ => None,
            };
            End { state: "delivered", at: ended_at, reason: None, message_id }.of(connection, lead.number)
        }
        Next::Pending { at } => again("pending", at.as_millisecond(), None),
        Next::Unknown { at } => again("unknown", at.as_millisecond(), Some(settlement.started_at.as_millisecond())),
        Next::Rejected => {
            let freed = queues::free(connection, lead.number)?;
            if freed.is_empty() {
                return End::dead(ended_at, reason.unwrap_or_default()).of(connection, lead.number);
            }
            for number in std::iter::once(lead.number).chain(freed) {
                connection.prepare_cached(sql::ALONE)?.execute(params![number, ended_at, reason])?;
            }
            Ok(())
        }
        Next::Dead => queues::die(connection, lead.number, ended_at, reason.unwrap_or_default()),
    }
}

/// What the policy makes of it for the destination.
fn remember(
    connection: &Connection,
    lead: &Found,
    settlement: &Settlement,
    policy: &Arc<dyn Policy>,
) -> rusqlite::Result<()> {
    let to = Destination::from(lead.queue.destination.clone());
    let before = queues::place(connection, &to)?.unwrap_or_default();
    let mut place = before.clone();
    let announcements = match to.account() {
        Some(account) => {
            let shared_before = queues::place(connection, &account)?.unwrap_or_default();
            let mut shared = shared_before.clone();
            let announcements = policy.ended(settlement, &to, &mut place, Some(&mut shared));
            queues::put_place(connection, &account, &shared_before, &shared)?;
            announcements
        }
        None => policy.ended(settlement, &to, &mut place, None),
    };
    queues::put_place(connection, &to, &before, &place)?;
    for announcement in &announcements {
        writes::announce(connection, announcement)?;
    }
    // Whatever it answered: it answers again.
    if before.failures >= OUTAGE && place.failures == 0 {
        let due = params![lead.queue.destination, settlement.ended_at.as_millisecond()];
        connection.prepare_cached(sql::MAKE_DUE)?.execute(due)?;
    }
    Ok(())
}
