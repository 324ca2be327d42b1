//! What happens in one simulated life of the bot, made from a seed.

use serde::{Deserialize, Serialize};

/// Everything that a seed decides before the first step.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Scenario {
    pub seed: u64,
    pub runs: usize,
    pub subscriptions: Vec<Wish>,
    pub events: Vec<Event>,
}

/// A standing subscription.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Wish {
    pub place: usize,
    pub on: On,
    pub template: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum On {
    Everything,
    Failures,
    Ends,
}

/// Destinations, each with its own terms. Order matters: [`super::world`] knows them by index.
pub const PLACES: [&str; 7] = ["slow", "nonce:1", "nonce:2", "hook", "plain", "lossy", "ops"];
/// The one that hears of troubles; nobody subscribes with it.
pub const OPERATORS: usize = 6;

/// How a destination answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    Good,
    /// Connections are refused.
    Down,
    /// It takes the message and does not answer.
    Mute,
    /// The connection breaks before the message arrived, but after bytes left.
    Deaf,
    /// Too many messages; for so many seconds, where it says so. For the whole bot, where it is one.
    Limiting(Option<u16>, bool),
    /// It refuses every digest, and takes single messages.
    Picky,
    /// It takes a digest without an answer, and refuses it when it comes again.
    Fickle,
    /// It refuses every message for good.
    Hostile,
    /// This one message is refused.
    Refusing,
    Gone,
    Denying,
    /// It takes the message, and answers when the test says so.
    Slow,
    /// Our own code breaks.
    Panicking,
    /// It takes the message and says that it takes no more for so many seconds.
    Full(u8),
}

/// What becomes of a watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Amendment {
    /// For so many minutes only what somebody must act on is told.
    Mute(u8),
    /// It ends after so many minutes.
    For(u8),
    Stop,
    /// What was stopped goes on.
    Undo,
}

/// A verb of the store that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verb {
    Record,
    Claim,
    Settle,
    Subscribe,
    Any,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// Time passes, and the bot does what it would do meanwhile.
    Wait(u32),
    /// The run's next step in the pipeline.
    Advance(usize),
    /// Several steps that no poll sees one by one.
    Leap(usize, u8),
    Fail(usize),
    /// A failed stage runs again.
    Again(usize),
    Poll,
    /// A poll that shows an older truth.
    StalePoll(u8),
    Watch(usize, usize),
    Unwatch(usize, usize),
    Amend(usize, usize, Amendment),
    /// The dispatcher looks once, and nothing that it began is waited for.
    Tick,
    Becomes(usize, Condition),
    /// What a slow destination was sent is answered.
    Answer,
    /// The next of these verbs fail, before or after they were committed.
    StoreFails(Verb, bool, u8),
    /// The process dies now.
    Crash,
    /// Nothing that this place is sent arrives, for hours.
    Outage(usize, u8),
    /// Nobody can see the pipelines, for hours.
    Blind(u8),
    /// What ended so many hours ago is deleted, and what waits for so long is given up.
    Prune(u8),
    /// The process dies in the next of these verbs, before or after it was committed.
    CrashIn(Verb, bool),
    /// Nobody is there for so many minutes.
    Downtime(u16),
    /// A person retries what is dead.
    Retry,
    Discard(u8),
    Revive(usize),
    /// The clock goes back by so many seconds.
    ClockBack(u16),
    /// The clock jumps ahead by so many seconds.
    ClockAhead(u32),
    /// Another process subscribed; housekeeping has not seen it yet.
    Guest(usize, usize),
    Housekeeping,
}

