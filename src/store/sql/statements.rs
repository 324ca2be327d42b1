//! Every statement, as a constant, in words that SQLite and PostgreSQL both know; PostgreSQL leaves out `INDEXED BY`.
//! A test prepares each against SQLite's schema and looks at the plans of those that run for every message; that
//! PostgreSQL understands them too, is for the contract that both keep.

// ------------------------------------------------------------------------------------------------ the group commit

pub const SAVEPOINT: &str = "SAVEPOINT operation";
pub const RELEASE: &str = "RELEASE operation";
pub const ROLLBACK_TO: &str = "ROLLBACK TO operation";

// --------------------------------------------------------------------------------------------------- subscriptions

/// What stands in the column `run` for the next run.
pub const NEXT: &str = "*";

pub const FIND_SUBSCRIPTION: &str = "
    SELECT json FROM subscriptions
    WHERE workspace = ?1 AND coalesce(run, '') = coalesce(?2, '') AND destination = ?3
      AND coalesce(template, '') = coalesce(?4, '')";

pub const INSERT_SUBSCRIPTION: &str = "
    INSERT INTO subscriptions (id, workspace, run, destination, template, json, created_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";

pub const SUBSCRIPTION: &str = "SELECT json FROM subscriptions WHERE id = ?1";

pub const WAITING_SUBSCRIPTIONS: &str = "
    SELECT json FROM subscriptions WHERE workspace = ?1 AND coalesce(run, '') = '*' ORDER BY id";

pub const AMEND_SUBSCRIPTION: &str = "UPDATE subscriptions SET run = ?2, json = ?3 WHERE id = ?1";

pub const DELETE_SUBSCRIPTION: &str = "DELETE FROM subscriptions WHERE id = ?1";

pub const ALL_SUBSCRIPTIONS: &str = "SELECT json FROM subscriptions ORDER BY created_at, id";

// ------------------------------------------------------------------------------------------------------------ seen

pub const FORGET_SEEN: &str = "DELETE FROM seen WHERE until < ?1";

pub const INSERT_SEEN: &str = "INSERT INTO seen (key, until) VALUES (?1, ?2) ON CONFLICT (key) DO NOTHING";

// ------------------------------------------------------------------------------------------------------------ runs

/// A run the store knows keeps its state: only polls move it.
pub const INSERT_RUN_OR_BUMP: &str = "
    INSERT INTO runs (workspace, run, version, state) VALUES (?1, ?2, ?3, ?4)
    ON CONFLICT (workspace, run) DO UPDATE SET version = runs.version + 1";

pub const BUMP_RUN: &str = "UPDATE runs SET version = version + 1 WHERE workspace = ?1 AND run = ?2";

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

/// A poll that does not say when it was does not forget it.
pub const UPSERT_WORKSPACE: &str = "
    INSERT INTO workspaces (key, baseline_at, horizon, seen_at) VALUES (?1, ?2, ?3, ?4)
    ON CONFLICT (key) DO UPDATE SET baseline_at = excluded.baseline_at, horizon = excluded.horizon,
      seen_at = coalesce(excluded.seen_at, workspaces.seen_at)";

pub const SAW_WORKSPACE: &str = "UPDATE workspaces SET seen_at = ?2 WHERE key = ?1";

pub const ALL_WORKSPACES: &str = "SELECT key, baseline_at, horizon, seen_at FROM workspaces ORDER BY key";

// ---------------------------------------------------------------------------------------------- changes, deliveries

pub const INSERT_CHANGE: &str = "
    INSERT INTO changes (workspace, run, sequence, at, json) VALUES (?1, ?2, ?3, ?4, ?5)
    ON CONFLICT (workspace, run, sequence) DO NOTHING";

pub const LAST_NOTICE: &str = "
    SELECT sequence, json FROM changes WHERE workspace = '' AND run = ?1 ORDER BY sequence DESC LIMIT 1";

pub const INSERT_DELIVERY: &str = "
    INSERT INTO deliveries
      (id, workspace, run, sequence, destination, template, subscription, state, next_at, created_at, urgent, missed)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'pending', ?8, ?8, ?9, ?10)
    ON CONFLICT (run, workspace, sequence, destination, coalesce(template, '')) DO NOTHING";

