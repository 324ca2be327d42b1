//! Ways in: one file per chat, and the one list of them. A surface turns what the platform sent into a
//! [`Request`], asks the [`Inbox`] and writes the [`Reply`] in the platform's own way.

pub mod console;
pub mod dingtalk;
pub mod discord;
mod rates;
pub mod slack;
pub mod socket;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Response};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::rates::{COMMANDS, Rates, Refused, TYPING};
use crate::model::{CommandInfo, Decision, Denials, Destination, Entry, Reply, Request, Suggestion, Timestamp};

/// Those that rights can be given for.
pub const NAMES: [&str; 3] = [discord::NAME, slack::NAME, dingtalk::NAME];

/// A chat from which commands come in.
#[async_trait]
pub trait Surface: Send + Sync {
    /// Serves until `stop`; reconnects for ever. Returns only when stopped or when a person must act (`Err`).
    async fn run(&self, inbox: Inbox, commands: &'static [CommandInfo], stop: CancellationToken) -> Result<(), String>;
}

/// A chat that sends its requests here by HTTP. Any process takes them, whoever tends the surface.
#[async_trait]
pub trait Hook: Send + Sync {
    /// What was posted to `/SURFACE/action`, with the bytes of its body as they came: signatures are over them. Answers
    /// within the time that the chat allows.
    async fn receive(&self, action: &str, headers: &HeaderMap, body: &[u8]) -> Response<String>;
}

/// Requests that wait to be answered, at most.
pub const INBOX_CAPACITY: usize = 256;

/// The one door for commands. Full means busy, said at once; whoever asks too much is refused before that.
#[derive(Debug, Clone)]
pub struct Inbox {
    asks: mpsc::Sender<Ask>,
    door: Arc<Door>,
}

#[derive(Debug)]
struct Door {
    commands: Mutex<Rates>,
    typing: Mutex<Rates>,
    /// For the audit log.
    denials: Arc<Mutex<Denials>>,
}

/// What comes through the door.
#[derive(Debug)]
pub enum Ask {
    Command {
        request: Request,
        reply: oneshot::Sender<Reply>,
    },
    /// Runs that match what the person typed so far.
    Suggest {
        request: Request,
        reply: oneshot::Sender<Vec<Suggestion>>,
    },
}

/// Why nobody answers; the words are for the asker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    #[error("I am busy with other commands; try again in a few seconds")]
    Busy,
    /// Said to whom it concerns once.
    #[error("That is more than I answer at once; ask again in half a minute")]
    TooMuch,
    /// They heard it before.
    #[error("That is still more than I answer at once; wait half a minute")]
    StillTooMuch,
    #[error("I am being stopped; try again when I am back")]
    Stopping,
    #[error("My memory does not answer just now, so nothing was done; try again in a minute")]
    Forgetful,
}

/// Remembers a key until then, over restarts and in all processes. False where it is remembered already: what a chat
/// delivers twice happens once.
pub type Once = Arc<dyn Fn(String, Timestamp, Timestamp) -> BoxFuture<'static, Result<bool, NoAnswer>> + Send + Sync>;

/// The pause before connecting again after so many failures in a row (from 1): `first`, doubled with each failure up to
/// `last`. `chance` in 0..1 keeps many bots from coming back at once.
pub fn backoff(failures: u32, first: Duration, last: Duration, chance: f64) -> Duration {
    let doubled = first.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)));
    doubled.min(last).mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
}

impl Inbox {
    pub fn new() -> (Inbox, mpsc::Receiver<Ask>) {
        let (asks, receiver) = mpsc::channel(INBOX_CAPACITY);
        let (commands, typing) = (Mutex::new(Rates::new(COMMANDS)), Mutex::new(Rates::new(TYPING)));
        let door = Door { commands, typing, denials: Arc::default() };
        (Inbox { asks, door: Arc::new(door) }, receiver)
    }

    /// Whom it refused is noted there.
    pub fn denials(&self) -> Arc<Mutex<Denials>> {
        Arc::clone(&self.door.denials)
    }

    pub async fn ask(&self, request: Request) -> Result<Reply, NoAnswer> {
        if let Err(refused) = admit(&self.door.commands, &request) {
            self.door.denials.lock().unwrap_or_else(PoisonError::into_inner).note(denied(&request));
            return Err(match refused {
                Refused::TooMuch => NoAnswer::TooMuch,
                Refused::Still => NoAnswer::StillTooMuch,
                Refused::Busy => NoAnswer::Busy,
            });
        }
        let (reply, answer) = oneshot::channel();
        self.asks.try_send(Ask::Command { request, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => NoAnswer::Busy,
            mpsc::error::TrySendError::Closed(_) => NoAnswer::Stopping,
        })?;
        answer.await.map_err(|_| NoAnswer::Stopping)
    }

    /// Empty when nothing matches, or nothing was found within `patience`.
    pub async fn suggest(&self, request: Request, patience: Duration) -> Vec<Suggestion> {
        let (reply, answer) = oneshot::channel();
        let asked =
            admit(&self.door.typing, &request).is_ok() && self.asks.try_send(Ask::Suggest { request, reply }).is_ok();
        if !asked {
            return Vec::new();
        }
        tokio::time::timeout(patience, answer).await.ok().and_then(Result::ok).unwrap_or_default()
    }
}

/// Whoever sits at the terminal has the service for themselves.
fn admit(rates: &Mutex<Rates>, request: &Request) -> Result<(), Refused> {
    if request.asker.surface == console::NAME {
        return Ok(());
    }
    rates.lock().unwrap_or_else(PoisonError::into_inner).take(&request.asker, request.at)
}

fn denied(request: &Request) -> Entry {
    let (surface, room) = (request.asker.surface.clone(), request.asker.room.clone());
    Entry {
        at: request.at,
        person: request.asker.person(),
        room: Destination::Room { surface, room }.to_string(),
        action: "ask".to_owned(),
        decision: Decision::Denied,
        reason: "rate".to_owned(),
        count: 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_last() {
        let pause = |failures, chance| backoff(failures, Duration::from_secs(1), Duration::from_secs(300), chance);
        let pauses: Vec<u64> =
            [1, 2, 3, 9, 10, 40, u32::MAX].iter().map(|&failures| pause(failures, 1.0).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 256, 300, 300, 300]);
        assert_eq!(pause(1, 0.0), Duration::from_millis(500));
    }
}
