//! Random days of a release team against a simple model of what each room must have heard.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use callboard::demo::dataworks::{Fault, RunSpec};
use callboard::model::{RunId, Status, Timestamp};
use callboard::sources::dataworks::Action;
use callboard::store::{Policy, Room};

use crate::bot::{Bot, Eager, PROJECT, Setup};

const ROOMS: [&str; 3] = ["discord:1", "discord:2", "console"];
const RUNS: usize = 4;

#[derive(Debug, Clone, Copy)]
enum Event {
    Advance(usize),
    Fail(usize),
    Cancel(usize),
    Watch(usize, usize),
    Unwatch(usize, usize),
    UnwatchAll(usize),
    /// What the room stopped last is taken up again.
    Undo(usize),
    /// For five minutes the room hears of a run only what somebody must act on.
    Mute(usize, usize),
    Unmute(usize, usize),
    /// A watch and a poll at the same time.
    Race(usize, usize),
    Poll,
    /// DataWorks fails meanwhile.
    FailingPoll,
    Deliver,
    /// The room asks for fewer messages.
    Limit(usize),
    Crash,
    /// The process is gone while it sends.
    CrashInFlight,
    /// Another process subscribes a room.
    Guest(usize, usize),
}

/// What the bot knows of a run, and what it must have said of it.
#[derive(Debug, Clone, Default)]
struct Known {
    stages: Vec<(String, Status)>,
    status: Option<Status>,
}

#[derive(Default)]
struct Model {
    known: BTreeMap<usize, Known>,
    watchers: BTreeMap<usize, BTreeSet<usize>>,
    /// By room and run, until when.
    muted: BTreeMap<(usize, usize), Timestamp>,
    /// By room and run, since when.
    stopped: BTreeMap<(usize, usize), Timestamp>,
    /// By room and run, in order.
    owed: BTreeMap<(usize, usize), Vec<String>>,
}

impl Model {
    /// The bot looks at a run. Returns whether it has ended.
    fn look(&mut self, run: usize, seen: (Status, Vec<(String, Status)>), now: Timestamp) -> bool {
        let (status, stages) = seen;
        let before = self.known.insert(run, Known { stages: stages.clone(), status: Some(status.clone()) });
        if let Some(before) = before {
            let mut lines = Vec::new();
            for ((code, new), (_, old)) in stages.iter().zip(&before.stages) {
                if new != old {
                    lines.push((stage_line(code, new, run), *new == Status::Fail));
                }
            }
            if before.status.as_ref() != Some(&status) && status.is_terminal() {
                lines.push((run_line(&status, run), true));
            }
            for room in self.watchers.get(&run).into_iter().flatten() {
                let is_muted = self.muted.get(&(*room, run)).is_some_and(|until| now < *until);
                let told = lines.iter().filter(|(_, must_act)| *must_act || !is_muted).map(|(line, _)| line.clone());
                let told: Vec<_> = told.collect();
                if !told.is_empty() {
                    self.owed.entry((*room, run)).or_default().extend(told);
                }
            }
        }
        if status.is_terminal() {
            self.watchers.remove(&run);
            self.stopped.retain(|(_, stopped), _| *stopped != run);
        }
        status.is_terminal()
    }

    fn begins(&mut self, room: usize, run: usize) {
        if self.watchers.entry(run).or_default().insert(room) {
            self.muted.remove(&(room, run));
            self.stopped.remove(&(room, run));
        }
    }

    fn stops(&mut self, room: usize, run: usize, now: Timestamp) {
        if self.watchers.get_mut(&run).is_some_and(|rooms| rooms.remove(&room)) {
            self.stopped.insert((room, run), now);
        }
    }

    /// What the room stopped last goes on.
    fn undoes(&mut self, room: usize) -> usize {
        let mine = |(key, at): (&(usize, usize), &Timestamp)| (key.0 == room).then_some((*at, key.1));
        let last = self.stopped.iter().filter_map(mine).map(|(at, _)| at).max();
        let again: Vec<usize> =
            self.stopped.iter().filter_map(mine).filter(|(at, _)| Some(*at) == last).map(|(_, run)| run).collect();
        for run in &again {
            self.stopped.remove(&(room, *run));
            self.watchers.entry(*run).or_default().insert(room);
        }
        again.len()
    }

