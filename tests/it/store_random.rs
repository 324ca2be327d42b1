//! Any order of it: random sequences of verbs do the same to SQLite and PostgreSQL as to the store in memory, and nothing is lost,
//! doubled, out of order or unaccounted for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use callboard::model::{
    Claimed, DeliveryState, Destination, Outcome, Place, Plan, Queue, RunId, Timestamp, WorkspaceKey,
};
use callboard::store::{
    self, Announcement, Claims, DeliveryFilter, DeliveryRow, Loaded, NewDelivery, Next, Overview, PlaceRow, Policy,
    Poll, Room, Settlement, Store, Told,
};
use proptest::prelude::*;
use uuid::Uuid;

use crate::store_scene::{Ground, at, moved, notice, outcome, owed, room, run_id, state, warehouse, watch};

const ROOMS: [&str; 4] = ["ops", "dev", "discord:1", "discord:2"];
const RUNS: [&str; 4] = ["r0", "r1", "r2", "r3"];
const TEMPLATES: [Option<&str>; 3] = [None, None, Some("release")];

/// Decides by what it is asked and by a seed, so that two of them decide alike.
struct Dice {
    seed: u64,
    ids: Mutex<u128>,
}

impl Dice {
    fn of(seed: u64) -> Arc<dyn Policy> {
        Arc::new(Dice { seed, ids: Mutex::new(1) })
    }

    /// One of `sides`, by what is at stake.
    fn throw(&self, sides: u64, stake: &str) -> u64 {
        let mut hash = self.seed ^ 0xcbf2_9ce4_8422_2325;
        for byte in stake.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        (hash >> 33) % sides
    }
}

impl Policy for Dice {
    fn at_once(&self, _: &Place) -> usize {
        usize::MAX
    }

    fn opens_at(&self, to: &Destination, place: &Place, account: Option<&Place>, now: Timestamp) -> Option<Timestamp> {
        if place.failures > 4 || account.is_some_and(|account| account.failures > 4) {
            return None;
        }
        let closed = self.throw(6, &format!("opens {to} {place:?} {account:?} {now}")) == 0;
        Some(if closed { now + Duration::from_secs(7) } else { now })
    }

    fn plan(&self, queue: &Queue<'_>, now: Timestamp) -> Plan {
        let stake = format!("{queue:?} {now}");
        match self.throw(12, &stake) {
            0 => Plan::Hold(now + Duration::from_secs(5)),
            1 => Plan::GiveUp { reason: "thrown away" },
            2..5 => Plan::Single,
            5..8 => Plan::CatchUp { rows: queue.run.len() },
            8 => Plan::CatchUp { rows: 2 },
            9 => Plan::Digest { rows: 3 },
            _ => Plan::Digest { rows: 20 },
        }
    }

    fn began(&self, _: &Destination, place: &mut Place, now: Timestamp) {
        place.sent = vec![now];
    }

    fn ended(
        &self,
        settlement: &Settlement,
        to: &Destination,
        place: &mut Place,
        account: Option<&mut Place>,
    ) -> Vec<Announcement> {
        let was_out = place.failures > 1;
        match &settlement.outcome {
            Outcome::Delivered { .. } => *place = Place::default(),
            _ => place.failures += 1,
        }
        if let Some(account) = account.filter(|_| self.throw(4, &settlement.id.to_string()) == 0) {
            account.failures = u32::from(place.failures > 0) * (account.failures + 1);
        }
        let is_end = place.failures == 0;
        let mut announced = notice(&to.to_string(), is_end, seconds(settlement.ended_at), &["ops"]);
        announced.to.iter_mut().for_each(|(id, _)| *id = Uuid::from_u128(settlement.id.as_u128() ^ (1 << 127)));
        if was_out { vec![announced] } else { Vec::new() }
    }

    fn message_id(&self) -> Uuid {
        let mut ids = self.ids.lock().unwrap();
        *ids += 1;
        Uuid::from_u128(*ids)
    }
}

