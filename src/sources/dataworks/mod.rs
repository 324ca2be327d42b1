//! Alibaba Cloud DataWorks, API version 2024-05-18: three calls that read, signed, one try each.

pub mod acs3;
mod credentials;
mod errors;
mod loose;
mod settings;
mod wire;

use std::time::Duration;

use async_trait::async_trait;
use secrecy::ExposeSecret as _;

use crate::model::{RunId, Snapshot, Timestamp, Workspace};
use crate::settings::Problem;
use crate::sources::{Item, Listing, PAGE_SIZE, Source, SourceError, SourceErrorKind};
use credentials::AccessKey;
use loose::Loose;

pub use settings::{Budget, Credentials, Edition, Poll, Settings};

/// <https://www.alibabacloud.com/help/en/dataworks/developer-reference/api-dataworks-public-2024-05-18-overview>
pub const VERSION: &str = "2024-05-18";

/// From the first byte sent to the last byte read, credentials included.
const DEADLINE: Duration = Duration::from_secs(10);

/// A list of 100 runs with five stages each takes about 200 KiB.
const BODY_LIMIT: usize = 4 * 1024 * 1024;

/// The calls that are made. All read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    List,
    Get,
    Items,
}

impl Action {
    pub const ALL: [Action; 3] = [Action::List, Action::Get, Action::Items];

    /// The value of `x-acs-action`.
    pub fn name(self) -> &'static str {
        match self {
            Action::List => "ListPipelineRuns",
            Action::Get => "GetPipelineRun",
            Action::Items => "ListPipelineRunItems",
        }
    }
}

/// The client.
pub struct DataWorks {
    endpoint: String,
    console: String,
    credentials: credentials::Credentials,
    client: reqwest::Client,
    clock: fn() -> Timestamp,
    deadline: Duration,
}

impl DataWorks {
    /// Calls go through `client`, which brings its own rules on where requests may go; the default credential chain
    /// asks through `chain`.
    pub fn new(settings: &Settings, client: reqwest::Client, chain: reqwest::Client) -> Result<DataWorks, Problem> {
        if let Err(message) = settings::origin(&settings.endpoint, "cn-shanghai") {
            return Err(Problem::new("endpoint", message));
        }
        Ok(DataWorks {
            endpoint: settings.endpoint.clone(),
            console: settings.console.clone(),
            credentials: credentials::Credentials::new(settings.credentials.as_ref(), chain),
            client,
            clock: Timestamp::now,
            deadline: DEADLINE,
        })
    }

    /// Dates requests by another clock than the machine's.
    #[must_use]
    pub fn with_clock(self, clock: fn() -> Timestamp) -> DataWorks {
        DataWorks { clock, ..self }
    }

    /// Gives up on a call after another time than ten seconds.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> DataWorks {
        DataWorks { deadline, ..self }
    }

    /// One signed call, one try.
    async fn call(&self, workspace: &Workspace, action: Action, query: &[(&str, &str)]) -> Result<Loose, SourceError> {
        let deadline = self.deadline;
        match tokio::time::timeout(deadline, self.exchange(workspace, action, query)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(transient(format!("no answer within {} s", deadline.as_secs_f64()))),
        }
    }

    async fn exchange(
        &self,
        workspace: &Workspace,
        action: Action,
        query: &[(&str, &str)],
    ) -> Result<Loose, SourceError> {
        let now = (self.clock)();
        let key = self.credentials.get(now).await.map_err(without_request_id)?;
        let request = self.request(workspace, action, query, now, &key).map_err(without_request_id)?;
        let mut response = self.client.execute(request).await.map_err(|error| transient(why(&error)))?;

        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (after_ms, after, id) = (header("x-acs-retry-after"), header("retry-after"), header("x-acs-request-id"));
        let status = response.status();
        let body = without_secrets(read_body(&mut response, BODY_LIMIT).await?, &key);
        let refusal = errors::Refusal {
            status: status.as_u16(),
            body: &body,
            retry_after_ms: after_ms.as_deref(),
            retry_after: after.as_deref(),
            request_id: id.as_deref(),
            of_one_run: action != Action::List,
        };
        let answer = answer(&refusal);
        if matches!(&answer, Err(error) if matches!(error.kind, SourceErrorKind::Credentials { .. })) {
            self.credentials.forget().await;
        }
        answer
    }

    /// The wire form of the official client. Each has its own date and nonce, so a call made again is signed again.
    fn request(
        &self,
        workspace: &Workspace,
        action: Action,
        query: &[(&str, &str)],
        now: Timestamp,
        key: &AccessKey,
    ) -> Result<reqwest::Request, SourceErrorKind> {
        let broken = |said: &str| SourceErrorKind::Broken { said: said.to_owned() };
        let (scheme, host) = settings::origin(&self.endpoint, &workspace.region)
            .map_err(|said| broken(&format!("dataworks.endpoint {said}")))?;
        let date = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let nonce = uuid::Uuid::new_v4().simple().to_string();
        let mut headers = vec![
            ("x-acs-action", action.name()),
            ("x-acs-version", VERSION),
            ("x-acs-date", date.as_str()),
            ("x-acs-signature-nonce", nonce.as_str()),
        ];
        if let Some(token) = &key.token {
            headers.extend([("x-acs-accesskey-id", key.id.as_str()), ("x-acs-security-token", token.expose_secret())]);
        }
        let unsigned = acs3::Unsigned { method: "GET", host: &host, path: "/", query, headers: &headers, body: b"" };
        let signed = acs3::sign(&unsigned, &key.id, key.secret.expose_secret());

        let mut request = self
            .client
            .get(format!("{scheme}://{host}/?{}", signed.canonical_query))
            .header("host", &host)
            .header("accept", "application/json")
            .header("user-agent", concat!("callboard/", env!("CARGO_PKG_VERSION")))
            .header(acs3::CONTENT_SHA256, &signed.payload_sha256)
            .header("authorization", &signed.authorization);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        // Built from parts that were checked, but for a key or token with a line break in it.
        request.build().map_err(|_| SourceErrorKind::Credentials {
            said: "the credentials hold characters that no HTTP header may".to_owned(),
            hint: "check dataworks.credentials for line breaks".to_owned(),
        })
    }
}

