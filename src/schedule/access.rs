//! Whether the account's credentials pass. What is refused to one workspace is refused to all of them, so one call
//! finds out for everybody. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::after;
use crate::model::Timestamp;

/// While credentials are refused, one call in this time tries them.
const PROBING: Duration = Duration::from_secs(60);
/// Whoever waits for the turn of another process asks again after this time.
const LOOK: Duration = Duration::from_secs(5);
/// Whoever tried last lets all others ask first.
const GIVING_WAY: Duration = Duration::from_secs(6);

#[derive(Debug, Clone, Default)]
pub struct Access {
    refused: Option<Refused>,
}

#[derive(Debug, Clone)]
struct Refused {
    at: Timestamp,
    next: Timestamp,
    said: String,
}

impl Access {
    /// What was said when the credentials were refused last, and when the next call may try them, the past included.
    /// `None`: they passed.
    pub fn refused(&mut self, now: Timestamp) -> Option<(&str, Timestamp)> {
        let refused = self.refused.as_mut()?;
        // A clock that was set back holds up nothing.
        refused.at = refused.at.min(now);
        refused.next = refused.next.min(after(now, PROBING));
        Some((&refused.said, refused.next))
    }

    /// A call begins. While the credentials are refused, it is the one that tries them.
    pub fn began(&mut self, now: Timestamp) {
        if let Some(refused) = &mut self.refused {
            refused.next = after(now, PROBING);
        }
    }

    /// It is another process's turn to try them. Returns when to ask again.
    pub fn wait(&mut self, now: Timestamp) -> Timestamp {
        let next = after(now, LOOK);
        if let Some(refused) = &mut self.refused {
            refused.next = next;
        }
        next
    }

    /// A call was refused for its credentials; `said` is for people. Returns when the next one may try them.
    pub fn denied(&mut self, said: String, now: Timestamp) -> Timestamp {
        let next = after(now, PROBING);
        self.refused = Some(Refused { at: now, next, said });
        next
    }

    /// The credentials of a call that began then were good. One that began before the refusal proves nothing. Says
    /// whether they had been refused until now.
    pub fn passed(&mut self, began: Timestamp) -> bool {
        self.refused.take_if(|refused| began > refused.at).is_some()
    }
}

/// Who tries refused credentials, where several processes are refused: one at a time. They keep it together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    next: Timestamp,
    by: String,
}

impl Turn {
    /// What is kept from now on, and whether it is the turn of `me`. A process may be refused alone, because its key is
    /// an old one: so nobody may keep the turn from another one for good.
    pub fn take(kept: Option<Turn>, me: &str, now: Timestamp) -> (Turn, bool) {
        // A clock that was set back holds up nothing.
        let kept = kept.filter(|kept| kept.next <= after(now, PROBING));
        let waits = |kept: &Turn| {
            let way = if kept.by == me { GIVING_WAY } else { Duration::ZERO };
            after(kept.next, way) > now
        };
        match kept {
            Some(kept) if waits(&kept) => (kept, false),
            _ => (Turn { next: after(now, PROBING), by: me.to_owned() }, true),
        }
    }

