//! Where messages arrive in tests: one server on loopback that plays Discord, Slack, DingTalk and a receiver of
//! Standard Webhooks, stricter than they are. It remembers every request in order of arrival, checks every message
//! against the platform's rules whatever it is told to answer, and misbehaves on command.
//!
//! A test mounts what it needs ([`Sink::discord_webhook`] and so on return the URL to configure), may queue answers
//! for a path ([`Sink::answer`]), and at the end looks at [`Sink::seen`], [`Sink::accepted`] and
//! [`Sink::complaints`], the last of which must be empty.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Request, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// One request as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Counts all requests of this sink from 0.
    pub order: usize,
    pub method: Method,
    pub path: String,
    pub query: HashMap<String, String>,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// What the sink does instead of what the platform would.
#[derive(Debug, Clone)]
pub enum Answer {
    Plain {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: String,
    },
    /// As the platform would, only later.
    Late(Duration),
    /// As the platform would, after having accepted the message, but no answer ever comes.
    Hang,
    /// As the platform would, after having accepted the message, but the connection breaks before the answer.
    Drop,
    /// The same, in the middle of the body of an answer with status 200.
    CutOff,
    /// Status 200 and a body that comes a byte at a time, for ever.
    Drip,
    /// Status 200 and a body without end, as fast as it is read.
    Flood,
}

impl Answer {
    pub fn status(status: u16) -> Answer {
        Answer::json(status, &[], json!({}))
    }

