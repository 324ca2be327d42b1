//! Generic webhooks in the form of Standard Webhooks
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).
//!
//! The body is made of the [`Content`] alone, so every attempt carries the same bytes. Beside what the body of every
//! change has (`type`, `timestamp`, and in `data`: `workspace`, `run`, `message`, `sequence`):
//!
//! | `type` | in `data` |
//! |---|---|
//! | `run.started` | `stages`: each stage as `stage` below, with its `status` and `message` |
//! | `run.stage.changed` | `stage`, `from`, `to`; `message` is the stage's failure text |
//! | `run.waiting` | `stage`, `since` |
//! | `run.finished` | `from`, `to`; `message` is the run's failure text, else its failed stage's |
//! | `run.lost` | `last_seen` |
//!
//! Two types are no change, and have none of that in `data`:
//!
//! | `type` | in `data` |
//! |---|---|
//! | `digest` | `why`, and `changes`: each as it would be by itself, with `type`, `timestamp` and `data` |
//! | `notice` | `notice`, `at`; what is in trouble: `destination`, `surface` or `workspaces`; `reason` or `since` |
//!
//! What a type doesn't have is left out. `run.created_at` is null where DataWorks doesn't say. Times are UTC, in
//! whole seconds. Texts of people and of DataWorks are data as they came, only cut where they are long. A body stays
//! below 20,000 bytes: where that takes more, texts are cut shorter and the last of `stages` are left out.

use std::ops::RangeInclusive;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use schemars::JsonSchema;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use url::Url;

use super::http::{self, Answer, Platform, Verdict};
use super::sign::Signer;
use super::{Channel, Manner, PLAIN, check_url, read_secret, read_url};
use crate::model::{
    Change, ChangeKind, Content, Dialect, Folding, Message, Notice, NoticeKind, Outcome, Repetitions, Stage, Status,
    Terms, Timestamp,
};
use crate::net::Net;
use crate::settings::{Problem, Secret};
use crate::text::{cut, json_bytes, length};

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub url: Secret,
    /// The signing secret: base64 of 24 to 64 bytes, with or without `whsec_` before it. Absent: requests are not signed.
    pub secret: Option<Secret>,
    #[serde(flatten)]
    pub manner: Manner,
}

impl Settings {
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = self.manner.check();
        problems.extend(check_url(&self.url, |_| true, "https://example.com/hooks/callboard"));
        if let Some(Ok(secret)) = self.secret.as_ref().map(Secret::read) {
            problems.extend(signer(secret.expose_secret()).err());
        }
        problems
    }
}

pub const DIALECT: Dialect = Dialect { kind: "webhook", ..PLAIN };

/// How many bytes a key has
/// (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).
const KEY: RangeInclusive<usize> = 24..=64;

/// With or without the prefix, the secret is base64.
fn signer(secret: &str) -> Result<Signer, Problem> {
    const HOW: &str = "make one with: echo whsec_$(openssl rand -base64 32)";
    let secret = secret.trim();
    let encoded = secret.strip_prefix("whsec_").unwrap_or(secret);
    let wrong = |what: String| Problem::new("secret", format!("{what}; {HOW}"));
    let key = STANDARD.decode(encoded).or_else(|_| STANDARD_NO_PAD.decode(encoded));
    let key = key.map_err(|_| wrong("is not base64, with or without whsec_ before it".to_owned()))?;
    let (least, most) = (KEY.start(), KEY.end());
    Signer::new(&key).filter(|_| KEY.contains(&key.len())).ok_or_else(|| {
        wrong(format!("is a key of {} bytes where Standard Webhooks asks for {least} to {most}", key.len()))
    })
}

