//! Claiming: whose turn it is, and what its message tells.
//!
//! Looks at all destinations with one statement, a few seeks for each however long its queue, and at a queue only where
//! its message is made.

use std::collections::HashMap;
use std::sync::Arc;

use super::queues::{self, End, Queue};
use super::rows;
use super::session::{Fault, Result, Row, Session, values};
use super::statements as sql;
use crate::model::{
    self, Claimed, Delivery, Destination, Folding, MOST_COUNTED, MOST_FOLDED, Place, Plan, Timestamp, Waiting,
    WorkspaceKey,
};
use crate::store::{Claims, Policy, Room};

/// No retry waits longer: a day and its jitter. A moment further away was set by a clock that was ahead.
const LONGEST_WAIT_MS: i64 = 29 * 3600 * 1000;
const UNREADABLE: &str = "its change can't be read";

pub fn claim(session: &dyn Session, now: Timestamp, room: Room, policy: &Arc<dyn Policy>) -> Result<Claims> {
    let mut claim = Claim { session, now, policy, next_at: None, accounts: HashMap::new(), under_way: HashMap::new() };
    let candidates = claim.candidates()?;
    if !candidates.is_empty() {
        session.beat()?;
    }
    let (mut claimed, mut probes) = (Vec::new(), 0);
    for candidate in candidates {
        if claimed.len() >= room.messages {
            break;
        }
        let probe = candidate.place.failures > 0;
        if probe && probes >= room.probes {
            continue;
        }
        let account = candidate.to.account();
        if let Some(account) = &account
            && !claim.has_room(account)?
        {
            continue;
        }
        if let Some(message) = claim.take(candidate)? {
            if let Some(account) = account {
                *claim.under_way.entry(account).or_default() += 1;
            }
            probes += usize::from(probe);
            claimed.push(message);
        }
    }
    Ok(Claims { claimed, next_at: claim.next_at })
}

struct Claim<'a> {
    session: &'a dyn Session,
    now: Timestamp,
    policy: &'a Arc<dyn Policy>,
    /// The earliest moment found so far.
    next_at: Option<Timestamp>,
    accounts: HashMap<Destination, Place>,
    /// Messages of each account.
    under_way: HashMap<Destination, usize>,
}

/// A destination that is open, and whose turn it is there.
struct Candidate {
    to: Destination,
    lane: i64,
    number: i64,
    next_at: i64,
    place: Place,
}

/// A head before its message is made.
struct Head {
    number: i64,
    queue: Queue,
    template: Option<String>,
    folding: Option<Folding>,
    wire_id: Option<String>,
    waiting: Waiting,
    /// Others may join it.
    foldable: bool,
}

impl Head {
    fn of_row(row: &Row) -> Result<Head> {
        Ok(Head {
            number: row.get(0)?,
            queue: Queue::at(row, 1)?,
            template: row.get(4)?,
            folding: rows::folding(row, 5)?,
            wire_id: row.get(6)?,
            waiting: Waiting {
                workspace: WorkspaceKey(row.get(2)?),
                attempt: row.get(7)?,
                created_at: rows::moment(row, 8)?,
                unknown_since: rows::maybe_moment(row, 9)?,
                told_elsewhere: row.get(13)?,
                urgent: row.get(10)?,
                missed: row.get(11)?,
            },
            foldable: row.get(12)?,
        })
    }

    /// A digest that tells nothing but itself any more is none.
    fn as_it_was(&self) -> Option<Folding> {
        self.folding.filter(|why| !self.foldable || *why == Folding::Late)
    }
}