    pub fn json(status: u16, headers: &[(&'static str, &str)], body: Value) -> Answer {
        Answer::text(status, headers, &body.to_string())
    }

    pub fn text(status: u16, headers: &[(&'static str, &str)], body: &str) -> Answer {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Answer::Plain { status, headers, body: body.to_owned() }
    }
}

#[derive(Debug, Clone)]
enum Role {
    DiscordWebhook,
    DiscordBot { token: String },
    Slack,
    SlackBot { token: String },
    DingTalk { secret: Option<String>, keyword: Option<String> },
    Webhook { secret: Option<String> },
}

#[derive(Default)]
struct Memory {
    roles: HashMap<String, Role>,
    scripts: HashMap<String, VecDeque<Answer>>,
    seen: Vec<Seen>,
    accepted: Vec<Seen>,
    complaints: Vec<String>,
    /// By path and idempotency key: the id that was given to the first copy.
    known: HashMap<(String, String), String>,
    /// By webhook-id: the bytes.
    bodies: HashMap<String, Vec<u8>>,
    /// By path: when DingTalk messages came, in ms by the sender's clock.
    minutes: HashMap<String, Vec<i64>>,
    poured: usize,
}

pub struct Sink {
    address: SocketAddr,
    memory: Arc<Mutex<Memory>>,
    server: tokio::task::JoinHandle<()>,
    arrivals: Arc<tokio::sync::watch::Sender<usize>>,
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Sink {
    pub async fn start() -> Sink {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let memory = Arc::new(Mutex::new(Memory::default()));
        let arrivals = Arc::new(tokio::sync::watch::Sender::new(0));
        let router = Router::new().fallback(handle).with_state((Arc::clone(&memory), Arc::clone(&arrivals)));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Sink { address, memory, server, arrivals }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    fn mount(&self, path: String, role: Role) -> String {
        let url = format!("{}{path}", self.base());
        self.memory.lock().unwrap().roles.insert(path, role);
        url
    }

    /// `name` is digits; the path is `/api/webhooks/<name>/token`.
    pub fn discord_webhook(&self, name: &str) -> String {
        self.mount(format!("/api/webhooks/{name}/token"), Role::DiscordWebhook)
    }

    /// The bot's API for one room; the path is `/api/v10/channels/<room>/messages`. Returns the base URL.
    pub fn discord_bot(&self, room: &str, token: &str) -> String {
        let role = Role::DiscordBot { token: token.to_owned() };
        self.mount("/api/v10/gateway/bot".to_owned(), role.clone());
        self.mount(format!("/api/v10/channels/{room}/messages"), role);
        self.base()
    }

    /// The path is `/services/T0/B0/<name>`.
    pub fn slack(&self, name: &str) -> String {
        self.mount(format!("/services/T0/B0/{name}"), Role::Slack)
    }

    /// The bot's API; the paths are `/api/chat.postMessage` and `/api/auth.test`. Returns the base URL.
    pub fn slack_bot(&self, token: &str) -> String {
        let role = Role::SlackBot { token: token.to_owned() };
        self.mount("/api/auth.test".to_owned(), role.clone());
        self.mount("/api/chat.postMessage".to_owned(), role);
        format!("{}/api", self.base())
    }

    /// The path is `/<name>/robot/send`.
    pub fn dingtalk(&self, name: &str, secret: Option<&str>, keyword: Option<&str>) -> String {
        let role = Role::DingTalk { secret: secret.map(str::to_owned), keyword: keyword.map(str::to_owned) };
        self.mount(format!("/{name}/robot/send"), role) + "?access_token=token"
    }

    /// The path is `/hooks/<name>`.
    pub fn webhook(&self, name: &str, secret: Option<&str>) -> String {
        self.mount(format!("/hooks/{name}"), Role::Webhook { secret: secret.map(str::to_owned) })
    }

    /// The next answers of a path, or of the path of a URL; after them it answers as the platform would.
    pub fn answer(&self, url: &str, answers: impl IntoIterator<Item = Answer>) {
        let path = path_of(url);
        self.memory.lock().unwrap().scripts.entry(path).or_default().extend(answers);
    }

    /// No more answers of a path but the platform's, from the request on whose order is returned.
    pub fn forget_answers(&self, url: &str) -> usize {
        let mut memory = self.memory.lock().unwrap();
        memory.scripts.remove(&path_of(url));
        memory.seen.len()
    }

    /// Waits for that many requests.
    pub async fn until_seen(&self, count: usize) {
        let mut arrivals = self.arrivals.subscribe();
        let enough = arrivals.wait_for(|seen| *seen >= count);
        tokio::time::timeout(Duration::from_secs(30), enough).await.expect("the requests come").unwrap();
    }

    /// Every request, in order of arrival.
    pub fn seen(&self) -> Vec<Seen> {
        self.memory.lock().unwrap().seen.clone()
    }

    /// What a reader of the destination sees: accepted messages, copies that an idempotency key betrayed left out.
    pub fn accepted(&self) -> Vec<Seen> {
        self.memory.lock().unwrap().accepted.clone()
    }

    /// Where messages broke a platform's rules.
    pub fn complaints(&self) -> Vec<String> {
        self.memory.lock().unwrap().complaints.clone()
    }

    /// Bytes handed to the network by [`Answer::Flood`] so far.
    pub fn poured(&self) -> usize {
        self.memory.lock().unwrap().poured
    }
}

fn path_of(url: &str) -> String {
    url.parse::<url::Url>().map_or_else(|_| url.to_owned(), |url| url.path().to_owned())
}

/// A port on which connections are taken, read for a moment, and dropped without an answer.
pub async fn slamming() -> SocketAddr {
    use tokio::io::AsyncReadExt;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 16];
            let _read = stream.read(&mut head).await;
        }
    });
    address
}

/// A port nobody listens on.
pub async fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

type Shared = (Arc<Mutex<Memory>>, Arc<tokio::sync::watch::Sender<usize>>);

async fn handle(State((memory, arrivals)): State<Shared>, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap_or_default().to_vec();
    let query = url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    let path = parts.uri.path().to_owned();
    let (answer, late) = {
        let mut memory = memory.lock().unwrap();
        let order = memory.seen.len();
        let seen = Seen { order, method: parts.method, path: path.clone(), query, headers: parts.headers, body };
        memory.seen.push(seen.clone());
        let complaint = memory.check(&seen).err();
        if let Some(complaint) = &complaint {
            memory.complaints.push(format!("{} {path}: {complaint}", seen.method));
        }
        match memory.scripts.get_mut(&path).and_then(VecDeque::pop_front) {
            Some(Answer::Plain { status, headers, body }) => (Answer::Plain { status, headers, body }, Duration::ZERO),
            Some(Answer::Late(late)) => (memory.respond(&seen, complaint.as_deref()), late),
            // The message is accepted, only the answer goes wrong.
            Some(broken) => {
                memory.respond(&seen, complaint.as_deref());
                (broken, Duration::ZERO)
            }
            None => (memory.respond(&seen, complaint.as_deref()), Duration::ZERO),
        }
    };
    arrivals.send_modify(|seen| *seen += 1);
    if !late.is_zero() {
        tokio::time::sleep(late).await;
    }
    reply(answer, &memory).await
}

async fn reply(answer: Answer, memory: &Arc<Mutex<Memory>>) -> Response<Body> {
    let body = match answer {
        Answer::Plain { status, headers, body } => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            return response.body(body.into()).unwrap();
        }
        Answer::Late(_) | Answer::Hang => std::future::pending().await,
        Answer::Drop => Body::from_stream(futures_util::stream::iter([Err::<Bytes, _>(broken())])),
        Answer::CutOff => Body::from_stream(futures_util::stream::unfold(0, |sent| async move {
            // What was sent goes out while the stream is not ready.
            tokio::task::yield_now().await;
            let piece = if sent == 0 { Ok(Bytes::from_static(b"{\"id\":")) } else { Err(broken()) };
            Some((piece, sent + 1))
        })),
        Answer::Drip => Body::from_stream(futures_util::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Some((Ok::<_, Infallible>(Bytes::from_static(b" ")), ()))
        })),
        Answer::Flood => {
            let memory = Arc::clone(memory);
            let chunk = Bytes::from(vec![b' '; 16 * 1024]);
            Body::from_stream(futures_util::stream::repeat_with(move || {
                memory.lock().unwrap().poured += chunk.len();
                Ok::<_, Infallible>(chunk.clone())
            }))
        }
    };
    Response::new(body)
}