    fn watches(&self, room: usize, run: usize) -> bool {
        self.watchers.get(&run).is_some_and(|rooms| rooms.contains(&room))
    }
}

fn stage_line(code: &str, status: &Status, run: usize) -> String {
    let said = match status {
        Status::Running => "▶️ # running",
        Status::Success => "✅ # passed",
        Status::Fail => "❌ # failed",
        Status::Cancel => "⏹️ # cancelled",
        other => panic!("{other} does not happen here"),
    };
    format!("{} · release {run}", said.replace('#', code))
}

fn run_line(status: &Status, run: usize) -> String {
    let said = match status {
        Status::Success => "✅ Run succeeded",
        Status::Fail => "❌ Run failed",
        Status::Cancel => "⏹️ Run cancelled",
        other => panic!("{other} is no end"),
    };
    format!("{said} · release {run}")
}

struct Day {
    bot: Bot,
    model: Model,
    runs: Vec<RunId>,
    /// By room and run, in order.
    heard: BTreeMap<(usize, usize), Vec<String>>,
    log: Vec<Event>,
    seed: u64,
}

impl fmt::Debug for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}: {:?}", self.seed, self.log)
    }
}

impl Day {
    async fn begin(seed: u64) -> Day {
        let mut bot = Setup::with(&[]);
        // A stage that waits is no part of this model.
        bot.waiting_after = "1d";
        let bot = Bot::start(bot).await;
        let runs = (0..RUNS).map(|n| bot.world.add_run(PROJECT, RunSpec::online(&format!("release {n}"))));
        let runs = runs.collect();
        Day { bot, model: Model::default(), runs, heard: BTreeMap::new(), log: Vec::new(), seed }
    }

    fn look(&mut self, run: usize) -> bool {
        let seen = self.bot.world.look(PROJECT, &self.runs[run]).unwrap();
        self.model.look(run, seen, self.bot.now())
    }

    async fn happens(&mut self, event: Event) {
        self.log.push(event);
        let ended = |day: &Day, run: usize| day.bot.world.look(PROJECT, &day.runs[run]).unwrap().0.is_terminal();
        match event {
            Event::Advance(run) if !ended(self, run) => self.bot.world.advance(PROJECT, &self.runs[run]).unwrap(),
            Event::Fail(run) if !ended(self, run) => {
                self.bot.world.fail(PROJECT, &self.runs[run], "PROD_CHECK", "no such table").unwrap();
            }
            Event::Cancel(run) if !ended(self, run) => {
                self.bot.world.set_run_status(PROJECT, &self.runs[run], Status::Cancel).unwrap();
            }
            Event::Advance(_) | Event::Fail(_) | Event::Cancel(_) => {}
            Event::Watch(room, run) => self.watch(room, run).await,
            Event::Race(room, run) => self.race(room, run).await,
            Event::Unwatch(room, run) => self.unwatch(room, run).await,
            Event::UnwatchAll(room) => self.unwatch_all(room).await,
            Event::Undo(room) => self.undo(room).await,
            Event::Mute(room, run) => self.mute(room, run, true).await,
            Event::Unmute(room, run) => self.mute(room, run, false).await,
            Event::Poll => self.poll().await,
            Event::FailingPoll => {
                self.bot.world.break_down(Fault::internal_error());
                self.bot.poll().await;
                self.bot.world.recover();
                self.bot.take_logs("polling fails");
            }
            Event::Deliver => self.deliver().await,
            Event::Limit(room) => {
                if let Some(room) = room_of(room).strip_prefix("discord:") {
                    self.bot.discord.limit(&format!("/channels/{room}/"), 1, 0.02);
                }
            }
            Event::Crash => self.bot.restart().await,
            Event::CrashInFlight => {
                let (room, policy) = (Room { messages: 2, probes: 2 }, Arc::new(Eager) as Arc<dyn Policy>);
                self.bot.store().claim(self.bot.now(), room, &policy).await.unwrap();
                self.bot.restart().await;
            }
            Event::Guest(room, run) => self.guest(room, run).await,
        }
    }

