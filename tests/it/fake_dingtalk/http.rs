//! DingTalk's HTTP interface, as far as a robot needs it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::post;
use callboard::model::Timestamp;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{CLIENT_ID, CLIENT_SECRET, Posted, ROBOT, Shared, World};

type App = State<Arc<Shared>>;
type Answer = Result<(StatusCode, Json<Value>), Refusal>;

/// Bytes of `msgParam`, and of a body to a conversation.
const PARAM_LIMIT: usize = 15_000;
/// Messages that a group takes in a minute.
const PER_MINUTE: usize = 20;
const TOKEN: Duration = Duration::from_secs(7200);

/// Status, code, and whether it is what the test asked for.
struct Refusal(u16, &'static str, bool);

#[derive(Clone)]
struct OnCommand;

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Refusal(status, code, on_command) = self;
        let body = json!({ "code": code, "requestid": "ED203550", "message": "错误" });
        let mut response = (StatusCode::from_u16(status).expect("a status"), Json(body)).into_response();
        if on_command {
            response.extensions_mut().insert(OnCommand);
        }
        response
    }
}

fn refuse<T>(status: u16, code: &'static str) -> Result<T, Refusal> {
    Err(Refusal(status, code, false))
}

fn as_told<T>(status: u16, code: &'static str) -> Result<T, Refusal> {
    Err(Refusal(status, code, true))
}

pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let app = Router::new()
        .route("/v1.0/gateway/connections/open", post(open))
        .route("/v1.0/oauth2/accessToken", post(token))
        .route("/v1.0/robot/groupMessages/send", post(to_group))
        .route("/v1.0/robot/oToMessages/batchSend", post(to_person))
        .route("/robot/sendBySession", post(by_session))
        .fallback(|| async { Refusal(404, "InvalidAction.NotFound", false) })
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), guard))
        .with_state(shared);
    axum::serve(listener, app).await.expect("loopback serves");
}

/// Outages; everything else that is refused is a complaint.
async fn guard(State(shared): App, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let is_json =
        request.headers().get("content-type").is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
    if !is_json {
        shared.change(|world| world.complain(format!("{path}: the content type is not JSON")));
    }
    if shared.change(|world| {
        world.asked += usize::from(path.ends_with("connections/open"));
        world.down
    }) {
        return (StatusCode::SERVICE_UNAVAILABLE, "upstream connect error").into_response();
    }
    let response = next.run(request).await;
    if response.status().is_client_error() && response.extensions().get::<OnCommand>().is_none() {
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap_or_default();
        let words = String::from_utf8_lossy(&bytes).into_owned();
        shared.change(|world| world.complain(format!("{path}: {} {words}", parts.status)));
        return Response::from_parts(parts, axum::body::Body::from(bytes));
    }
    response
}

fn ok(body: Value) -> Answer {
    Ok((StatusCode::OK, Json(body)))
}

async fn open(State(shared): App, Json(asked): Json<Value>) -> Answer {
    let now = (shared.clock)();
    let gateway = shared.gateway;
    shared.change(|world| {
        if world.refuses || asked["clientId"] != CLIENT_ID || asked["clientSecret"] != CLIENT_SECRET {
            return as_told(401, "authFailed");
        }
        let wanted = json!([{ "type": "CALLBACK", "topic": "/v1.0/im/bot/messages/get" }]);
        if asked["subscriptions"] != wanted || !asked["ua"].is_string() {
            return refuse(400, "param.error");
        }
        let endpoint = if world.wrong_endpoint { "nowhere".to_owned() } else { format!("ws://{gateway}/connect") };
        let ticket = world.id("ticket");
        world.tickets.insert(ticket.clone(), now);
        ok(json!({ "endpoint": endpoint, "ticket": ticket }))
    })
}

async fn token(State(shared): App, Json(asked): Json<Value>) -> Answer {
    let now = (shared.clock)();
    shared.change(|world| {
        if world.refuses {
            return as_told(400, "invalidClientIdOrSecret");
        }
        if asked != json!({ "appKey": CLIENT_ID, "appSecret": CLIENT_SECRET }) {
            return refuse(400, "invalidClientIdOrSecret");
        }
        // Fetched anew only shortly before the old one ends, or without one: a process that begins has none.
        if world.has_token && world.tokens.values().any(|until| now + Duration::from_secs(600) < *until) {
            world.complain("an access token is fetched although one is good");
        }
        world.tokens_given += 1;
        world.has_token = true;
        let token = world.id("token");
        world.tokens.insert(token.clone(), now + TOKEN);
        ok(json!({ "accessToken": token, "expireIn": TOKEN.as_secs() }))
    })
}

async fn to_group(State(shared): App, headers: HeaderMap, body: Bytes) -> Answer {
    take(&shared, &headers, &body, |message| message["openConversationId"].as_str().map(str::to_owned))
}