fn seconds(moment: Timestamp) -> i64 {
    moment.as_second() - at(0).as_second()
}

#[derive(Debug, Clone)]
enum Step {
    Record {
        run: usize,
        owed: Vec<(usize, usize, bool, bool)>,
    },
    Claim {
        messages: usize,
        probes: usize,
    },
    Settle {
        which: usize,
        how: usize,
        wait: i64,
    },
    SettleAgain,
    Discard {
        which: usize,
    },
    Retry {
        which: usize,
    },
    Revive {
        to: usize,
    },
    Announce {
        about: usize,
        is_end: bool,
    },
    Subscribe {
        run: usize,
        to: usize,
    },
    Prune {
        ago: i64,
    },
    Pass {
        seconds: i64,
    },
    /// Of what is under way, only so many are known to be.
    Release {
        heard: usize,
    },
    Die,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let owed = (0..ROOMS.len(), 0..TEMPLATES.len(), prop::bool::weighted(0.2), prop::bool::weighted(0.1));
    let step = prop_oneof![
        8 => (0..RUNS.len(), prop::collection::vec(owed, 0..5)).prop_map(|(run, owed)| Step::Record { run, owed }),
        8 => (0..6_usize, 0..3_usize).prop_map(|(messages, probes)| Step::Claim { messages, probes }),
        9 => (0..8_usize, 0..8_usize, 0..60_i64).prop_map(|(which, how, wait)| Step::Settle { which, how, wait }),
        1 => Just(Step::SettleAgain),
        2 => (0..60_usize).prop_map(|which| Step::Discard { which }),
        2 => (0..60_usize).prop_map(|which| Step::Retry { which }),
        1 => (0..=ROOMS.len()).prop_map(|to| Step::Revive { to }),
        1 => (0..2_usize, any::<bool>()).prop_map(|(about, is_end)| Step::Announce { about, is_end }),
        1 => (0..RUNS.len(), 0..ROOMS.len()).prop_map(|(run, to)| Step::Subscribe { run, to }),
        1 => (0..200_i64).prop_map(|ago| Step::Prune { ago }),
        3 => (1..40_i64).prop_map(|seconds| Step::Pass { seconds }),
        1 => (0..4_usize).prop_map(|heard| Step::Release { heard }),
        1 => Just(Step::Die),
    ];
    prop::collection::vec(step, 1..60)
}

/// All that can be seen of a store.
#[derive(Debug, PartialEq)]
struct View {
    loaded: Loaded,
    rows: Vec<DeliveryRow>,
    places: Vec<PlaceRow>,
    overview: Overview,
    history: Vec<Told>,
}

async fn view(store: &Arc<dyn Store>) -> View {
    View {
        loaded: store.load().await.unwrap(),
        rows: store.deliveries(&DeliveryFilter { limit: 10_000, ..DeliveryFilter::default() }).await.unwrap(),
        places: store.places().await.unwrap(),
        overview: store.overview().await.unwrap(),
        history: store.history(&warehouse().key(), &run_id("r1"), 100).await.unwrap(),
    }
}

/// One of the two stores, and its half of the dice.
struct Side {
    ground: Ground,
    store: Option<Arc<dyn Store>>,
    policy: Arc<dyn Policy>,
}

impl Side {
    async fn on(ground: Ground, seed: u64) -> Side {
        Side { store: Some(ground.owner().await), ground, policy: Dice::of(seed) }
    }

    fn store(&self) -> &Arc<dyn Store> {
        self.store.as_ref().unwrap()
    }
}

/// What happens to both.
struct Pair {
    sides: [Side; 2],
    now: i64,
    ids: u128,
    versions: BTreeMap<RunId, i64>,
    in_flight: Vec<Claimed>,
    last: Option<Settlement>,
}

