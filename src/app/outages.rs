//! Access to the pipeline API lost and found again: told to the operators, once each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::dispatcher::Outlets;
use crate::model::{Notice, NoticeKind, Timestamp, Workspace, elapsed};
use crate::store::{Announcement, Store, StoreError};
use crate::tracker::Tracker;

/// Access is gone for so long before it is told, so that all workspaces are named.
const SETTLED: Duration = Duration::from_secs(20);
/// Workspaces that a former process saw last within this time were lost together.
const TOGETHER: Duration = Duration::from_secs(15 * 60);

pub struct Outages {
    store: Arc<dyn Store>,
    tracker: Arc<Tracker>,
    outlets: Outlets,
    workspaces: Vec<Workspace>,
    started_at: Timestamp,
    told: Mutex<Told>,
}

/// What the operators were told.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    /// Nothing that has not ended.
    Nothing,
    /// Whatever a former process told. When that one saw workspaces last, by name.
    Perhaps(BTreeMap<String, Timestamp>),
    /// That these are denied, since then. Those that were denied later are among them.
    Denied(BTreeMap<String, Timestamp>),
}

/// A workspace that is denied now.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Lost {
    name: String,
    since: Timestamp,
    /// By this process.
    noticed_at: Timestamp,
    said: String,
}

impl Outages {
    pub fn new(
        store: Arc<dyn Store>,
        tracker: Arc<Tracker>,
        outlets: Outlets,
        workspaces: Vec<Workspace>,
        now: Timestamp,
    ) -> Outages {
        let seen =
            |workspace: &Workspace| Some((workspace.name.clone(), tracker.freshness(&workspace.key(), None).seen_at?));
        let told = Mutex::new(Told::Perhaps(workspaces.iter().filter_map(seen).collect()));
        Outages { store, tracker, outlets, workspaces, started_at: now, told }
    }

    /// Tells what has begun or ended since the last look. Says whether something is owed now.
    pub async fn look(&self, now: Timestamp) -> Result<bool, StoreError> {
        let mut told = self.told.lock().await;
        let (next, kind) = told.next(&self.lost(), |name, since| self.seen_since(name, since), self.started_at, now);
        let to = self.outlets.told_of(None);
        let owed = match kind {
            Some(kind) if !to.is_empty() => {
                self.store.announce(&Announcement { notice: Notice { at: now, kind }, to }).await?
            }
            _ => false,
        };
        *told = next;
        Ok(owed)
    }

    fn lost(&self) -> Vec<Lost> {
        let lost = self.workspaces.iter().filter_map(|workspace| {
            let freshness = self.tracker.freshness(&workspace.key(), None);
            let failure = freshness.failure.filter(|failure| failure.denied)?;
            let seen_by_us = self.tracker.looked_since(&workspace.key(), self.started_at);
            let since = freshness.seen_at.filter(|_| !seen_by_us).unwrap_or(failure.since);
            let Workspace { name, .. } = workspace.clone();
            Some(Lost { name, since, noticed_at: failure.since, said: failure.said })
        });
        lost.collect()
    }

    fn seen_since(&self, name: &str, since: Timestamp) -> bool {
        let of_name = self.workspaces.iter().find(|workspace| workspace.name == name);
        of_name.is_some_and(|workspace| self.tracker.looked_since(&workspace.key(), since))
    }
}

impl Told {
    /// What will have been told, and the notice that does it. `seen`: a workspace was seen by this process since then.
    fn next(
        &self,
        lost: &[Lost],
        seen: impl Fn(&str, Timestamp) -> bool,
        started_at: Timestamp,
        now: Timestamp,
    ) -> (Told, Option<NoticeKind>) {
        let since = || lost.iter().map(|lost| (lost.name.clone(), lost.since));
        let first = lost.iter().min_by_key(|lost| lost.noticed_at);
        match (self, first) {
            (Told::Denied(known), _) => {
                let mut denied: BTreeMap<_, _> = since().collect();
                denied.extend(known.clone());
                if denied.iter().all(|(name, since)| seen(name, *since)) {
                    (Told::Nothing, back(denied))
                } else {
                    (Told::Denied(denied), None)
                }
            }
            (_, Some(first)) if elapsed(first.noticed_at, now) >= SETTLED => {
                let denied: BTreeMap<_, _> = since().collect();
                let workspaces = denied.keys().cloned().collect();
                let kind = NoticeKind::SourceDenied { workspaces, reason: first.said.clone() };
                (Told::Denied(denied), Some(kind))
            }
            (Told::Perhaps(sights), None) => {
                let oldest = sights.values().min().copied().unwrap_or_default();
                let together: BTreeMap<_, _> =
                    sights.clone().into_iter().filter(|(_, sight)| elapsed(oldest, *sight) <= TOGETHER).collect();
                if together.keys().all(|name| seen(name, started_at)) {
                    (Told::Nothing, back(together))
                } else {
                    (self.clone(), None)
                }
            }
            _ => (self.clone(), None),
        }
    }
}