async fn to_person(State(shared): App, headers: HeaderMap, body: Bytes) -> Answer {
    take(&shared, &headers, &body, |message| match message["userIds"].as_array().map(Vec::as_slice) {
        Some([Value::String(user)]) => Some(format!("user:{user}")),
        _ => None,
    })
}

fn take(shared: &Shared, headers: &HeaderMap, body: &[u8], to: impl Fn(&Value) -> Option<String>) -> Answer {
    let now = (shared.clock)();
    let token = headers.get("x-acs-dingtalk-access-token").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let message: Value = serde_json::from_slice(body).unwrap_or_default();
    shared.change(|world| {
        world.posts += 1;
        match world.tokens.get(token) {
            Some(until) if now < *until => {}
            // Nobody can know that a token has become void.
            _ => return as_told(400, "InvalidAuthentication"),
        }
        if world.throttled > 0 {
            world.throttled -= 1;
            return as_told(403, "Forbidden.AccessDenied.QpsLimitForAppkeyAndApi");
        }
        if message["robotCode"] != ROBOT {
            return refuse(400, "invalidParameter.robotCode.auth");
        }
        let Some(room) = to(&message) else { return refuse(400, "invalidParameter.param.invalid") };
        let posted = check(&message).map_err(|code| Refusal(400, code, false))?;
        if world.left.contains(&room) {
            return as_told(400, "invalidParameter.robotCode.notExsit");
        }
        let is_unknown = world.unknown.contains(&room);
        if is_unknown && !room.starts_with("user:") {
            return as_told(400, "invalidParameter.openConversationId.invalid");
        }
        if is_unknown {
            return ok(json!({ "processQueryKey": "p", "invalidStaffIdList": [room.trim_start_matches("user:")] }));
        }
        limit(world, &room, now)?;
        let key = world.id("process");
        world.posted.entry(room).or_default().push(posted);
        if world.silent > 0 {
            world.silent -= 1;
            return as_told(503, "ServiceUnavailable");
        }
        ok(json!({ "processQueryKey": key, "invalidStaffIdList": [], "flowControlledStaffIdList": [] }))
    })
}

/// The templates and their parameters, each a text that is not empty, and nothing else.
pub(super) fn check(message: &Value) -> Result<Posted, &'static str> {
    let written = message["msgParam"].as_str().ok_or("invalidParameter.msgParam.invalid")?;
    let param: Value = serde_json::from_str(written).map_err(|_| "invalidParameter.msgParam.invalid")?;
    let key = message["msgKey"].as_str().unwrap_or_default().to_owned();
    let wanted: &[&str] = match key.as_str() {
        "sampleMarkdown" => &["text", "title"],
        "sampleActionCard" => &["singleTitle", "singleURL", "text", "title"],
        _ => return Err("invalidParameter.msgKey.invalid"),
    };
    let fields = param.as_object().ok_or("invalidParameter.msgParam.invalid")?;
    let is_fit = fields.keys().map(String::as_str).eq(wanted.iter().copied())
        && fields.values().all(|value| value.as_str().is_some_and(|text| !text.trim().is_empty()));
    if !is_fit || written.len() > PARAM_LIMIT {
        return Err("invalidParameter.msgParam.invalid");
    }
    Ok(Posted { key, param })
}

fn limit(world: &mut World, room: &str, now: Timestamp) -> Result<(), Refusal> {
    let minute = Duration::from_secs(60);
    let sent = world.minutes.entry(room.to_owned()).or_default();
    sent.retain(|moment| now < *moment + minute);
    sent.push(now);
    if sent.len() > PER_MINUTE { refuse(429, "send too fast") } else { Ok(()) }
}

/// Failure hides in status 200.
async fn by_session(
    State(shared): App,
    Query(query): Query<HashMap<String, String>>,
    body: Bytes,
) -> (StatusCode, Json<Value>) {
    let now = (shared.clock)();
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    let session = query.get("session").cloned().unwrap_or_default();
    let (code, said) = shared.change(|world| {
        if world.busy > 0 {
            world.busy -= 1;
            return (-1, "系统繁忙");
        }
        let text = |name: &str| answer["markdown"][name].as_str().unwrap_or_default();
        let is_fit =
            answer["msgtype"] == "markdown" && !text("title").trim().is_empty() && !text("text").trim().is_empty();
        if !is_fit || answer["at"] != json!({ "isAtAll": false }) || body.len() > PARAM_LIMIT {
            world.complain(format!("an answer that is no message: {answer}"));
            return (40_035, "缺少参数");
        }
        let Some(known) = world.sessions.get_mut(&session) else {
            world.complain("an answer to no conversation");
            return (300_001, "session 不存在");
        };
        if known.until <= now {
            return (300_001, "session 不存在");
        }
        known.answers.push(answer.clone());
        (0, "ok")
    });
    (StatusCode::OK, Json(json!({ "errcode": code, "errmsg": said })))
}