impl Pair {
    async fn of(engine: Ground, seed: u64) -> Pair {
        let sides = [Side::on(engine, seed).await, Side::on(Ground::memory(), seed).await];
        Pair { sides, now: 0, ids: 1 << 64, versions: BTreeMap::new(), in_flight: Vec::new(), last: None }
    }

    fn id(&mut self) -> Uuid {
        self.ids += 1;
        Uuid::from_u128(self.ids)
    }

    /// The same verb on both, with the same result.
    async fn both<T: PartialEq + std::fmt::Debug>(&self, act: impl AsyncFn(&Side) -> T) -> T {
        let [file, memory] = &self.sides;
        let (file, memory) = (act(file).await, act(memory).await);
        assert_eq!(file, memory, "left: the file, right: memory");
        file
    }

    async fn step(&mut self, step: &Step) {
        match step {
            Step::Record { run, owed } => self.record(RUNS[*run], owed).await,
            Step::Claim { messages, probes } => {
                self.claim(Room { messages: *messages, probes: *probes }).await;
            }
            Step::Settle { which, how, wait } => self.settle(*which, *how, *wait).await,
            Step::SettleAgain => {
                if let Some(settlement) = self.last.clone() {
                    self.both(async |side| side.store().settle(&settlement, &side.policy).await).await.unwrap();
                }
            }
            Step::Discard { which } => {
                let (now, id) = (at(self.now), self.row(*which).await);
                self.both(async |side| side.store().discard(id, now).await.unwrap()).await;
            }
            Step::Retry { which } => {
                let (now, id) = (at(self.now), self.row(*which).await);
                self.both(async |side| side.store().retry(id, now).await.unwrap()).await;
            }
            Step::Revive { to } => {
                let (now, to) = (at(self.now), room(ROOMS.get(*to).unwrap_or(&"discord:")));
                self.both(async |side| side.store().revive(&to, now).await.unwrap()).await;
            }
            Step::Announce { about, is_end } => {
                let mut announcement = notice(ROOMS[*about], *is_end, self.now, &["dev", "ops"]);
                for (id, _) in &mut announcement.to {
                    *id = self.id();
                }
                self.both(async |side| side.store().announce(&announcement).await.unwrap()).await;
            }
            Step::Subscribe { run, to } => {
                let subscription = watch(&self.id().to_string(), RUNS[*run], ROOMS[*to]);
                let known = self.versions.contains_key(&run_id(RUNS[*run]));
                let state = state(RUNS[*run], 1);
                let state = known.then_some(&state);
                let run = self.both(async |side| side.store().subscribe(&subscription, state).await.unwrap()).await;
                if let callboard::store::Subscribed::New { run: Some(run) } = run {
                    self.versions.insert(run.snapshot.id.clone(), run.version);
                }
            }
            Step::Prune { ago } => {
                let before = at(self.now - ago);
                self.both(async |side| side.store().prune(before).await.unwrap()).await;
            }
            Step::Pass { seconds } => self.now += seconds,
            Step::Release { heard } => {
                self.in_flight.truncate(*heard);
                let known: Vec<(Uuid, u32)> =
                    self.in_flight.iter().map(|message| (message.lead.id, message.lead.attempt)).collect();
                self.both(async |side| side.store().release(&known).await.unwrap()).await;
            }
            Step::Die => self.die().await,
        }
    }

    async fn record(&mut self, run: &str, to: &[(usize, usize, bool, bool)]) {
        let version = self.versions.get(&run_id(run)).map_or(1, |version| version + 1);
        self.versions.insert(run_id(run), version);
        let mut poll: Poll = moved(run, version, &[]);
        poll.changes[0].at = at(self.now);
        for (to, template, urgent, missed) in to {
            let id = self.id();
            let count = usize::from(*urgent) + 1;
            poll.deliveries.push(NewDelivery {
                id,
                template: TEMPLATES[*template].map(str::to_owned),
                urgent: *urgent,
                missed: *missed,
                at: at(self.now),
                subscriptions: (0..count).map(|n| format!("s{n}")).collect(),
                ..owed(run, version, ROOMS[*to])
            });
        }
        self.both(async |side| side.store().record(&poll).await.unwrap()).await;
        let seen: [(WorkspaceKey, Timestamp); 1] = [(warehouse().key(), at(self.now))];
        self.both(async |side| side.store().saw(&seen).await.unwrap()).await;
    }

