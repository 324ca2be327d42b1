//! A model of Slack over loopback: its Web API, the addresses that answers go to, Socket Mode, and what people see.
//!
//! It remembers everything, is stricter than Slack where Slack is lenient (every block within its limits, no live
//! mention, no answer to an address that is used up), and misbehaves on command. What it had to refuse without having been
//! told to is a complaint, and a test that ends with a complaint fails.
//!
//! ```ignore
//! let slack = FakeSlack::start().await;                                    // point `slack.api` to slack.url()
//! let said = slack.slash(&site, "C1", "U1", "/watch", "7b1e", now).await;   // signed, and posted to the site
//! assert_eq!(said.answered().await.text, "Watching …");
//! assert_eq!(slack.messages("C1").len(), 1);                               // what the bot posted by itself
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use callboard::model::Timestamp;
use futures_util::{SinkExt, StreamExt};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use crate::sink::check_slack;

pub const SECRET: &str = "fake-signing-secret";
pub const BOT_TOKEN: &str = "xoxb-fake-bot-token";
pub const APP_TOKEN: &str = "xapp-fake-app-token";
/// Posts that an answer's address takes.
const POSTS: usize = 5;
/// Nothing in these tests takes long; whoever waits longer waits for something that never happens.
const PATIENCE: Duration = Duration::from_secs(30);

/// An answer as a person reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub text: String,
    /// Only the asker sees it.
    pub ephemeral: bool,
    /// Labels of the buttons under it, and what they stand for.
    pub buttons: Vec<(String, String)>,
}

pub struct FakeSlack {
    shared: Arc<Shared>,
    _servers: JoinSet<()>,
}

struct Shared {
    world: Mutex<World>,
    changed: watch::Sender<u64>,
    http: SocketAddr,
    socket: SocketAddr,
}

#[derive(Default)]
struct World {
    next_id: u64,
    messages: HashMap<String, Vec<Value>>,
    /// Rooms that the bot is not in, and whether they are private.
    outside: HashMap<String, bool>,
    archived: HashSet<String>,
    /// Members by user group.
    groups: HashMap<String, Vec<String>>,
    /// The next answers of a method.
    scripts: HashMap<String, VecDeque<Scripted>>,
    calls: Vec<String>,
    /// By the id of an answer's address: what came.
    answers: HashMap<u64, Vec<Seen>>,
    /// By envelope: what came with the acknowledgement.
    acks: HashMap<String, Vec<Option<Seen>>>,
    connections: HashMap<u64, mpsc::UnboundedSender<Push>>,
    connected: usize,
    complaints: Vec<String>,
}

/// Status, headers, body.
type Scripted = (u16, Vec<(&'static str, String)>, String);

enum Push {
    Send(Value),
    Close,
    Cut,
}

impl Shared {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        let result = act(&mut self.world());
        self.changed.send_modify(|version| *version += 1);
        result
    }

    async fn until<T>(&self, what: &str, mut look: impl FnMut(&World) -> Option<T>) -> T {
        let mut changes = self.changed.subscribe();
        let waiting = async {
            loop {
                changes.borrow_and_update();
                if let Some(found) = look(&self.world()) {
                    return found;
                }
                changes.changed().await.expect("the fake lives as long as the test");
            }
        };
        let found = tokio::time::timeout(PATIENCE, waiting).await;
        found.unwrap_or_else(|_| panic!("never happened: {what}; complaints: {:?}", self.world().complaints))
    }
}

/// A request as Slack signs it.
#[derive(Debug, Clone)]
pub struct Signed {
    pub action: &'static str,
    pub timestamp: String,
    pub signature: String,
    pub body: Vec<u8>,
}

impl Signed {
    pub fn new(action: &'static str, fields: &[(&str, &str)], at: Timestamp) -> Signed {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish().into_bytes();
        Signed::of(action, body, at)
    }

    pub fn of(action: &'static str, body: Vec<u8>, at: Timestamp) -> Signed {
        let timestamp = at.as_second().to_string();
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
        mac.update(format!("v0:{timestamp}:").as_bytes());
        mac.update(&body);
        let signature = format!("v0={}", hex::encode(mac.finalize().into_bytes()));
        Signed { action, timestamp, signature, body }
    }

    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/x-www-form-urlencoded".parse().unwrap());
        headers.insert("x-slack-request-timestamp", self.timestamp.parse().unwrap());
        headers.insert("x-slack-signature", self.signature.parse().unwrap());
        headers
    }

    pub async fn post(&self, site: &str) -> (u16, Vec<u8>) {
        let client = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build().unwrap();
        let url = format!("{site}/slack/{}", self.action);
        let sent = client.post(url).headers(self.headers()).body(self.body.clone()).send().await.expect("loopback");
        (sent.status().as_u16(), sent.bytes().await.unwrap_or_default().to_vec())
    }
}

