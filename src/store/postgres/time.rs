//! The database's clock, between two looks at it by this machine's monotonic one.
//!
//! What replicas write down, paces and retries above all, is compared with what others wrote: it has to come from one
//! clock, however wrong those of their machines are.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::model::Timestamp;
use crate::store::sql::{Result, Session};

const NOW: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
/// Less than that is the way to the database, and not worth a step: a clock that goes back makes everything wait.
const SAME_MS: i64 = 250;
/// An answer that took longer says little.
const SLOW: Duration = Duration::from_millis(100);

pub struct Time {
    /// What it was at that instant.
    known: Mutex<(Instant, i64)>,
}

impl Time {
    pub fn of(session: &dyn Session) -> Result<Time> {
        Ok(Time { known: Mutex::new((Instant::now(), now(session)?)) })
    }

    pub fn look(&self, session: &dyn Session) -> Result<()> {
        let asked = Instant::now();
        let theirs = now(session)?;
        let took = asked.elapsed();
        if took > SLOW {
            return Ok(());
        }
        let at = asked + took / 2;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if (theirs - milliseconds(*known, at)).abs() > SAME_MS {
            tracing::warn!("the database's clock stepped, or this machine slept");
            *known = (at, theirs);
        }
        Ok(())
    }

    pub fn now(&self) -> Timestamp {
        let known = *self.known.lock().unwrap_or_else(PoisonError::into_inner);
        Timestamp::from_millisecond(milliseconds(known, Instant::now())).unwrap_or(Timestamp::MAX)
    }
}

fn now(session: &dyn Session) -> Result<i64> {
    session.one(NOW, &[], |row| row.get(0))
}

fn milliseconds((at, known): (Instant, i64), instant: Instant) -> i64 {
    let passed = instant.saturating_duration_since(at).as_millis();
    known.saturating_add(i64::try_from(passed).unwrap_or(i64::MAX))
}
