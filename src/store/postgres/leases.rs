//! Who tends what: workspaces to be polled, gateways to be connected to. Each name is held by one replica at a time, by
//! the database's clock, and every replica ends up with as much as the others.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use crate::store::Held;
use crate::store::sql::{Result, Session, Value};

/// A lease lasts as long. Renewed several times within it; whoever stops is replaced after it.
pub const LEASE: Duration = Duration::from_secs(6);

const RENEW: &str = "
    UPDATE leases SET until = clock_timestamp() + ?2::bigint * interval '1 millisecond' WHERE replica = ?1";
const LIVING: &str = "
    SELECT count(*) FROM replicas WHERE seen_at > clock_timestamp() - ?1::bigint * interval '1 millisecond'";
const HELD: &str = "SELECT name, replica FROM leases WHERE until > clock_timestamp()";
const TAKE: &str = "
    INSERT INTO leases (name, replica, until) VALUES (?1, ?2, clock_timestamp() + ?3::bigint * interval '1 millisecond')
    ON CONFLICT (name) DO UPDATE SET replica = excluded.replica, until = excluded.until";
const GIVE: &str = "DELETE FROM leases WHERE name = ?1 AND replica = ?2";
pub const GIVE_ALL: &str = "DELETE FROM leases WHERE replica = ?1";

/// Renews what this replica holds, and takes or gives back until it has its fair part of `names`.
pub fn hold(session: &dyn Session, names: &[String]) -> Result<Held> {
    let me = session.replica();
    let lease = Value::Integer(i64::try_from(LEASE.as_millis()).unwrap_or(i64::MAX));
    session.execute(RENEW, &[me.into(), lease.clone()])?;
    let replicas: u32 = session.one(LIVING, std::slice::from_ref(&lease), |row| row.get(0))?;
    let held: HashMap<String, i64> =
        session.all(HELD, &[], |row| Ok((row.get(0)?, row.get(1)?)))?.into_iter().collect();
    let Turn { take, give, keep } = fair(names, &held, me, usize::try_from(replicas).unwrap_or(1));
    for name in &give {
        session.execute(GIVE, &[name.as_str().into(), me.into()])?;
    }
    for name in &take {
        session.execute(TAKE, &[name.as_str().into(), me.into(), lease.clone()])?;
    }
    Ok(Held { names: keep.into_iter().chain(take).collect(), lasts: Some(LEASE), recovered: Vec::new() })
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Turn {
    take: Vec<String>,
    give: Vec<String>,
    keep: Vec<String>,
}

/// Names of one kind, which ends at the first colon, are shared among themselves.
fn fair(names: &[String], held: &HashMap<String, i64>, me: i64, replicas: usize) -> Turn {
    let mut kinds: BTreeMap<&str, BTreeSet<&String>> = BTreeMap::new();
    for name in names {
        kinds.entry(name.split(':').next().unwrap_or_default()).or_default().insert(name);
    }
    let mut turn = Turn::default();
    for names in kinds.values() {
        let part = names.len().div_ceil(replicas.max(1));
        let (mine, others): (Vec<&String>, Vec<&String>) =
            names.iter().copied().partition(|name| held.get(*name) == Some(&me));
        let free = others.into_iter().filter(|name| !held.contains_key(*name));
        turn.take.extend(free.take(part.saturating_sub(mine.len())).cloned());
        turn.keep.extend(mine.iter().copied().take(part).cloned());
        turn.give.extend(mine.iter().copied().skip(part).cloned());
    }
    // Not in the configuration any more.
    let strangers = held.iter().filter(|(name, replica)| **replica == me && !names.contains(name));
    turn.give.extend(strangers.map(|(name, _)| name.clone()));
    turn
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Replicas take their turns one after another until nothing moves any more.
    fn settle(names: &[String], held: &mut HashMap<String, i64>, replicas: &[i64]) -> usize {
        for round in 0..10 {
            let before = held.clone();
            for me in replicas {
                let turn = fair(names, held, *me, replicas.len());
                turn.give.iter().for_each(|name| assert_eq!(held.remove(name), Some(*me), "only what one holds"));
                turn.take.into_iter().for_each(|name| assert_eq!(held.insert(name, *me), None, "only what is free"));
            }
            if *held == before {
                return round;
            }
        }
        panic!("they never agree: {held:?}");
    }

    #[test]
    fn who_comes_gets_a_fair_part_and_who_goes_is_replaced() {
        let names: Vec<String> =
            (0..200).map(|n| format!("workspace:{n}")).chain(["surface:discord".to_owned()]).collect();
        let mut held = HashMap::new();
        for replicas in [&[1][..], &[1, 2], &[1, 2, 3], &[2, 3], &[2, 3, 4, 5, 6, 7, 8]] {
            held.retain(|_, replica| replicas.contains(replica));
            let before = held.clone();
            settle(&names, &mut held, replicas);
            assert_eq!(held.len(), names.len(), "everything is tended by {replicas:?}");
            let most = 200_usize.div_ceil(replicas.len());
            for me in replicas {
                let kind = |kind: &str| held.iter().filter(|(name, one)| name.starts_with(kind) && *one == me).count();
                assert!(kind("workspace") <= most, "{me} of {replicas:?} has {}", kind("workspace"));
                assert!(kind("surface") <= 1);
            }
            let moved = held.iter().filter(|(name, one)| before.get(*name).is_some_and(|was| was != *one)).count();
            assert!(moved <= 200 - most.min(200), "{moved} moved for {replicas:?}");
        }
        let fewer = names.get(..10).unwrap();
        settle(fewer, &mut held, &[2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(held.len(), 10, "what is configured no more is given back");
    }
}
