//! Which user groups somebody belongs to. Slack does not send it along, so it is asked for, and only where `[[access]]`
//! names a group.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::time::{Instant, timeout};
use url::Url;

use crate::net::Net;

/// What is known is good for so long: who was taken out of a group may type no more a minute later; what they watch goes on.
const FRESH: Duration = Duration::from_secs(60);
/// Slack waits three seconds for the whole answer.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Bytes of the list that are read, at most: some ten thousand members.
const LIST_LIMIT: usize = 4 << 20;

/// Groups by person.
type Listed = HashMap<String, Vec<String>>;

pub(super) struct Groups {
    url: Url,
    token: SecretString,
    net: Net,
    /// And when that was so.
    known: Mutex<Option<(Instant, Listed)>>,
}

impl Groups {
    pub(super) fn new(api: &Url, token: SecretString, net: Net) -> Groups {
        let mut url = api.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("usergroups.list");
        }
        url.query_pairs_mut().append_pair("include_users", "true");
        Groups { url, token, net, known: Mutex::default() }
    }

    /// Ids of the groups; none while Slack does not say.
    pub(super) async fn of(&self, person: &str) -> Vec<String> {
        if let Some(groups) = self.recall(person) {
            return groups;
        }
        let asked = Instant::now();
        // What failed is not asked for again at once either.
        let listed = timeout(PATIENCE, self.list()).await.ok().flatten().unwrap_or_else(|| {
            tracing::warn!("Slack does not say who is in its user groups; is the scope usergroups:read there?");
            Listed::new()
        });
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some((asked, listed));
        self.recall(person).unwrap_or_default()
    }

    fn recall(&self, person: &str) -> Option<Vec<String>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, groups) = known.as_ref().filter(|(asked, _)| asked.elapsed() < FRESH)?;
        Some(groups.get(person).cloned().unwrap_or_default())
    }

    /// <https://docs.slack.dev/reference/methods/usergroups.list>
    async fn list(&self) -> Option<Listed> {
        let client = self.net.client_for(&self.url).ok()?;
        let asked = client.get(self.url.clone()).bearer_auth(self.token.expose_secret()).send().await;
        let said = super::read(asked.ok()?, LIST_LIMIT).await;
        if said.get("ok") != Some(&Value::Bool(true)) {
            return None;
        }
        let mut groups = Listed::new();
        for group in said.get("usergroups")?.as_array()? {
            let Some(id) = group.get("id").and_then(Value::as_str) else { continue };
            let members = group.get("users").and_then(Value::as_array).into_iter().flatten();
            for member in members.filter_map(Value::as_str) {
                groups.entry(member.to_owned()).or_default().push(id.to_owned());
            }
        }
        Some(groups)
    }
}
