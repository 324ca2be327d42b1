//! The audit log: who was allowed or denied what. Each row holds a hash over the one before it, so that none can be
//! changed, taken out or put elsewhere without the next one telling.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{Timestamp, elapsed};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Written before the effect.
    Allowed,
    Denied,
    /// A message that was owed and is not sent.
    Withheld,
}

impl Decision {
    pub const ALL: [Decision; 3] = [Decision::Allowed, Decision::Denied, Decision::Withheld];

    pub fn as_str(self) -> &'static str {
        match self {
            Decision::Allowed => "allowed",
            Decision::Denied => "denied",
            Decision::Withheld => "withheld",
        }
    }
}

/// What is written down. Ids and short names, nothing that people typed as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// To the millisecond, as it is kept.
    pub at: Timestamp,
    /// `discord:137946317766`, as [`super::Subscription::by`]; `callboard` where nobody asked.
    pub person: String,
    /// `discord:1`; empty where it was none.
    pub room: String,
    /// The command and what it was about: `watch 7b1e04c2 in warehouse`.
    pub action: String,
    pub decision: Decision,
    /// One word: `role`, `quota`; empty where it was allowed.
    pub reason: String,
    /// How often, where one row stands for several.
    pub count: u32,
}

/// A row of the log, numbered from 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditRow {
    pub number: i64,
    #[serde(flatten)]
    pub entry: Entry,
    /// SHA-256 over the hash before it and everything in this row, in hexadecimal digits.
    pub hash: String,
}

/// A place in the chain: behind that row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Link {
    pub number: i64,
    pub hash: String,
}

/// A row that is not what was once written there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Misfit {
    pub number: i64,
    /// There is no such row.
    pub missing: bool,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = if self.missing { "is missing" } else { "is not what was written" };
        write!(f, "row {} {said}", self.number)
    }
}

impl Link {
    /// The row that follows here.
    pub fn append(&self, entry: Entry) -> AuditRow {
        let number = self.number.saturating_add(1);
        let hash = self.hash_of(number, &entry);
        AuditRow { number, entry, hash }
    }

    /// Behind that row, if it is the one that was written here.
    pub fn follow(&self, row: &AuditRow) -> Result<Link, Misfit> {
        let number = self.number.saturating_add(1);
        if row.number != number {
            return Err(Misfit { number, missing: row.number > number });
        }
        if row.hash != self.hash_of(number, &row.entry) {
            return Err(Misfit { number, missing: false });
        }
        Ok(row.link())
    }

    /// Whether the log ends here, as it says.
    pub fn ends_at(&self, head: &Link) -> Result<(), Misfit> {
        match self == head {
            true => Ok(()),
            false if head.number > self.number => Err(Misfit { number: self.number.saturating_add(1), missing: true }),
            false => Err(Misfit { number: self.number, missing: false }),
        }
    }

    /// Every field with its length, so that none can lend a letter to another.
    fn hash_of(&self, number: i64, entry: &Entry) -> String {
        let Entry { at, person, room, action, decision, reason, count } = entry;
        let (number, at, count) = (number.to_string(), at.as_millisecond().to_string(), count.to_string());
        let fields: [&str; 9] = [&self.hash, &number, &at, person, room, action, decision.as_str(), reason, &count];
        let mut hash = Sha256::new();
        for field in fields {
            hash.update(field.len().to_le_bytes());
            hash.update(field.as_bytes());
        }
        hex::encode(hash.finalize())
    }
}

impl AuditRow {
    pub fn link(&self) -> Link {
        Link { number: self.number, hash: self.hash.clone() }
    }
}

/// Between two rows of one person, room and reason.
const MINUTE: Duration = Duration::from_secs(60);
/// Persons, rooms and reasons told apart within it; the rest is one row.
const TOLD_APART: usize = 1_000;

/// Denials that are not written yet. Whoever floods leaves a row a minute, with a count.
#[derive(Debug, Default)]
pub struct Denials(HashMap<(String, String, String), Noted>);

#[derive(Debug)]
struct Noted {
    /// The first of those not written yet, counted up; or the last one that was.
    entry: Entry,
    waits: bool,
    written_at: Option<Timestamp>,
}

impl Denials {
    pub fn note(&mut self, entry: Entry) {
        let key = |entry: &Entry| (entry.person.clone(), entry.room.clone(), entry.reason.clone());
        let mut entry = entry;
        if self.0.len() >= TOLD_APART && !self.0.contains_key(&key(&entry)) {
            (entry.person, entry.room, entry.action) = ("several".to_owned(), String::new(), "several".to_owned());
        }
        match self.0.get_mut(&key(&entry)) {
            Some(noted) if noted.waits => noted.entry.count = noted.entry.count.saturating_add(entry.count),
            Some(noted) => (noted.entry, noted.waits) = (entry, true),
            None => drop(self.0.insert(key(&entry), Noted { entry, waits: true, written_at: None })),
        }
    }

    /// What may be written now, oldest first.
    pub fn take(&mut self, now: Timestamp) -> Vec<Entry> {
        // A clock that went back holds nothing up.
        let is_over = |noted: &Noted| noted.written_at.is_none_or(|at| now < at || elapsed(at, now) >= MINUTE);
        self.0.retain(|_, noted| noted.waits || !is_over(noted));
        let mut due = Vec::new();
        for noted in self.0.values_mut().filter(|noted| noted.waits && is_over(noted)) {
            (noted.waits, noted.written_at) = (false, Some(now));
            due.push(noted.entry.clone());
        }
        due.sort_by(|a, b| (a.at, &a.person, &a.room, &a.reason).cmp(&(b.at, &b.person, &b.room, &b.reason)));
        due
    }

