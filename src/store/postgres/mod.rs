//! A store on a PostgreSQL server, which any number of replicas share.
//!
//! Replicas are rows that say when they were last heard of, by the database's clock. Each claims in its own name, and
//! what one had under way when it fell silent is `unknown` to the others.

mod leases;
mod link;
mod listen;
mod moves;
mod open;
mod time;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use self::link::{PostgresLink, Target};
use self::listen::Listener;
pub use self::open::{check, shown};
use self::time::Time;
use super::sql::{Database, Engine, Filling, Link, Readers, Result, Session, Writer, blocking, recover};
use super::{Held, Moved, Role, Sharing, StoreError};
use crate::model::{Clock, Destination};

/// Between two tries to reach a server at the start: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

const JOIN: &str = "INSERT INTO replicas (takeover_ms) VALUES (?1) RETURNING id";
/// That of others who live, where it is another one than ?1.
const OTHER_TAKEOVER: &str = "
    SELECT max(takeover_ms) FROM replicas
    WHERE takeover_ms <> ?1 AND seen_at > clock_timestamp() - interval '15 seconds'";
const LEAVE: &str = "DELETE FROM replicas WHERE id = ?1";
/// Owners of what is under way who were not heard of for ?1 milliseconds, nor for as long as they themselves think that
/// a sender may be silent.
const SILENT: &str = "
    SELECT DISTINCT d.owner FROM deliveries AS d
    WHERE d.state = 'in_flight'
      -- when the database itself was away, everybody was silent
      AND EXISTS (
        SELECT 1 FROM replicas AS me
        WHERE me.id = ?2 AND me.since < clock_timestamp() - ?1::bigint * interval '1 millisecond')
      AND NOT EXISTS (
        SELECT 1 FROM replicas AS r
        WHERE r.id = d.owner
          AND r.seen_at > clock_timestamp() - greatest(?1::bigint, r.takeover_ms) * interval '1 millisecond')";