impl FakeSlack {
    pub async fn start() -> FakeSlack {
        let http = TcpListener::bind("127.0.0.1:0").await.expect("a port of loopback");
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port of loopback");
        let shared = Arc::new(Shared {
            world: Mutex::default(),
            changed: watch::Sender::new(0),
            http: http.local_addr().expect("an address"),
            socket: socket.local_addr().expect("an address"),
        });
        let mut servers = JoinSet::new();
        let router = Router::new()
            .route("/api/conversations.info", get(info))
            .route("/api/usergroups.list", get(groups))
            .route("/api/{method}", post(call))
            .route("/response/{id}", post(respond))
            .with_state(Arc::clone(&shared));
        servers.spawn(async move { axum::serve(http, router).await.expect("loopback serves") });
        servers.spawn(serve_sockets(socket, Arc::clone(&shared)));
        FakeSlack { shared, _servers: servers }
    }

    /// What `slack.api` is set to.
    pub fn url(&self) -> String {
        format!("http://{}/api", self.shared.http)
    }

    /// What `[slack]` holds; `more` are lines for it.
    pub fn section(&self, more: &str) -> String {
        format!("\n[slack]\napi = \"{}\"\n{more}\n", self.url())
    }

    // ---------------------------------------------------------------------------------------------- people

    fn response_url(&self) -> (u64, String) {
        let id = self.shared.change(|world| {
            world.next_id += 1;
            world.answers.insert(world.next_id, Vec::new());
            world.next_id
        });
        (id, format!("http://{}/response/{id}", self.shared.http))
    }

    /// The request of a slash command, and the id of where its answers go. No two are the same.
    pub fn command(&self, room: &str, user: &str, command: &str, text: &str, at: Timestamp) -> (u64, Signed) {
        let (id, url) = self.response_url();
        let trigger = format!("{id}.trigger");
        let fields = fields(room, user, command, text, &url, &trigger);
        (id, Signed::new("commands", &fields, at))
    }

    /// Somebody types a slash command; it is posted to the site.
    pub async fn slash(&self, site: &str, room: &str, user: &str, command: &str, text: &str, at: Timestamp) -> Said {
        let (id, request) = self.command(room, user, command, text, at);
        let (status, body) = request.post(site).await;
        assert_eq!(status, 200, "Slack says that {command} failed: {}", String::from_utf8_lossy(&body));
        if !body.is_empty() {
            let body: Value = serde_json::from_slice(&body).expect("an answer is JSON");
            self.shared.change(|world| world.take_answer(id, &body, "the answer to a request"));
        }
        Said { shared: Arc::clone(&self.shared), id }
    }

    /// The request of a press of a button, and the id of where its answers go.
    pub fn pressed(&self, room: &str, user: &str, command: &str, at: Timestamp) -> (u64, Signed) {
        let (id, url) = self.response_url();
        let payload = press(room, user, command, &url, id).to_string();
        (id, Signed::new("interactions", &[("payload", payload.as_str())], at))
    }

    /// Somebody presses a button; Slack posts it to the site.
    pub async fn press(&self, site: &str, room: &str, user: &str, command: &str, at: Timestamp) -> Said {
        let (id, request) = self.pressed(room, user, command, at);
        let (status, body) = request.post(site).await;
        assert_eq!((status, body.len()), (200, 0), "a press is acknowledged with nothing");
        Said { shared: Arc::clone(&self.shared), id }
    }

    /// The answers that come to an address.
    pub fn said(&self, id: u64) -> Said {
        Said { shared: Arc::clone(&self.shared), id }
    }

