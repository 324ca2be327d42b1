//! Retention: what is too old to be worth sending, and what ended long ago. Each call is one small step.

use super::queues::{self, End};
use super::reads;
use super::session::{Result, Row, Session, Value, values};
use super::statements as sql;
use crate::model::Timestamp;

/// A week.
const SHOWN_MS: i64 = 7 * 86_400_000;
const EXPIRED: &str = "it waited so long that nobody needs it any more";

/// Gives up what was created before `before` and still waits; what its message was to tell beside it
/// and is younger waits for itself again. A store has no clock: it ends when something was last recorded, or so much
/// later than `before` that people see it for a while.
pub fn expire(session: &dyn Session, numbers: &[i64], before: Timestamp) -> Result<u64> {
    let before = before.as_millisecond();
    let recorded: Option<i64> = session.first(sql::LAST_RECORDED, &[], |row| row.get(0))?;
    let at = recorded.unwrap_or(before).max(before + SHOWN_MS);
    let still = |number: i64| session.exists(sql::IS_EXPIRED, values![number, before]);
    let mut expired = 0;
    for lead in numbers {
        if !still(*lead)? {
            continue;
        }
        for number in queues::free(session, *lead)?.into_iter().chain([*lead]) {
            if still(number)? {
                End::dead(at, EXPIRED).of(session, number)?;
                expired += 1;
            }
        }
    }
    Ok(expired)
}

/// With what each told beside its own.
pub fn delete_deliveries(session: &dyn Session, numbers: &[i64], before: Timestamp) -> Result<u64> {
    let (mut delivered, mut folded, mut suppressed, mut dead) = (0_u64, 0_u64, 0_u64, 0_u64);
    let read = |row: &Row| Ok((row.get::<String>(0)?, row.get::<bool>(1)?));
    for number in numbers {
        let key = values![number, before.as_millisecond()];
        let deleted = session.first(sql::DELETE_OLD_DELIVERY, key, read)?;
        let Some((state, told)) = deleted else { continue };
        match (state.as_str(), told) {
            ("delivered", _) => delivered += 1,
            ("dead", _) => dead += 1,
            (_, true) => folded += 1,
            (_, false) => suppressed += 1,
        }
        folded += session.execute(sql::DELETE_TOLD, values![number])?;
    }
    let counted = [delivered, folded, suppressed, dead].map(|count| i64::try_from(count).unwrap_or(i64::MAX));
    session.execute(sql::COUNT_DELETED, &counted.map(Value::Integer))?;
    Ok(delivered + folded + suppressed + dead)
}

pub fn delete_changes(session: &dyn Session, numbers: &[i64], before: Timestamp) -> Result<u64> {
    let mut deleted = 0;
    for number in numbers {
        deleted += session.execute(sql::DELETE_OLD_CHANGE, values![number, before.as_millisecond()])?;
    }
    Ok(deleted)
}

pub fn forget_places(session: &dyn Session, before: Timestamp) -> Result<()> {
    for row in reads::places(session)? {
        if row.open == 0 && row.place.is_forgettable(before) {
            session.execute(sql::DROP_PLACE, values![row.to.to_string()])?;
        }
    }
    Ok(())
}