const FORGET: &str = "DELETE FROM replicas WHERE seen_at < clock_timestamp() - interval '1 hour'";
const SHARED: &str = "SELECT value FROM shared WHERE name = ?1";
const PUT_SHARED: &str = "
    INSERT INTO shared (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
const LIVING: &str = "SELECT 1 FROM replicas WHERE seen_at > clock_timestamp() - interval '15 seconds' LIMIT 1";
/// The next delivery gets a number that none has.
const COUNT_ON: &str = "
    SELECT setval(pg_get_serial_sequence('deliveries', 'number'), max(number)) FROM deliveries HAVING max(number) > 0";
/// Writes what stands there already.
const PROBE: &str = "UPDATE ledger SET owed = owed WHERE id = 1";

type Answer<T> = std::result::Result<T, StoreError>;

pub struct Postgres {
    readers: Readers<PostgresLink>,
    writer: Writer<PostgresLink>,
    /// So far.
    recovered: Mutex<Vec<(Destination, u64)>>,
    replica: i64,
    takeover_ms: i64,
    time: Arc<Time>,
    /// For people.
    name: Arc<str>,
    /// A command is over before it would hear anything.
    listener: Option<Listener>,
}

impl Postgres {
    /// Within a tokio runtime. An owner waits for a server that can't be reached; a guest hears of that.
    pub async fn open(url: &str, role: Role, takeover_after: Duration) -> Answer<Database<Postgres>> {
        let takeover_ms = i64::try_from(takeover_after.as_millis()).unwrap_or(i64::MAX);
        let target = Target { takeover_ms, ..open::target(url)? };
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
        blocking(move || open::prepare(&mut link, &name, role)).await??;
        let replica = if role == Role::Owner { join(&target).await? } else { 0 };
        let target = Target { replica, tells: role == Role::Guest, ..target };
        let takeover_ms = target.takeover_ms;
        let writer = Writer::start(PostgresLink::to(target.clone()), &target.name);
        let listener = (role == Role::Owner).then(|| Listener::start(target.clone()));
        let name = Arc::clone(&target.name);
        let readers = Readers::new(&name, move || Ok(PostgresLink::to(target.clone())));
        let time = Arc::new(readers.read(Time::of).await?);
        Ok(Database(Postgres {
            readers,
            writer,
            recovered: Mutex::default(),
            replica,
            takeover_ms,
            time,
            name,
            listener,
        }))
    }
}

async fn join(target: &Target) -> Answer<i64> {
    let mut link = PostgresLink::to(target.clone());
    let (name, mine) = (Arc::clone(&target.name), target.takeover_ms);
    let joining = move || {
        link.begin_writing()?;
        let session = link.session();
        let asking = session.one(OTHER_TAKEOVER, &[mine.into()], |row| row.get::<Option<i64>>(0));
        let theirs = asking.map_err(|fault| fault.about(&name))?;
        let id = session.one(JOIN, &[mine.into()], |row| row.get(0)).map_err(|fault| fault.about(&name))?;
        link.commit()?;
        if let Some(theirs) = theirs {
            let (mine_s, theirs_s) = (mine / 1000, theirs / 1000);
            tracing::warn!(
                mine_s,
                theirs_s,
                "another replica has another store.takeover_after; for what either was sending the longer one counts"
            );
        }
        Ok(id)
    };
    blocking(joining).await?
}

/// What the dead had under way is unknown from now on.
fn bury(session: &dyn Session, takeover_ms: i64) -> Result<Vec<(Destination, u64)>> {
    let silent: Vec<i64> = session.all(SILENT, &[takeover_ms.into(), session.replica().into()], |row| row.get(0))?;
    let mut found = Vec::new();
    for replica in silent {
        found.extend(recover(session, replica)?);
    }
    if !found.is_empty() {
        session.execute(moves::MOVE, &[])?;
    }
    Ok(found)
}

#[async_trait]
impl Engine for Postgres {
    type Link = PostgresLink;

    const FILLING: Filling =
        Filling { with_numbers: "OVERRIDING SYSTEM VALUE", in_use: Some(LIVING), finish: Some(COUNT_ON) };

    fn name(&self) -> String {
        self.name.to_string()
    }

    fn writer(&self) -> &Writer<PostgresLink> {
        &self.writer
    }

    fn readers(&self) -> &Readers<PostgresLink> {
        &self.readers
    }

    fn recovered(&self) -> Vec<(Destination, u64)> {
        self.recovered.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn probe(&self) -> Answer<()> {
        self.writer.write(|session| session.execute(PROBE, &[]).map(drop)).await
    }

    /// The server looks after its own files.
    async fn verify(&self) -> Answer<()> {
        Ok(())
    }

    async fn hold(&self, names: &[String]) -> Answer<Held> {
        let (names, time, takeover_ms) = (names.to_vec(), Arc::clone(&self.time), self.takeover_ms);
        let holding = move |session: &dyn Session| {
            session.beat()?;
            session.execute(FORGET, &[])?;
            session.execute(moves::FORGET, &[])?;
            time.look(session)?;
            let recovered = bury(session, takeover_ms)?;
            Ok(Held { recovered, ..leases::hold(session, &names)? })
        };
        let held = self.writer.write(holding).await?;
        self.recovered.lock().unwrap_or_else(PoisonError::into_inner).extend(held.recovered.iter().cloned());
        Ok(held)
    }

    async fn retire(&self) -> Answer<()> {
        let leaving = |session: &dyn Session| {
            session.execute(leases::GIVE_ALL, &[session.replica().into()])?;
            session.execute(LEAVE, &[session.replica().into()]).map(drop)
        };
        self.writer.write(leaving).await
    }

    fn clock(&self) -> Option<Clock> {
        let time = Arc::clone(&self.time);
        Some(Arc::new(move || time.now()))
    }

    async fn share(&self, name: &str, change: Sharing) -> Answer<()> {
        let name = name.to_owned();
        let sharing = move |session: &dyn Session| {
            let kept: Option<String> = session.first(SHARED, &[name.as_str().into()], |row| row.get(0))?;
            let changed = change(kept.as_deref());
            session.execute(PUT_SHARED, &[name.as_str().into(), changed.into()]).map(drop)
        };
        self.writer.write(sharing).await
    }

    async fn moved(&self, since: Option<i64>) -> Answer<Moved> {
        let replica = self.replica;
        self.readers.read(move |session| moves::moved(session, since, replica)).await
    }

    async fn stirred(&self) {
        match &self.listener {
            Some(listener) => listener.heard().await,
            None => std::future::pending().await,
        }
    }
}
