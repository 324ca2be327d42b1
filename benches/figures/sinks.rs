//! Where messages arrive: one server that plays all kinds of chats, notes the moment of each request and its body,
//! and misbehaves by path. What a message must look like is the business of the tests.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Request, Response};
use serde_json::Value;
use tokio::net::TcpListener;

/// How a path answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Takes the message and never answers.
    Mute,
    /// Status 200 and one byte a second, the head included as one.
    Drip,
    /// Status 503.
    Down,
    /// Status 429 and a wait of a second.
    Full,
    /// As it should, after two seconds.
    Slow,
    /// A web page.
    Garbage,
}

#[derive(Debug, Clone)]
pub struct Arrival {
    pub at: Instant,
    pub path: String,
    pub body: Bytes,
}

impl Arrival {
    /// The changes that a message of the generic webhook holds.
    pub fn changes(&self) -> Vec<Value> {
        let json: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        match json["data"]["changes"].as_array() {
            Some(changes) => changes.clone(),
            None => vec![json],
        }
    }

    /// Tells, in whatever dialect, that something failed.
    pub fn is_failure(&self) -> bool {
        let text = String::from_utf8_lossy(&self.body);
        text.contains("\"to\":\"Fail\"") || text.contains("failed")
    }
}

#[derive(Default)]
struct Book {
    manners: HashMap<String, Manner>,
    arrivals: Vec<Arrival>,
}

#[derive(Clone)]
pub struct Sinks {
    address: SocketAddr,
    book: Arc<Mutex<Book>>,
    /// How many ever arrived.
    count: Arc<tokio::sync::watch::Sender<usize>>,
}

impl Sinks {
    pub async fn start() -> Sinks {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let sinks = Sinks { address, book: Arc::default(), count: Arc::new(tokio::sync::watch::Sender::new(0)) };
        let router = Router::new().fallback(handle).with_state(sinks.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        sinks
    }

    /// The path at which a channel of this kind and name arrives.
    pub fn path(kind: &str, name: &str) -> String {
        match kind {
            "slack-webhook" => format!("/services/T0/B0/{name}"),
            "dingtalk" => format!("/{name}/robot/send"),
            "discord-webhook" => "/api/webhooks/123456789012345678/token".to_owned(),
            _ => format!("/hooks/{name}"),
        }
    }

    pub fn url(&self, kind: &str, name: &str) -> String {
        let query = if kind == "dingtalk" { "?access_token=token" } else { "" };
        format!("http://{}{}{query}", self.address, Sinks::path(kind, name))
    }

    /// From now on; `None`: as it should.
    pub fn behave(&self, path: &str, manner: Option<Manner>) {
        let manners = &mut self.book.lock().unwrap().manners;
        match manner {
            Some(manner) => manners.insert(path.to_owned(), manner),
            None => manners.remove(path),
        };
    }

    /// Everything since the last call.
    pub fn take(&self) -> Vec<Arrival> {
        std::mem::take(&mut self.book.lock().unwrap().arrivals)
    }

    pub fn count(&self) -> usize {
        *self.count.borrow()
    }

    /// Waits until more than `before` have arrived; false when that takes too long.
    pub async fn beyond(&self, before: usize, patience: Duration) -> bool {
        let mut count = self.count.subscribe();
        tokio::time::timeout(patience, count.wait_for(|count| *count > before)).await.is_ok()
    }
}

async fn handle(State(sinks): State<Sinks>, request: Request<Body>) -> Response<Body> {
    let at = Instant::now();
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap_or_default();
    let path = parts.uri.path().to_owned();
    let good = match path.as_str() {
        path if path.starts_with("/hooks/") => "",
        path if path.starts_with("/services/") => "ok",
        path if path.starts_with("/api/") => r#"{"id":"1"}"#,
        _ => r#"{"errcode":0,"errmsg":"ok"}"#,
    };
    let manner = {
        let mut book = sinks.book.lock().unwrap();
        let manner = book.manners.get(&path).copied();
        book.arrivals.push(Arrival { at, path, body });
        manner
    };
    sinks.count.send_modify(|count| *count += 1);
    let answer = |status: u16, body: &'static str| Response::builder().status(status).body(body.into()).unwrap();
    match manner {
        None => answer(200, good),
        Some(Manner::Mute) => std::future::pending().await,
        Some(Manner::Drip) => {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Response::new(Body::from_stream(futures_util::stream::unfold((), |()| async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Some((Ok::<_, Infallible>(Bytes::from_static(b" ")), ()))
            })))
        }
        Some(Manner::Down) => answer(503, ""),
        Some(Manner::Full) => Response::builder().status(429).header("retry-after", "1").body(Body::empty()).unwrap(),
        Some(Manner::Slow) => {
            tokio::time::sleep(Duration::from_secs(2)).await;
            answer(200, good)
        }
        Some(Manner::Garbage) => answer(200, "<!doctype html><title>Sign in</title>"),
    }
}