    // ------------------------------------------------------------------------------------------ Socket Mode

    /// Somebody types a slash command; it goes over the open connection. Returns the envelope's id too.
    pub async fn slash_over_socket(&self, room: &str, user: &str, command: &str, text: &str) -> (String, Said) {
        self.until_connected(1).await;
        let (id, url) = self.response_url();
        let payload: Value =
            fields(room, user, command, text, &url, "t").iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
        let envelope = format!("envelope-{id}");
        self.send(&json!({
            "envelope_id": envelope, "type": "slash_commands", "accepts_response_payload": true, "payload": payload,
        }));
        (envelope, self.said(id))
    }

    pub async fn press_over_socket(&self, room: &str, user: &str, command: &str) -> (String, Said) {
        self.until_connected(1).await;
        let (id, url) = self.response_url();
        let envelope = format!("envelope-{id}");
        let payload = press(room, user, command, &url, id);
        self.send(&json!({
            "envelope_id": envelope, "type": "interactive", "accepts_response_payload": false, "payload": payload,
        }));
        (envelope, self.said(id))
    }

    /// Over every open connection.
    pub fn send(&self, envelope: &Value) {
        self.push(|| Push::Send(envelope.clone()));
    }

    /// What came with the first acknowledgement of an envelope.
    pub async fn acked(&self, envelope: &str) -> Option<Seen> {
        self.acked_times(envelope, 1).await.remove(0)
    }

    /// All acknowledgements of an envelope, once there are so many.
    pub async fn acked_times(&self, envelope: &str, times: usize) -> Vec<Option<Seen>> {
        let enough = |world: &World| world.acks.get(envelope).filter(|acks| acks.len() >= times).cloned();
        self.shared.until(&format!("{envelope} is acknowledged"), enough).await
    }

    /// `disconnect`, as Slack sends it before it closes a connection.
    pub fn ask_to_reconnect(&self, reason: &str) {
        self.send(&json!({ "type": "disconnect", "reason": reason, "debug_info": { "host": "fake" } }));
    }

    pub fn close_connections(&self) {
        self.push(|| Push::Close);
    }

    /// The connections break without a word.
    pub fn cut_connections(&self) {
        self.push(|| Push::Cut);
    }

    fn push(&self, make: impl Fn() -> Push) {
        self.shared.world().connections.values().for_each(|out| drop(out.send(make())));
    }

    /// So many connections were opened so far, and one is open.
    pub async fn until_connected(&self, times: usize) {
        let there = |world: &World| (world.connected >= times && !world.connections.is_empty()).then_some(());
        self.shared.until("a connection", there).await;
    }

    // ----------------------------------------------------------------------------------------------- rooms

    /// What the bot posted to the room by itself.
    pub fn messages(&self, room: &str) -> Vec<Value> {
        self.shared.world().messages.get(room).cloned().unwrap_or_default()
    }

    /// Rooms that something was posted to.
    pub fn rooms(&self) -> Vec<String> {
        self.shared.world().messages.keys().cloned().collect()
    }

    /// Nobody has invited the bot there yet.
    pub fn leave_out(&self, room: &str, is_private: bool) {
        self.shared.change(|world| world.outside.insert(room.to_owned(), is_private));
    }

    pub fn invite(&self, room: &str) {
        self.shared.change(|world| world.outside.remove(room));
    }

    pub fn archive(&self, room: &str) {
        self.shared.change(|world| world.archived.insert(room.to_owned()));
    }

    pub fn set_group(&self, group: &str, members: &[&str]) {
        let members = members.iter().map(|member| (*member).to_owned()).collect();
        self.shared.change(|world| world.groups.insert(group.to_owned(), members));
    }

    /// Whether the bot is in the room.
    pub fn is_member(&self, room: &str) -> bool {
        !self.shared.world().outside.contains_key(room)
    }

