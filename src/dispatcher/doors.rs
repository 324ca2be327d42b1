//! What all rooms of one bot have in common while messages are under way: few at once, and none once the credentials
//! were refused.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

/// Messages of one bot at once. Refused credentials cost that many requests, however many rooms are owed something.
const AT_ONCE: usize = 8;
/// Nobody waits longer for others of the bot: if they hang, this one may not.
const PATIENCE: Duration = Duration::from_secs(1);

/// By bot.
#[derive(Default)]
pub struct Doors(Mutex<HashMap<String, Arc<Door>>>);

pub struct Door {
    turns: Semaphore,
    /// Whoever tries again after a refusal goes alone.
    probe: Semaphore,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What was said when the credentials were refused last, until they pass.
    refused: Option<String>,
    refusals: u64,
}

impl Doors {
    pub fn of(&self, bot: &str) -> Arc<Door> {
        let mut doors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let door = || Door { turns: Semaphore::new(AT_ONCE), probe: Semaphore::new(1), state: Mutex::default() };
        Arc::clone(doors.entry(bot.to_owned()).or_insert_with(|| Arc::new(door())))
    }
}

impl Door {
    /// Waits for a turn. `Err`: the credentials were refused meanwhile, for this reason; nothing needs to be sent.
    pub async fn turn(&self) -> Result<Option<SemaphorePermit<'_>>, String> {
        let (refusals, turns) = self.read(|state| {
            let turns = if state.refused.is_some() { &self.probe } else { &self.turns };
            (state.refusals, turns)
        });
        let turn = tokio::time::timeout(PATIENCE, turns.acquire()).await;
        let refused = self.read(|state| state.refused.clone().filter(|_| state.refusals != refusals));
        refused.map_or(Ok(turn.ok().and_then(Result::ok)), Err)
    }

    /// The credentials were refused. Says whether that is news.
    pub fn refuse(&self, reason: &str) -> bool {
        self.read(|state| {
            state.refusals += 1;
            state.refused.replace(reason.to_owned()).is_none()
        })
    }

    /// They pass. Says whether that is news.
    pub fn admit(&self) -> bool {
        self.read(|state| state.refused.take().is_some())
    }

    fn read<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