    async fn unwatch(&mut self, room: usize, run: usize) {
        // What another process subscribed is known within a second.
        self.bot.keep_house().await;
        let said = self.bot.say(room_of(room), &format!("/unwatch {}", self.runs[run])).await.text;
        let watched = self.model.watches(room, run);
        assert_eq!(said.starts_with("No longer watching"), watched, "{self:?}: {said}");
        self.model.stops(room, run, self.bot.now());
    }

    async fn unwatch_all(&mut self, room: usize) {
        self.bot.keep_house().await;
        let watched: Vec<usize> = (0..RUNS).filter(|run| self.model.watches(room, *run)).collect();
        let said = self.bot.say(room_of(room), "/unwatch all yes").await.text;
        let expected = match watched.len() {
            0 => "This room watches nothing".to_owned(),
            1 => "Stopped 1 watch ".to_owned(),
            count => format!("Stopped {count} watches"),
        };
        assert!(said.starts_with(&expected), "{self:?}: {said}");
        watched.iter().for_each(|run| self.model.stops(room, *run, self.bot.now()));
    }

    async fn undo(&mut self, room: usize) {
        let again = self.model.undoes(room);
        let said = self.bot.say(room_of(room), "/unwatch undo").await.text;
        let is_right = match again {
            0 => said.starts_with("There is nothing to undo"),
            1 => said.starts_with("Watching release") && said.contains("again"),
            count => said.starts_with(&format!("Watching {count} again")),
        };
        assert!(is_right, "{self:?}: {again} were to go on: {said}");
    }

    async fn mute(&mut self, room: usize, run: usize, mutes: bool) {
        self.bot.keep_house().await;
        let command = if mutes { "mute" } else { "unmute" };
        let run_id = self.runs[run].clone();
        let text = if mutes { format!("/{command} {run_id} for:5m") } else { format!("/{command} {run_id}") };
        let said = self.bot.say(room_of(room), &text).await.text;
        let (now, key) = (self.bot.now(), (room, run));
        let is_muted = self.model.muted.get(&key).is_some_and(|until| now < *until);
        let expected = match (self.model.watches(room, run), mutes, is_muted) {
            (false, ..) => "This room does not watch",
            (true, true, _) => "Muted release",
            (true, false, true) => "No longer muted",
            (true, false, false) => "Nothing is muted",
        };
        assert!(said.starts_with(expected), "{self:?}: {said}");
        if self.model.watches(room, run) {
            let until = if mutes { now + Duration::from_secs(300) } else { now };
            self.model.muted.insert(key, until);
        }
    }

    async fn watch(&mut self, room: usize, run: usize) {
        let said = self.bot.say(room_of(room), &format!("/watch {}", self.runs[run])).await.text;
        self.watched(room, run, &said);
    }

    /// What the answer must have been, and what follows.
    fn watched(&mut self, room: usize, run: usize, said: &str) {
        let expected = match (self.look(run), self.model.watches(room, run)) {
            (true, _) => "nothing left to watch",
            (false, true) => "already",
            (false, false) => "Watching release",
        };
        assert!(said.contains(expected), "{self:?}: {said}");
        if expected != "nothing left to watch" {
            self.model.begins(room, run);
        }
    }

    async fn race(&mut self, room: usize, run: usize) {
        let before = self.bot.world.calls(Action::List);
        let text = format!("/watch {}", self.runs[run]);
        let (said, ()) = tokio::join!(self.bot.say(room_of(room), &text), self.bot.poll());
        self.watched(room, run, &said.text);
        self.polled(before);
    }

    /// A poll that is due for sure.
    async fn poll(&mut self) {
        let before = self.bot.world.calls(Action::List);
        for _ in 0..200 {
            self.bot.poll().await;
            if self.bot.world.calls(Action::List) > before {
                break;
            }
        }
        self.polled(before);
    }

    fn polled(&mut self, before: u64) {
        if self.bot.world.calls(Action::List) > before {
            for run in 0..RUNS {
                self.look(run);
            }
        }
    }