    /// The credentials of `me` passed: everybody may try at once.
    pub fn pass(me: &str, now: Timestamp) -> Turn {
        Turn { next: now, by: me.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap() + Duration::from_millis(ms)
    }

    const MINUTE: u64 = 60_000;

    fn may_call(access: &mut Access, now: Timestamp) -> bool {
        access.refused(now).is_none_or(|(_, next)| next <= now)
    }

    proptest! {
        /// Whoever asks, and however long an answer takes: after the first refusal no minute sees two calls begin until
        /// one passed, and the first call after the key is good again opens the door.
        #[test]
        fn one_call_a_minute_tries_refused_credentials(
            gaps in prop::collection::vec((1u64..30_000, 0u64..10_000), 1..400),
            refusing in (0u64..600_000, 0u64..3_600_000),
        ) {
            let mut access = Access::default();
            let (from, until) = (refusing.0, refusing.0 + refusing.1);
            let mut under_way: Vec<(u64, u64)> = Vec::new();
            let mut probes: Vec<u64> = Vec::new();
            let mut now = 0;
            for (gap, takes) in gaps {
                now += gap;
                under_way.sort_by_key(|(_, ends)| *ends);
                while let Some((began, ended)) = under_way.first().copied().filter(|(_, ended)| *ended <= now) {
                    under_way.remove(0);
                    if (from..until).contains(&began) {
                        access.denied("no".to_owned(), at(ended));
                    } else {
                        access.passed(at(began));
                    }
                }
                let refused = access.refused(at(now)).is_some();
                if may_call(&mut access, at(now)) {
                    access.began(at(now));
                    under_way.push((now, now + takes));
                    if refused {
                        probes.push(now);
                    }
                }
            }
            // A call from before the refusal may come back refused later and put off the next probe, never hasten it.
            for pair in probes.windows(2) {
                prop_assert!(pair[1] - pair[0] >= MINUTE, "two probes within {} ms", pair[1] - pair[0]);
            }
            let last = now.max(until) + 10 * MINUTE;
            prop_assert!(may_call(&mut access, at(last)), "nobody may try the credentials any more");
            access.passed(at(last));
            prop_assert_eq!(access.refused(at(last)), None);
        }
    }

    #[test]
    fn of_several_refused_processes_one_tries_a_minute_and_each_has_its_turn() {
        let names = ["a", "b", "c"];
        let mut kept = None;
        // When each asks next.
        let mut asks = [0, 100, 200];
        let mut tries: Vec<(u64, usize)> = Vec::new();
        while tries.len() < 30 {
            let (index, now) = asks.iter().copied().enumerate().min_by_key(|(_, at)| *at).unwrap();
            let (next, mine) = Turn::take(kept, names[index], at(now));
            kept = Some(next);
            if mine {
                tries.push((now, index));
            }
            asks[index] = now + if mine { MINUTE + 50 } else { 5_000 };
        }
        for pair in tries.windows(2) {
            assert!(pair[1].0 - pair[0].0 >= MINUTE, "{tries:?}");
            assert!(pair[1].0 - pair[0].0 <= MINUTE + 6_000, "{tries:?}");
            assert_ne!(pair[0].1, pair[1].1, "one keeps the turn from the others: {tries:?}");
        }
        // One passes, and the others need not wait.
        let (_, mine) = Turn::take(Some(Turn::pass("a", at(0))), "b", at(1));
        assert!(mine);
        // The clock is set back.
        let (_, mine) = Turn::take(Some(Turn::pass("a", at(3_600_000))), "b", at(0));
        assert!(mine);
    }

    #[test]
    fn who_is_refused_alone_tries_once_in_little_more_than_a_minute() {
        let (kept, mine) = Turn::take(None, "a", at(0));
        assert!(mine);
        let (kept, mine) = Turn::take(Some(kept), "a", at(MINUTE));
        assert!(!mine, "others may come first");
        assert!(Turn::take(Some(kept), "a", at(MINUTE + 6_000)).1);
    }

    #[test]
    fn an_answer_to_an_older_call_opens_nothing() {
        let mut access = Access::default();
        access.denied("no".to_owned(), at(5_000));
        access.passed(at(4_000));
        assert_eq!(access.refused(at(6_000)), Some(("no", at(65_000))));
        access.passed(at(65_000));
        assert_eq!(access.refused(at(66_000)), None);
    }

    #[test]
    fn a_clock_that_was_set_back_keeps_nobody_out_for_long() {
        let mut access = Access::default();
        access.denied("no".to_owned(), at(3_600_000));
        assert_eq!(access.refused(at(0)), Some(("no", at(MINUTE))));
        access.began(at(MINUTE));
        access.passed(at(MINUTE));
        assert_eq!(access.refused(at(MINUTE)), None, "a good answer counts whatever the clock said before");
    }
}
