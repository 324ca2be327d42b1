//! What a changed configuration may change while the service runs: who may do what. Everything else waits for a start.

use std::sync::Arc;
use std::time::Duration;

use crate::access::Access;
use crate::audit::Audit;
use crate::config::{Config, Invalid};
use crate::dispatcher::Dispatcher;
use crate::model::{Clock, Decision, Entry};

/// Sends under way that were allowed before may take this long: longer than a send's deadline.
const PATIENCE: Duration = Duration::from_secs(12);

pub struct Reload {
    access: Arc<Access>,
    audit: Arc<Audit>,
    dispatcher: Arc<Dispatcher>,
    clock: Clock,
    /// What the service was started with, as far as it can be seen, without the rules of access.
    started_with: String,
}

/// Secrets don't show in it: one that was changed is not noticed.
fn beside_access(config: &Config) -> String {
    format!("{:?}", Config { access: Vec::new(), ..config.clone() })
}

impl Reload {
    pub fn new(
        config: &Config,
        access: &Arc<Access>,
        audit: &Arc<Audit>,
        dispatcher: &Arc<Dispatcher>,
        clock: &Clock,
    ) -> Reload {
        let (access, audit, clock) = (Arc::clone(access), Arc::clone(audit), Arc::clone(clock));
        Reload { access, audit, dispatcher: Arc::clone(dispatcher), clock, started_with: beside_access(config) }
    }

    /// Takes over `[[access]]` of what was read anew. When it returns, no message begins, or is still under way, to a
    /// room that may not know of its workspace. What can't be read changes nothing.
    pub async fn take(&self, read: Result<Config, Invalid>) {
        let config = match read {
            Ok(config) => config,
            Err(invalid) => {
                tracing::error!(said = invalid.lines(), "the configuration is wrong; everything stays as it is");
                self.write(Decision::Denied, "configuration").await;
                return;
            }
        };
        // Fewer rights count at once; that the reload is not written down can't be a reason to leave them.
        self.write(Decision::Allowed, "").await;
        self.access.replace(config.access.clone());
        if tokio::time::timeout(PATIENCE, self.dispatcher.passed()).await.is_err() {
            tracing::warn!("messages that were under way before the rules changed have not ended yet");
        }
        tracing::info!(entries = config.access.len(), "the rules of [[access]] were read anew and hold");
        if beside_access(&config) != self.started_with {
            tracing::warn!("beside [[access]], the configuration was changed too; that takes effect at the next start");
        }
    }

    async fn write(&self, decision: Decision, reason: &str) {
        let entry = Entry {
            at: (self.clock)(),
            person: "callboard".to_owned(),
            room: String::new(),
            action: "reload access".to_owned(),
            decision,
            reason: reason.to_owned(),
            count: 1,
        };
        if let Err(error) = self.audit.record(entry).await {
            tracing::error!(%error, "a reload is not in the audit log");
        }
    }
}
