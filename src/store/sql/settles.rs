//! Settling: how an attempt ended, and what that means for the row, for what it told beside its own, and for the
//! destination.

use std::collections::BTreeSet;
use std::sync::Arc;

use uuid::Uuid;

use super::queues::{self, End, Found};
use super::session::{Result, Session, values};
use super::statements as sql;
use super::writes;
use crate::model::{Destination, Outcome};
use crate::store::{Next, Policy, Settlement};

/// From as many failures in a row on, the destination was out, and what waits for it waits no longer once it is back.
const OUTAGE: u32 = 2;
const CRASHED: &str = "the process ended while sending";
const UNHEARD: &str = "the store did not say that it was claimed";

pub fn settle(session: &dyn Session, settlement: &Settlement, policy: &Arc<dyn Policy>) -> Result<()> {
    let Some(lead) = Found::by_id(session, settlement.id)? else { return Ok(()) };
    let (started_at, ended_at) = (settlement.started_at.as_millisecond(), settlement.ended_at.as_millisecond());
    let reason = Some(settlement.outcome.reason()).filter(|reason| !reason.is_empty());
    let label = settlement.outcome.label();
    let attempt = values![lead.number, settlement.attempt, started_at, ended_at, label, reason];
    session.execute(sql::SETTLE_ATTEMPT, attempt)?;
    // Taken for lost meanwhile, and not tried again since: it arrived all the same.
    let late = lead.state == "unknown" && settlement.next == Next::Delivered;
    if (lead.state == "in_flight" || late) && lead.attempt == settlement.attempt {
        follow(session, &lead, settlement, reason)?;
        remember(session, &lead, settlement, policy)?;
    }
    Ok(())
}

/// What a replica that is dead had under way may have arrived or not. Says how many of each destination.
pub fn recover(session: &dyn Session, replica: i64) -> Result<Vec<(Destination, u64)>> {
    let recovered = session.all(sql::IN_FLIGHT_BY_DESTINATION, values![replica], |row| {
        Ok((Destination::from(row.get::<String>(0)?), row.get::<i64>(1)?.unsigned_abs()))
    })?;
    session.execute(sql::RECOVER_ATTEMPTS, values![CRASHED, replica])?;
    session.execute(sql::RECOVER_DELIVERIES, values![CRASHED, replica])?;
    Ok(recovered)
}

/// What was claimed, and its claimer never heard of it, is claimed again.
pub fn release(session: &dyn Session, under_way: &[(Uuid, u32)]) -> Result<()> {
    let under_way: BTreeSet<(String, u32)> = under_way.iter().map(|(id, attempt)| (id.to_string(), *attempt)).collect();
    let in_flight: Vec<(i64, u32, String)> = session
        .all(sql::ALL_IN_FLIGHT, values![session.replica()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    for (number, attempt, id) in in_flight {
        if under_way.contains(&(id, attempt)) {
            continue;
        }
        session.execute(sql::RELEASE_ATTEMPT, values![number, attempt, UNHEARD])?;
        session.execute(sql::RELEASE_DELIVERY, values![number, UNHEARD])?;
    }
    Ok(())
}

fn follow(session: &dyn Session, lead: &Found, settlement: &Settlement, reason: Option<&str>) -> Result<()> {
    let ended_at = settlement.ended_at.as_millisecond();
    let again = |state: &str, at: i64, unknown_at: Option<i64>| {
        let tried = settlement.outcome.is_try();
        let parameters = values![lead.number, state, at, reason, unknown_at, tried];
        session.execute(sql::AGAIN, parameters).map(drop)
    };
    match settlement.next {
        Next::Delivered => {
            let message_id = match &settlement.outcome {
                Outcome::Delivered { message_id, .. } => message_id.as_deref(),
                _ => None,
            };
            queues::end_bound(session, lead.number, ended_at, message_id)?;
            End { state: "delivered", at: ended_at, reason: None, message_id }.of(session, lead.number)
        }
        Next::Pending { at } => again("pending", at.as_millisecond(), None),
        Next::Unknown { at } => again("unknown", at.as_millisecond(), Some(settlement.started_at.as_millisecond())),
        Next::Rejected => {
            let freed = queues::free(session, lead.number)?;
            if freed.is_empty() {
                return End::dead(ended_at, reason.unwrap_or_default()).of(session, lead.number);
            }
            for number in std::iter::once(lead.number).chain(freed) {
                session.execute(sql::ALONE, values![number, ended_at, reason])?;
            }
            Ok(())
        }
        Next::Dead => queues::die(session, lead.number, ended_at, reason.unwrap_or_default()),
    }
}

/// What the policy makes of it for the destination.
fn remember(session: &dyn Session, lead: &Found, settlement: &Settlement, policy: &Arc<dyn Policy>) -> Result<()> {
    let to = Destination::from(lead.queue.destination.clone());
    let before = queues::place(session, &to)?.unwrap_or_default();
    let mut place = before.clone();
    let announcements = match to.account() {
        Some(account) => {
            let shared_before = queues::place(session, &account)?.unwrap_or_default();
            let mut shared = shared_before.clone();
            let announcements = policy.ended(settlement, &to, &mut place, Some(&mut shared));
            queues::put_place(session, &account, &shared_before, &shared)?;
            announcements
        }
        None => policy.ended(settlement, &to, &mut place, None),
    };
    queues::put_place(session, &to, &before, &place)?;
    for announcement in &announcements {
        writes::announce(session, announcement)?;
    }
    // Whatever it answered: it answers again.
    if before.failures >= OUTAGE && place.failures == 0 {
        let due = values![lead.queue.destination, settlement.ended_at.as_millisecond()];
        session.execute(sql::MAKE_DUE, due)?;
    }
    Ok(())
}