impl Scenario {
    pub fn of(seed: u64) -> Scenario {
        let mut random = fastrand::Rng::with_seed(seed);
        let runs = random.usize(1..=3);
        let wish = |random: &mut fastrand::Rng| Wish {
            place: random.usize(0..OPERATORS),
            on: [On::Everything, On::Everything, On::Failures, On::Ends][random.usize(0..4)],
            template: random.u8(0..8) == 0,
        };
        let subscriptions = (0..random.usize(1..=4)).map(|_| wish(&mut random)).collect();
        // Some lives are calm, some are not.
        let trouble = random.usize(0..=3);
        let events = (0..random.usize(8..=36)).map(|_| event(&mut random, runs, trouble)).collect();
        Scenario { seed, runs, subscriptions, events }
    }
}

fn event(random: &mut fastrand::Rng, runs: usize, trouble: usize) -> Event {
    let run = random.usize(0..runs);
    let place = random.usize(0..PLACES.len());
    let verb = [Verb::Record, Verb::Claim, Verb::Settle, Verb::Settle, Verb::Subscribe, Verb::Any][random.usize(0..6)];
    match random.usize(0..26 + 8 * trouble) {
        0..=3 => Event::Wait([1, 2, 5, 5, 20, 60, 90, 700][random.usize(0..8)]),
        4..=8 => Event::Advance(run),
        9 => Event::Leap(run, random.u8(2..6)),
        10 => Event::Fail(run),
        11 => Event::Again(run),
        12..=17 => Event::Poll,
        18 => Event::StalePoll(random.u8(1..4)),
        19..=20 => Event::Watch(random.usize(0..OPERATORS), run),
        21 => match random.usize(0..6) {
            0..=1 => Event::Unwatch(random.usize(0..OPERATORS), run),
            2 => Event::Amend(random.usize(0..OPERATORS), run, Amendment::Mute(random.u8(1..60))),
            3 => Event::Amend(random.usize(0..OPERATORS), run, Amendment::For(random.u8(1..60))),
            4 => Event::Amend(random.usize(0..OPERATORS), run, Amendment::Stop),
            _ => Event::Amend(random.usize(0..OPERATORS), run, Amendment::Undo),
        },
        22..=23 => Event::Tick,
        24 => Event::Answer,
        25 => Event::Housekeeping,
        _ => match random.usize(0..19) {
            0..=4 => Event::Becomes(place, condition(random)),
            5 => Event::Becomes(place, Condition::Good),
            6 => Event::StoreFails(verb, random.bool(), random.u8(1..4)),
            7 => Event::Crash,
            8 => Event::CrashIn(verb, random.bool()),
            9 => Event::Downtime([1, 9, 11, 60, 600][random.usize(0..5)]),
            10 => Event::Wait([700, 4_000, 30_000][random.usize(0..3)]),
            11 => {
                if random.bool() {
                    Event::Retry
                } else {
                    Event::Discard(random.u8(..))
                }
            }
            12 => Event::Revive(place),
            13 => Event::ClockBack([1, 30, 4_000][random.usize(0..3)]),
            14 => Event::Guest(random.usize(0..OPERATORS), run),
            15 => Event::Prune([1, 30, 100][random.usize(0..3)]),
            16 => Event::ClockAhead([60, 4_000, 100_000][random.usize(0..3)]),
            17 => match random.u8(0..4) {
                0 => Event::Outage(place, [5, 30, 100, 130][random.usize(0..4)]),
                1 => Event::Blind([5, 30, 60][random.usize(0..3)]),
                _ => Event::Becomes(place, Condition::Hostile),
            },
            _ => Event::Answer,
        },
    }
}

fn condition(random: &mut fastrand::Rng) -> Condition {
    match random.usize(0..15) {
        0 => Condition::Good,
        1..=2 => Condition::Down,
        3..=4 => Condition::Mute,
        5 => Condition::Deaf,
        6 => Condition::Limiting(random.bool().then(|| random.u16(1..900)), random.bool()),
        7 => Condition::Picky,
        8 => Condition::Refusing,
        9 => Condition::Gone,
        10 => Condition::Denying,
        11 => Condition::Slow,
        12 => Condition::Panicking,
        13 => Condition::Fickle,
        _ => Condition::Full(random.u8(1..20)),
    }
}