#[async_trait]
impl Source for DataWorks {
    async fn list(&self, workspace: &Workspace, page: u32) -> Result<Listing, SourceError> {
        let (project, page, size) = (workspace.project_id.to_string(), page.to_string(), PAGE_SIZE.to_string());
        let query = [("ProjectId", project.as_str()), ("PageNumber", &page), ("PageSize", &size)];
        let body = self.call(workspace, Action::List, &query).await?;
        wire::runs(&body, workspace.project_id).map_err(of(&body))
    }

    async fn get(&self, workspace: &Workspace, run: &RunId) -> Result<Snapshot, SourceError> {
        let project = workspace.project_id.to_string();
        let body = self.call(workspace, Action::Get, &[("ProjectId", &project), ("Id", run.as_str())]).await?;
        wire::run(&body, workspace.project_id, run).map_err(of(&body))
    }

    async fn items(&self, workspace: &Workspace, run: &RunId) -> Result<Vec<Item>, SourceError> {
        let (project, size) = (workspace.project_id.to_string(), PAGE_SIZE.to_string());
        let query = [
            ("ProjectId", project.as_str()),
            ("PipelineRunId", run.as_str()),
            ("PageNumber", "1"),
            ("PageSize", &size),
        ];
        let body = self.call(workspace, Action::Items, &query).await?;
        wire::items(&body).map_err(of(&body))
    }

    /// No link to one run is documented: the default opens the workspace.
    fn url(&self, workspace: &Workspace, run: &RunId) -> String {
        self.console
            .replace("{region}", &acs3::percent_encode(&workspace.region))
            .replace("{project_id}", &workspace.project_id.to_string())
            .replace("{run_id}", &acs3::percent_encode(run.as_str()))
    }
}

/// The body of a 2xx answer that carries what was asked for, else what the answer says is wrong.
fn answer(refusal: &errors::Refusal<'_>) -> Result<Loose, SourceError> {
    if !(200..300).contains(&refusal.status) {
        return Err(errors::classify(refusal));
    }
    let request_id = refusal.request_id.map(errors::excerpt);
    let broken = |said: String| SourceError { kind: SourceErrorKind::Broken { said }, request_id: request_id.clone() };
    let body = Loose::parse(refusal.body).map_err(|_| {
        let said = errors::excerpt(&String::from_utf8_lossy(refusal.body));
        broken(if said.is_empty() { "an empty body".to_owned() } else { format!("this is no JSON: {said}") })
    })?;
    if !matches!(body, Loose::Object(_)) {
        return Err(broken(format!("no JSON object: {}", errors::excerpt(&String::from_utf8_lossy(refusal.body)))));
    }
    let failed = body.get("Success").text().is_some_and(|success| success.eq_ignore_ascii_case("false"));
    let refused = !wire::has_payload(&body) && body.get("Code").text().is_some_and(|code| !code.trim().is_empty());
    if failed || refused { Err(errors::classify(refusal)) } else { Ok(body) }
}

/// The whole body, or an error when it is longer than `limit` bytes or breaks off.
async fn read_body(response: &mut reqwest::Response, limit: usize) -> Result<Vec<u8>, SourceError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| transient(why(&error)))? {
        if body.len() + chunk.len() > limit {
            let said = format!("an answer of more than {} KiB", limit / 1024);
            return Err(without_request_id(SourceErrorKind::Broken { said }));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn of(body: &Loose) -> impl FnOnce(SourceErrorKind) -> SourceError {
    let request_id = body.get("RequestId").text().map(|id| errors::cap(id.trim(), 64).to_owned());
    move |kind| SourceError { kind, request_id }
}

fn without_request_id(kind: SourceErrorKind) -> SourceError {
    SourceError { kind, request_id: None }
}

fn transient(said: String) -> SourceError {
    without_request_id(SourceErrorKind::Transient { said })
}

/// The causes without the URL, the most general first.
fn why(error: &reqwest::Error) -> String {
    let what = if error.is_timeout() {
        "no answer in time"
    } else if error.is_connect() {
        "no connection"
    } else if error.is_body() || error.is_decode() {
        "the answer broke off"
    } else {
        "the call failed"
    };
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    let words: Vec<String> = std::iter::once(what.to_owned()).chain(causes.map(ToString::to_string)).collect();
    errors::excerpt(&words.join(": "))
}

/// The vendor's words may repeat what was sent: hidden before anything is cut out of them.
fn without_secrets(body: Vec<u8>, key: &AccessKey) -> Vec<u8> {
    let secrets = std::iter::once(&key.secret).chain(&key.token).map(|secret| secret.expose_secret());
    secrets.filter(|secret| !secret.is_empty()).fold(body, |body, secret| {
        let text = String::from_utf8_lossy(&body);
        if text.contains(secret) { text.replace(secret, "(secret)").into_bytes() } else { body }
    })
}
