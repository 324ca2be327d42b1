//! Generic webhooks in the form of Standard Webhooks
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).
//!
//! The body is made of the [`Change`] alone, so every attempt carries the same bytes. Beside what every body has
//! (`type`, `timestamp`, and in `data`: `workspace`, `run`, `message`, `sequence`):
//!
//! | `type` | in `data` |
//! |---|---|
//! | `run.started` | `stages`: each stage as `stage` below, with its `status` and `message` |
//! | `run.stage.changed` | `stage`, `from`, `to`; `message` is the stage's failure text |
//! | `run.waiting` | `stage`, `since` |
//! | `run.finished` | `from`, `to`; `message` is the run's failure text, else its failed stage's |
//! | `run.lost` | `last_seen` |
//!
//! What a type doesn't have is left out. `run.created_at` is null where DataWorks doesn't say. Times are UTC, in
//! whole seconds. Texts of people and of DataWorks are data as they came, only cut where they are long.

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use schemars::JsonSchema;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use url::Url;

use super::http::{self, Answer, Platform, Verdict};
use super::sign::Signer;
use super::{Channel, PLAIN, check_url, read_secret, read_url};
use crate::model::{
    Change, ChangeKind, Content, Dialect, Message, Outcome, Repetitions, Stage, Status, Terms, Timestamp,
};
use crate::net::Net;
use crate::settings::{Problem, Secret};
use crate::text::cut;

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub url: Secret,
    /// The signing secret: `whsec_` and base64. Absent: requests are not signed.
    pub secret: Option<Secret>,
    #[serde(default = "crate::settings::default_locale")]
    pub locale: String,
    #[serde(default = "crate::settings::default_timezone")]
    pub timezone: String,
}

impl Settings {
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = crate::settings::check_locale_and_timezone(&self.locale, &self.timezone);
        problems.extend(check_url(&self.url, |_| true, "https://example.com/hooks/callboard"));
        if let Some(Ok(secret)) = self.secret.as_ref().map(Secret::read) {
            problems.extend(signer(secret.expose_secret()).err());
        }
        problems
    }
}

pub const DIALECT: Dialect = Dialect { kind: "webhook", ..PLAIN };

/// With or without the prefix, the secret is base64.
fn signer(secret: &str) -> Result<Signer, Problem> {
    let secret = secret.trim();
    let encoded = secret.strip_prefix("whsec_").unwrap_or(secret);
    let key = STANDARD.decode(encoded).or_else(|_| STANDARD_NO_PAD.decode(encoded));
    key.ok().and_then(|key| Signer::new(&key)).ok_or_else(|| {
        Problem::new("secret", "is not whsec_ followed by base64; make one with: echo whsec_$(openssl rand -base64 32)")
    })
}

/// One change of a run, as Callboard posts it to a generic webhook. Fields may be added in any release; what one means
/// changes only with a major version.
#[derive(Serialize, JsonSchema)]
#[schemars(title = "Callboard webhook event")]
struct Event<'a> {
    /// What happened; `data` says which fields come with which.
    #[schemars(extend("enum" = ["run.started", "run.stage.changed", "run.waiting", "run.finished", "run.lost"]))]
    r#type: &'static str,
    /// When Callboard saw it: UTC, in whole seconds.
    #[schemars(extend("format" = "date-time"))]
    timestamp: String,
    data: Data<'a>,
}

/// `workspace`, `run`, `message` and `sequence` are always there; of the others those of the `type`.
#[derive(Serialize, JsonSchema)]
struct Data<'a> {
    workspace: Workspace<'a>,
    run: Run<'a>,
    /// The stage that changed or waits. With run.stage.changed and run.waiting.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "StageName<'a>")]
    stage: Option<StageName<'a>>,
    /// Each stage in order, as the run was first seen. With run.started.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<StageState<'a>>")]
    stages: Option<Vec<StageState<'a>>>,
    /// The status before, of the stage or of the run. With run.stage.changed and run.finished.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    from: Option<&'a str>,
    /// The status now, of the stage or of the run. With run.stage.changed and run.finished.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    to: Option<&'a str>,
    /// Since when the stage waits: UTC, in whole seconds. With run.waiting.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    since: Option<String>,
    /// When DataWorks last knew the run: UTC, in whole seconds. With run.lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    last_seen: Option<String>,
    /// The failure text of the stage, or of the run; where the run that finished has none, of its failed stage. Empty
    /// when all is well. At most 4,000 bytes.
    message: String,
    /// Counts the changes of this run from 1.
    sequence: i64,
}