    async fn guest(&mut self, room: usize, run: usize) {
        use callboard::model::{Destination, Scope, Selector, Subscription};
        let workspace = callboard::model::WorkspaceKey(format!("cn-shanghai/{PROJECT}"));
        let Some(state) = self.bot.tracker().state(&workspace, &self.runs[run]) else { return };
        if state.snapshot.status.is_terminal() || self.model.watches(room, run) {
            return;
        }
        let to = match room_of(room) {
            "console" => "console:console",
            room => room,
        };
        let subscription = Subscription {
            id: uuid::Uuid::now_v7().to_string(),
            scope: Scope::Run { workspace, run: self.runs[run].clone() },
            to: Destination::from(to.to_owned()),
            on: Selector::watch(),
            stages: Vec::new(),
            creators: Vec::new(),
            template: None,
            by: "cli".to_owned(),
            roles: Vec::new(),
            until: None,
            muted: None,
            stopped: None,
            created_at: self.bot.now(),
        };
        self.bot.guest().await.subscribe(&subscription, Some(&state)).await.unwrap();
        if fastrand::Rng::with_seed(self.seed + self.log.len() as u64).bool() {
            self.bot.keep_house().await;
        }
        // Whether or not the service has heard of it yet: the next change is refused without it.
        self.model.begins(room, run);
    }

    async fn deliver(&mut self) {
        // A room that asked several times in a row is left alone for some minutes.
        for _ in 0..10 {
            self.bot.deliver_all().await;
            if self.bot.open().await.is_empty() {
                break;
            }
            self.bot.step(Duration::from_secs(60));
        }
        self.bot.take_logs("not delivered yet");
        for (room, name) in ROOMS.iter().enumerate() {
            for line in self.bot.heard(name) {
                let run = line.rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap();
                self.heard.entry((room, run)).or_default().push(line);
            }
        }
        assert_eq!(self.heard, self.model.owed, "left what was heard by (room, run), right what was owed; {self:?}");
    }

    async fn ends(mut self) {
        // Housekeeping comes each second.
        self.bot.keep_house().await;
        self.happens(Event::Poll).await;
        (0..RUNS).for_each(|run| self.bot.world.finish(PROJECT, &self.runs[run]).unwrap());
        self.happens(Event::Poll).await;
        self.happens(Event::Deliver).await;
        for room in ROOMS {
            let watches = self.bot.say(room, "/watches").await.text;
            assert!(watches.starts_with("This room watches nothing"), "{self:?}: {watches}");
        }
        self.bot.finish().await;
    }
}

fn room_of(room: usize) -> &'static str {
    ROOMS[room]
}

fn any(random: &mut fastrand::Rng) -> Event {
    let (room, run) = (random.usize(..ROOMS.len()), random.usize(..RUNS));
    match random.u8(..100) {
        0..25 => Event::Advance(run),
        25..28 => Event::Fail(run),
        28..30 => Event::Cancel(run),
        30..48 => Event::Watch(room, run),
        48..53 => Event::Unwatch(room, run),
        53..54 => Event::UnwatchAll(room),
        54..58 => Event::Undo(room),
        58..62 => Event::Race(room, run),
        62..65 => Event::Mute(room, run),
        65..66 => Event::Unmute(room, run),
        66..78 => Event::Poll,
        78..81 => Event::FailingPoll,
        81..90 => Event::Deliver,
        90..93 => Event::Limit(room),
        93..95 => Event::Crash,
        95..97 => Event::CrashInFlight,
        _ => Event::Guest(room, run),
    }
}

/// `SEED=n` repeats one day, `DAYS=n` makes it longer.
#[tokio::test]
async fn every_room_hears_every_change_of_what_it_watches_once_and_in_order() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("SEED").unwrap_or(1);
    let days = if number("SEED").is_some() { 1 } else { number("DAYS").unwrap_or(6) };
    for seed in first..first + days {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut day = Day::begin(seed).await;
        for _ in 0..60 {
            day.happens(any(&mut random)).await;
            day.bot.step(Duration::from_millis(random.u64(..3000)));
        }
        day.ends().await;
    }
}