fn broken() -> std::io::Error {
    std::io::Error::other("the sink breaks the connection on command")
}

impl Memory {
    fn check(&mut self, seen: &Seen) -> Result<(), String> {
        if seen.method != Method::POST {
            return Ok(());
        }
        ensure(seen.header("content-type").starts_with("application/json"), "the content type is not JSON")?;
        ensure(seen.body.len() <= 64 * 1024, "the body is large")?;
        match self.roles.get(&seen.path).cloned() {
            None => Err("nothing is mounted here".to_owned()),
            Some(Role::DiscordWebhook) => {
                ensure(seen.query.get("wait").map(String::as_str) == Some("true"), "wait=true is missing")?;
                check_discord(&seen.json())
            }
            Some(Role::DiscordBot { token }) => {
                ensure(seen.header("authorization") == format!("Bot {token}"), "the authorization is wrong")?;
                ensure(seen.header("user-agent").starts_with("DiscordBot ("), "the user agent is not a bot's")?;
                let json = seen.json();
                let nonce = json["nonce"].as_str().unwrap_or_default();
                ensure((1..=25).contains(&nonce.len()), "the nonce is missing or longer than 25")?;
                ensure(json["enforce_nonce"] == true, "enforce_nonce is missing")?;
                check_discord(&json)
            }
            Some(Role::Slack) => check_slack(&seen.json()),
            Some(Role::SlackBot { token }) => {
                ensure(seen.header("authorization") == format!("Bearer {token}"), "the authorization is wrong")?;
                if seen.path.ends_with("auth.test") {
                    return Ok(());
                }
                ensure(seen.json()["channel"].is_string(), "the channel is missing")?;
                check_slack(&seen.json())
            }
            Some(Role::DingTalk { secret, keyword }) => {
                check_dingtalk(&seen.json())?;
                let text = String::from_utf8_lossy(&seen.body).into_owned();
                ensure(keyword.is_none_or(|keyword| text.contains(&keyword)), "the keyword is missing")?;
                secret.map_or(Ok(()), |secret| {
                    let timestamp = seen.query.get("timestamp").cloned().unwrap_or_default();
                    let signed = hmac(secret.as_bytes(), format!("{timestamp}\n{secret}").as_bytes());
                    ensure(seen.query.get("sign") == Some(&signed), "the signature is wrong")
                })
            }
            Some(Role::Webhook { secret }) => self.check_webhook(seen, secret),
        }
    }

