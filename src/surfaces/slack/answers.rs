//! From a command to what the asker sees.
//!
//! Slack waits three seconds for the first response, and who sees it is said in it. Nearly every answer comes from memory
//! and goes back at once; what takes longer goes by the `response_url`, which lives for half an hour and takes five posts
//! (<https://docs.slack.dev/interactivity/handling-user-interaction#message_responses>).

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::RETRY_AFTER;
use serde_json::Value;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::TaskTracker;
use url::{Host, Url};

use super::asked::Asked;
use super::groups::Groups;
use super::{Means, Timing, blocks};
use crate::model::{Reply, Request, Text};
use crate::net;
use crate::surfaces::NoAnswer;

/// Posts of one answer, at most: fewer than a `response_url` takes.
const TRIES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Answers under way, at most; what comes on top is told so.
const UNDER_WAY: usize = 512;

/// What answers need; shared by all of them.
pub(super) struct Desk {
    pub(super) means: Means,
    pub(super) api: Url,
    groups: Option<Groups>,
    pub(super) timing: Timing,
    /// Every answer on its way.
    pub(super) tasks: TaskTracker,
}

impl Desk {
    pub(super) fn new(means: Means, api: Url, groups: Option<Groups>, timing: Timing) -> Desk {
        Desk { means, api, groups, timing, tasks: TaskTracker::new() }
    }

    /// The answer, where it is there by then; otherwise it goes by the `response_url`.
    pub(super) async fn answer(self: &Arc<Self>, asked: Asked, by: Instant) -> Option<Value> {
        if self.tasks.len() >= UNDER_WAY {
            return Some(self.body(&private(NoAnswer::Busy)));
        }
        let (desk, mut request) = (Arc::clone(self), self.request(&asked));
        let mut asking = Box::pin(async move {
            if let Some(groups) = desk.groups.as_ref().filter(|_| (desk.means.names_groups)()) {
                request.asker.roles = groups.of(&request.asker.user).await;
            }
            desk.means.inbox.ask(request).await.unwrap_or_else(private)
        });
        if let Ok(reply) = timeout_at(by, &mut asking).await {
            return Some(self.body(&reply));
        }
        let desk = Arc::clone(self);
        self.tasks.spawn(async move {
            let reply = timeout(desk.timing.late, asking).await;
            let reply = reply.unwrap_or_else(|_| private("No answer came in time; ask again in a few minutes"));
            desk.post(&asked, desk.body(&reply)).await;
        });
        None
    }

    /// The answer, by the `response_url`.
    pub(super) fn answer_later(self: &Arc<Self>, asked: Asked) {
        let desk = Arc::clone(self);
        self.tasks.spawn(async move {
            let at_once = Instant::now() + desk.timing.direct;
            if let Some(body) = desk.answer(asked.clone(), at_once).await {
                desk.post(&asked, body).await;
            }
        });
    }

    /// Whether this is the first time that `key` comes, which is remembered for so many seconds.
    pub(super) async fn is_first(&self, key: &str, seconds: i64) -> Result<bool, NoAnswer> {
        let now = (self.means.clock)();
        let until = now.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap_or(now);
        (self.means.once)(key.to_owned(), now, until).await
    }

    pub(super) fn body(&self, reply: &Reply) -> Value {
        blocks::body(reply, &self.means.dialect)
    }

    fn request(&self, asked: &Asked) -> Request {
        let Asked { asker, text, .. } = asked;
        let at = (self.means.clock)();
        // Slack does not say which language the asker has set.
        Request { asker: asker.clone(), locale: String::new(), text: text.clone(), at }
    }

    pub(super) async fn post(&self, asked: &Asked, mut body: Value) {
        let Some(url) = asked.response_url.as_ref().filter(|url| is_slacks(url, &self.api)) else {
            tracing::warn!("an answer could not be sent: Slack named no address of its own for it");
            return;
        };
        if let Some(fields) = body.as_object_mut() {
            fields.insert("replace_original".to_owned(), false.into());
        }
        let mut pause = FIRST_PAUSE;
        for tries in 1.. {
            match self.post_once(url, &body).await {
                Ok(()) => return,
                Err(Failure { again: Some(after), .. }) if tries < TRIES => {
                    tokio::time::sleep(pause.max(after).min(LONGEST_PAUSE)).await;
                    pause *= 2;
                }
                Err(Failure { reason, .. }) => {
                    tracing::warn!(reason, "an answer did not reach Slack");
                    return;
                }
            }
        }
    }

    async fn post_once(&self, url: &Url, body: &Value) -> Result<(), Failure> {
        let failed = |reason: String, again: Option<Duration>| Err(Failure { reason, again });
        let client = match self.means.net.client_for(url) {
            Ok(client) => client,
            Err(refused) => return failed(refused.to_string(), None),
        };
        let response = match client.post(url.clone()).json(body).send().await {
            Ok(response) => response,
            // What did not leave can be sent again; what may have arrived would be seen twice.
            Err(error) => return failed(net::explain(&error), error.is_connect().then_some(Duration::ZERO)),
        };
        let status = response.status().as_u16();
        let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        match status {
            200..=299 => Ok(()),
            429 => failed("Slack asks for fewer answers".to_owned(), Some(Duration::from_secs(after.unwrap_or(1)))),
            _ => failed(format!("Slack answered with status {status}"), None),
        }
    }
}

/// Why a post failed, and after which time, if ever, another one is worth it.
struct Failure {
    reason: String,
    again: Option<Duration>,
}

pub(super) fn private(words: impl ToString) -> Reply {
    Reply::to_asker(Text::default().plain(words.to_string()))
}

/// Answers go to Slack alone, whatever a request names; in tests, to where the API is.
fn is_slacks(url: &Url, api: &Url) -> bool {
    let is_of_slack = |host: &str| ["slack.com", "slack-gov.com"].iter().any(|own| is_within(host, own));
    let public = match url.host() {
        Some(Host::Domain(host)) => url.scheme() == "https" && url.port().is_none() && is_of_slack(host),
        _ => false,
    };
    let address = |url: &Url| (url.scheme().to_owned(), url.host_str().map(str::to_owned), url.port_or_known_default());
    public || address(url) == address(api)
}

fn is_within(host: &str, domain: &str) -> bool {
    host == domain || host.strip_suffix(domain).is_some_and(|before| before.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_go_to_slack_alone() {
        let api: Url = "http://127.0.0.1:8080/api".parse().unwrap();
        for (url, right) in [
            ("https://hooks.slack.com/commands/T/1/x", true),
            ("https://hooks.slack-gov.com/commands/T/1/x", true),
            ("http://127.0.0.1:8080/response/1", true),
            ("http://hooks.slack.com/commands/T/1/x", false),
            ("https://hooks.slack.com:8443/commands/T/1/x", false),
            ("https://hooks.slack.com.evil.example/commands", false),
            ("https://evilslack.com/commands", false),
            ("https://user@evil.example/hooks.slack.com", false),
            ("http://127.0.0.1:8081/response/1", false),
            ("https://127.0.0.1/response/1", false),
            ("https://169.254.169.254/latest", false),
        ] {
            assert_eq!(is_slacks(&url.parse().unwrap(), &api), right, "{url}");
        }
    }
}