#[derive(Serialize, JsonSchema)]
struct Workspace<'a> {
    /// Its name in Callboard's configuration.
    name: &'a str,
    project_id: i64,
    region: &'a str,
}

/// The run right after the change.
#[derive(Serialize, JsonSchema)]
struct Run<'a> {
    id: &'a str,
    /// At most 2,000 bytes.
    description: String,
    /// The id of an account or a RAM user.
    creator: &'a str,
    /// Init, Running, Success, Fail, Termination, Cancel, or whatever else DataWorks said.
    status: &'a str,
    /// UTC, in whole seconds; null where DataWorks doesn't say.
    #[schemars(extend("format" = "date-time"))]
    created_at: Option<String>,
    /// The run in the console of DataWorks.
    url: &'a str,
}

#[derive(Serialize, JsonSchema)]
struct StageName<'a> {
    /// What identifies it within its run.
    code: &'a str,
    name: &'a str,
    /// Its place, from 1; 0 where DataWorks lists the stage no more.
    step: i64,
    /// Deploy, Check, Offline, Build, Delete, or whatever DataWorks says.
    r#type: &'a str,
}

#[derive(Serialize, JsonSchema)]
struct StageState<'a> {
    #[serde(flatten)]
    name: StageName<'a>,
    /// Spelled like the status of a run.
    status: &'a str,
    /// Its failure text; empty when all is well. At most 500 bytes.
    message: String,
}

/// The JSON Schema of the body.
pub fn schema() -> serde_json::Value {
    schemars::generate::SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator()
        .into_root_schema_for::<Event<'_>>()
        .into()
}

/// The specification asks for bodies below 20 kB.
const MESSAGE_LIMIT: usize = 4_000;
const DESCRIPTION_LIMIT: usize = 2_000;
const STAGE_MESSAGE_LIMIT: usize = 500;

fn bytes(c: char) -> usize {
    c.len_utf8()
}

