//! The world over HTTP. Checks every request more strictly than the vendor is known to.

use std::collections::BTreeMap;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State as Shared};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Fault, Quirks, Run, State, World};
use crate::model::Timestamp;
use crate::sources::dataworks::{Action, VERSION, acs3};

/// Dates further off than this are refused.
/// <https://help.aliyun.com/zh/model-studio/user-guide/roa-style-request-body-signature-mechanism>
const CLOCK_SKEW_SECONDS: u64 = 15 * 60;
const REQUEST_LIMIT: usize = 64 * 1024;
const PAGE_LIMIT: usize = 100;
/// Nonces and refusals that are remembered.
const NONCES: usize = 100_000;
const REFUSALS: usize = 1_000;

/// Serves until `stop` is cancelled; requests that hang end then too.
pub async fn serve(world: World, listener: TcpListener, stop: CancellationToken) -> std::io::Result<()> {
    let router = Router::new().fallback(handle).with_state((world, stop.clone()));
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
}

/// An error of the vendor: HTTP status, code, message.
struct Refusal(u16, &'static str, String);

type Answer = Result<Value, Refusal>;

fn refuse<T>(status: u16, code: &'static str, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal(status, code, message.into()))
}

/// A request as it came.
struct Received {
    method: String,
    path: String,
    query: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Received {
    async fn read(request: Request) -> Received {
        let (parts, body) = request.into_parts();
        Received {
            method: parts.method.to_string(),
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            headers: parts.headers,
            // A body that is too large is as wrong as any: these calls have none.
            body: axum::body::to_bytes(body, REQUEST_LIMIT).await.unwrap_or_else(|_| Bytes::from_static(b"too large")),
        }
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    fn action(&self) -> Option<Action> {
        let name = self.header("x-acs-action");
        Action::ALL.into_iter().find(|action| action.name() == name)
    }
}

async fn handle(Shared((world, stop)): Shared<(World, CancellationToken)>, request: Request) -> Response {
    let received = Received::read(request).await;
    let outcome = world.receive(&received);
    world.0.calls.send_modify(|calls| *calls += 1);
    match outcome {
        Ok(Reply::Answer(body)) => (StatusCode::OK, axum::Json(body)).into_response(),
        Ok(Reply::Fault(fault)) => faulty(fault, &stop).await,
        Err(refusal) => refusal.into_response(),
    }
}

enum Reply {
    Answer(Value),
    Fault(Fault),
}

impl World {
    fn receive(&self, received: &Received) -> Result<Reply, Refusal> {
        let mut state = self.state();
        let action = received.action();
        if let Some(action) = action {
            *state.calls.entry(action).or_default() += 1;
        }
        let in_budget = state.spend();
        let reply = state.admit(received).and(in_budget).and_then(|()| {
            let fault = state.faults.pop_front().or_else(|| state.always.clone());
            fault.map_or_else(|| state.answer(received, action).map(Reply::Answer), |fault| Ok(Reply::Fault(fault)))
        });
        if let Err(Refusal(_, code, _)) = &reply {
            if state.refusals.len() >= REFUSALS {
                state.refusals.remove(0);
            }
            state.refusals.push((*code).to_owned());
        }
        reply
    }
}

// -------------------------------------------------------------------------------------------- may this call be made

impl State {
    /// Counts a call; refused ones count too.
    fn spend(&mut self) -> Result<(), Refusal> {
        let second = self.now.as_second();
        // Midnight in Beijing; the vendor does not say which midnight it means.
        let day = (second + 8 * 3600).div_euclid(86_400);
        for (window, now) in [(&mut self.second, second), (&mut self.day, day)] {
            *window = if window.0 == now { (now, window.1 + 1) } else { (now, 1) };
        }
        if self.calls_per_day.is_some_and(|limit| self.day.1 > limit) {
            return refuse(429, "Throttling.Api.Risk", "The daily limit of calls is reached.");
        }
        if self.calls_per_second.is_some_and(|limit| self.second.1 > limit) {
            return refuse(429, "Throttling.User", "Request was denied due to user flow control.");
        }
        Ok(())
    }

    fn admit(&mut self, received: &Received) -> Result<(), Refusal> {
        if received.method != "GET" {
            return refuse(405, "UnsupportedHTTPMethod", "This action is called by GET.");
        }
        if received.action().is_none() || received.path != "/" {
            return refuse(404, "InvalidAction.NotFound", "Specified api is not found.");
        }
        if received.header("x-acs-version") != VERSION {
            return refuse(404, "InvalidVersion", "Specified parameter Version is not valid.");
        }
        if received.header("accept") != "application/json" || !received.body.is_empty() {
            return refuse(400, "InvalidParameter", "JSON must be asked for, without a body.");
        }
        self.check_key(received)?;
        check_date(received.header("x-acs-date"), (self.clock)())?;
        self.check_signature(received)
    }

    fn check_key(&self, received: &Received) -> Result<(), Refusal> {
        let authorization = acs3::Authorization::parse(received.header("authorization"));
        let needed = ["x-acs-date", "x-acs-signature-nonce", acs3::CONTENT_SHA256, "host"];
        let Some(authorization) = authorization.filter(|_| needed.iter().all(|name| !received.header(name).is_empty()))
        else {
            return refuse(400, "IncompleteSignature", "The request signature does not conform to Aliyun standards.");
        };
        if authorization.access_key_id != self.access_key_id {
            return refuse(404, "InvalidAccessKeyId.NotFound", "Specified access key is not found.");
        }
        let token = Some(received.header("x-acs-security-token")).filter(|token| !token.is_empty());
        match (token, &self.security_token) {
            (None, Some(_)) => return refuse(400, "MissingSecurityToken", "SecurityToken is mandatory for this key."),
            (token, expected) if token != expected.as_deref() => {
                return refuse(400, "InvalidSecurityToken.MismatchWithAccessKey", "The token is of another key.");
            }
            (Some(_), _) if self.token_expired => {
                return refuse(400, "InvalidSecurityToken.Expired", "Specified SecurityToken is expired.");
            }
            (Some(_), _) if received.header("x-acs-accesskey-id") != self.access_key_id => {
                return refuse(400, "InvalidParameter", "x-acs-accesskey-id goes with a security token.");
            }
            _ => {}
        }
        Ok(())
    }

    fn check_signature(&mut self, received: &Received) -> Result<(), Refusal> {
        let headers: Vec<(&str, &str)> =
            received.headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?))).collect();
        let query: Vec<(String, String)> =
            url::form_urlencoded::parse(received.query.as_bytes()).into_owned().collect();
        let query: Vec<(&str, &str)> = query.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let unsigned = acs3::Unsigned {
            method: &received.method,
            host: received.header("host"),
            path: &received.path,
            query: &query,
            headers: &headers,
            body: &received.body,
        };
        if let Err(refused) = acs3::verify(&unsigned, received.header("authorization"), &self.access_key_secret) {
            return refuse(400, "SignatureDoesNotMatch", format!("Specified signature is not matched: {refused}."));
        }
        if acs3::canonical_query(&query) != received.query {
            return refuse(400, "SignatureDoesNotMatch", "The query sent is not the very text that was signed.");
        }
        let nonce = received.header("x-acs-signature-nonce");
        if nonce.len() != 32 || !nonce.bytes().all(|b| b.is_ascii_hexdigit()) {
            return refuse(400, "InvalidParameter", "A nonce has 32 hexadecimal digits.");
        }
        if self.nonces.len() >= NONCES {
            self.nonces.clear();
        }
        if !self.nonces.insert(nonce.to_owned()) {
            return refuse(400, "SignatureNonceUsed", "Specified signature nonce was used already.");
        }
        Ok(())
    }
}