pub const COUNT_OWED: &str = "UPDATE ledger SET owed = owed + ?1, merged = merged + ?2 WHERE id = 1";

/// The oldest open row of a (destination, workspace, run), and the lane of the queue behind it. Left to itself the
/// planner may prefer the index over states, which grows with history: hence `INDEXED BY`.
pub const QUEUE_HEAD: &str = "
    SELECT number, 2 - (
      SELECT max(behind.urgent) FROM deliveries AS behind INDEXED BY deliveries_open
      WHERE behind.destination = ?1 AND behind.workspace = ?2 AND behind.run = ?3
        AND behind.state IN ('pending', 'in_flight', 'unknown'))
    FROM deliveries INDEXED BY deliveries_open
    WHERE destination = ?1 AND workspace = ?2 AND run = ?3 AND state IN ('pending', 'in_flight', 'unknown')
    ORDER BY sequence, number LIMIT 1";

/// Marks the row ?4 as the one that may be claimed, in lane ?5, and no other one of its queue.
pub const MARK_HEAD: &str = "
    UPDATE deliveries INDEXED BY deliveries_open
      SET head = CASE WHEN number = ?4 THEN 1 ELSE 0 END, lane = CASE WHEN number = ?4 THEN ?5 ELSE 2 END
    WHERE destination = ?1 AND workspace = ?2 AND run = ?3 AND state IN ('pending', 'in_flight', 'unknown')
      AND (head <> CASE WHEN number = ?4 THEN 1 ELSE 0 END OR lane <> CASE WHEN number = ?4 THEN ?5 ELSE 2 END)";

// ---------------------------------------------------------------------------------------------------------- claims

/// The destinations that something waits for and that have nothing in flight, by name: of each lane the row whose turn
/// it is, when that is due, and what is remembered of the destination. Its turn has what was due longest at ?1, else what
/// is due after ?2 only, else what is due next. A few seeks for each, however long its queue.
pub const TURNS: &str = "
    WITH RECURSIVE owed (destination) AS (
      SELECT * FROM (
        SELECT destination FROM deliveries INDEXED BY deliveries_due
        WHERE head = 1 AND state IN ('pending', 'unknown') AND carrier IS NULL
        ORDER BY destination LIMIT 1) AS first
      UNION ALL
      SELECT (
        SELECT d.destination FROM deliveries AS d INDEXED BY deliveries_due
        WHERE d.head = 1 AND d.state IN ('pending', 'unknown') AND d.carrier IS NULL
          AND d.destination > owed.destination
        ORDER BY d.destination LIMIT 1)
      FROM owed WHERE owed.destination IS NOT NULL),
    turns (destination, lane, number) AS MATERIALIZED (
      SELECT owed.destination, lanes.lane, coalesce((
        SELECT d.number FROM deliveries AS d INDEXED BY deliveries_due
        WHERE d.head = 1 AND d.state IN ('pending', 'unknown') AND d.carrier IS NULL
          AND d.destination = owed.destination AND d.lane = lanes.lane AND d.next_at <= ?1
        ORDER BY d.next_at, d.number LIMIT 1), (
        SELECT d.number FROM deliveries AS d INDEXED BY deliveries_due
        WHERE d.head = 1 AND d.state IN ('pending', 'unknown') AND d.carrier IS NULL
          AND d.destination = owed.destination AND d.lane = lanes.lane AND d.next_at > ?2
        ORDER BY d.next_at, d.number LIMIT 1), (
        SELECT d.number FROM deliveries AS d INDEXED BY deliveries_due
        WHERE d.head = 1 AND d.state IN ('pending', 'unknown') AND d.carrier IS NULL
          AND d.destination = owed.destination AND d.lane = lanes.lane AND d.next_at > ?1
        ORDER BY d.next_at, d.number LIMIT 1))
      FROM owed CROSS JOIN (SELECT 0 AS lane UNION ALL SELECT 1 UNION ALL SELECT 2) AS lanes
      WHERE owed.destination IS NOT NULL AND NOT EXISTS (
        SELECT 1 FROM deliveries AS sent INDEXED BY deliveries_in_flight
        WHERE sent.state = 'in_flight' AND sent.destination = owed.destination))
    SELECT turns.destination, turns.lane, turns.number,
      (SELECT d.next_at FROM deliveries AS d WHERE d.number = turns.number), known.place
    FROM turns LEFT JOIN destinations AS known ON known.destination = turns.destination
    WHERE turns.number IS NOT NULL ORDER BY turns.destination, turns.lane";