    /// The next answer of a method, or of `response`.
    pub fn answer(&self, method: &str, status: u16, headers: &[(&'static str, &str)], body: &str) {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let answer = (status, headers, body.to_owned());
        self.shared.change(|world| world.scripts.entry(method.to_owned()).or_default().push_back(answer));
    }

    /// Methods called so far.
    pub fn calls(&self, method: &str) -> usize {
        self.shared.world().calls.iter().filter(|called| *called == method).count()
    }

    pub async fn until_called(&self, method: &str, times: usize) {
        let enough = |world: &World| (world.calls.iter().filter(|own| *own == method).count() >= times).then_some(());
        self.shared.until(&format!("{method} is called"), enough).await;
    }

    /// What had to be refused so far; taken, it no longer fails the test.
    pub fn take_complaints(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.world().complaints)
    }
}

impl Drop for FakeSlack {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let complaints = self.take_complaints();
            assert!(complaints.is_empty(), "Slack had to refuse something: {complaints:#?}");
        }
    }
}

/// A command somebody gave, and what came of it.
pub struct Said {
    shared: Arc<Shared>,
    id: u64,
}

impl Said {
    pub async fn answered(&self) -> Seen {
        let first = |world: &World| world.answers.get(&self.id)?.first().cloned();
        self.shared.until("the command is answered", first).await
    }

    /// Every answer that is there now.
    pub fn shown(&self) -> Vec<Seen> {
        self.shared.world().answers.get(&self.id).cloned().unwrap_or_default()
    }
}

fn fields<'a>(
    room: &'a str,
    user: &'a str,
    command: &'a str,
    text: &'a str,
    url: &'a str,
    trigger: &'a str,
) -> Vec<(&'a str, &'a str)> {
    vec![
        ("token", "legacy"),
        ("team_id", "T1"),
        ("team_domain", "team"),
        ("channel_id", room),
        ("channel_name", "releases"),
        ("user_id", user),
        ("user_name", "admin"),
        ("command", command),
        ("text", text),
        ("api_app_id", "A1"),
        ("is_enterprise_install", "false"),
        ("response_url", url),
        ("trigger_id", trigger),
    ]
}

fn press(room: &str, user: &str, command: &str, url: &str, id: u64) -> Value {
    json!({
        "type": "block_actions", "api_app_id": "A1", "token": "legacy", "trigger_id": format!("{id}.trigger"),
        "team": { "id": "T1", "domain": "team" }, "enterprise": null, "is_enterprise_install": false,
        "user": { "id": user, "username": "admin", "name": "admin", "team_id": "T1" },
        "channel": { "id": room, "name": "releases" },
        "container": { "type": "message", "message_ts": "1.1", "channel_id": room, "is_ephemeral": false },
        "message": { "type": "message", "text": "…", "ts": "1.1" },
        "response_url": url,
        "actions": [{
            "type": "button", "action_id": "command-0", "block_id": "x", "value": command, "action_ts": "1.2",
            "text": { "type": "plain_text", "text": "Press", "emoji": false },
        }],
    })
}

// ------------------------------------------------------------------------------------------------- what is shown

/// Markup as a person sees it: no marks, links by their labels, entities as what they stand for.
pub fn readable(markup: &str) -> String {
    let mut text = String::new();
    let mut rest = markup.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            // Data is followed by a character that keeps it from being a mark.
            '*' | '`' if rest.peek() != Some(&'\u{200b}') => {}
            '<' => {
                let inside: String = rest.by_ref().take_while(|c| *c != '>').collect();
                text.push_str(inside.split_once('|').map_or(inside.as_str(), |(_, label)| label));
            }
            '\u{200b}' => {}
            c => text.push(c),
        }
    }
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}

fn ensure(holds: bool, complaint: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(complaint.to_owned()) }
}

/// Blocks within their limits, no live mention; what the buttons are.
fn check(message: &Value) -> Result<Vec<(String, String)>, String> {
    let (actions, others): (Vec<Value>, Vec<Value>) =
        message["blocks"].as_array().cloned().unwrap_or_default().into_iter().partition(|b| b["type"] == "actions");
    let mut rest = message.clone();
    rest["blocks"] = others.into();
    check_slack(&rest)?;
    let mut buttons = Vec::new();
    let mut ids = HashSet::new();
    for action in &actions {
        let elements = action["elements"].as_array().cloned().unwrap_or_default();
        ensure((1..=25).contains(&elements.len()), "a row without buttons, or with more than 25")?;
        for element in elements {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (label, value) = (text(&element["text"]["text"]), text(&element["value"]));
            ensure(element["type"] == "button" && element["text"]["type"] == "plain_text", "not a button")?;
            ensure((1..=75).contains(&label.encode_utf16().count()), "a label is empty or longer than 75")?;
            ensure((1..=2000).contains(&value.len()), "a button without a value, or with one over 2000")?;
            ensure(ids.insert(text(&element["action_id"])), "two buttons of one id")?;
            buttons.push((label, value));
        }
    }
    Ok(buttons)
}