fn check_date(date: &str, now: Timestamp) -> Result<(), Refusal> {
    // `2026-01-02T03:04:05Z`, to the letter.
    let Some(dated) = date.parse::<Timestamp>().ok().filter(|dated| dated.to_string() == date) else {
        return refuse(400, "InvalidTimeStamp.Format", "Specified time stamp is not well formatted.");
    };
    if dated.as_second().abs_diff(now.as_second()) > CLOCK_SKEW_SECONDS {
        return refuse(400, "InvalidTimeStamp.Expired", "Specified time stamp or date value is expired.");
    }
    Ok(())
}

// ------------------------------------------------------------------------------------------------- what it answers

impl State {
    fn answer(&self, received: &Received, action: Option<Action>) -> Answer {
        let pairs = url::form_urlencoded::parse(received.query.as_bytes()).into_owned();
        let query: BTreeMap<String, String> = pairs.collect();
        let (keys, paged): (&[&str], bool) = match action {
            Some(Action::List) => (&["PageNumber", "PageSize", "ProjectId"], true),
            Some(Action::Get) => (&["Id", "ProjectId"], false),
            Some(Action::Items) => (&["PageNumber", "PageSize", "PipelineRunId", "ProjectId"], true),
            None => (&[], false),
        };
        if let Some(missing) = keys.iter().find(|key| !query.contains_key(**key)) {
            return refuse(400, "MissingParameter", format!("{missing} is mandatory for this action."));
        }
        if let Some(extra) = query.keys().find(|key| !keys.contains(&key.as_str())) {
            return refuse(400, "InvalidParameter", format!("{extra} is not a parameter of this action."));
        }
        let given = |key: &str| query.get(key).map(String::as_str).unwrap_or_default();
        let Ok(project_id) = given("ProjectId").parse::<i64>() else {
            return refuse(400, "InvalidParameter", "ProjectId is a number.");
        };
        let open = Some(project_id).filter(|id| !self.closed.contains(id));
        let Some(runs) = open.and_then(|id| self.workspaces.get(&id)) else {
            // Whoever typed another project than the simulation has learns which it has.
            let known = self.workspaces.keys().filter(|id| !self.closed.contains(id)).map(i64::to_string);
            let known = known.collect::<Vec<_>>().join(", ");
            let said = format!("You are no member of workspace {project_id}. This simulation has project_id {known}.");
            return refuse(403, "NoPermission", said);
        };
        let page = if paged { Some(Page::read(given("PageNumber"), given("PageSize"))?) } else { None };
        let write = Writer { quirks: self.quirks, project_id };
        match (action, page) {
            (Some(Action::List), Some(page)) => Ok(write.list(runs, page)),
            (Some(Action::Items), Some(page)) => {
                let Some(run) = runs.iter().find(|run| run.id.as_str() == given("PipelineRunId")) else {
                    return refuse(404, "PipelineRun.NotFound", "The pipeline run does not exist.");
                };
                Ok(write.items(run, page))
            }
            _ => match runs.iter().find(|run| run.id.as_str() == given("Id")) {
                Some(run) => Ok(write.envelope("Pipeline", write.run(run))),
                None if self.quirks.null_for_unknown_run => Ok(write.envelope("Pipeline", Value::Null)),
                // What the vendor answers is documented nowhere.
                None => refuse(404, "PipelineRun.NotFound", "The pipeline run does not exist."),
            },
        }
    }
}