/// Of a bot's rooms, whose names begin like its own.
pub const COUNT_IN_FLIGHT: &str = "
    SELECT count(*) FROM deliveries INDEXED BY deliveries_in_flight
    WHERE state = 'in_flight' AND destination >= ?1 AND destination < ?1 || '~'";

/// What is known of a row before its message is made: the columns of `Head::of_row`.
pub const HEAD: &str = "
    SELECT number, destination, workspace, run, template, folding, wire_id, attempt, created_at, unknown_at,
      urgent, missed,
      state = 'pending' AND unknown_at IS NULL AND alone = 0 AND carrier IS NULL AND workspace <> '' AND NOT EXISTS (
        SELECT 1 FROM deliveries AS told INDEXED BY deliveries_bound
        WHERE told.carrier = deliveries.number AND told.state = 'pending'),
      alone = 2
    FROM deliveries WHERE number = ?1";

/// A queue from its head on, and whether each row may be told by the head's message.
pub const PREFIX: &str = "
    SELECT number, workspace, created_at, urgent, missed, attempt, unknown_at,
      state = 'pending' AND unknown_at IS NULL AND alone = 0 AND carrier IS NULL AND workspace <> ''
      AND coalesce(template, '') = coalesce(?4, '')
      AND (folding IS NULL OR NOT EXISTS (
        SELECT 1 FROM deliveries AS told INDEXED BY deliveries_bound
        WHERE told.carrier = deliveries.number AND told.state = 'pending'))
    FROM deliveries INDEXED BY deliveries_open
    WHERE destination = ?1 AND workspace = ?2 AND run = ?3 AND state IN ('pending', 'in_flight', 'unknown')
    ORDER BY sequence, number LIMIT ?5";

/// How many rows beside ?2 a digest may tell, counted up to ?3.
pub const COUNT_FOLDABLE: &str = "
    SELECT count(*) FROM (
      SELECT number FROM deliveries INDEXED BY deliveries_foldable
      WHERE state = 'pending' AND unknown_at IS NULL AND alone = 0 AND carrier IS NULL AND workspace <> ''
        AND destination = ?1 AND number <> ?2
        AND (folding IS NULL OR NOT EXISTS (
          SELECT 1 FROM deliveries AS told INDEXED BY deliveries_bound
          WHERE told.carrier = deliveries.number AND told.state = 'pending'))
      LIMIT ?3) AS foldable";

/// The queues whose heads a digest of ?3 may tell: those with something urgent first, then the oldest.
pub const FOLDABLE_QUEUES: &str = "
    SELECT workspace, run FROM deliveries INDEXED BY deliveries_foldable
    WHERE state = 'pending' AND unknown_at IS NULL AND alone = 0 AND carrier IS NULL AND workspace <> ''
      AND destination = ?1 AND head = 1 AND coalesce(template, '') = coalesce(?2, '') AND number <> ?3
      AND (folding IS NULL OR NOT EXISTS (
        SELECT 1 FROM deliveries AS told INDEXED BY deliveries_bound
        WHERE told.carrier = deliveries.number AND told.state = 'pending'))
    ORDER BY lane, number LIMIT ?4";

