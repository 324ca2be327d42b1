//! How often people may ask. Pure: a step for each request, by the moment it came.
//!
//! Three buckets, of the person, of the room and of all together: whoever floods finds their own empty long before they
//! could take anything from others.

use std::collections::HashMap;
use std::time::Duration;

use crate::model::{Asker, Timestamp, elapsed};

/// What a bucket holds, and how long it takes to gain one again.
#[derive(Debug, Clone, Copy)]
struct Limit {
    burst: u32,
    gains_one_in: Duration,
}

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    person: Limit,
    room: Limit,
    all: Limit,
}

/// Commands.
pub const COMMANDS: Limits = Limits {
    person: Limit { burst: 10, gains_one_in: Duration::from_secs(3) },
    room: Limit { burst: 30, gains_one_in: Duration::from_millis(500) },
    all: Limit { burst: 200, gains_one_in: Duration::from_millis(20) },
};

/// Suggestions while somebody types: several for each word. With what commands may take at once, they fit the inbox.
pub const TYPING: Limits = Limits {
    person: Limit { burst: 20, gains_one_in: Duration::from_millis(500) },
    room: Limit { burst: 40, gains_one_in: Duration::from_millis(100) },
    all: Limit { burst: 50, gains_one_in: Duration::from_millis(50) },
};

/// Buckets of persons, and of rooms, at most. Those that are full again are forgotten before.
const KEPT: usize = 10_000;
const SWEPT_EVERY: Duration = Duration::from_secs(10);

/// Why a request is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The person, or their room, asked too much.
    TooMuch,
    /// And heard so already.
    Still,
    /// All together asked too much.
    Busy,
}

#[derive(Debug)]
pub struct Rates {
    limits: Limits,
    persons: HashMap<String, Bucket>,
    rooms: HashMap<(String, String), Bucket>,
    all: Bucket,
    swept_at: Timestamp,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    full_at: Timestamp,
    /// Whoever found it empty heard so.
    told: bool,
}

impl Bucket {
    const FULL: Bucket = Bucket { full_at: Timestamp::MIN, told: false };

    /// From when on it is full; a clock that went back may not lock anybody out.
    fn full_at(&self, limit: Limit, now: Timestamp) -> Timestamp {
        let full_at = self.full_at.max(now);
        if elapsed(now, full_at) > limit.gains_one_in * limit.burst { now } else { full_at }
    }

    fn holds_one(&self, limit: Limit, now: Timestamp) -> bool {
        elapsed(now, self.full_at(limit, now)) <= limit.gains_one_in * limit.burst.saturating_sub(1)
    }

    fn take(&mut self, limit: Limit, now: Timestamp) {
        let full_at = self.full_at(limit, now).checked_add(limit.gains_one_in);
        *self = Bucket { full_at: full_at.unwrap_or(Timestamp::MAX), told: false };
    }
}

impl Rates {
    pub fn new(limits: Limits) -> Rates {
        let (persons, rooms) = (HashMap::new(), HashMap::new());
        Rates { limits, persons, rooms, all: Bucket::FULL, swept_at: Timestamp::MIN }
    }

    /// One more request, which costs nothing when it is refused.
    pub fn take(&mut self, asker: &Asker, now: Timestamp) -> Result<(), Refused> {
        self.sweep(now);
        let Limits { person: of_person, room: of_room, all: of_all } = self.limits;
        let (person, room) = (asker.person(), (asker.surface.clone(), asker.room.clone()));
        let own = self.persons.get(&person).copied().unwrap_or(Bucket::FULL);
        let shared = self.rooms.get(&room).copied().unwrap_or(Bucket::FULL);
        if !own.holds_one(of_person, now) || !shared.holds_one(of_room, now) {
            let can_tell = self.persons.len() < KEPT || self.persons.contains_key(&person);
            if own.told || !can_tell {
                return Err(Refused::Still);
            }
            let full_at = own.full_at.max(now);
            self.persons.insert(person, Bucket { full_at, told: true });
            return Err(Refused::TooMuch);
        }
        let is_full = |count: usize, known: bool| count >= KEPT && !known;
        if !self.all.holds_one(of_all, now)
            || is_full(self.persons.len(), self.persons.contains_key(&person))
            || is_full(self.rooms.len(), self.rooms.contains_key(&room))
        {
            return Err(Refused::Busy);
        }
        self.persons.entry(person).or_insert(Bucket::FULL).take(of_person, now);
        self.rooms.entry(room).or_insert(Bucket::FULL).take(of_room, now);
        self.all.take(of_all, now);
        Ok(())
    }

