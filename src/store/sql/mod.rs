//! The verbs of [`Store`], written once, in SQL that every engine understands.
//!
//! They rely on one thing: no two transactions that write overlap. So what one reads holds until it commits, and none
//! has to be tried again. An engine that many processes share takes a lock of its own for that.

mod audits;
mod claims;
mod moving;
mod prunes;
mod queues;
mod readers;
mod reads;
pub mod rows;
mod session;
mod settles;
mod statements;
mod writer;
mod writes;

use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;

pub use self::moving::{Filling, Origin, fill};
pub use self::readers::Readers;
pub use self::readers::blocking;
pub use self::session::{Fault, Result, Row, Session, Value};
pub use self::settles::recover;
use self::statements as sql;
pub use self::writer::Writer;
use super::{
    Announcement, Attempt, AuditFilter, Audited, Claims, DeliveryFilter, DeliveryRow, Held, Loaded, Moved, Overview,
    PlaceRow, Policy, Poll, Recorded, Room, Settlement, Sharing, Store, StoreError, Subscribed, Told,
};
use crate::model::{Clock, Destination, Entry, RunId, RunState, Subscription, Timestamp, WorkspaceKey};

/// Rows that one transaction of [`Store::prune`] deletes.
const PRUNED_AT_ONCE: i64 = 500;

/// A connection to an engine, with at most one transaction.
pub trait Link: Send + 'static {
    /// Begins a transaction that writes; no other one's overlaps with it.
    fn begin_writing(&mut self) -> std::result::Result<(), StoreError>;

    /// Begins a transaction that sees one snapshot.
    fn begin_reading(&mut self) -> std::result::Result<(), StoreError>;

    fn session(&self) -> &dyn Session;

    /// Whether a fault has undone everything since the transaction began.
    fn is_undone(&self) -> bool;

    /// Durable when it returns. [`StoreError::Broken`]: this engine may not be used again.
    fn commit(&mut self) -> std::result::Result<(), StoreError>;

    fn roll_back(&mut self);
}

/// What an engine is made of.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    type Link: Link;

    const FILLING: Filling;

    /// The store's, for people.
    fn name(&self) -> String;

    fn writer(&self) -> &Writer<Self::Link>;

    fn readers(&self) -> &Readers<Self::Link>;

    /// See [`Overview::recovered`].
    fn recovered(&self) -> Vec<(Destination, u64)>;

    /// See [`Store::probe`].
    async fn probe(&self) -> std::result::Result<(), StoreError>;

    /// See [`Store::verify`].
    async fn verify(&self) -> std::result::Result<(), StoreError>;

    /// See [`Store::hold`].
    async fn hold(&self, names: &[String]) -> std::result::Result<Held, StoreError>;

    /// See [`Store::retire`].
    async fn retire(&self) -> std::result::Result<(), StoreError>;

    /// See [`Store::clock`].
    fn clock(&self) -> Option<Clock>;

    /// See [`Store::share`].
    async fn share(&self, name: &str, change: Sharing) -> std::result::Result<(), StoreError>;

    /// See [`Store::moved`].
    async fn moved(&self, since: Option<i64>) -> std::result::Result<Moved, StoreError>;

    /// See [`Store::stirred`].
    async fn stirred(&self);
}

pub struct Database<E>(pub E);

type Answer<T> = std::result::Result<T, StoreError>;

impl<E: Engine> Database<E> {
    async fn write<T, F>(&self, operation: F) -> Answer<T>
    where
        T: Send + 'static,
        F: FnOnce(&dyn Session) -> Result<T> + Send + 'static,
    {
        self.0.writer().write(operation).await
    }

    async fn read<T, F>(&self, operation: F) -> Answer<T>
    where
        T: Send + 'static,
        F: FnOnce(&dyn Session) -> Result<T> + Send + 'static,
    {
        self.0.readers().read(operation).await
    }

    /// Lets `act` have what `find` finds, a little at a time; looking does not hold up the writer. Sums up what it says.
    async fn prune_by(
        &self,
        find: &'static str,
        act: fn(&dyn Session, &[i64], Timestamp) -> Result<u64>,
        before: Timestamp,
    ) -> Answer<u64> {
        let (mut after, mut sum) = (0, 0);
        loop {
            let numbers = self.read(move |session| reads::old(session, find, before, after, PRUNED_AT_ONCE)).await?;
            let Some(last) = numbers.last().copied() else { return Ok(sum) };
            after = last;
            sum += self.write(move |session| act(session, &numbers, before)).await?;
        }
    }
}

#[async_trait]
impl<E: Engine> Store for Database<E> {
    async fn load(&self) -> Answer<Loaded> {
        self.read(reads::load).await
    }

    async fn subscribe(&self, subscription: &Subscription, state: Option<&RunState>) -> Answer<Subscribed> {
        let (subscription, state) = (subscription.clone(), state.cloned());
        self.write(move |session| writes::subscribe(session, &subscription, state.as_ref())).await
    }

    async fn unsubscribe(&self, id: &str) -> Answer<bool> {
        let id = id.to_owned();
        self.write(move |session| writes::unsubscribe(session, &id)).await
    }