pub const DELIVERY: &str = "
    SELECT d.id, d.destination, d.template, d.attempt, d.created_at, d.unknown_at, d.workspace, c.json, d.tries,
      d.alone = 2
    FROM deliveries AS d JOIN changes AS c ON c.workspace = d.workspace AND c.run = d.run AND c.sequence = d.sequence
    WHERE d.number = ?1";

pub const BIND: &str = "
    UPDATE deliveries SET carrier = ?2, folding = NULL,
      wire_id = CASE WHEN folding IS NOT NULL AND attempt > 0 THEN '' ELSE wire_id END
    WHERE number = ?1";

/// The rows that a message tells beside its own, in order of recording.
pub const BOUND: &str = "
    SELECT number FROM deliveries INDEXED BY deliveries_bound WHERE carrier = ?1 AND state = 'pending' ORDER BY number";

pub const CLAIM: &str = "
    UPDATE deliveries SET state = 'in_flight', attempt = attempt + 1, folding = ?2, wire_id = ?3, owner = ?4
    WHERE number = ?1";

pub const INSERT_ATTEMPT: &str = "INSERT INTO attempts (delivery, attempt, started_at) VALUES (?1, ?2, ?3)";

pub const PLACE: &str = "SELECT place FROM destinations WHERE destination = ?1";

pub const PUT_PLACE: &str = "
    INSERT INTO destinations (destination, place) VALUES (?1, ?2)
    ON CONFLICT (destination) DO UPDATE SET place = excluded.place";

pub const DROP_PLACE: &str = "DELETE FROM destinations WHERE destination = ?1";

// -------------------------------------------------------------------------------------------------- how a row ends

pub const SETTLE_ATTEMPT: &str = "
    UPDATE attempts SET started_at = ?3, ended_at = ?4, outcome = ?5, reason = ?6
    WHERE delivery = ?1 AND attempt = ?2 AND outcome IS NULL";

pub const BY_EXACT_ID: &str = "
    SELECT number, destination, workspace, run, state, attempt FROM deliveries WHERE id = ?1";

/// To be tried again, in the state ?2.
pub const AGAIN: &str = "
    UPDATE deliveries SET state = ?2, next_at = ?3, reason = ?4, unknown_at = coalesce(unknown_at, ?5), tries = tries + ?6
    WHERE number = ?1";

/// `delivered`, `dead` or `superseded`, and nobody's any more.
pub const END: &str = "
    UPDATE deliveries SET state = ?2, settled_at = ?3, reason = nullif(?4, ''), message_id = coalesce(?5, message_id),
      carrier = NULL, head = 0
    WHERE number = ?1
    RETURNING destination, workspace, run";

/// Its message was refused, and it leaves by itself from now on.
pub const ALONE: &str = "
    UPDATE deliveries SET state = 'pending', next_at = ?2, reason = ?3, alone = CASE WHEN alone = 2 THEN 2 ELSE 1 END WHERE number = ?1";

/// Its message tells nothing but itself from now on, and so under a new id.
pub const UNFOLD: &str = "
    UPDATE deliveries SET folding = NULL, wire_id = '', alone = CASE WHEN unknown_at IS NULL THEN alone ELSE 2 END WHERE number = ?1";

/// What ?1 told was told.
pub const END_BOUND: &str = "
    UPDATE deliveries INDEXED BY deliveries_bound SET state = 'superseded', settled_at = ?2, message_id = ?3, head = 0
    WHERE carrier = ?1 AND state = 'pending'
    RETURNING destination, workspace, run";

/// What ?1 was to tell waits for itself again; it may have been told where ?1 may have.
pub const FREE_BOUND: &str = "
    UPDATE deliveries INDEXED BY deliveries_bound SET carrier = NULL,
      unknown_at = lead.unknown_at, alone = CASE WHEN lead.unknown_at IS NULL THEN deliveries.alone ELSE 2 END
    FROM (SELECT unknown_at FROM deliveries WHERE number = ?1) AS lead
    WHERE deliveries.carrier = ?1 AND deliveries.state = 'pending'";