fn whole_seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn stage_name<'a>(code: &'a str, stage: Option<&'a Stage>) -> StageName<'a> {
    match stage {
        Some(stage) => StageName { code: &stage.code, name: &stage.name, step: stage.step, r#type: &stage.kind },
        None => StageName { code, name: "", step: 0, r#type: "" },
    }
}

/// The body of a message.
pub fn body(content: &Content) -> Vec<u8> {
    serde_json::to_vec(&value(content)).unwrap_or_default()
}

/// The same fields in the same order, for people to read.
pub fn indented(content: &Content) -> String {
    serde_json::to_string_pretty(&value(content)).unwrap_or_default()
}

fn value(content: &Content) -> serde_json::Value {
    let timestamp = whole_seconds(content.at());
    match content {
        Content::Change(change) => serde_json::json!(event(change)),
        Content::Digest { changes, .. } => {
            let changes: Vec<_> = changes.iter().map(event).collect();
            serde_json::json!({ "type": "digest", "timestamp": timestamp, "data": { "changes": changes } })
        }
        Content::Notice(notice) => {
            serde_json::json!({ "type": "notice", "timestamp": timestamp, "data": notice })
        }
    }
}

fn event(change: &Change) -> Event<'_> {
    let run = &change.run;
    let mut data = Data {
        workspace: Workspace {
            name: &change.workspace.name,
            project_id: change.workspace.project_id,
            region: &change.workspace.region,
        },
        run: Run {
            id: run.id.as_str(),
            description: cut(&run.description, DESCRIPTION_LIMIT, bytes),
            creator: &run.creator,
            status: run.status.as_str(),
            created_at: run.created_at.map(whole_seconds),
            url: &change.url,
        },
        stage: None,
        stages: None,
        from: None,
        to: None,
        since: None,
        last_seen: None,
        message: cut(failure_text(change), MESSAGE_LIMIT, bytes),
        sequence: change.sequence,
    };
    match &change.kind {
        ChangeKind::Started => data.stages = Some(run.stages.iter().map(stage_state).collect()),
        ChangeKind::StageChanged { stage, from, to, .. } => {
            data.stage = Some(stage_name(stage, change.stage()));
            (data.from, data.to) = (Some(from.as_str()), Some(to.as_str()));
        }
        ChangeKind::Waiting { stage, since } => {
            data.stage = Some(stage_name(stage, change.stage()));
            data.since = Some(whole_seconds(*since));
        }
        ChangeKind::Finished { from, to, .. } => (data.from, data.to) = (Some(from.as_str()), Some(to.as_str())),
        ChangeKind::Lost { last_seen } => data.last_seen = Some(whole_seconds(*last_seen)),
    }
    Event { r#type: change.kind.event_type(), timestamp: whole_seconds(change.at), data }
}

fn failure_text(change: &Change) -> &str {
    match (&change.kind, change.stage()) {
        (_, Some(stage)) => &stage.message,
        // The stage is not among the run's: its words are not known, and the run's are not about it.
        (ChangeKind::StageChanged { .. } | ChangeKind::Waiting { .. }, None) => "",
        (ChangeKind::Finished { .. }, None) if change.run.message.trim().is_empty() => {
            let failed = change.run.stages.iter().find(|stage| stage.status == Status::Fail);
            failed.map_or("", |stage| &stage.message)
        }
        _ => &change.run.message,
    }
}

fn stage_state(stage: &Stage) -> StageState<'_> {
    StageState {
        name: stage_name(&stage.code, Some(stage)),
        status: stage.status.as_str(),
        message: cut(&stage.message, STAGE_MESSAGE_LIMIT, bytes),
    }
}

pub const PLATFORM: Platform =
    Platform { accepted: |_: &Answer| Verdict::Delivered(None), refused: |_| None, wait: |_| None };

/// `[channels.NAME] kind = "webhook"`
pub struct Webhook {
    url: Url,
    signer: Option<Signer>,
    net: Net,
}

impl Webhook {
    pub fn new(settings: &Settings, net: &Net) -> Result<Webhook, Problem> {
        let signer = match &settings.secret {
            Some(secret) => Some(signer(read_secret("secret", secret)?.expose_secret())?),
            None => None,
        };
        Ok(Webhook { url: read_url(&settings.url, net)?, signer, net: net.clone() })
    }
}

#[async_trait]
impl Channel for Webhook {
    fn dialect(&self) -> Dialect {
        DIALECT
    }

    fn terms(&self) -> Terms {
        Terms { paces: &[], repetitions: Repetitions::Merged }
    }

    async fn send(&self, _address: &str, message: &Message, now: Timestamp) -> Outcome {
        let body = body(&message.content);
        let id = message.id.to_string();
        let timestamp = now.as_second().to_string();
        let mut headers = http::json_headers();
        http::add(&mut headers, "webhook-id", &id, false);
        http::add(&mut headers, "webhook-timestamp", &timestamp, false);
        if let Some(signer) = &self.signer {
            let signed = signer.sign(&[id.as_bytes(), b".", timestamp.as_bytes(), b".", &body]);
            http::add(&mut headers, "webhook-signature", &format!("v1,{signed}"), false);
        }
        http::judge(http::post(&self.net, &self.url, headers, body).await, &PLATFORM, now)
    }

    /// What a receiver does with other methods on its path is its own affair, so this shows only that its host
    /// answers.
    async fn probe(&self) -> Result<(), String> {
        http::reach(&self.net, &self.url).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_base64_with_or_without_the_prefix() {
        // The example of the specification's libraries: secret, id, timestamp, body, signature.
        for secret in ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"] {
            let signed =
                signer(secret).unwrap().sign(&[b"msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{\"test\": 2432232314}"]);
            assert_eq!(signed, "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        }
        for wrong in ["", "whsec_", "whsec_!!", "not base64 at all"] {
            assert_eq!(signer(wrong).unwrap_err().key, "secret", "{wrong:?}");
        }
    }
}