/// What Callboard posts to a generic webhook: a change of a run, several of them in a digest, or a notice about
/// Callboard itself; `type` says which. Fields may be added in any release; what one means changes only with a major
/// version. A body is below 20,000 bytes: where that takes more than the limits named here, texts are cut shorter.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(title = "Callboard webhook event")]
enum Body<'a> {
    Change(Box<Event<'a>>),
    Digest(Digest<'a>),
    Notice(NoticeEvent<'a>),
}

/// One change of a run.
#[derive(Serialize, JsonSchema)]
struct Event<'a> {
    /// What happened; `data` says which fields come with which.
    #[schemars(extend("enum" = ["run.started", "run.stage.changed", "run.waiting", "run.finished", "run.lost"]))]
    r#type: &'static str,
    /// When Callboard saw it: UTC, in whole seconds.
    #[schemars(extend("format" = "date-time"))]
    timestamp: String,
    data: Data<'a>,
}

/// Several changes in one message.
#[derive(Serialize, JsonSchema)]
struct Digest<'a> {
    #[schemars(extend("enum" = ["digest"]))]
    r#type: &'static str,
    /// When Callboard saw the newest of its changes: UTC, in whole seconds.
    #[schemars(extend("format" = "date-time"))]
    timestamp: String,
    data: DigestData<'a>,
}

#[derive(Serialize, JsonSchema)]
struct DigestData<'a> {
    /// rate: this destination's rate can't carry them one by one. late: they could not be told when they happened.
    #[schemars(extend("enum" = ["rate", "late"]))]
    why: &'static str,
    /// Grouped by run, each run's in order; at most 20.
    changes: Vec<Event<'a>>,
}

/// What Callboard tells its operators about itself.
#[derive(Serialize, JsonSchema)]
struct NoticeEvent<'a> {
    #[schemars(extend("enum" = ["notice"]))]
    r#type: &'static str,
    /// When it was found: UTC, in whole seconds.
    #[schemars(extend("format" = "date-time"))]
    timestamp: String,
    data: NoticeData<'a>,
}

/// `notice` and `at` are always there; of the others those of the `notice`.
#[derive(Serialize, JsonSchema)]
struct NoticeData<'a> {
    /// What began, or with `.back` or `.accepting` ended. destination: nothing is sent there,
    /// or it refuses one message after the other. bot: none of its rooms is reached. source:
    /// DataWorks refuses the credentials or a permission.
    #[schemars(extend("enum" = [
        "destination.dead", "destination.back", "destination.refusing", "destination.accepting", "bot.denied",
        "bot.back", "source.denied", "source.back",
    ]))]
    notice: &'static str,
    /// As `timestamp`.
    #[schemars(extend("format" = "date-time"))]
    at: String,
    /// The name of a channel, or `surface:room`. With destination.*.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    destination: Option<String>,
    /// The bot, for example discord. With bot.denied and bot.back.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    surface: Option<&'a str>,
    /// Their names in Callboard's configuration, the first 100. With source.denied and source.back.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<String>")]
    workspaces: Option<Vec<&'a str>>,
    /// In words; at most 1,000 bytes. With destination.dead,
    /// destination.refusing, bot.denied and source.denied.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    reason: Option<String>,
    /// When it began: UTC, in whole seconds. With destination.back,
    /// destination.accepting, bot.back and source.back.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    since: Option<String>,
}

/// `workspace`, `run`, `message` and `sequence` are always there; of the others those of the `type`.
#[derive(Serialize, JsonSchema)]
struct Data<'a> {
    workspace: Workspace<'a>,
    run: Run<'a>,
    /// The stage that changed or waits. With run.stage.changed and run.waiting.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "StageName")]
    stage: Option<StageName>,
    /// Each stage in order, as the run was first seen; of very many only the first. With run.started.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<StageState>")]
    stages: Option<Vec<StageState>>,
    /// The status before, of the stage or of the run. With run.stage.changed and run.finished.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    from: Option<String>,
    /// The status now, of the stage or of the run. With run.stage.changed and run.finished.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    to: Option<String>,
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
    creator: String,
    /// Init, Running, Success, Fail, Termination, Cancel, or whatever else DataWorks said.
    status: String,
    /// UTC, in whole seconds; null where DataWorks doesn't say.
    #[schemars(extend("format" = "date-time"))]
    created_at: Option<String>,
    /// The run in the console of DataWorks; empty where the address is too long.
    url: &'a str,
}