/// The end of what was told of these workspaces; the store drops it where nothing was.
fn back(denied: BTreeMap<String, Timestamp>) -> Option<NoticeKind> {
    let since = denied.values().min().copied()?;
    Some(NoticeKind::SourceBack { workspaces: denied.into_keys().collect(), since })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn lost(name: &str, since: i64, noticed: i64) -> Lost {
        Lost { name: name.to_owned(), since: at(since), noticed_at: at(noticed), said: "no".to_owned() }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// One step in a life that began at 0. `seen`: when workspaces were seen last.
    fn step(told: &mut Told, lost: &[Lost], seen: &[(&str, i64)], now: i64) -> Option<NoticeKind> {
        let seen = |name: &str, since| seen.iter().any(|(known, last)| *known == name && at(*last) >= since);
        let (next, kind) = told.next(lost, seen, at(0), at(now));
        *told = next;
        kind
    }

    #[test]
    fn an_outage_is_told_once_it_has_settled_and_its_end_when_all_are_seen_again() {
        let mut told = Told::Nothing;
        let mut both = vec![lost("warehouse", 100, 100)];
        assert_eq!(step(&mut told, &both, &[], 110), None);
        both.push(lost("finance", 115, 115));
        let denied = NoticeKind::SourceDenied { workspaces: names(&["finance", "warehouse"]), reason: "no".to_owned() };
        assert_eq!(step(&mut told, &both, &[], 120), Some(denied));
        for now in 121..200 {
            assert_eq!(step(&mut told, &both, &[], now), None, "told twice");
        }
        let one = [lost("finance", 115, 115)];
        assert_eq!(step(&mut told, &one, &[("warehouse", 200)], 201), None, "one of two is still denied");
        // The network fails before anybody knows whether the key passes.
        assert_eq!(step(&mut told, &[], &[("warehouse", 200)], 202), None);
        let back = NoticeKind::SourceBack { workspaces: names(&["finance", "warehouse"]), since: at(100) };
        assert_eq!(step(&mut told, &[], &[("warehouse", 200), ("finance", 300)], 301), Some(back));
        assert_eq!((step(&mut told, &[], &[], 302), told), (None, Told::Nothing));
    }

    #[test]
    fn a_short_refusal_is_no_notice() {
        let mut told = Told::Nothing;
        assert_eq!(step(&mut told, &[lost("warehouse", 100, 100)], &[], 119), None);
        assert_eq!(step(&mut told, &[], &[("warehouse", 119)], 125), None);
        assert_eq!(told, Told::Nothing);
    }

    #[test]
    fn who_is_denied_later_is_named_at_the_end() {
        let mut told = Told::Denied([("finance".to_owned(), at(100))].into());
        assert_eq!(step(&mut told, &[lost("finance", 100, 100), lost("marketing", 500, 500)], &[], 600), None);
        let seen = [("finance", 700), ("marketing", 700)];
        let back = NoticeKind::SourceBack { workspaces: names(&["finance", "marketing"]), since: at(100) };
        assert_eq!(step(&mut told, &[], &seen, 701), Some(back));
    }

    #[test]
    fn what_a_former_process_may_have_told_ends_when_its_workspaces_are_seen() {
        let sights = [("finance".to_owned(), at(-20_000)), ("warehouse".to_owned(), at(-60))];
        let mut told = Told::Perhaps(sights.into());
        assert_eq!(step(&mut told, &[], &[("warehouse", 1)], 2), None, "finance was not looked at yet");
        let back = NoticeKind::SourceBack { workspaces: names(&["finance"]), since: at(-20_000) };
        assert_eq!(step(&mut told, &[], &[("warehouse", 1), ("finance", 3)], 4), Some(back));
        assert_eq!(step(&mut told, &[], &[("warehouse", 1), ("finance", 3)], 5), None);
    }

    #[test]
    fn an_outage_that_outlives_the_process_began_when_the_workspace_was_seen_last() {
        let mut told = Told::Perhaps([("finance".to_owned(), at(-20_000))].into());
        let still = [lost("finance", -20_000, 1)];
        assert_eq!(step(&mut told, &still, &[], 5), None);
        assert!(matches!(step(&mut told, &still, &[], 30), Some(NoticeKind::SourceDenied { .. })), "the store knows");
        let back = NoticeKind::SourceBack { workspaces: names(&["finance"]), since: at(-20_000) };
        assert_eq!(step(&mut told, &[], &[("finance", 40)], 41), Some(back));
    }

    #[test]
    fn the_first_start_of_all_has_nothing_to_end() {
        let mut told = Told::Perhaps(BTreeMap::new());
        assert_eq!((step(&mut told, &[], &[], 1), told), (None, Told::Nothing));
    }
}