    async fn claim(&mut self, room: Room) -> Claims {
        let now = at(self.now);
        let claims = self.both(async |side| side.store().claim(now, room, &side.policy).await.unwrap()).await;
        assert!(claims.claimed.len() <= room.messages, "more than there was room for");
        assert!(claims.claimed.iter().filter(|message| message.probe).count() <= room.probes);
        self.in_flight.extend(claims.claimed.iter().cloned());
        claims
    }

    async fn settle(&mut self, which: usize, how: usize, wait: i64) {
        if self.in_flight.is_empty() {
            return;
        }
        let message = self.in_flight.remove(which % self.in_flight.len());
        let later = at(self.now + wait);
        let next = match how {
            0..3 => Next::Delivered,
            3 | 4 => Next::Pending { at: later },
            5 => Next::Unknown { at: later },
            6 => Next::Rejected,
            _ => Next::Dead,
        };
        self.end(&message, next).await;
    }

    async fn end(&mut self, message: &Claimed, next: Next) {
        let settlement = Settlement {
            id: message.lead.id,
            attempt: message.lead.attempt,
            started_at: at(self.now - 1),
            ended_at: at(self.now),
            chance: 0.5,
            outcome: outcome(next),
            next,
        };
        self.both(async |side| side.store().settle(&settlement, &side.policy).await).await.unwrap();
        self.last = Some(settlement);
    }

    async fn row(&self, which: usize) -> Uuid {
        let filter = DeliveryFilter { limit: 10_000, ..DeliveryFilter::default() };
        let rows = self.sides[1].store().deliveries(&filter).await.unwrap();
        rows.get(which % rows.len().max(1)).map_or(Uuid::nil(), |row| row.delivery.id)
    }

    async fn die(&mut self) {
        for side in &mut self.sides {
            side.store = None;
            side.store = Some(side.ground.owner().await);
        }
        self.in_flight.clear();
    }

    /// The first one becomes a store on other ground. What is under way dies with its process.
    async fn move_to(&mut self, ground: Ground) {
        let [moving, memory] = &mut self.sides;
        (moving.store, memory.store) = (None, None);
        store::migrate(&moving.ground.settings(), &ground.settings()).await.unwrap();
        moving.ground = ground;
        moving.store = Some(moving.ground.owner().await);
        // Whoever moved it has counted what was under way; the next one to open it finds nothing.
        drop(memory.ground.owner().await);
        memory.store = Some(memory.ground.owner().await);
        self.in_flight.clear();
    }

    async fn compare(&self) {
        let seen = self.both(async |side| view(side.store()).await).await;
        assert!(seen.overview.ledger.is_balanced(), "{:?}", seen.overview.ledger);
        check(&seen.rows);
    }

    /// Once nothing fails any more, everything arrives.
    async fn drain(&mut self) {
        for side in &mut self.sides {
            side.policy = Arc::new(Calm);
        }
        for message in std::mem::take(&mut self.in_flight) {
            self.end(&message, Next::Delivered).await;
        }
        for name in ROOMS {
            let (to, now) = (room(name), at(self.now));
            self.both(async |side| side.store().revive(&to, now).await.unwrap()).await;
        }
        loop {
            let claims = self.claim(Room { messages: 9, probes: 9 }).await;
            for message in std::mem::take(&mut self.in_flight) {
                self.end(&message, Next::Delivered).await;
            }
            self.compare().await;
            match claims.next_at {
                _ if !claims.claimed.is_empty() => {}
                Some(next_at) => self.now = self.now.max(seconds(next_at)),
                None => break,
            }
        }
        let open = self.both(async |side| side.store().overview().await.unwrap().ledger.open).await;
        assert_eq!(open, 0, "nothing may stay behind");
    }
}