#[derive(Clone, Copy)]
struct Page {
    number: usize,
    size: usize,
}

impl Page {
    fn read(number: &str, size: &str) -> Result<Page, Refusal> {
        match (number.parse(), size.parse()) {
            (Ok(number), Ok(size)) if number >= 1 && (1..=PAGE_LIMIT).contains(&size) => Ok(Page { number, size }),
            _ => refuse(400, "InvalidParameter", "PageNumber counts from 1, PageSize is 1 to 100."),
        }
    }

    fn of<T>(self, all: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
        all.skip(self.number.saturating_sub(1).saturating_mul(self.size)).take(self.size)
    }
}

/// Writes answers, with their quirks.
struct Writer {
    quirks: Quirks,
    project_id: i64,
}

impl Writer {
    fn envelope(&self, key: &str, value: Value) -> Value {
        json!({ "RequestId": request_id(), key: value })
    }

    /// Newest first by the time of creation, then by the order of their coming.
    fn list(&self, runs: &[Run], page: Page) -> Value {
        let mut newest: Vec<&Run> = runs.iter().rev().collect();
        newest.sort_by_key(|run| std::cmp::Reverse(run.created_at.as_second()));
        let listed = page.of(newest.into_iter()).map(|run| self.run(run)).collect();
        let key = if self.quirks.deployments_key { "Deployments" } else { "PipelineRuns" };
        self.page(key, listed, runs.len(), page)
    }

    fn items(&self, run: &Run, page: Page) -> Value {
        let numbered = (1..).zip(&run.items);
        let item = |(number, item): (i64, &crate::sources::Item)| {
            json!({ "Id": self.number(number), "Name": item.name, "Type": item.kind,
                    "Status": self.status(&run.status), "Message": "", "Spec": "{}" })
        };
        self.page("PipelineRunItems", page.of(numbered).map(item).collect(), run.items.len(), page)
    }