    fn check_webhook(&mut self, seen: &Seen, secret: Option<String>) -> Result<(), String> {
        let (id, timestamp) = (seen.header("webhook-id").to_owned(), seen.header("webhook-timestamp"));
        ensure(!id.is_empty() && !id.contains('.'), "the webhook-id is missing or holds a dot")?;
        ensure(timestamp.parse::<i64>().is_ok(), "the webhook-timestamp is not seconds")?;
        ensure(seen.body.len() < 20_000, "the body is 20 kB or more")?;
        let first = self.bodies.entry(id.clone()).or_insert_with(|| seen.body.clone());
        ensure(*first == seen.body, "the bytes differ from the first attempt's")?;
        let Some(secret) = secret else { return Ok(()) };
        let key = STANDARD.decode(secret.trim_start_matches("whsec_")).unwrap();
        let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", &seen.body].concat();
        ensure(seen.header("webhook-signature") == format!("v1,{}", hmac(&key, &signed)), "the signature is wrong")
    }

    /// As the platform would.
    fn respond(&mut self, seen: &Seen, complaint: Option<&str>) -> Answer {
        let Some(role) = self.roles.get(&seen.path).cloned() else { return Answer::status(404) };
        if seen.method != Method::POST {
            return Answer::json(200, &[], json!({ "id": "1", "username": "callboard" }));
        }
        let json = seen.json();
        match (role, complaint) {
            (Role::DiscordWebhook | Role::DiscordBot { .. }, Some(_)) => {
                Answer::json(400, &[], json!({ "code": 50035, "message": "Invalid Form Body" }))
            }
            (Role::Slack, Some(_)) => Answer::text(400, &[], "invalid_blocks"),
            (Role::SlackBot { .. }, Some(_)) => {
                Answer::json(200, &[], json!({ "ok": false, "error": "invalid_blocks" }))
            }
            (Role::DingTalk { .. }, Some(said)) => {
                Answer::json(200, &[], json!({ "errcode": 310_000, "errmsg": said }))
            }
            (Role::Webhook { .. }, Some(_)) => Answer::status(400),
            (Role::DiscordWebhook, None) => {
                let id = self.accept(seen, &format!("request {}", seen.order));
                Answer::json(200, &[], json!({ "id": id }))
            }
            (Role::DiscordBot { .. }, None) => {
                let id = self.accept(seen, json["nonce"].as_str().unwrap_or_default());
                Answer::json(200, &[], json!({ "id": id }))
            }
            (Role::Slack, None) => {
                self.accept(seen, &format!("request {}", seen.order));
                Answer::text(200, &[], "ok")
            }
            (Role::SlackBot { .. }, None) if seen.path.ends_with("auth.test") => {
                Answer::json(200, &[], json!({ "ok": true, "user_id": "U0" }))
            }
            (Role::SlackBot { .. }, None) => {
                let ts = self.accept(seen, &format!("request {}", seen.order));
                Answer::json(200, &[], json!({ "ok": true, "channel": json["channel"], "ts": ts }))
            }
            (Role::DingTalk { .. }, None) if self.too_fast(seen) => {
                Answer::json(200, &[], json!({ "errcode": 130_101, "errmsg": "send too fast" }))
            }
            (Role::DingTalk { .. }, None) => {
                self.accept(seen, json["msgUuid"].as_str().unwrap_or_default());
                Answer::json(200, &[], json!({ "errcode": 0, "errmsg": "ok" }))
            }
            (Role::Webhook { .. }, None) => {
                self.accept(seen, seen.header("webhook-id"));
                Answer::status(204)
            }
        }
    }

    /// The message's id; a copy has the id of the first.
    fn accept(&mut self, seen: &Seen, key: &str) -> String {
        let id = 1_000 + self.accepted.len();
        let known = self.known.entry((seen.path.clone(), key.to_owned()));
        if let std::collections::hash_map::Entry::Vacant(_) = known {
            self.accepted.push(seen.clone());
        }
        known.or_insert(id.to_string()).clone()
    }

    /// More than 20 in a minute, by the clock of the sender, whose requests are signed.
    fn too_fast(&mut self, seen: &Seen) -> bool {
        let Some(now) = seen.query.get("timestamp").and_then(|text| text.parse::<i64>().ok()) else { return false };
        let times = self.minutes.entry(seen.path.clone()).or_default();
        times.retain(|time| now - time < 60_000);
        times.push(now);
        times.len() > 20
    }
}

fn ensure(holds: bool, complaint: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(complaint.to_owned()) }
}