/// Another one's message that is to tell it is under way, or may have arrived.
pub const MAY_BE_TOLD: &str = "
    SELECT 1 FROM deliveries AS told JOIN deliveries AS lead ON lead.number = told.carrier
    WHERE told.number = ?1 AND (lead.state <> 'pending' OR lead.unknown_at IS NOT NULL)";

/// The message that was to tell a discarded row has other words now, and so another id.
pub const UNFOLD_FROM: &str = "
    UPDATE deliveries SET wire_id = ''
    WHERE number = (SELECT told.carrier FROM deliveries AS told WHERE told.number = ?1)
      AND attempt > 0";

pub const RETRY: &str = "
    UPDATE deliveries SET state = 'pending', next_at = ?2, settled_at = NULL, tries = 0 WHERE number = ?1";

/// Everything that waits for a destination is due. More names than needed, so that the index is found.
pub const MAKE_DUE: &str = "
    UPDATE deliveries INDEXED BY deliveries_open SET next_at = ?2
    WHERE destination = ?1 AND state IN ('pending', 'in_flight', 'unknown') AND state <> 'in_flight' AND next_at > ?2";

/// The destinations from ?1 to ?2, both included, to which something is owed.
pub const OPEN_BETWEEN: &str = "
    SELECT destination, count(*) FROM deliveries INDEXED BY deliveries_open
    WHERE state IN ('pending', 'in_flight', 'unknown') AND destination >= ?1 AND destination <= ?2
    GROUP BY destination";

// ----------------------------------------------------------------------------------------------------------- reads

pub const OPEN_BY_DESTINATION: &str = "
    SELECT destination, count(*) FROM deliveries INDEXED BY deliveries_open
    WHERE state IN ('pending', 'in_flight', 'unknown') GROUP BY destination";

pub const ALL_PLACES: &str = "SELECT destination, place FROM destinations";

pub const DELIVERY_COLUMNS: &str = "
    SELECT d.id, d.destination, d.template, d.attempt, d.created_at, d.unknown_at, d.workspace, c.json,
      d.tries, d.alone = 2, d.state, d.next_at, d.reason, d.settled_at, d.subscription, lead.id, d.folding, d.number
    FROM deliveries AS d JOIN changes AS c ON c.workspace = d.workspace AND c.run = d.run AND c.sequence = d.sequence
    LEFT JOIN deliveries AS lead ON lead.number = d.carrier";

/// What follows [`DELIVERY_COLUMNS`] to find the rows whose id begins with ?1.
pub const BY_ID: &str = "WHERE d.id >= ?1 AND d.id < ?1 || '~' ORDER BY d.id LIMIT 2";

/// What follows [`DELIVERY_COLUMNS`] to find the rows whose id ends with ?1.
pub const BY_END_OF_ID: &str = "WHERE substr(d.id, length(d.id) - length(?1) + 1) = ?1 LIMIT 2";

/// What follows [`DELIVERY_COLUMNS`] to find what a change is owed.
pub const OF_CHANGE: &str = "WHERE d.run = ?2 AND d.workspace = ?1 AND d.sequence = ?3 ORDER BY d.number";

pub const NEWEST_CHANGES: &str = "
    SELECT sequence, json FROM changes WHERE workspace = ?1 AND run = ?2 ORDER BY sequence DESC LIMIT ?3";

pub const ATTEMPTS: &str = "
    SELECT attempt, started_at, ended_at, outcome, reason FROM attempts WHERE delivery = ?1 ORDER BY attempt";

// --------------------------------------------------------------------------------------------- recovery, retention

pub const IN_FLIGHT_BY_DESTINATION: &str = "
    SELECT destination, count(*) FROM deliveries INDEXED BY deliveries_in_flight
    WHERE state = 'in_flight' AND owner = ?1 GROUP BY destination ORDER BY destination";

pub const ALL_IN_FLIGHT: &str = "
    SELECT number, attempt, id FROM deliveries INDEXED BY deliveries_in_flight
    WHERE state = 'in_flight' AND owner = ?1";