    fn page(&self, key: &str, listed: Vec<Value>, total: usize, page: Page) -> Value {
        let count = |n: usize| self.number(i64::try_from(n).unwrap_or(i64::MAX));
        let total = if self.quirks.total_count_zero { json!("0") } else { count(total) };
        let info = json!({ "TotalCount": total, "PageNumber": count(page.number), "PageSize": count(page.size),
                           key: listed });
        self.envelope("PagingInfo", info)
    }

    fn run(&self, run: &Run) -> Value {
        let id = if self.quirks.trailing_line_feed { format!("{}\n", run.id) } else { run.id.to_string() };
        let stages: Vec<Value> = (1..).zip(&run.stages).map(|(step, stage)| self.stage(step, stage)).collect();
        let mut written = json!({
            "Id": id,
            "ProjectId": self.number(self.project_id),
            "CreateTime": self.time(run.created_at),
            "ModifyTime": self.time(run.modified_at),
            "Creator": run.creator,
            "Status": self.status(&run.status),
            "Message": run.message,
            "Stages": if self.quirks.sparse && stages.is_empty() { Value::Null } else { json!(stages) },
        });
        if let Some(run_object) = written.as_object_mut()
            && !(self.quirks.sparse && run.description.is_empty())
        {
            run_object.insert("Description".to_owned(), json!(run.description));
        }
        written
    }

    fn stage(&self, step: i64, stage: &super::Stage) -> Value {
        let detail = if self.quirks.sparse {
            json!({ "key": "\"checkerList\": []\n" })
        } else if stage.spec.kind == "Build" {
            json!({ "checkerList": [{ "code": "BuildPackageChecker", "name": "Build_Package_Checker" }] })
        } else {
            json!({})
        };
        let mut written = json!({
            "Code": stage.spec.code,
            "Step": self.number(step),
            "Type": stage.spec.kind,
            "Name": stage.spec.name,
            "Description": "",
            "Status": self.status(&stage.status),
            "Detail": detail,
        });
        if let (Some(stage_object), Some(message)) = (written.as_object_mut(), &stage.message) {
            stage_object.insert("Message".to_owned(), json!(message));
        }
        written
    }

    fn number(&self, number: i64) -> Value {
        if self.quirks.numbers_as_text { json!(number.to_string()) } else { json!(number) }
    }

    /// Whole seconds, in milliseconds.
    fn time(&self, time: Timestamp) -> Value {
        self.number(time.as_second().saturating_mul(1_000))
    }

    fn status(&self, status: &crate::model::Status) -> String {
        let text = status.as_str();
        if self.quirks.upper_case_statuses { text.to_ascii_uppercase() } else { text.to_owned() }
    }
}

fn request_id() -> String {
    uuid::Uuid::new_v4().to_string().to_ascii_uppercase()
}

impl Refusal {
    fn into_response(self) -> Response {
        let Refusal(status, code, message) = self;
        refusal(status, code, &message)
    }
}

fn refusal(status: u16, code: &str, message: &str) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = json!({
        "RequestId": request_id(),
        "HostId": "dataworks.simulated",
        "Code": code,
        "Message": message,
        "Recommend": "https://api.aliyun.com/troubleshoot",
    });
    (status, axum::Json(body)).into_response()
}

async fn faulty(fault: Fault, stop: &CancellationToken) -> Response {
    match fault {
        Fault::Refusal { status, code, message, headers } => {
            let mut response = refusal(status, &code, &message);
            for (name, value) in headers {
                if let (Ok(name), Ok(value)) = (name.parse::<axum::http::HeaderName>(), value.parse()) {
                    response.headers_mut().insert(name, value);
                }
            }
            response
        }
        Fault::Body { status, content_type, body } => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (status, [("content-type", content_type)], body).into_response()
        }
        Fault::Hang => {
            stop.cancelled().await;
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
        Fault::BreakOff => {
            let pieces = [Ok(Bytes::from_static(b"{\"RequestId\":")), Err(std::io::Error::other("breaks off"))];
            Body::from_stream(futures_util::stream::iter(pieces)).into_response()
        }
    }
}
