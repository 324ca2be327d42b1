//! Retention: what is too old to be worth sending, and what ended long ago. Each call is one small step.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::queues::{self, End};
use super::reads;
use super::statements as sql;
use crate::model::Timestamp;

/// A week.
const SHOWN_MS: i64 = 7 * 86_400_000;
const EXPIRED: &str = "it waited so long that nobody needs it any more";

/// Gives up what was created before `before` and still waits; what its message was to tell beside it
/// and is younger waits for itself again. A store has no clock: it ends when something was last recorded, or so much
/// later than `before` that people see it for a while.
pub fn expire(connection: &Connection, numbers: &[i64], before: Timestamp) -> rusqlite::Result<u64> {
    let before = before.as_millisecond();
    let recorded: Option<i64> =
        connection.prepare_cached(sql::LAST_RECORDED)?.query_row([], |row| row.get(0)).optional()?;
    let at = recorded.unwrap_or(before).max(before + SHOWN_MS);
    let still = |number: i64| {
        let found = connection.prepare_cached(sql::IS_EXPIRED)?.query_row(params![number, before], |_| Ok(()));
        Ok::<bool, rusqlite::Error>(found.optional()?.is_some())
    };
    let mut expired = 0;
    for lead in numbers {
        if !still(*lead)? {
            continue;
        }
        for number in queues::free(connection, *lead)?.into_iter().chain([*lead]) {
            if still(number)? {
                End::dead(at, EXPIRED).of(connection, number)?;
                expired += 1;
            }
        }
    }
    Ok(expired)
}

/// With what each told beside its own.
pub fn delete_deliveries(connection: &Connection, numbers: &[i64], before: Timestamp) -> rusqlite::Result<u64> {
    let (mut delivered, mut folded, mut suppressed, mut dead) = (0_u64, 0_u64, 0_u64, 0_u64);
    let read = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?));
    for number in numbers {
        let key = params![number, before.as_millisecond()];
        let deleted = connection.prepare_cached(sql::DELETE_OLD_DELIVERY)?.query_row(key, read).optional()?;
        let Some((state, told)) = deleted else { continue };
        match (state.as_str(), told) {
            ("delivered", _) => delivered += 1,
            ("dead", _) => dead += 1,
            (_, true) => folded += 1,
            (_, false) => suppressed += 1,
        }
        let beside = connection.prepare_cached(sql::DELETE_TOLD)?.execute([number])?;
        folded += u64::try_from(beside).unwrap_or_default();
    }
    let counted = [delivered, folded, suppressed, dead].map(|count| i64::try_from(count).unwrap_or(i64::MAX));
    connection.prepare_cached(sql::COUNT_DELETED)?.execute(counted)?;
    Ok(delivered + folded + suppressed + dead)
}

pub fn delete_changes(connection: &Connection, numbers: &[i64], before: Timestamp) -> rusqlite::Result<u64> {
    let mut statement = connection.prepare_cached(sql::DELETE_OLD_CHANGE)?;
    let mut deleted = 0;
    for number in numbers {
        deleted += statement.execute(params![number, before.as_millisecond()])?;
    }
    Ok(u64::try_from(deleted).unwrap_or(u64::MAX))
}

pub fn forget_places(connection: &Connection, before: Timestamp) -> rusqlite::Result<()> {
    for row in reads::places(connection)? {
        if row.open == 0 && row.place.is_forgettable(before) {
            connection.prepare_cached(sql::DROP_PLACE)?.execute([row.to.to_string()])?;
        }
    }
    Ok(())
}