/// Nothing of it left.
pub const RELEASE_ATTEMPT: &str = "
    UPDATE attempts SET ended_at = started_at, outcome = 'retry', reason = ?3
    WHERE delivery = ?1 AND attempt = ?2 AND outcome IS NULL";

pub const RELEASE_DELIVERY: &str = "
    UPDATE deliveries SET state = CASE WHEN unknown_at IS NULL THEN 'pending' ELSE 'unknown' END, reason = ?2 WHERE number = ?1";

pub const RECOVER_ATTEMPTS: &str = "
    UPDATE attempts SET outcome = 'unknown', reason = ?1
    WHERE outcome IS NULL AND (delivery, attempt) IN (
      SELECT number, attempt FROM deliveries INDEXED BY deliveries_in_flight WHERE state = 'in_flight' AND owner = ?2)";

pub const RECOVER_DELIVERIES: &str = "
    UPDATE deliveries INDEXED BY deliveries_in_flight
    SET state = 'unknown', reason = ?1, unknown_at = coalesce(unknown_at, (
      SELECT a.started_at FROM attempts AS a WHERE a.delivery = deliveries.number AND a.attempt = deliveries.attempt))
    WHERE state = 'in_flight' AND owner = ?2";

/// The nearest to now that a store without a clock knows.
pub const LAST_RECORDED: &str = "SELECT at FROM changes ORDER BY rowid DESC LIMIT 1";

/// What is bound to another one ends with that one, and what is under way ends soon.
pub const FIND_EXPIRED: &str = "
    SELECT number FROM deliveries
    WHERE state IN ('pending', 'unknown') AND carrier IS NULL AND created_at < ?1 AND number > ?2
    ORDER BY number LIMIT ?3";

pub const IS_EXPIRED: &str = "
    SELECT 1 FROM deliveries
    WHERE number = ?1 AND state IN ('pending', 'unknown') AND carrier IS NULL AND created_at < ?2";

pub const FIND_OLD_DELIVERIES: &str = "
    SELECT number FROM deliveries
    WHERE state IN ('delivered', 'dead', 'superseded') AND settled_at < ?1 AND number > ?2 ORDER BY number LIMIT ?3";

/// Asked again: a dead one may have been retried since.
pub const DELETE_OLD_DELIVERY: &str = "
    DELETE FROM deliveries
    WHERE number = ?1 AND state IN ('delivered', 'dead', 'superseded') AND settled_at < ?2
    RETURNING state, carrier IS NOT NULL";

/// Goes with the row that told it: numbers are used again.
pub const DELETE_TOLD: &str = "
    DELETE FROM deliveries INDEXED BY deliveries_told WHERE state = 'superseded' AND carrier = ?1";

pub const COUNT_DELETED: &str = "
    UPDATE ledger SET delivered = delivered + ?1, folded = folded + ?2, suppressed = suppressed + ?3, dead = dead + ?4
    WHERE id = 1";

/// The newest notice of a subject stays: what it began was told.
pub const FIND_OLD_CHANGES: &str = "
    SELECT rowid FROM changes AS c
    WHERE at < ?1 AND rowid > ?2 AND NOT EXISTS (
      SELECT 1 FROM deliveries AS d WHERE d.run = c.run AND d.workspace = c.workspace AND d.sequence = c.sequence)
    AND (c.workspace <> '' OR EXISTS (
      SELECT 1 FROM changes AS n WHERE n.workspace = '' AND n.run = c.run AND n.sequence > c.sequence))
    ORDER BY rowid LIMIT ?3";

/// Asked again: a delivery may have been recorded since.
pub const DELETE_OLD_CHANGE: &str = "
    DELETE FROM changes
    WHERE rowid = ?1 AND at < ?2 AND NOT EXISTS (
      SELECT 1 FROM deliveries AS d
      WHERE d.run = changes.run AND d.workspace = changes.workspace AND d.sequence = changes.sequence)";

// --------------------------------------------------------------------------------------------------------- figures

pub const COUNT_BY_STATE: &str = "SELECT state, count(*) FROM deliveries GROUP BY state ORDER BY state";