fn hmac(key: &[u8], message: &[u8]) -> String {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key).unwrap();
    mac.update(message);
    STANDARD.encode(mac.finalize().into_bytes())
}

fn units(value: &Value) -> usize {
    value.as_str().unwrap_or_default().encode_utf16().count()
}

/// The limits of a message of Discord, in UTF-16 units, and that nothing may ping.
pub fn check_discord(message: &Value) -> Result<(), String> {
    ensure(message["allowed_mentions"] == json!({ "parse": [] }), "allowed_mentions does not switch pings off")?;
    ensure(units(&message["content"]) <= 2000, "the content is longer than 2000")?;
    let embeds = message["embeds"].as_array().cloned().unwrap_or_default();
    ensure((1..=10).contains(&embeds.len()), "there are no embeds, or more than 10")?;
    let mut sum = 0;
    for embed in &embeds {
        let parts = [(&embed["title"], 256), (&embed["description"], 4096), (&embed["footer"]["text"], 2048)];
        for (part, limit) in parts {
            ensure(part.as_str() != Some(""), "a part of an embed is empty")?;
            ensure(units(part) <= limit, "a part of an embed is too long")?;
            sum += units(part);
        }
        ensure(units(&embed["title"]) + units(&embed["description"]) > 0, "an embed says nothing")?;
        ensure(units(&embed["url"]) <= 2048, "the URL of an embed is too long")?;
        ensure(embed["color"].as_u64().is_some_and(|color| color <= 0xff_ffff), "the color is out of range")?;
    }
    ensure(sum <= 6000, "the embeds are longer than 6000 together")
}

/// The limits of Slack's blocks, and that `<…>` holds links only.
pub fn check_slack(message: &Value) -> Result<(), String> {
    ensure((1..=4000).contains(&units(&message["text"])), "the text is missing or longer than 4000")?;
    ensure(!message["text"].as_str().unwrap_or_default().contains('<'), "the fallback text holds <…>")?;
    ensure(message["unfurl_links"] == false && message["unfurl_media"] == false, "links would unfurl")?;
    let blocks = message["blocks"].as_array().cloned().unwrap_or_default();
    ensure((1..=50).contains(&blocks.len()), "there are no blocks, or more than 50")?;
    for block in &blocks {
        let texts: Vec<Value> = match block["type"].as_str() {
            Some("header") => {
                ensure(block["text"]["type"] == "plain_text", "a header is not plain text")?;
                ensure((1..=150).contains(&units(&block["text"]["text"])), "a header is empty or longer than 150")?;
                vec![block["text"].clone()]
            }
            Some("section") => vec![block["text"].clone()],
            Some("context") => block["elements"].as_array().cloned().unwrap_or_default(),
            other => return Err(format!("a block of type {other:?}")),
        };
        ensure((1..=10).contains(&texts.len()), "a block has no texts, or more than 10")?;
        for text in texts {
            let said = text["text"].as_str().unwrap_or_default();
            ensure((1..=3000).contains(&units(&text["text"])), "a text is empty or longer than 3000")?;
            ensure(text["type"] == "plain_text" || text["verbatim"] == true, "a text links names by itself")?;
            for piece in said.split('<').skip(1) {
                let link = piece.starts_with("https://") || piece.starts_with("http://");
                ensure(link && piece.contains('>'), "<…> is not a link")?;
            }
        }
    }
    Ok(())
}

/// The budget of a message of DingTalk, and that nobody is pinged.
pub fn check_dingtalk(message: &Value) -> Result<(), String> {
    ensure(message.to_string().len() <= 15_000, "the message is longer than 15,000 bytes")?;
    ensure(message["at"] == json!({ "isAtAll": false }), "somebody would be pinged")?;
    ensure(message["msgUuid"].as_str().is_some_and(|id| id.len() == 36), "the msgUuid is missing")?;
    let kind = message["msgtype"].as_str().unwrap_or_default();
    for field in ["title", "text"] {
        ensure(units(&message[kind][field]) > 0, "the title or the text is empty")?;
    }
    match kind {
        "actionCard" => ensure(
            units(&message[kind]["singleTitle"]) > 0 && units(&message[kind]["singleURL"]) > 0,
            "the button has no words or no URL",
        ),
        "markdown" => Ok(()),
        other => Err(format!("a message of type {other}")),
    }
}