/// Everything leaves, and arrives.
struct Calm;

impl Policy for Calm {
    fn at_once(&self, _: &Place) -> usize {
        usize::MAX
    }

    fn opens_at(&self, _: &Destination, _: &Place, _: Option<&Place>, now: Timestamp) -> Option<Timestamp> {
        Some(now)
    }
    fn plan(&self, queue: &Queue<'_>, _: Timestamp) -> Plan {
        if queue.waiting > 5 { Plan::Digest { rows: 20 } } else { Plan::Single }
    }
    fn began(&self, _: &Destination, _: &mut Place, _: Timestamp) {}
    fn ended(&self, _: &Settlement, _: &Destination, _: &mut Place, _: Option<&mut Place>) -> Vec<Announcement> {
        Vec::new()
    }
    fn message_id(&self) -> Uuid {
        Uuid::nil()
    }
}

/// What holds whatever happened. Newest first.
fn check(rows: &[DeliveryRow]) {
    let by_id: BTreeMap<Uuid, &DeliveryRow> = rows.iter().map(|row| (row.delivery.id, row)).collect();
    let mut keys = BTreeSet::new();
    for row in rows {
        let of = row.delivery.news.change().map(|change| (change.run.id.clone(), change.sequence));
        if let Some((run, sequence)) = of {
            let key = (row.delivery.to.clone(), row.delivery.template.clone(), run, sequence);
            assert!(keys.insert(key), "a second row for one change, destination and template");
        }
        let Some(lead) = row.folded_into.and_then(|lead| by_id.get(&lead)) else { continue };
        assert_eq!((&lead.delivery.to, &lead.delivery.template), (&row.delivery.to, &row.delivery.template));
        assert_eq!(lead.folded_into, None, "a lead is nobody's cargo");
        match row.state {
            DeliveryState::Pending => assert!(
                matches!(lead.state, DeliveryState::Pending | DeliveryState::InFlight | DeliveryState::Unknown),
                "it was left behind"
            ),
            DeliveryState::Superseded => {
                assert_eq!(lead.state, DeliveryState::Delivered, "it counts as told, and nobody told it");
            }
            other => panic!("a folded row can't be {other:?}"),
        }
    }
}

fn live_through(engine: impl Future<Output = Ground>, seed: u64, steps: &[Step]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut pair = Pair::of(engine.await, seed).await;
        for step in steps {
            pair.step(step).await;
            pair.compare().await;
        }
        pair.drain().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sqlite_does_what_memory_does_and_nothing_is_lost(seed in any::<u64>(), steps in steps()) {
        live_through(async { Ground::file() }, seed, &steps);
    }
}

/// As before until it moves, and after it.
fn live_through_a_move(to: impl Future<Output = Ground>, seed: u64, before: &[Step], after: &[Step]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut pair = Pair::of(Ground::file(), seed).await;
        for step in before {
            pair.step(step).await;
        }
        pair.compare().await;
        pair.move_to(to.await).await;
        pair.compare().await;
        for step in after {
            pair.step(step).await;
            pair.compare().await;
        }
        pair.drain().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_store_that_moved_to_postgres_is_the_store_it_was(seed in any::<u64>(), before in steps(), after in steps()) {
        live_through_a_move(Ground::postgres(), seed, &before, &after);
    }

    #[test]
    fn a_store_that_moved_to_another_file_is_the_store_it_was(seed in any::<u64>(), before in steps(), after in steps()) {
        live_through_a_move(async { Ground::file() }, seed, &before, &after);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn postgres_does_what_memory_does_and_nothing_is_lost(seed in any::<u64>(), steps in steps()) {
        live_through(Ground::postgres(), seed, &steps);
    }
}