impl World {
    fn take_answer(&mut self, id: u64, body: &Value, what: &str) {
        match seen(body) {
            Ok(seen) => self.answers.entry(id).or_default().push(seen),
            Err(said) => self.complaints.push(format!("{what}: {said}: {body}")),
        }
    }
}

fn seen(body: &Value) -> Result<Seen, String> {
    let buttons = check(body)?;
    let ephemeral = match body["response_type"].as_str() {
        Some("ephemeral") => true,
        Some("in_channel") => false,
        other => return Err(format!("nobody knows who sees it: {other:?}")),
    };
    let blocks = body["blocks"].as_array().cloned().unwrap_or_default();
    let texts = blocks.iter().filter_map(|block| block["text"]["text"].as_str()).map(readable);
    Ok(Seen { text: texts.collect::<Vec<_>>().join("\n"), ephemeral, buttons })
}

// ----------------------------------------------------------------------------------------------------- the Web API

type App = State<Arc<Shared>>;

fn error(word: &str) -> Response {
    Json(json!({ "ok": false, "error": word })).into_response()
}

/// What a test has scripted.
fn scripted(world: &mut World, method: &str) -> Option<Response> {
    world.calls.push(method.to_owned());
    let (status, headers, body) = world.scripts.get_mut(method)?.pop_front()?;
    let mut response = (StatusCode::from_u16(status).unwrap(), body).into_response();
    for (name, value) in headers {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    Some(response)
}

fn is_authorized(world: &mut World, headers: &HeaderMap, token: &str) -> bool {
    let sent = headers.get("authorization").and_then(|value| value.to_str().ok());
    let right = sent == Some(format!("Bearer {token}").as_str());
    if !right {
        world.complaints.push("a call without the right token".to_owned());
    }
    right
}

async fn call(State(shared): App, Path(method): Path<String>, headers: HeaderMap, body: Bytes) -> Response {
    shared.change(|world| {
        if let Some(response) = scripted(world, &method) {
            return response;
        }
        let token = if method == "apps.connections.open" { APP_TOKEN } else { BOT_TOKEN };
        if !is_authorized(world, &headers, token) {
            return error("invalid_auth");
        }
        if method == "apps.connections.open" {
            return Json(json!({ "ok": true, "url": format!("ws://{}/link/?ticket=t", shared.socket) }))
                .into_response();
        }
        let is_json =
            headers.get("content-type").is_some_and(|kind| kind.to_str().unwrap().contains("application/json"));
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        if !is_json || !body.is_object() {
            world.complaints.push(format!("{method}: the body is not JSON"));
            return error("invalid_json");
        }
        let room = body["channel"].as_str().unwrap_or_default().to_owned();
        match method.as_str() {
            "auth.test" => Json(json!({ "ok": true, "user_id": "U0BOT", "team_id": "T1" })).into_response(),
            "conversations.join" if world.outside.get(&room) == Some(&false) => {
                world.outside.remove(&room);
                Json(json!({ "ok": true })).into_response()
            }
            "conversations.join" => error("method_not_supported_for_channel_type"),
            "chat.postMessage" => world.post(room, body),
            _ => {
                world.complaints.push(format!("{method} is no method of this model"));
                error("unknown_method")
            }
        }
    })
}

impl World {
    fn post(&mut self, room: String, body: Value) -> Response {
        match self.outside.get(&room) {
            Some(true) => return error("channel_not_found"),
            Some(false) => return error("not_in_channel"),
            None if self.archived.contains(&room) => return error("is_archived"),
            None => {}
        }
        if let Err(said) = check(&body).and_then(|_| ensure(body["link_names"] == false, "names would be linked")) {
            self.complaints.push(format!("chat.postMessage: {said}"));
            return error("invalid_blocks");
        }
        let messages = self.messages.entry(room.clone()).or_default();
        messages.push(body);
        Json(json!({ "ok": true, "channel": room, "ts": format!("1763971200.{:06}", messages.len()) })).into_response()
    }
}

async fn info(State(shared): App, Query(asked): Query<HashMap<String, String>>, headers: HeaderMap) -> Response {
    shared.change(|world| {
        if let Some(response) = scripted(world, "conversations.info") {
            return response;
        }
        if !is_authorized(world, &headers, BOT_TOKEN) {
            return error("invalid_auth");
        }
        let room = asked.get("channel").cloned().unwrap_or_default();
        let outside = world.outside.get(&room).copied();
        if outside == Some(true) {
            return error("channel_not_found");
        }
        let is_im = room.starts_with('D');
        Json(json!({ "ok": true, "channel": {
            "id": room, "is_im": is_im, "is_private": room.starts_with('G'), "is_archived": world.archived.contains(&room),
            "is_member": outside.is_none() && !is_im,
        } }))
        .into_response()
    })
}

async fn groups(State(shared): App, Query(asked): Query<HashMap<String, String>>, headers: HeaderMap) -> Response {
    shared.change(|world| {
        if let Some(response) = scripted(world, "usergroups.list") {
            return response;
        }
        if !is_authorized(world, &headers, BOT_TOKEN) {
            return error("invalid_auth");
        }
        let with_members = asked.get("include_users").map(String::as_str) == Some("true");
        let group = |(id, members): (&String, &Vec<String>)| match with_members {
            true => json!({ "id": id, "name": "x", "users": members }),
            false => json!({ "id": id, "name": "x" }),
        };
        Json(json!({ "ok": true, "usergroups": world.groups.iter().map(group).collect::<Vec<_>>() })).into_response()
    })
}

async fn respond(State(shared): App, Path(id): Path<u64>, Json(body): Json<Value>) -> Response {
    shared.change(|world| {
        if let Some(response) = scripted(world, "response") {
            return response;
        }
        let used = world.answers.get(&id).map(Vec::len);
        if used.is_none_or(|used| used >= POSTS) {
            world.complaints.push("an answer to an address that is used up".to_owned());
            return StatusCode::NOT_FOUND.into_response();
        }
        if body["replace_original"] != false {
            world.complaints.push("an answer would take the place of a message".to_owned());
        }
        world.take_answer(id, &body, "a later answer");
        "ok".into_response()
    })
}

// ------------------------------------------------------------------------------------------------------ Socket Mode

async fn serve_sockets(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        connections.spawn(async move { connection(stream, &shared).await });
    }
}

