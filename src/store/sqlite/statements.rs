//! Every statement, as a constant. A test prepares each against the migrated schema and looks at the plans of those
//! that run for every message.

// ------------------------------------------------------------------------------------------------ the group commit

pub const SAVEPOINT: &str = "SAVEPOINT operation";
pub const RELEASE: &str = "RELEASE operation";
pub const ROLLBACK_TO: &str = "ROLLBACK TO operation";

/// Changes whenever another connection committed.
pub const DATA_VERSION: &str = "PRAGMA data_version";

// --------------------------------------------------------------------------------------------------- subscriptions

pub const FIND_SUBSCRIPTION: &str = "
    SELECT id FROM subscriptions
    WHERE workspace = ?1 AND ifnull(run, '') = ifnull(?2, '') AND destination = ?3
      AND ifnull(template, '') = ifnull(?4, '')";

pub const INSERT_SUBSCRIPTION: &str = "
    INSERT INTO subscriptions (id, workspace, run, destination, template, json, created_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";

pub const DELETE_SUBSCRIPTION: &str = "DELETE FROM subscriptions WHERE id = ?1";

pub const ALL_SUBSCRIPTIONS: &str = "SELECT json FROM subscriptions ORDER BY created_at, id";

// ------------------------------------------------------------------------------------------------------------ runs

/// A run the store knows keeps its state: only polls move it.
pub const INSERT_RUN_OR_BUMP: &str = "
    INSERT INTO runs (workspace, run, version, state) VALUES (?1, ?2, ?3, ?4)
    ON CONFLICT (workspace, run) DO UPDATE SET version = version + 1";

pub const RUN_VERSION: &str = "SELECT version FROM runs WHERE workspace = ?1 AND run = ?2";

pub const UPSERT_RUN: &str = "
    INSERT INTO runs (workspace, run, version, state) VALUES (?1, ?2, ?3, ?4)
    ON CONFLICT (workspace, run) DO UPDATE SET version = excluded.version, state = excluded.state";

/// As long as a change of it is kept, its sequence must not begin anew.
pub const DELETE_RUN: &str = "
    DELETE FROM runs WHERE workspace = ?1 AND run = ?2
      AND NOT EXISTS (SELECT 1 FROM changes AS c WHERE c.workspace = ?1 AND c.run = ?2)";

pub const RUN: &str = "SELECT version, state FROM runs WHERE workspace = ?1 AND run = ?2";

pub const ALL_RUNS: &str = "SELECT version, state, workspace FROM runs ORDER BY workspace, run";

pub const UPSERT_WORKSPACE: &str = "
    INSERT INTO workspaces (key, baseline_at, horizon) VALUES (?1, ?2, ?3)
    ON CONFLICT (key) DO UPDATE SET baseline_at = excluded.baseline_at, horizon = excluded.horizon";

pub const ALL_WORKSPACES: &str = "SELECT key, baseline_at, horizon FROM workspaces ORDER BY key";

// ---------------------------------------------------------------------------------------------- changes, deliveries

pub const INSERT_CHANGE: &str = "
    INSERT INTO changes (workspace, run, sequence, at, json) VALUES (?1, ?2, ?3, ?4, ?5)
    ON CONFLICT (workspace, run, sequence) DO NOTHING";

pub const INSERT_DELIVERY: &str = "
    INSERT INTO deliveries (id, workspace, run, sequence, destination, template, subscription, state, next_at, created_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'pending', ?8, ?8)
    ON CONFLICT (run, workspace, sequence, destination, ifnull(template, '')) DO NOTHING";

/// Marks the oldest open row of a (destination, workspace, run) as the one that may be claimed, and no other.
/// Left to itself the planner may prefer the index over states, which grows with history: hence `INDEXED BY`.
pub const MARK_HEAD: &str = "
    UPDATE deliveries INDEXED BY deliveries_open SET head = NOT head
    WHERE destination = ?1 AND workspace = ?2 AND run = ?3 AND state IN ('pending', 'in_flight', 'unknown')
      AND head <> (number = (
        SELECT oldest.number FROM deliveries AS oldest INDEXED BY deliveries_open
        WHERE oldest.destination = ?1 AND oldest.workspace = ?2 AND oldest.run = ?3
          AND oldest.state IN ('pending', 'in_flight', 'unknown')
        ORDER BY oldest.sequence, oldest.number LIMIT 1))";

/// The next destination, in order of name, with something to claim, and when. One seek, however long its queue.
pub const NEXT_DESTINATION: &str = "
    SELECT destination, next_at FROM deliveries INDEXED BY deliveries_due
    WHERE head = 1 AND state IN ('pending', 'unknown') AND destination > ?1
    ORDER BY destination, next_at LIMIT 1";

/// What a destination has waited for longest.
pub const NEXT_CLAIMABLE: &str = "
    SELECT number, next_at FROM deliveries INDEXED BY deliveries_due
    WHERE head = 1 AND state IN ('pending', 'unknown') AND destination = ?1
    ORDER BY next_at LIMIT 1";

pub const CLAIM: &str = "
    UPDATE deliveries SET state = 'in_flight', attempt = attempt + 1 WHERE number = ?1
    RETURNING id, destination, template, attempt, created_at,
      (SELECT c.json FROM changes AS c
       WHERE c.workspace = deliveries.workspace AND c.run = deliveries.run AND c.sequence = deliveries.sequence)";

/// A row whose change can't be read.
pub const BURY: &str = "
    UPDATE deliveries SET state = 'dead', settled_at = ?2, reason = 'its change can''t be read', head = 0
    WHERE number = ?1
    RETURNING destination, workspace, run";

pub const INSERT_ATTEMPT: &str = "INSERT INTO attempts (delivery, attempt, started_at) VALUES (?1, ?2, ?3)";

/// Also when the row was discarded meanwhile: what happened on the wire is kept.
pub const SETTLE_ATTEMPT: &str = "
    UPDATE attempts SET started_at = ?3, ended_at = ?4, outcome = ?5, reason = ?6
    WHERE delivery = (SELECT number FROM deliveries WHERE id = ?1) AND attempt = ?2 AND outcome IS NULL";

pub const SETTLE: &str = "
    UPDATE deliveries SET state = ?3, next_at = ifnull(?4, next_at), settled_at = ?5, reason = ?6, message_id = ?7,
      head = CASE WHEN ?5 IS NULL THEN head ELSE 0 END
    WHERE id = ?1 AND attempt = ?2 AND state = 'in_flight'
    RETURNING destination, workspace, run";

pub const RETRY: &str = "
    UPDATE deliveries SET state = 'pending', next_at = ?2, settled_at = NULL WHERE id = ?1 AND state = 'dead'
    RETURNING destination, workspace, run";

pub const DISCARD: &str = "
    UPDATE deliveries SET state = 'superseded', settled_at = ?2, reason = 'discarded', head = 0
    WHERE id = ?1 AND state IN ('pending', 'in_flight', 'unknown', 'dead')
    RETURNING destination, workspace, run";

pub const DELIVERY_COLUMNS: &str = "
    SELECT d.id, d.destination, d.template, d.attempt, d.created_at, c.json,
      d.state, d.next_at, d.reason, d.settled_at, d.number
    FROM deliveries AS d JOIN changes AS c ON c.workspace = d.workspace AND c.run = d.run AND c.sequence = d.sequence";

/// What follows [`DELIVERY_COLUMNS`] to find the rows whose id begins with ?1.
pub const BY_ID: &str = "WHERE d.id >= ?1 AND d.id < ?1 || '~' ORDER BY d.id LIMIT 2";

pub const ATTEMPTS: &str = "
    SELECT attempt, started_at, ended_at, outcome, reason FROM attempts WHERE delivery = ?1 ORDER BY attempt";

// --------------------------------------------------------------------------------------------- recovery, retention

pub const IN_FLIGHT_BY_DESTINATION: &str = "
    SELECT destination, count(*) FROM deliveries WHERE state = 'in_flight' GROUP BY destination ORDER BY destination";

pub const RECOVER_ATTEMPTS: &str = "
    UPDATE attempts SET outcome = 'unknown', reason = ?1
    WHERE outcome IS NULL AND (delivery, attempt) IN (SELECT number, attempt FROM deliveries WHERE state = 'in_flight')";

pub const RECOVER_DELIVERIES: &str = "
    UPDATE deliveries SET state = 'unknown', reason = ?1 WHERE state = 'in_flight'";

pub const FIND_OLD_DELIVERIES: &str = "
    SELECT number FROM deliveries
    WHERE state IN ('delivered', 'dead', 'superseded') AND settled_at < ?1 AND number > ?2 ORDER BY number LIMIT ?3";

/// Asked again: a dead one may have been retried since.
pub const DELETE_OLD_DELIVERY: &str = "
    DELETE FROM deliveries
    WHERE number = ?1 AND state IN ('delivered', 'dead', 'superseded') AND settled_at < ?2";

pub const FIND_OLD_CHANGES: &str = "
    SELECT rowid FROM changes AS c
    WHERE at < ?1 AND rowid > ?2 AND NOT EXISTS (
      SELECT 1 FROM deliveries AS d WHERE d.run = c.run AND d.workspace = c.workspace AND d.sequence = c.sequence)
    ORDER BY rowid LIMIT ?3";

/// Asked again: a delivery may have been recorded since.
pub const DELETE_OLD_CHANGE: &str = "
    DELETE FROM changes
    WHERE rowid = ?1 AND at < ?2 AND NOT EXISTS (
      SELECT 1 FROM deliveries AS d
      WHERE d.run = changes.run AND d.workspace = changes.workspace AND d.sequence = changes.sequence)";

// --------------------------------------------------------------------------------------------------------- figures

pub const COUNT_BY_STATE: &str = "SELECT state, count(*) FROM deliveries GROUP BY state";

/// Numbers grow in order of recording, so three seeks find the oldest.
pub const OLDEST_OPEN: &str = "
    SELECT min(created_at) FROM deliveries WHERE number IN (
      (SELECT min(number) FROM deliveries WHERE state = 'pending'),
      (SELECT min(number) FROM deliveries WHERE state = 'in_flight'),
      (SELECT min(number) FROM deliveries WHERE state = 'unknown'))";

pub const COUNT_CHANGES: &str = "SELECT count(*) FROM changes";

pub const COUNT_SUBSCRIPTIONS: &str = "SELECT count(*) FROM subscriptions";

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;

    fn migrated() -> Connection {
        let mut connection = Connection::open_in_memory().unwrap();
        super::super::open::migrate(&mut connection).unwrap();
        connection
    }

    fn plan(connection: &Connection, sql: &str) -> Vec<String> {
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let arguments = vec![rusqlite::types::Null; statement.parameter_count()];
        let rows = statement.query_map(rusqlite::params_from_iter(arguments), |row| row.get(3)).unwrap();
        rows.map(Result::unwrap).collect()
    }

    #[test]
    fn every_statement_fits_the_schema() {
        let connection = migrated();
        let by_id = format!("{DELIVERY_COLUMNS} {BY_ID}");
        for sql in [
            DATA_VERSION,
            FIND_SUBSCRIPTION,
            INSERT_SUBSCRIPTION,
            DELETE_SUBSCRIPTION,
            ALL_SUBSCRIPTIONS,
            INSERT_RUN_OR_BUMP,
            RUN_VERSION,
            UPSERT_RUN,
            DELETE_RUN,
            RUN,
            ALL_RUNS,
            UPSERT_WORKSPACE,
            ALL_WORKSPACES,
            INSERT_CHANGE,
            INSERT_DELIVERY,
            MARK_HEAD,
            NEXT_DESTINATION,
            NEXT_CLAIMABLE,
            CLAIM,
            INSERT_ATTEMPT,
            SETTLE_ATTEMPT,
            SETTLE,
            RETRY,
            DISCARD,
            DELIVERY_COLUMNS,
            &by_id,
            ATTEMPTS,
            IN_FLIGHT_BY_DESTINATION,
            RECOVER_ATTEMPTS,
            RECOVER_DELIVERIES,
            FIND_OLD_DELIVERIES,
            DELETE_OLD_DELIVERY,
            FIND_OLD_CHANGES,
            DELETE_OLD_CHANGE,
            COUNT_BY_STATE,
            OLDEST_OPEN,
            COUNT_CHANGES,
            COUNT_SUBSCRIPTIONS,
        ] {
            connection.prepare(sql).unwrap_or_else(|error| panic!("{error}\n{sql}"));
        }
    }

    /// History grows for ever, so what runs for each message may only seek.
    #[test]
    fn what_runs_for_each_message_never_scans() {
        let connection = migrated();
        let by_id = format!("{DELIVERY_COLUMNS} {BY_ID}");
        for sql in [
            FIND_SUBSCRIPTION,
            RUN_VERSION,
            RUN,
            DELETE_RUN,
            MARK_HEAD,
            NEXT_DESTINATION,
            NEXT_CLAIMABLE,
            CLAIM,
            SETTLE_ATTEMPT,
            SETTLE,
            RETRY,
            DISCARD,
            &by_id,
            ATTEMPTS,
            OLDEST_OPEN,
            DELETE_OLD_DELIVERY,
            DELETE_OLD_CHANGE,
        ] {
            let plan = plan(&connection, sql);
            let slow = plan.iter().any(|step| step.starts_with("SCAN") || step.contains("TEMP B-TREE"));
            assert!(!slow, "this reads more than it needs:\n{sql}\n{plan:#?}");
        }
        for (sql, index) in [
            (NEXT_DESTINATION, "deliveries_due (destination>?)"),
            (NEXT_CLAIMABLE, "deliveries_due (destination=?)"),
            (MARK_HEAD, "deliveries_open (destination=? AND workspace=? AND run=?)"),
        ] {
            let plan = plan(&connection, sql);
            assert!(plan.iter().all(|step| !step.starts_with("SEARCH") || step.contains(index)), "{sql}\n{plan:#?}");
        }
    }
}