    async fn amend(&self, subscriptions: &[Subscription]) -> Answer<Vec<String>> {
        let subscriptions = subscriptions.to_vec();
        self.write(move |session| writes::amend(session, &subscriptions)).await
    }

    async fn record(&self, poll: &Poll) -> Answer<Recorded> {
        let poll = poll.clone();
        self.write(move |session| writes::record(session, &poll)).await
    }

    async fn claim(&self, now: Timestamp, room: Room, policy: &Arc<dyn Policy>) -> Answer<Claims> {
        let policy = Arc::clone(policy);
        self.write(move |session| claims::claim(session, now, room, &policy)).await
    }

    async fn release(&self, under_way: &[(Uuid, u32)]) -> Answer<()> {
        let under_way = under_way.to_vec();
        self.write(move |session| settles::release(session, &under_way)).await
    }

    async fn settle(&self, settlement: &Settlement, policy: &Arc<dyn Policy>) -> Answer<()> {
        let (settlement, policy) = (settlement.clone(), Arc::clone(policy));
        self.write(move |session| settles::settle(session, &settlement, &policy)).await
    }

    async fn announce(&self, announcement: &Announcement) -> Answer<bool> {
        let announcement = announcement.clone();
        self.write(move |session| writes::announce(session, &announcement)).await
    }

    async fn saw(&self, seen: &[(WorkspaceKey, Timestamp)]) -> Answer<()> {
        let seen = seen.to_vec();
        self.write(move |session| writes::saw(session, &seen)).await
    }

    async fn places(&self) -> Answer<Vec<PlaceRow>> {
        self.read(reads::places).await
    }

    async fn revive(&self, to: &Destination, now: Timestamp) -> Answer<bool> {
        let to = to.clone();
        self.write(move |session| writes::revive(session, &to, now)).await
    }

    async fn history(&self, workspace: &WorkspaceKey, run: &RunId, limit: usize) -> Answer<Vec<Told>> {
        let (workspace, run) = (workspace.clone(), run.clone());
        self.read(move |session| reads::history(session, &workspace, &run, limit)).await
    }

    async fn deliveries(&self, filter: &DeliveryFilter) -> Answer<Vec<DeliveryRow>> {
        let filter = filter.clone();
        self.read(move |session| reads::deliveries(session, &filter)).await
    }

    async fn delivery(&self, id: &str) -> Answer<Option<(DeliveryRow, Vec<Attempt>)>> {
        let id = id.trim().to_ascii_lowercase();
        self.read(move |session| reads::delivery(session, &id)).await
    }

    async fn retry(&self, id: Uuid, now: Timestamp) -> Answer<bool> {
        self.write(move |session| writes::retry(session, id, now)).await
    }

    async fn discard(&self, id: Uuid, now: Timestamp) -> Answer<bool> {
        self.write(move |session| writes::discard(session, id, now)).await
    }

    async fn once(&self, key: &str, now: Timestamp, until: Timestamp) -> Answer<bool> {
        let key = key.to_owned();
        self.write(move |session| writes::once(session, &key, now, until)).await
    }

    async fn audit(&self, entries: &[Entry]) -> Answer<()> {
        let entries = entries.to_vec();
        self.write(move |session| audits::append(session, &entries)).await
    }

    async fn audited(&self, filter: &AuditFilter) -> Answer<Audited> {
        let filter = filter.clone();
        self.read(move |session| audits::read(session, &filter)).await
    }

    async fn probe(&self) -> Answer<()> {
        self.0.probe().await
    }

    async fn verify(&self) -> Answer<()> {
        self.0.verify().await
    }

    async fn hold(&self, names: &[String]) -> Answer<Held> {
        self.0.hold(names).await
    }

    async fn retire(&self) -> Answer<()> {
        self.0.retire().await
    }

    fn clock(&self) -> Option<Clock> {
        self.0.clock()
    }

    async fn share(&self, name: &str, change: Sharing) -> Answer<()> {
        self.0.share(name, change).await
    }

    async fn overview(&self) -> Answer<Overview> {
        let overview = self.read(reads::overview).await?;
        Ok(Overview { recovered: self.0.recovered(), ..overview })
    }

    async fn moved(&self, since: Option<i64>) -> Answer<Moved> {
        self.0.moved(since).await
    }

    async fn stirred(&self) {
        self.0.stirred().await;
    }

    async fn prune(&self, before: Timestamp) -> Answer<u64> {
        let expired = self.prune_by(sql::FIND_EXPIRED, prunes::expire, before).await?;
        if expired > 0 {
            tracing::error!(
                expired,
                "messages waited too long and are given up; `callboard deliveries list` shows them"
            );
        }
        let deleted = self.prune_by(sql::FIND_OLD_DELIVERIES, prunes::delete_deliveries, before).await?;
        self.prune_by(sql::FIND_OLD_CHANGES, prunes::delete_changes, before).await?;
        self.write(move |session| prunes::forget_places(session, before)).await?;
        while self.write(move |session| audits::prune(session, before, PRUNED_AT_ONCE)).await? > 0 {}
        Ok(deleted)
    }
}