/// Of the superseded ones.
pub const COUNT_TOLD: &str = "
    SELECT count(*) FROM deliveries INDEXED BY deliveries_told WHERE carrier IS NOT NULL AND state = 'superseded'";

pub const LEDGER: &str = "SELECT owed, merged, delivered, folded, suppressed, dead FROM ledger WHERE id = 1";

/// Numbers grow in order of recording, so three seeks find the oldest.
pub const OLDEST_OPEN: &str = "
    SELECT min(created_at) FROM deliveries WHERE number IN (
      (SELECT min(number) FROM deliveries WHERE state = 'pending'),
      (SELECT min(number) FROM deliveries WHERE state = 'in_flight'),
      (SELECT min(number) FROM deliveries WHERE state = 'unknown'))";

pub const COUNT_CHANGES: &str = "SELECT count(*) FROM changes";

pub const COUNT_SUBSCRIPTIONS: &str = "SELECT count(*) FROM subscriptions";

pub const AUDIT_END: &str = "SELECT number, hash FROM audit_ends WHERE name = ?1";

pub const PUT_AUDIT_END: &str = "UPDATE audit_ends SET number = ?2, hash = ?3 WHERE name = ?1";

pub const INSERT_AUDIT: &str = "
    INSERT INTO audit (number, at, person, room, action, decision, reason, count, hash)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";

pub const AUDIT_COLUMNS: &str = "SELECT number, at, person, room, action, decision, reason, count, hash FROM audit";

pub const OLDEST_AUDITED: &str = "SELECT number, at, hash FROM audit ORDER BY number LIMIT ?1";