#[derive(Serialize, JsonSchema)]
struct StageName {
    /// What identifies it within its run.
    code: String,
    name: String,
    /// Its place, from 1; 0 where DataWorks lists the stage no more.
    step: i64,
    /// Deploy, Check, Offline, Build, Delete, or whatever DataWorks says.
    r#type: String,
}

#[derive(Serialize, JsonSchema)]
struct StageState {
    #[serde(flatten)]
    name: StageName,
    /// Spelled like the status of a run.
    status: String,
    /// Its failure text; empty when all is well. At most 500 bytes.
    message: String,
}

/// The JSON Schema of the body.
pub fn schema() -> serde_json::Value {
    schemars::generate::SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator()
        .into_root_schema_for::<Body<'_>>()
        .into()
}

/// The specification asks for bodies below 20 kB.
const BODY_LIMIT: usize = 20_000;

/// How much of what may be long is kept. Texts are measured in bytes as they stand in JSON.
struct Room {
    message: usize,
    description: usize,
    /// Of a name, a code, a status, a type or an account.
    word: usize,
    url: usize,
    stages: usize,
    stage_message: usize,
}

/// From roomy to narrow; the first in which the body stays below its limit counts. In the last, twenty changes of the
/// worst kind do: beside what is cut, one has at most 500 bytes.
const ROOMS: [Room; 5] = [
    Room { message: 4_000, description: 2_000, word: 1_024, url: 2_000, stages: 256, stage_message: 500 },
    Room { message: 2_000, description: 500, word: 128, url: 2_000, stages: 64, stage_message: 100 },
    Room { message: 500, description: 200, word: 64, url: 500, stages: 16, stage_message: 50 },
    Room { message: 250, description: 100, word: 48, url: 200, stages: 5, stage_message: 0 },
    Room { message: 100, description: 50, word: 30, url: 100, stages: 0, stage_message: 0 },
];

const REASON_LIMIT: usize = 1_000;
const WORKSPACES_LIMIT: usize = 100;

/// The body of a message.
pub fn body(content: &Content) -> Vec<u8> {
    serde_json::to_vec(&fitting(content)).unwrap_or_default()
}

/// The same fields in the same order, for people to read.
pub fn indented(content: &Content) -> String {
    serde_json::to_string_pretty(&fitting(content)).unwrap_or_default()
}

fn fitting(content: &Content) -> Body<'_> {
    let [.., narrow] = &ROOMS;
    let fits = |body: &Body<'_>| serde_json::to_vec(body).is_ok_and(|written| written.len() < BODY_LIMIT);
    ROOMS.iter().map(|room| value(content, room)).find(fits).unwrap_or_else(|| value(content, narrow))
}

