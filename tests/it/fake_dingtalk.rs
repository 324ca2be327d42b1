//! A model of DingTalk over loopback: the gateway of Stream mode, the conversations' own addresses, the API that robots
//! post by, and what people in its conversations read.
//!
//! It is stricter than DingTalk where DingTalk is lenient: every frame must be acknowledged, a ticket is good for one
//! connection within 90 s, an access token is needed and must not be fetched anew without need, and a group takes 20
//! messages a minute. What it had to refuse without having been told to is a complaint, and a test that ends with a
//! complaint fails.
//!
//! ```ignore
//! let dingtalk = FakeDingTalk::start(clock).await;                // point `dingtalk.api` to dingtalk.url()
//! assert_eq!(dingtalk.say("cid1", "alice", "/watch 7b1e").await, "Watching …");
//! let messages = dingtalk.messages("cid1");                       // what the robot posted by itself
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::result_large_err)]

mod gateway;
mod http;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use callboard::model::{Clock, Timestamp};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

pub const CLIENT_ID: &str = "ding-fake-client";
pub const CLIENT_SECRET: &str = "fake-client-secret";
pub const ROBOT: &str = "ding-fake-robot";

/// Nothing in these tests takes long; whoever waits longer waits for something that never happens.
const PATIENCE: Duration = Duration::from_secs(30);
/// A conversation takes answers for so long after a message.
const SESSION: Duration = Duration::from_secs(5400);

pub struct FakeDingTalk {
    shared: Arc<Shared>,
    _servers: JoinSet<()>,
}

struct Shared {
    world: Mutex<World>,
    changed: watch::Sender<u64>,
    http: SocketAddr,
    gateway: SocketAddr,
    clock: Clock,
}

/// A message the robot posted by itself: `msgKey` and `msgParam`.
#[derive(Debug, Clone)]
pub struct Posted {
    pub key: String,
    pub param: Value,
}

impl Posted {
    pub fn text(&self) -> String {
        self.param["text"].as_str().unwrap_or_default().to_owned()
    }
}

#[derive(Default)]
struct World {
    next_id: u64,
    // Stream mode
    tickets: HashMap<String, Timestamp>,
    connections: HashMap<u64, Connection>,
    opened: usize,
    asked: usize,
    hangs: bool,
    wrong_endpoint: bool,
    /// Frames that were not acknowledged: by message id, what the acknowledgement must hold.
    unacknowledged: HashMap<String, Value>,
    pongs: usize,
    /// Pings that the robot sent.
    signs: usize,
    // conversations
    sessions: HashMap<String, Session>,
    posted: HashMap<String, Vec<Posted>>,
    // the API
    tokens: HashMap<String, Timestamp>,
    tokens_given: usize,
    /// The process that is connected has one.
    has_token: bool,
    refuses: bool,
    busy: usize,
    silent: usize,
    left: HashSet<String>,
    unknown: HashSet<String>,
    throttled: usize,
    minutes: HashMap<String, Vec<Timestamp>>,
    posts: usize,
    down: bool,
    complaints: Vec<String>,
}

struct Session {
    until: Timestamp,
    frame: String,
    answers: Vec<Value>,
}

struct Connection {
    out: mpsc::UnboundedSender<Push>,
    leaving: bool,
}

/// What the fake makes a connection do.
enum Push {
    Send(Value),
    Close,
    /// The TCP connection is gone, nobody said goodbye.
    Cut,
    /// The TCP connection stays, nobody is there.
    Freeze,
}

/// A message somebody wrote, and what came of it.
pub struct Said {
    shared: Arc<Shared>,
    session: String,
    data: Value,
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

impl World {
    fn id(&mut self, what: &str) -> String {
        self.next_id += 1;
        format!("{what}+/{}==", self.next_id)
    }

    fn complain(&mut self, complaint: impl Into<String>) {
        self.complaints.push(complaint.into());
    }

