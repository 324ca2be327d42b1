//! Whether the account's credentials pass. What is refused to one workspace is refused to all of them, so one call
//! finds out for everybody. Pure.

use std::time::Duration;

use super::after;
use crate::model::Timestamp;

/// While credentials are refused, one call in this time tries them.
const PROBING: Duration = Duration::from_secs(60);

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

    /// A call was refused for its credentials; `said` is for people. Returns when the next one may try them.
    pub fn denied(&mut self, said: String, now: Timestamp) -> Timestamp {
        let next = after(now, PROBING);
        self.refused = Some(Refused { at: now, next, said });
        next
    }

    /// The credentials of a call that began then were good. One that began before the refusal proves nothing.
    pub fn passed(&mut self, began: Timestamp) {
        self.refused.take_if(|refused| began > refused.at);
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