fn value<'a>(content: &'a Content, room: &Room) -> Body<'a> {
    let timestamp = whole_seconds(content.at());
    match content {
        Content::Change(change) => Body::Change(Box::new(event(change, room))),
        Content::Digest { changes, why } => {
            let changes = changes.iter().map(|change| event(change, room)).collect();
            let why = match why {
                Folding::Rate => "rate",
                Folding::Late => "late",
            };
            Body::Digest(Digest { r#type: content.event_type(), timestamp, data: DigestData { why, changes } })
        }
        Content::Notice(notice) => {
            Body::Notice(NoticeEvent { r#type: content.event_type(), timestamp, data: notice_data(notice) })
        }
    }
}

fn whole_seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn notice_data(notice: &Notice) -> NoticeData<'_> {
    let (destination, surface, workspaces) = match &notice.kind {
        NoticeKind::DestinationDead { destination, .. }
        | NoticeKind::DestinationBack { destination, .. }
        | NoticeKind::DestinationRefusing { destination, .. }
        | NoticeKind::DestinationAccepting { destination, .. } => (Some(destination.to_string()), None, None),
        NoticeKind::BotDenied { surface, .. } | NoticeKind::BotBack { surface, .. } => {
            (None, Some(surface.as_str()), None)
        }
        NoticeKind::SourceDenied { workspaces, .. } | NoticeKind::SourceBack { workspaces, .. } => {
            (None, None, Some(workspaces.iter().take(WORKSPACES_LIMIT).map(String::as_str).collect()))
        }
    };
    let (reason, since) = match &notice.kind {
        NoticeKind::DestinationDead { reason, .. }
        | NoticeKind::DestinationRefusing { reason, .. }
        | NoticeKind::BotDenied { reason, .. }
        | NoticeKind::SourceDenied { reason, .. } => (Some(cut(reason, REASON_LIMIT, json_bytes)), None),
        NoticeKind::DestinationBack { since, .. }
        | NoticeKind::DestinationAccepting { since, .. }
        | NoticeKind::BotBack { since, .. }
        | NoticeKind::SourceBack { since, .. } => (None, Some(whole_seconds(*since))),
    };
    let (name, at) = (notice.kind.name(), whole_seconds(notice.at));
    NoticeData { notice: name, at, destination, surface, workspaces, reason, since }
}

fn event<'a>(change: &'a Change, room: &Room) -> Event<'a> {
    let run = &change.run;
    let status = |status: &Status| cut(status.as_str(), room.word, json_bytes);
    let mut data = Data {
        workspace: Workspace {
            name: &change.workspace.name,
            project_id: change.workspace.project_id,
            region: &change.workspace.region,
        },
        run: Run {
            id: run.id.as_str(),
            description: cut(&run.description, room.description, json_bytes),
            creator: cut(&run.creator, room.word, json_bytes),
            status: status(&run.status),
            created_at: run.created_at.map(whole_seconds),
            url: if length(&change.url, json_bytes) <= room.url { &change.url } else { "" },
        },
        stage: None,
        stages: None,
        from: None,
        to: None,
        since: None,
        last_seen: None,
        message: cut(failure_text(change), room.message, json_bytes),
        sequence: change.sequence,
    };
    match &change.kind {
        ChangeKind::Started => {
            data.stages = Some(run.stages.iter().take(room.stages).map(|stage| stage_state(stage, room)).collect());
        }
        ChangeKind::StageChanged { stage, from, to, .. } => {
            data.stage = Some(stage_name(stage, change.stage(), room));
            (data.from, data.to) = (Some(status(from)), Some(status(to)));
        }
        ChangeKind::Waiting { stage, since } => {
            data.stage = Some(stage_name(stage, change.stage(), room));
            data.since = Some(whole_seconds(*since));
        }
        ChangeKind::Finished { from, to, .. } => (data.from, data.to) = (Some(status(from)), Some(status(to))),
        ChangeKind::Lost { last_seen } => data.last_seen = Some(whole_seconds(*last_seen)),
    }
    Event { r#type: change.kind.event_type(), timestamp: whole_seconds(change.at), data }
}

fn stage_name(code: &str, stage: Option<&Stage>, room: &Room) -> StageName {
    let word = |text: &str| cut(text, room.word, json_bytes);
    match stage {
        Some(stage) => {
            StageName { code: word(&stage.code), name: word(&stage.name), step: stage.step, r#type: word(&stage.kind) }
        }
        None => StageName { code: word(code), name: String::new(), step: 0, r#type: String::new() },
    }
}

fn stage_state(stage: &Stage, room: &Room) -> StageState {
    StageState {
        name: stage_name(&stage.code, Some(stage), room),
        status: cut(stage.status.as_str(), room.word, json_bytes),
        message: cut(&stage.message, room.stage_message, json_bytes),
    }
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

pub const PLATFORM: Platform =
    Platform { accepted: |_: &Answer| Verdict::Delivered(None), refused: |_| None, wait: |_| None, pause: |_| None };

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
