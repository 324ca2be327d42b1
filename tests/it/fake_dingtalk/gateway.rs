//! Stream mode: <https://open-dingtalk.github.io/developerpedia/docs/learn/stream/protocol>.

use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

use super::{Connection, Push, Shared, World};

/// A ticket ends after so long.
const TICKET: std::time::Duration = std::time::Duration::from_secs(90);

pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let hangs = shared.change(|world| world.hangs);
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            if hangs {
                let _held = stream;
                std::future::pending::<()>().await;
            } else {
                connection(stream, &shared).await;
            }
        });
    }
}

async fn connection(stream: TcpStream, shared: &Shared) {
    let mut ticket = String::new();
    let look = |request: &Request, response: Response| {
        let query = request.uri().query().unwrap_or_default();
        let found = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "ticket");
        ticket = found.map(|(_, ticket)| ticket.into_owned()).unwrap_or_default();
        Ok(response)
    };
    let Ok(mut socket) = tokio_tungstenite::accept_hdr_async(stream, look).await else {
        return;
    };
    let now = (shared.clock)();
    let (out, mut pushes) = mpsc::unbounded_channel();
    let admitted = shared.change(|world| match world.tickets.remove(&ticket) {
        Some(given) if now < given + TICKET => {
            world.opened += 1;
            world.next_id += 1;
            let id = world.next_id;
            world.connections.insert(id, Connection { out, leaving: false });
            Some(id)
        }
        _ => {
            world.complain("a connection without a ticket, or with a used or old one");
            None
        }
    });
    let Some(id) = admitted else { return };
    converse(&mut socket, &mut pushes, shared).await;
    shared.change(|world| {
        world.connections.remove(&id);
        world.has_token = false;
    });
}

async fn converse(
    socket: &mut WebSocketStream<TcpStream>,
    pushes: &mut mpsc::UnboundedReceiver<Push>,
    shared: &Shared,
) {
    loop {
        tokio::select! {
            biased;
            push = pushes.recv() => match push {
                Some(Push::Send(frame)) => {
                    if socket.send(Message::Text(frame.to_string())).await.is_err() {
                        return;
                    }
                }
                Some(Push::Close) => {
                    let _ = socket.close(None).await;
                    return;
                }
                Some(Push::Freeze) => std::future::pending().await,
                Some(Push::Cut) | None => return,
            },
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => shared.change(|world| take(world, &text)),
                Some(Ok(Message::Close(_))) => {
                    let _ = socket.flush().await;
                    return;
                }
                Some(Ok(_)) => shared.change(|world| world.signs += 1),
                Some(Err(_)) | None => return,
            },
        }
    }
}

/// Only acknowledgements come this way, one for each frame that wants one.
fn take(world: &mut World, text: &str) {
    let answer: Value = serde_json::from_str(text).unwrap_or_default();
    let frame = answer["headers"]["messageId"].as_str().unwrap_or_default().to_owned();
    let Some(expected) = world.unacknowledged.remove(&frame) else {
        return world.complain(format!("an acknowledgement of nothing: {text}"));
    };
    let data: Value = serde_json::from_str(answer["data"].as_str().unwrap_or_default()).unwrap_or_default();
    let is_fit = answer["code"] == 200
        && answer["message"] == "OK"
        && answer["headers"]["contentType"] == "application/json"
        && answer["headers"].as_object().is_some_and(|headers| headers.len() == 2);
    if !is_fit || data != expected {
        world.complain(format!("an acknowledgement that does not fit, {expected} was due: {text}"));
    }
    world.pongs += usize::from(!expected["opaque"].is_null());
}