    /// To one of the connections, as DingTalk picks one.
    fn deliver(&mut self, data: &Value) -> String {
        let frame = self.id("frame");
        let headers = json!({
            "topic": "/v1.0/im/bot/messages/get", "messageId": frame, "contentType": "application/json",
            "time": "1613630252678",
        });
        let message = json!({ "specVersion": "1.0", "type": "CALLBACK", "headers": headers, "data": data.to_string() });
        self.unacknowledged.insert(frame.clone(), json!({ "response": null }));
        let one = self.connections.values().min_by_key(|connection| connection.leaving);
        let sent = one.is_some_and(|connection| connection.out.send(Push::Send(message)).is_ok());
        assert!(sent, "nobody is connected who could hear {data}");
        frame
    }

    fn system(&mut self, topic: &str, data: &Value) -> String {
        let frame = self.id("system");
        let headers = json!({ "topic": topic, "messageId": frame, "contentType": "application/json", "time": "1" });
        let message = json!({ "specVersion": "1.0", "type": "SYSTEM", "headers": headers, "data": data.to_string() });
        self.push(|| Push::Send(message.clone()));
        frame
    }

    fn push(&self, make: impl Fn() -> Push) {
        for connection in self.connections.values().filter(|connection| !connection.leaving) {
            let _ = connection.out.send(make());
        }
    }

    fn is_connected(&self) -> bool {
        self.connections.values().any(|connection| !connection.leaving)
    }
}

impl FakeDingTalk {
    pub async fn start(clock: Clock) -> FakeDingTalk {
        let http = TcpListener::bind("127.0.0.1:0").await.expect("a port of loopback");
        let gateway = TcpListener::bind("127.0.0.1:0").await.expect("a port of loopback");
        let shared = Arc::new(Shared {
            world: Mutex::new(World::default()),
            changed: watch::Sender::new(0),
            http: http.local_addr().expect("an address"),
            gateway: gateway.local_addr().expect("an address"),
            clock,
        });
        let mut servers = JoinSet::new();
        servers.spawn(http::serve(http, Arc::clone(&shared)));
        servers.spawn(gateway::serve(gateway, Arc::clone(&shared)));
        FakeDingTalk { shared, _servers: servers }
    }

    /// What `dingtalk.api` is set to.
    pub fn url(&self) -> String {
        format!("http://{}", self.shared.http)
    }

    // ---------------------------------------------------------------------------------------------- people

    /// Somebody mentions the robot in a group, or writes to it alone (`user:ID`, whoever writes); what it answers.
    pub async fn say(&self, room: &str, user: &str, text: &str) -> String {
        self.write(room, user, text).await.answered().await
    }

    /// The same, answered or not. Waits for the robot to be connected first.
    pub async fn write(&self, room: &str, user: &str, text: &str) -> Said {
        let typed = json!({ "msgtype": "text", "text": { "content": text } });
        self.send(room, json!({ "senderStaffId": user }), typed).await
    }

    /// Somebody from outside the organisation, who has no id in it.
    pub async fn write_from_outside(&self, room: &str, text: &str) -> Said {
        let typed = json!({ "msgtype": "text", "text": { "content": text } });
        self.send(room, json!({ "senderCorpId": "ding-another" }), typed).await
    }

    /// Any message, with what is to be different about it.
    pub async fn send(&self, room: &str, sender: Value, content: Value) -> Said {
        self.shared.until("the robot connects", |world| world.is_connected().then_some(())).await;
        let until = (self.shared.clock)() + SESSION;
        let address = self.url();
        let (session, data) = self.shared.change(|world| {
            let session = world.id("session");
            let is_direct = room.starts_with("user:");
            let query: String = url::form_urlencoded::byte_serialize(session.as_bytes()).collect();
            let mut data = json!({
                "conversationId": if is_direct { "cid-of-two" } else { room }, "atUsers": [{ "dingtalkId": "$:LWCP_v1:$r" }],
                "chatbotCorpId": "ding-corp", "chatbotUserId": "$:LWCP_v1:$r", "msgId": world.id("msg"),
                "senderNick": "@all [x](https://evil.example)", "isAdmin": false, "robotCode": ROBOT,
                "sessionWebhookExpiredTime": until.as_millisecond(), "createAt": 1_613_630_252_678_i64,
                "conversationType": if is_direct { "1" } else { "2" }, "senderId": "$:LWCP_v1:$z", "isInAtList": true,
                "sessionWebhook": format!("{address}/robot/sendBySession?session={query}"),
            });
            for more in [sender, content] {
                data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            }
            let frame = world.deliver(&data);
            world.sessions.insert(session.clone(), Session { until, frame, answers: Vec::new() });
            (session, data)
        });
        Said { shared: Arc::clone(&self.shared), session, data }
    }