async fn connection(stream: TcpStream, shared: &Shared) {
    let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
    let hello = json!({ "type": "hello", "num_connections": 1, "connection_info": { "app_id": "A1" } });
    if socket.send(Message::Text(hello.to_string())).await.is_err() {
        return;
    }
    let (out, mut pushes) = mpsc::unbounded_channel();
    let id = shared.change(|world| {
        world.connected += 1;
        let id = world.connected as u64;
        world.connections.insert(id, out);
        id
    });
    loop {
        tokio::select! {
            push = pushes.recv() => match push {
                Some(Push::Send(envelope)) if socket.send(Message::Text(envelope.to_string())).await.is_ok() => {}
                Some(Push::Close) => {
                    drop(socket.close(None).await);
                    break;
                }
                _ => break,
            },
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => shared.change(|world| take_ack(world, &text)),
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => {}
            },
        }
    }
    shared.change(|world| world.connections.remove(&id));
}

fn take_ack(world: &mut World, text: &str) {
    let ack: Value = serde_json::from_str(text).unwrap_or_default();
    let Some(envelope) = ack["envelope_id"].as_str().map(str::to_owned) else {
        world.complaints.push(format!("no acknowledgement: {text}"));
        return;
    };
    let payload = ack.get("payload").map(seen).transpose();
    match payload {
        Ok(payload) => world.acks.entry(envelope).or_default().push(payload),
        Err(said) => world.complaints.push(format!("an acknowledgement: {said}")),
    }
}