impl Claim<'_> {
    fn at_the_latest(&mut self, at: Timestamp) {
        self.next_at = Some(self.next_at.map_or(at, |earliest| earliest.min(at)));
    }

    /// Urgent ones first, then what is due longest.
    fn candidates(&mut self) -> Result<Vec<Candidate>> {
        let now = self.now.as_millisecond();
        let turns = self.session.query(sql::TURNS, values![now, now + LONGEST_WAIT_MS])?;
        let mut found = Vec::new();
        for lanes in turns.chunk_by(|one, next| one.0.first() == next.0.first()) {
            found.extend(self.candidate(lanes)?);
        }
        found.sort_by_key(|candidate: &Candidate| (candidate.lane, candidate.next_at));
        Ok(found)
    }

    /// `lanes`: the rows of one destination in `TURNS`.
    fn candidate(&mut self, lanes: &[Row]) -> Result<Option<Candidate>> {
        let Some(first) = lanes.first() else { return Ok(None) };
        let to = Destination::from(first.get::<String>(0)?);
        let place = queues::place_at(first, 4, &to)?.unwrap_or_default();
        let (policy, now) = (self.policy, self.now);
        let account = to.account().map(|account| self.account(account)).transpose()?;
        let Some(opens_at) = policy.opens_at(&to, &place, account, now) else { return Ok(None) };
        let mut nearest: Option<i64> = None;
        for row in lanes {
            let (lane, number, next_at) = (row.get(1)?, row.get(2)?, row.get(3)?);
            // Later than any retry waits: a wrong clock put it off.
            if next_at <= now.as_millisecond() || next_at > now.as_millisecond() + LONGEST_WAIT_MS {
                if opens_at <= now {
                    return Ok(Some(Candidate { to, lane, number, next_at, place }));
                }
                self.at_the_latest(opens_at);
                return Ok(None);
            }
            nearest = Some(nearest.map_or(next_at, |other| other.min(next_at)));
        }
        if let Some(nearest) = nearest {
            self.at_the_latest(rows::from_millisecond(nearest)?.max(opens_at));
        }
        Ok(None)
    }

    fn has_room(&mut self, account: &Destination) -> Result<bool> {
        if !self.under_way.contains_key(account) {
            let prefix = account.to_string();
            let count: u32 = self.session.one(sql::COUNT_IN_FLIGHT, values![prefix], |row| row.get(0))?;
            self.under_way.insert(account.clone(), usize::try_from(count).unwrap_or(usize::MAX));
        }
        let under_way = self.under_way.get(account).copied().unwrap_or_default();
        let policy = self.policy;
        Ok(under_way < policy.at_once(self.account(account.clone())?))
    }

    fn account(&mut self, account: Destination) -> Result<&Place> {
        match self.accounts.entry(account) {
            std::collections::hash_map::Entry::Occupied(known) => Ok(known.into_mut()),
            std::collections::hash_map::Entry::Vacant(unknown) => {
                let place = queues::place(self.session, unknown.key())?.unwrap_or_default();
                Ok(unknown.insert(place))
            }
        }
    }

    /// None: it holds, is given up, or can't be read.
    fn take(&mut self, candidate: Candidate) -> Result<Option<Claimed>> {
        let head = self.session.one(sql::HEAD, values![candidate.number], Head::of_row)?;
        let run = if head.foldable { self.prefix(&head.queue, &head.template, MOST_FOLDED)? } else { Vec::new() };
        let plan = self.plan(&candidate, &head, &run)?;
        let (folding, picked) = match plan {
            Plan::Hold(at) => {
                self.at_the_latest(at);
                return Ok(None);
            }
            Plan::GiveUp { reason } => {
                let (to, number) = (&head.queue.destination, head.number);
                tracing::error!(to, number, reason, "given up; `callboard deliveries list --state dead` shows it");
                queues::die(self.session, head.number, self.now.as_millisecond(), reason)?;
                self.at_the_latest(self.now);
                return Ok(None);
            }
            Plan::Single => (head.as_it_was(), Vec::new()),
            // A message that may have arrived, or that tells several already, is sent again as it was.
            Plan::CatchUp { .. } | Plan::Digest { .. } if head.waiting.unknown_since.is_some() => {
                (head.folding, Vec::new())
            }
            Plan::CatchUp { rows } => self.catch_up(&head, &run, rows)?,
            Plan::Digest { rows } => self.digest(&head, &run, rows)?,
        };
        self.begin(candidate, &head, folding, &picked)
    }

    fn plan(&self, candidate: &Candidate, head: &Head, run: &[(i64, Waiting)]) -> Result<Plan> {
        let most = i64::try_from(MOST_COUNTED).unwrap_or(i64::MAX) - 1;
        let name = &head.queue.destination;
        let others: i64 = self.session.one(sql::COUNT_FOLDABLE, values![name, head.number, most], |row| row.get(0))?;
        let mut waiting: Vec<Waiting> = run.iter().map(|(_, waiting)| waiting.clone()).collect();
        if waiting.is_empty() {
            waiting.push(head.waiting.clone());
        }
        let queue = model::Queue {
            to: &candidate.to,
            place: &candidate.place,
            head: head.waiting.clone(),
            run: waiting,
            waiting: usize::try_from(others + 1).unwrap_or(usize::MAX),
        };
        Ok(self.policy.plan(&queue, self.now))
    }

    /// Rows from the head of a queue on that one message may tell.
    fn prefix(&self, queue: &Queue, template: &Option<String>, most: usize) -> Result<Vec<(i64, Waiting)>> {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let parameters = values![&queue.destination, &queue.workspace, &queue.run, template, most];
        let mut prefix = Vec::new();
        for row in &self.session.query(sql::PREFIX, parameters)? {
            if !row.get::<bool>(7)? {
                break;
            }
            let waiting = Waiting {
                workspace: WorkspaceKey(row.get(1)?),
                created_at: rows::moment(row, 2)?,
                urgent: row.get(3)?,
                missed: row.get(4)?,
                attempt: row.get(5)?,
                unknown_since: rows::maybe_moment(row, 6)?,
                // Such a one may not be told with others.
                told_elsewhere: false,
            };
            prefix.push((row.get(0)?, waiting));
        }
        Ok(prefix)
    }

    /// A change that is late is told as such, by itself too.
    fn catch_up(&self, head: &Head, run: &[(i64, Waiting)], rows: usize) -> Result<(Option<Folding>, Vec<i64>)> {
        if head.queue.workspace == rows::OF_NOTICES || self.carries(head)? {
            return Ok((head.folding, Vec::new()));
        }
        let picked = run.iter().skip(1).take(rows.min(MOST_FOLDED).saturating_sub(1)).map(|(number, _)| *number);
        Ok((Some(Folding::Late), picked.collect()))
    }

    fn digest(&self, head: &Head, run: &[(i64, Waiting)], rows: usize) -> Result<(Option<Folding>, Vec<i64>)> {
        let most = rows.min(MOST_FOLDED).saturating_sub(1);
        if !head.foldable || most == 0 {
            return Ok((head.as_it_was(), Vec::new()));
        }
        let mut picked: Vec<i64> = run.iter().skip(1).take(most).map(|(number, _)| *number).collect();
        let limit = i64::try_from(most).unwrap_or(i64::MAX);
        let name = &head.queue.destination;
        let queues: Vec<Queue> =
            self.session.all(sql::FOLDABLE_QUEUES, values![name, &head.template, head.number, limit], |row| {
                Ok(Queue { destination: name.clone(), workspace: row.get(0)?, run: row.get(1)? })
            })?;
        for queue in queues {
            let left = most.saturating_sub(picked.len());
            if left == 0 {
                break;
            }
            picked.extend(self.prefix(&queue, &head.template, left)?.into_iter().map(|(number, _)| number));
        }
        Ok((if picked.is_empty() { head.as_it_was() } else { Some(Folding::Rate) }, picked))
    }

    fn carries(&self, head: &Head) -> Result<bool> {
        Ok(!queues::bound(self.session, head.number)?.is_empty())
    }

    /// In flight, unless it can't be read.
    fn begin(
        &mut self,
        candidate: Candidate,
        head: &Head,
        folding: Option<Folding>,
        picked: &[i64],
    ) -> Result<Option<Claimed>> {
        let Candidate { to, place, .. } = candidate;
        let Some(mut lead) = self.read(head.number)? else {
            self.at_the_latest(self.now);
            return Ok(None);
        };
        let mut grown = false;
        for number in picked {
            if self.read(*number)?.is_some() {
                self.session.execute(sql::BIND, values![number, head.number])?;
                grown = true;
            }
        }
        // What was picked and can't be read leaves nothing to fold.
        let folding = folding.filter(|why| head.folding == Some(*why) || *why == Folding::Late || grown);
        let mut folded = Vec::new();
        for number in queues::bound(self.session, head.number)? {
            folded.extend(self.read(number)?);
        }
        let renewed = (grown || folding != head.folding) && head.waiting.attempt > 0;
        let wire_id = self.wire_id(head, renewed);
        let name = rows::folding_name(folding);
        self.session.execute(sql::CLAIM, values![head.number, name, wire_id, self.session.replica()])?;
        lead.attempt = lead.attempt.saturating_add(1);
        let now = self.now.as_millisecond();
        self.session.execute(sql::INSERT_ATTEMPT, values![head.number, lead.attempt, now])?;
        let mut begun = place.clone();
        self.policy.began(&to, &mut begun, self.now);
        queues::put_place(self.session, &to, &place, &begun)?;
        let message_id = wire_id.as_deref().and_then(|id| id.parse().ok()).unwrap_or(lead.id);
        Ok(Some(Claimed { message_id, lead, folded, folding, probe: place.failures > 0 }))
    }

    /// The id of its message where that is not its own: other words than before leave under another id.
    fn wire_id(&self, head: &Head, renewed: bool) -> Option<String> {
        let asked = head.wire_id.as_deref() == Some("");
        if renewed || asked { Some(self.policy.message_id().to_string()) } else { head.wire_id.clone() }
    }

    /// One bad row must not stop all the others: it is given up, and what was bound to it waits for itself.
    fn read(&self, number: i64) -> Result<Option<Delivery>> {
        match self.session.one(sql::DELIVERY, values![number], rows::delivery) {
            Ok(delivery) => Ok(Some(delivery)),
            Err(Fault::Unreadable(_)) => {
                tracing::error!(number, "a stored change can't be read; its delivery is given up");
                queues::free(self.session, number)?;
                End::dead(self.now.as_millisecond(), UNREADABLE).of(self.session, number)?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