    // ------------------------------------------------------------------------------------------- conversations

    /// What the robot posted by itself.
    pub fn messages(&self, room: &str) -> Vec<Posted> {
        self.shared.world().posted.get(room).cloned().unwrap_or_default()
    }

    /// Conversations that something was posted to.
    pub fn rooms(&self) -> Vec<String> {
        self.shared.world().posted.keys().cloned().collect()
    }

    /// The robot is thrown out of a group.
    pub fn throw_out(&self, room: &str) {
        self.shared.change(|world| world.left.insert(room.to_owned()));
    }

    /// A group is dissolved, or a person leaves the organisation.
    pub fn dissolve(&self, room: &str) {
        self.shared.change(|world| world.unknown.insert(room.to_owned()));
    }

    // ------------------------------------------------------------------------------------------ misbehaviour

    /// Every access token is void from now on.
    pub fn void_tokens(&self) {
        self.shared.change(|world| world.tokens.clear());
    }

    /// The application's credentials are refused from now on, or no longer.
    pub fn refuse_credentials(&self, refuse: bool) {
        self.shared.change(|world| {
            world.refuses = refuse;
            world.tokens.clear();
        });
    }

    /// The next `times` posts get "too many calls".
    pub fn throttle(&self, times: usize) {
        self.shared.change(|world| world.throttled = times);
    }

    /// The next `times` posts are taken, and answered with a failure of DingTalk's own.
    pub fn fall_silent(&self, times: usize) {
        self.shared.change(|world| world.silent = times);
    }

    /// The next `times` answers find a busy DingTalk.
    pub fn be_busy(&self, times: usize) {
        self.shared.change(|world| world.busy = times);
    }

    /// DingTalk is down: HTTP answers 503. Open connections stay.
    pub fn refuse_connections(&self, refuse: bool) {
        self.shared.change(|world| world.down = refuse);
    }

    /// New connections are taken and then nothing ever comes.
    pub fn hang(&self, hang: bool) {
        self.shared.change(|world| world.hangs = hang);
    }

    /// The place to connect to is none.
    pub fn mislead(&self, mislead: bool) {
        self.shared.change(|world| world.wrong_endpoint = mislead);
    }

    pub fn cut(&self) {
        self.shared.change(|world| world.push(|| Push::Cut));
    }

    pub fn freeze(&self) {
        self.shared.change(|world| world.push(|| Push::Freeze));
    }

    pub fn close(&self) {
        self.shared.change(|world| world.push(|| Push::Close));
    }

    /// The present connection is to be left; it stays until [`FakeDingTalk::drop_left`].
    pub fn ask_to_leave(&self) {
        self.shared.change(|world| {
            world.system("disconnect", &json!({ "reason": "persistent connection is timeout" }));
            world.connections.values_mut().for_each(|connection| connection.leaving = true);
        });
    }

    pub fn drop_left(&self) {
        self.shared.change(|world| {
            for connection in world.connections.values().filter(|connection| connection.leaving) {
                let _ = connection.out.send(Push::Close);
            }
        });
    }

    /// A message through a connection that is to be left.
    pub fn redeliver_over_left(&self, said: &Said) {
        self.shared.change(|world| {
            let leaving: Vec<u64> =
                world.connections.iter().filter(|(_, one)| one.leaving).map(|(id, _)| *id).collect();
            assert!(!leaving.is_empty(), "no connection is to be left");
            let others: Vec<u64> = world.connections.keys().filter(|id| !leaving.contains(id)).copied().collect();
            let kept: Vec<_> = others.iter().filter_map(|id| Some((*id, world.connections.remove(id)?))).collect();
            world.deliver(&said.data);
            world.connections.extend(kept);
        });
    }