    /// They could not be written after all.
    pub fn put_back(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            let key = (entry.person.clone(), entry.room.clone(), entry.reason.clone());
            self.note(entry);
            if let Some(noted) = self.0.get_mut(&key) {
                noted.written_at = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn entry(person: &str, reason: &str, seconds: i64) -> Entry {
        Entry {
            at: at(seconds),
            person: person.to_owned(),
            room: "discord:1".to_owned(),
            action: "watch".to_owned(),
            decision: Decision::Denied,
            reason: reason.to_owned(),
            count: 1,
        }
    }

    fn chain(entries: Vec<Entry>) -> Vec<AuditRow> {
        let mut link = Link::default();
        let append = |entry| {
            let row = link.append(entry);
            link = row.link();
            row
        };
        entries.into_iter().map(append).collect()
    }

    fn verify(anchor: &Link, rows: &[AuditRow], head: &Link) -> Result<(), Misfit> {
        rows.iter().try_fold(anchor.clone(), |link, row| link.follow(row))?.ends_at(head)
    }

    fn entries() -> impl Strategy<Value = Vec<Entry>> {
        let one = ("[a-c]{0,3}", "[a-c]{0,3}", "[a-c]{0,3}", 0..3usize, "[a-c]{0,3}", 1u32..3, 0i64..4);
        let entry = one.prop_map(|(person, room, action, decision, reason, count, seconds)| {
            let decision = Decision::ALL[decision];
            Entry { at: at(seconds), person, room, action, decision, reason, count }
        });
        prop::collection::vec(entry, 1..12)
    }

    proptest! {
        /// A row changed in any field, taken out, doubled or put elsewhere is found, the last one too.
        #[test]
        fn whoever_touches_the_log_is_found_out(
            entries in entries(),
            other in entries(),
            (from, to) in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
            how in 0..6usize,
            begins in any::<prop::sample::Index>(),
        ) {
            let rows = chain(entries);
            let head = rows.last().unwrap().link();
            let begins = begins.index(rows.len() + 1);
            let anchor = begins.checked_sub(1).map_or_else(Link::default, |last| rows[last].link());
            let kept = &rows[begins..];
            prop_assert_eq!(verify(&anchor, kept, &head), Ok(()));
            if kept.is_empty() {
                return Ok(());
            }
            let mut touched = kept.to_vec();
            let (from, to) = (from.index(touched.len()), to.index(touched.len()));
            match how {
                0 => touched[from].entry = other[0].clone(),
                1 => drop(touched.remove(from)),
                2 => touched.swap(from, to),
                3 => touched.insert(to, touched[from].clone()),
                4 => touched.truncate(from),
                _ => {
                    // Numbers made to fit after a row was taken out.
                    touched.remove(from);
                    for (row, number) in touched.iter_mut().zip(anchor.number + 1..) {
                        row.number = number;
                    }
                }
            }
            prop_assume!(touched != kept);
            prop_assert!(verify(&anchor, &touched, &head).is_err(), "nobody notices: {:?}", touched);
        }

        /// However they come, each is counted once, and none has two rows in a minute.
        #[test]
        fn a_denial_is_counted_once_and_written_once_a_minute(
            asked in prop::collection::vec((0..3usize, 0..30i64, any::<bool>()), 1..60)
        ) {
            let (mut denials, mut now, mut written) = (Denials::default(), 0, Vec::new());
            for (person, pause, fails) in &asked {
                now += pause;
                denials.note(entry(&person.to_string(), "role", now));
                let taken = denials.take(at(now));
                if *fails {
                    denials.put_back(taken);
                } else {
                    written.extend(taken.into_iter().map(|entry| (now, entry)));
                }
            }
            now += 60;
            written.extend(denials.take(at(now)).into_iter().map(|entry| (now, entry)));
            let count: u32 = written.iter().map(|(_, entry)| entry.count).sum();
            prop_assert_eq!(count as usize, asked.len());
            for person in ["0", "1", "2"] {
                let own: Vec<i64> = written.iter().filter(|(_, e)| e.person == person).map(|(at, _)| *at).collect();
                prop_assert!(own.windows(2).all(|pair| pair[1] - pair[0] >= 60), "{:?}", own);
            }
        }
    }

    #[test]
    fn a_field_lends_no_letter_to_the_next_and_the_hash_stays_what_it_is() {
        let link = Link::default();
        let one = Entry { person: "ab".to_owned(), room: "c".to_owned(), ..entry("", "role", 0) };
        let other = Entry { person: "a".to_owned(), room: "bc".to_owned(), ..one.clone() };
        assert_ne!(link.append(one).hash, link.append(other).hash);
        // What is in a store must be verified by every later version.
        assert_eq!(
            link.append(entry("discord:7", "role", 0)).hash,
            "008fae7390c201d17a981ac8723ef3933fe7ba6cf368ca752b104282e00d9112"
        );
    }

    #[test]
    fn denials_of_many_are_told_together_and_forgotten() {
        let mut denials = Denials::default();
        for person in 0..5_000 {
            denials.note(entry(&person.to_string(), "role", 0));
        }
        let rows = denials.take(at(1));
        assert_eq!(rows.len(), TOLD_APART + 1);
        let several = rows.iter().find(|row| row.person == "several").unwrap();
        assert_eq!((several.count, several.room.as_str()), (4_000, ""));
        assert_eq!(denials.take(at(60)), [], "written within the minute");
        assert_eq!(denials.take(at(61)), []);
        assert!(denials.0.is_empty());
    }
}
