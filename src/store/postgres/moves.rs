//! What others moved of what a replica keeps in memory. Triggers write it down (`moves`).

use crate::model::WorkspaceKey;
use crate::store::sql::{Result, Session, Value, rows};
use crate::store::{Loaded, Moved, Moves, Part};

/// All replicas look again.
pub const MOVE: &str = "INSERT INTO moves (replica) VALUES (0)";

/// The last of the old ones stays: who finds the row that he saw last has missed none after it.
pub const FORGET: &str = "
    DELETE FROM moves
    WHERE number < (SELECT max(number) FROM moves WHERE at < now() - interval '5 minutes')";

/// The last move, whether ?1 is still there, and whether others than ?2 moved something after it.
const LOOK: &str = "
    SELECT coalesce((SELECT max(number) FROM moves), 0),
      EXISTS (SELECT 1 FROM moves WHERE number = ?1),
      (SELECT number FROM moves WHERE number > ?1 AND replica <> ?2 ORDER BY number LIMIT 1) IS NOT NULL";

const SUBSCRIPTIONS: &str = "
    SELECT moved.subscription, s.json
    FROM (SELECT DISTINCT subscription FROM moves
      WHERE number > ?1 AND replica <> ?2 AND subscription IS NOT NULL) AS moved
    LEFT JOIN subscriptions AS s ON s.id = moved.subscription
    ORDER BY s.created_at, moved.subscription";

const RUNS: &str = "
    SELECT r.version, r.state, moved.workspace, moved.run
    FROM (SELECT DISTINCT workspace, run FROM moves WHERE number > ?1 AND replica <> ?2 AND run IS NOT NULL) AS moved
    LEFT JOIN runs AS r ON r.workspace = moved.workspace AND r.run = moved.run";

const WORKSPACES: &str = "
    SELECT w.key, w.baseline_at, w.horizon, w.seen_at
    FROM (SELECT DISTINCT workspace FROM moves
      WHERE number > ?1 AND replica <> ?2 AND workspace IS NOT NULL AND run IS NULL) AS moved
    JOIN workspaces AS w ON w.key = moved.workspace";

/// On one snapshot. Numbers are in order of commit, so nothing comes later that is before the mark.
pub fn moved(session: &dyn Session, since: Option<i64>, replica: i64) -> Result<Moved> {
    let key = [since.unwrap_or(-1).into(), replica.into()];
    let (mark, is_there, has_moved): (i64, bool, bool) =
        session.one(LOOK, &key, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let moves = match since {
        Some(since) if since == mark || (is_there && !has_moved) => Moves::None,
        Some(_) if is_there => Moves::Of(Box::new(part(session, &key)?)),
        // The start, or more than five minutes without a look.
        _ => Moves::All,
    };
    Ok(Moved { mark, moves })
}

fn part(session: &dyn Session, key: &[Value]) -> Result<Part> {
    let mut part = Part::default();
    let Part { loaded: Loaded { subscriptions, runs, workspaces }, ended, forgotten } = &mut part;
    for row in &session.query(SUBSCRIPTIONS, key)? {
        match row.get::<Option<String>>(1)? {
            Some(_) => subscriptions.push(rows::json(row, 1)?),
            None => ended.push(row.get(0)?),
        }
    }
    for row in &session.query(RUNS, key)? {
        let workspace = WorkspaceKey(row.get(2)?);
        match row.get::<Option<i64>>(0)? {
            Some(_) => runs.push((workspace, rows::run(row)?)),
            None => forgotten.push((workspace, rows::parsed(row, 3)?)),
        }
    }
    *workspaces = session.all(WORKSPACES, key, rows::workspace)?;
    Ok(part)
}