    /// A full bucket is worth nothing.
    fn sweep(&mut self, now: Timestamp) {
        let is_due = now < self.swept_at || elapsed(self.swept_at, now) >= SWEPT_EVERY;
        if is_due {
            self.swept_at = now;
            self.persons.retain(|_, bucket| bucket.full_at > now);
            self.rooms.retain(|_, bucket| bucket.full_at > now);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asker(user: usize, room: usize) -> Asker {
        let (room, user) = (room.to_string(), user.to_string());
        Asker { surface: "discord".to_owned(), room, user, roles: Vec::new() }
    }

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + milliseconds).unwrap()
    }

    #[test]
    fn a_person_has_ten_at_once_then_one_in_three_seconds_and_hears_once_that_it_is_too_much() {
        let mut rates = Rates::new(COMMANDS);
        let mut ask = |milliseconds| rates.take(&asker(1, 1), at(milliseconds));
        assert!((0..10).all(|_| ask(0) == Ok(())));
        assert_eq!(ask(0), Err(Refused::TooMuch));
        assert_eq!(ask(1), Err(Refused::Still));
        assert_eq!(ask(2_999), Err(Refused::Still));
        assert_eq!(ask(3_000), Ok(()));
        assert_eq!(ask(3_000), Err(Refused::TooMuch), "said again after something passed");
        assert!((0..10).all(|_| ask(60_000) == Ok(())), "full again");
    }

    #[test]
    fn a_room_has_thirty_at_once_then_two_a_second_and_all_together_two_hundred() {
        let mut rates = Rates::new(COMMANDS);
        for person in 0..30 {
            assert_eq!(rates.take(&asker(person, 1), at(0)), Ok(()));
        }
        assert_eq!(rates.take(&asker(99, 1), at(0)), Err(Refused::TooMuch));
        assert_eq!(rates.take(&asker(98, 1), at(0)), Err(Refused::TooMuch), "each person hears it");
        assert_eq!(rates.take(&asker(99, 1), at(500)), Ok(()));
        for person in 100..268 {
            assert_eq!(rates.take(&asker(person, person), at(500)), Ok(()), "{person}");
        }
        let passed = (300..600).filter(|person| rates.take(&asker(*person, *person), at(500)).is_ok()).count();
        assert!(passed < 30, "{passed} more");
        assert_eq!(rates.take(&asker(700, 700), at(500)), Err(Refused::Busy));
        assert_eq!(rates.take(&asker(700, 700), at(520)), Ok(()));
    }

    #[test]
    fn a_flood_of_one_takes_nothing_from_others_and_a_clock_that_went_back_locks_nobody_out() {
        let mut rates = Rates::new(COMMANDS);
        let passed =
            (0..10_000).filter(|n| rates.take(&asker(1, n % 500), at(i64::try_from(*n).unwrap() / 10)).is_ok()).count();
        assert_eq!(passed, 10, "in a second");
        assert_eq!(rates.take(&asker(2, 1), at(1_000)), Ok(()));
        assert_eq!(rates.take(&asker(1, 1), at(-3_600_000)), Ok(()));
    }

    #[test]
    fn what_is_full_again_is_forgotten() {
        let mut rates = Rates::new(COMMANDS);
        for person in 0..200_000 {
            let _ = rates.take(&asker(person, person), at(i64::try_from(person).unwrap()));
            assert!(rates.persons.len() <= 4_000 && rates.rooms.len() <= 4_000, "{}", rates.persons.len());
        }
        assert!(rates.take(&asker(1, 1), at(10_000_000)).is_ok());
        assert_eq!((rates.persons.len(), rates.rooms.len()), (1, 1));
    }

    proptest! {
        /// However they come, no person gets more than the burst and what it gained meanwhile.
        #[test]
        fn nobody_gets_more_than_their_share(asks in prop::collection::vec((0usize..3, 0usize..3, 0i64..2_000), 1..200)) {
            let mut rates = Rates::new(COMMANDS);
            let (mut now, mut passed) = (0, [0_i64; 3]);
            for (person, room, pause) in asks {
                now += pause;
                if rates.take(&asker(person, room), at(now)).is_ok() {
                    passed[person] += 1;
                }
                prop_assert!(passed.iter().all(|count| *count <= 10 + now / 3_000), "{:?} in {} ms", passed, now);
            }
        }
    }
}
