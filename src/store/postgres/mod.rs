//! A store on a PostgreSQL server, which any number of replicas share.
//!
//! Replicas are rows that say when they were last heard of, by the database's clock. Each claims in its own name, and
//! what one had under way when it fell silent is `unknown` to the others.

mod link;
mod open;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::AbortHandle;

use self::link::{PostgresLink, Target};
pub use self::open::check;
use super::sql::{Database, Engine, Link, Readers, Result, Session, Value, Writer, blocking, recover};
use super::{Role, StoreError};
use crate::model::Destination;

/// A replica that was not heard of for so long is taken for dead. Longer than a send's deadline of ten seconds, so that
/// what it had under way has ended by then, however it ended.
const SILENCE_MS: i64 = 15_000;
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Between two tries to reach a server at the start: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

const JOIN: &str = "INSERT INTO replicas DEFAULT VALUES RETURNING id";
/// One that was taken for dead comes back as itself: what it had under way is unknown, and nothing else is lost.
const BEAT: &str = "
    INSERT INTO replicas (id, seen_at) OVERRIDING SYSTEM VALUE VALUES (?1, clock_timestamp())
    ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at";
/// Owners of what is under way who were not heard of for ?1 milliseconds.
const SILENT: &str = "
    SELECT DISTINCT d.owner FROM deliveries AS d
    WHERE d.state = 'in_flight' AND NOT EXISTS (
      SELECT 1 FROM replicas AS r
      WHERE r.id = d.owner AND r.seen_at > clock_timestamp() - ?1::bigint * interval '1 millisecond')";
/// All replicas look again.
const MOVE: &str = "INSERT INTO moves (replica) VALUES (0)";
const FORGET: &str = "DELETE FROM replicas WHERE seen_at < clock_timestamp() - interval '1 hour'";
const FORGET_MOVES: &str = "DELETE FROM moves WHERE at < clock_timestamp() - interval '1 hour'";
const LAST_MOVE: &str = "SELECT coalesce(max(number), 0) FROM moves WHERE replica <> ?1";
/// Writes what stands there already.
const PROBE: &str = "UPDATE ledger SET owed = owed WHERE id = 1";

type Answer<T> = std::result::Result<T, StoreError>;

pub struct Postgres {
    readers: Readers<PostgresLink>,
    writer: Arc<Writer<PostgresLink>>,
    recovered: Vec<(Destination, u64)>,
    replica: i64,
    /// The last move of another one that was taken over.
    seen: AtomicI64,
    heart: Option<AbortHandle>,
}

impl Postgres {
    /// Within a tokio runtime. An owner waits for a server that can't be reached; a guest hears of that.
    pub async fn open(url: &str, role: Role) -> Answer<Database<Postgres>> {
        let target = open::target(url)?;
        let mut pause = None;
        loop {
            match Postgres::at(target.clone(), role).await {
                Err(error @ StoreError::Away(_)) if role == Role::Owner => {
                    if pause.is_none() {
                        tracing::warn!(%error, "the start waits for PostgreSQL, and goes on by itself when it answers");
                    }
                    let now = pause.unwrap_or(PAUSE.0);
                    tokio::time::sleep(now).await;
                    pause = Some((now * 2).min(PAUSE.1));
                }
                opened => {
                    if pause.is_some() && opened.is_ok() {
                        tracing::info!("PostgreSQL answers; the start goes on");
                    }
                    return opened;
                }
            }
        }
    }

    async fn at(target: Target, role: Role) -> Answer<Database<Postgres>> {
        let mut link = PostgresLink::to(target.clone());
        let name = Arc::clone(&target.name);
        blocking(move || open::prepare(&mut link, &name)).await??;
        let replica = if role == Role::Owner { join(&target).await? } else { 0 };
        let target = Target { replica, tells: role == Role::Guest, ..target };
        let writer = Arc::new(Writer::start(PostgresLink::to(target.clone()), &target.name));
        let recovered = if role == Role::Owner { writer.write(bury).await? } else { Vec::new() };
        let heart = (role == Role::Owner).then(|| tokio::spawn(beat(Arc::clone(&writer))).abort_handle());
        let name = Arc::clone(&target.name);
        let readers = Readers::new(&name, move || Ok(PostgresLink::to(target.clone())));
        let seen = AtomicI64::new(readers.read(move |session| last_move(session, replica)).await?);
        Ok(Database(Postgres { readers, writer, recovered, replica, seen, heart }))
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(heart) = &self.heart {
            heart.abort();
        }
    }
}

async fn join(target: &Target) -> Answer<i64> {
    let mut link = PostgresLink::to(target.clone());
    let name = Arc::clone(&target.name);
    let joining = move || {
        link.begin_writing()?;
        let id = link.session().one(JOIN, &[], |row| row.get(0)).map_err(|fault| fault.about(&name))?;
        link.commit()?;
        Ok(id)
    };
    blocking(joining).await?
}

/// Says that this replica lives, and looks for those that don't.
async fn beat(writer: Arc<Writer<PostgresLink>>) {
    let mut beats = tokio::time::interval(HEARTBEAT);
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        let beaten = writer.write(|session| {
            session.execute(BEAT, &[Value::Integer(session.replica())])?;
            session.execute(FORGET, &[])?;
            session.execute(FORGET_MOVES, &[])?;
            bury(session)
        });
        match beaten.await {
            Ok(found) if !found.is_empty() => {
                tracing::warn!(destinations = found.len(), "another replica fell silent while it was sending");
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "no sign of life reached the store"),
        }
    }
}

/// What the dead had under way is unknown from now on.
fn bury(session: &dyn Session) -> Result<Vec<(Destination, u64)>> {
    let silent: Vec<i64> = session.all(SILENT, &[Value::Integer(SILENCE_MS)], |row| row.get(0))?;
    let mut found = Vec::new();
    for replica in silent {
        found.extend(recover(session, replica)?);
    }
    if !found.is_empty() {
        session.execute(MOVE, &[])?;
    }
    Ok(found)
}

fn last_move(session: &dyn Session, replica: i64) -> Result<i64> {
    session.one(LAST_MOVE, &[Value::Integer(replica)], |row| row.get(0))
}

#[async_trait]
impl Engine for Postgres {
    type Link = PostgresLink;

    fn writer(&self) -> &Writer<PostgresLink> {
        &self.writer
    }

    fn readers(&self) -> &Readers<PostgresLink> {
        &self.readers
    }

    fn recovered(&self) -> &[(Destination, u64)] {
        &self.recovered
    }

    async fn probe(&self) -> Answer<()> {
        self.writer.write(|session| session.execute(PROBE, &[]).map(drop)).await
    }

    /// The server looks after its own files.
    async fn verify(&self) -> Answer<()> {
        Ok(())
    }

    async fn changed_elsewhere(&self) -> Answer<bool> {
        let replica = self.replica;
        let now = self.readers.read(move |session| last_move(session, replica)).await?;
        Ok(self.seen.swap(now, Ordering::AcqRel) != now)
    }
}