    /// The same message once more, as after an acknowledgement that was lost.
    pub async fn redeliver(&self, said: &Said) {
        self.shared.until("the robot connects", |world| world.is_connected().then_some(())).await;
        self.shared.change(|world| world.deliver(&said.data));
    }

    /// Something that is not JSON, or not a frame.
    pub fn babble(&self, frame: &Value) {
        self.shared.change(|world| world.push(|| Push::Send(frame.clone())));
    }

    // ------------------------------------------------------------------------------------------ observation

    /// A ping, and its echo.
    pub async fn ping(&self) {
        let pongs = self.shared.change(|world| {
            let opaque = json!({ "opaque": format!("0dde-{}", world.next_id) });
            let frame = world.system("ping", &opaque);
            world.unacknowledged.insert(frame, opaque);
            world.pongs
        });
        self.shared.until("the ping is echoed", |world| (world.pongs > pongs).then_some(())).await;
    }

    /// So many connections were opened so far.
    pub async fn until_opened(&self, times: usize) {
        self.shared.until("a connection", |world| (world.opened >= times).then_some(())).await;
    }

    pub fn opened(&self) -> usize {
        self.shared.world().opened
    }

    /// The robot asked so often where to connect to, refused ones too.
    pub async fn until_asked(&self, times: usize) {
        self.shared.until("the robot asks for a connection", |world| (world.asked >= times).then_some(())).await;
    }

    /// The robot is not connected.
    pub async fn until_alone(&self) {
        self.shared.until("the robot disconnects", |world| world.connections.is_empty().then_some(())).await;
    }

    /// Every frame is acknowledged.
    pub async fn until_acknowledged(&self) {
        let all = |world: &World| world.unacknowledged.is_empty().then_some(());
        self.shared.until("every frame is acknowledged", all).await;
    }

    /// The robot asks for so many more signs of life, which it gets.
    pub async fn until_signs(&self, more: usize) {
        let before = self.shared.world().signs;
        self.shared.until("the robot pings", |world| (world.signs >= before + more).then_some(())).await;
    }

    pub fn tokens_given(&self) -> usize {
        self.shared.world().tokens_given
    }

    /// Requests to post a message so far, refused ones too.
    pub fn posts(&self) -> usize {
        self.shared.world().posts
    }

    /// What had to be refused so far; taken, it no longer fails the test.
    pub fn take_complaints(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.world().complaints)
    }
}

impl Drop for FakeDingTalk {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let complaints = self.take_complaints();
            assert!(complaints.is_empty(), "DingTalk had to refuse something: {complaints:#?}");
        }
    }
}

impl Said {
    /// The first answer, as people read it, once the message's frame is acknowledged too.
    pub async fn answered(&self) -> String {
        let first = |world: &World| {
            let session = &world.sessions[&self.session];
            session.answers.first().filter(|_| !world.unacknowledged.contains_key(&session.frame)).cloned()
        };
        read(&self.shared.until("the message is acknowledged and answered", first).await)
    }

    /// Every answer so far, whole.
    pub fn answers(&self) -> Vec<Value> {
        self.shared.world().sessions[&self.session].answers.clone()
    }

    /// The conversation takes no more answers.
    pub fn expire(&self) {
        self.shared.change(|world| world.sessions.get_mut(&self.session).unwrap().until = Timestamp::MIN);
    }
}

/// What is wrong with a message that the robot would post.
pub fn check(message: &Value) -> Result<(), &'static str> {
    http::check(message).map(drop)
}

/// The section that points to the model.
pub fn configuration(url: &str) -> String {
    format!(
        "\n[dingtalk]\nclient_id = \"{CLIENT_ID}\"\nclient_secret = \"{CLIENT_SECRET}\"\nrobot_code = \"{ROBOT}\"\n\
         api = \"{url}\"\n"
    )
}

fn read(answer: &Value) -> String {
    readable(answer["markdown"]["text"].as_str().unwrap_or_default())
}

/// DingTalk's markdown as a person sees it.
pub fn readable(markdown: &str) -> String {
    let markdown = markdown.trim_start_matches("#### ");
    let text = crate::bot::readable(&markdown.replace("  \n", "\n").replace('\u{200b}', ""));
    text.replace("&lt;", "<").replace("&amp;", "&")
}
