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
pub use self::open::check;
use self::time::Time;
use super::sql::{Database, Engine, Link, Readers, Result, Session, Writer, blocking, recover};
use super::{Held, Moved, Role, Sharing, StoreError};
use crate::model::{Clock, Destination};

/// A replica that was not heard of for so long is taken for dead. Longer than a send's deadline of ten seconds, so that
/// what it had under way has ended by then, however it ended.
const SILENCE_MS: i64 = 15_000;
/// Between two tries to reach a server at the start: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

const JOIN: &str = "INSERT INTO replicas DEFAULT VALUES RETURNING id";
const LEAVE: &str = "DELETE FROM replicas WHERE id = ?1";
/// Owners of what is under way who were not heard of for ?1 milliseconds.
const SILENT: &str = "
    SELECT DISTINCT d.owner FROM deliveries AS d
    WHERE d.state = 'in_flight'
      -- when the database itself was away, everybody was silent
      AND EXISTS (
        SELECT 1 FROM replicas AS me
        WHERE me.id = ?2 AND me.since < clock_timestamp() - ?1::bigint * interval '1 millisecond')
      AND NOT EXISTS (
        SELECT 1 FROM replicas AS r
        WHERE r.id = d.owner AND r.seen_at > clock_timestamp() - ?1::bigint * interval '1 millisecond')";
const FORGET: &str = "DELETE FROM replicas WHERE seen_at < clock_timestamp() - interval '1 hour'";
const SHARED: &str = "SELECT value FROM shared WHERE name = ?1";
const PUT_SHARED: &str = "
    INSERT INTO shared (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
/// Writes what stands there already.
const PROBE: &str = "UPDATE ledger SET owed = owed WHERE id = 1";

type Answer<T> = std::result::Result<T, StoreError>;

pub struct Postgres {
    readers: Readers<PostgresLink>,
    writer: Writer<PostgresLink>,
    /// So far.
    recovered: Mutex<Vec<(Destination, u64)>>,
    replica: i64,
    time: Arc<Time>,
    /// A command is over before it would hear anything.
    listener: Option<Listener>,
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
        let writer = Writer::start(PostgresLink::to(target.clone()), &target.name);
        let listener = (role == Role::Owner).then(|| Listener::start(target.clone()));
        let name = Arc::clone(&target.name);
        let readers = Readers::new(&name, move || Ok(PostgresLink::to(target.clone())));
        let time = Arc::new(readers.read(Time::of).await?);
        Ok(Database(Postgres { readers, writer, recovered: Mutex::default(), replica, time, listener }))
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

/// What the dead had under way is unknown from now on.
fn bury(session: &dyn Session) -> Result<Vec<(Destination, u64)>> {
    let silent: Vec<i64> = session.all(SILENT, &[SILENCE_MS.into(), session.replica().into()], |row| row.get(0))?;
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
        let (names, time) = (names.to_vec(), Arc::clone(&self.time));
        let holding = move |session: &dyn Session| {
            session.beat()?;
            session.execute(FORGET, &[])?;
            session.execute(moves::FORGET, &[])?;
            time.look(session)?;
            let recovered = bury(session)?;
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