pub const DELETE_AUDITED: &str = "DELETE FROM audit WHERE number <= ?1";

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;

    fn migrated() -> Connection {
        let mut connection = Connection::open_in_memory().unwrap();
        crate::store::sqlite::migrate(&mut connection).unwrap();
        connection
    }

    fn plan(connection: &Connection, sql: &str) -> Vec<String> {
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let arguments = vec![rusqlite::types::Null; statement.parameter_count()];
        let rows = statement.query_map(rusqlite::params_from_iter(arguments), |row| row.get(3)).unwrap();
        rows.map(Result::unwrap).collect()
    }

    /// What runs for each message or person, and may only seek: history grows for ever.
    #[rustfmt::skip]
    const SEEKING: &[&str] = &[
        FIND_SUBSCRIPTION, FORGET_SEEN, RUN_VERSION, RUN, DELETE_RUN, SAW_WORKSPACE, LAST_NOTICE, COUNT_OWED, QUEUE_HEAD,
        MARK_HEAD, COUNT_IN_FLIGHT, HEAD, PREFIX, FOLDABLE_QUEUES, DELIVERY, BIND,
        BOUND, CLAIM, PLACE, DROP_PLACE, SETTLE_ATTEMPT, BY_EXACT_ID, AGAIN, END, ALONE, UNFOLD, END_BOUND,
        FREE_BOUND, UNFOLD_FROM, MAY_BE_TOLD, RETRY, MAKE_DUE, OPEN_BETWEEN, NEWEST_CHANGES, ATTEMPTS, OLDEST_OPEN, IS_EXPIRED,
        DELETE_OLD_DELIVERY, DELETE_TOLD, COUNT_DELETED, DELETE_OLD_CHANGE, LEDGER, AUDIT_END, PUT_AUDIT_END,
        DELETE_AUDITED,
    ];

    /// All others.
    #[rustfmt::skip]
    const OTHERS: &[&str] = &[
        TURNS, ALL_IN_FLIGHT, RELEASE_ATTEMPT, RELEASE_DELIVERY,
        INSERT_SUBSCRIPTION, SUBSCRIPTION, WAITING_SUBSCRIPTIONS, AMEND_SUBSCRIPTION, BUMP_RUN, INSERT_SEEN, DELETE_SUBSCRIPTION, ALL_SUBSCRIPTIONS, INSERT_RUN_OR_BUMP, UPSERT_RUN,
        ALL_RUNS, UPSERT_WORKSPACE, ALL_WORKSPACES, INSERT_CHANGE, INSERT_DELIVERY, COUNT_FOLDABLE, INSERT_ATTEMPT,
        PUT_PLACE, OPEN_BY_DESTINATION, ALL_PLACES, DELIVERY_COLUMNS, IN_FLIGHT_BY_DESTINATION,
        RECOVER_ATTEMPTS, RECOVER_DELIVERIES, LAST_RECORDED, FIND_EXPIRED, FIND_OLD_DELIVERIES,
        FIND_OLD_CHANGES, COUNT_BY_STATE, COUNT_TOLD, COUNT_CHANGES, COUNT_SUBSCRIPTIONS, INSERT_AUDIT, AUDIT_COLUMNS,
        OLDEST_AUDITED,
    ];

    fn with_endings() -> [String; 3] {
        [BY_ID, BY_END_OF_ID, OF_CHANGE].map(|ending| format!("{DELIVERY_COLUMNS} {ending}"))
    }

    #[test]
    fn every_statement_fits_the_schema() {
        let connection = migrated();
        let endings = with_endings();
        for sql in SEEKING.iter().chain(OTHERS).copied().chain(endings.iter().map(String::as_str)) {
            connection.prepare(sql).unwrap_or_else(|error| panic!("{error}\n{sql}"));
        }
    }

    #[test]
    fn what_runs_for_each_message_never_scans() {
        let connection = migrated();
        let [by_id, ..] = with_endings();
        for sql in SEEKING.iter().copied().chain([by_id.as_str()]) {
            let plan = plan(&connection, sql);
            let slow = plan.iter().any(|step| step.starts_with("SCAN") || step.contains("TEMP B-TREE"));
            assert!(!slow, "this reads more than it needs:\n{sql}\n{plan:#?}");
        }
        let plan_of_count = plan(&connection, COUNT_FOLDABLE);
        assert!(
            plan_of_count.iter().any(|step| step.contains("deliveries_foldable (destination=?)")),
            "it looks at more than one destination: {plan_of_count:#?}"
        );
        for (sql, index) in [
            (QUEUE_HEAD, "deliveries_open (destination=? AND workspace=? AND run=?)"),
            (MARK_HEAD, "deliveries_open (destination=? AND workspace=? AND run=?)"),
            (BOUND, "deliveries_bound (carrier=?)"),
            (END_BOUND, "deliveries_bound (carrier=?)"),
            (MAKE_DUE, "deliveries_open (destination=?)"),
            (DELETE_TOLD, "deliveries_told (carrier=?)"),
        ] {
            let plan = plan(&connection, sql);
            let mut seeks = plan.iter().filter(|step| step.starts_with("SEARCH") && !step.contains("attempts"));
            assert!(seeks.all(|step| step.contains(index)), "{sql}\n{plan:#?}");
        }
    }

    #[test]
    fn whose_turn_it_is_is_found_by_seeks_for_each_destination() {
        let plan = plan(&migrated(), TURNS);
        let of = |beginning: &str| -> Vec<&str> {
            plan.iter().map(String::as_str).filter(|step| step.starts_with(beginning)).collect()
        };
        assert_eq!(of("SCAN deliveries").len(), 1, "the first name: {plan:#?}");
        let due = ["(destination>?)", "AND next_at<?)", "AND next_at>?)", "AND next_at>?)", "(rowid=?)"];
        let seeks = of("SEARCH d ");
        assert!(
            seeks.len() == due.len() && due.iter().all(|key| seeks.iter().any(|seek| seek.ends_with(key))),
            "{plan:#?}"
        );
        for table in ["known", "sent"] {
            assert!(
                matches!(of(&format!("SEARCH {table} "))[..], [seek] if seek.contains("(destination=?)")),
                "{plan:#?}"
            );
        }
        for table in ["d", "known", "sent"] {
            assert_eq!(of(&format!("SCAN {table} ")), [""; 0], "{plan:#?}");
        }
    }
}
