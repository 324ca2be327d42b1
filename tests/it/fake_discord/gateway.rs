//! The gateway: <https://discord.com/developers/docs/events/gateway>.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::{APPLICATION, BOT, Connection, Push, Session, Shared, TOKEN, World};

/// GUILD_MEMBERS, GUILD_PRESENCES, MESSAGE_CONTENT: need to be switched on by a person.
const PRIVILEGED: u64 = 1 << 1 | 1 << 8 | 1 << 15;
/// Bytes of what a bot may send at once.
const PAYLOAD_LIMIT: usize = 4096;

pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (down, hangs) = shared.change(|world| {
            world.attempts += 1;
            (world.down, world.hangs)
        });
        if down {
            continue;
        }
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
    let mut version_asked = false;
    let check = |request: &Request, response: Response| {
        version_asked = request.uri().query().is_some_and(|query| query.split('&').any(|part| part == "v=10"));
        Ok(response)
    };
    let Ok(mut socket) = tokio_tungstenite::accept_hdr_async(stream, check).await else {
        return;
    };
    if !version_asked {
        shared.change(|world| world.complain("the gateway was called without v=10"));
        close(&mut socket, Some(4012)).await;
        return;
    }
    let (out, mut pushes) = mpsc::unbounded_channel();
    let (id, interval) = shared.change(|world| {
        world.next_id += 1;
        let id = world.next_id;
        world.connections.insert(id, Connection { out, ready: false, acks: true });
        (id, world.heartbeat.unwrap_or(Duration::from_millis(41_250)))
    });
    let hello = json!({ "op": 10, "d": { "heartbeat_interval": interval.as_millis() as u64 }, "s": null, "t": null });
    if socket.send(Message::Text(hello.to_string())).await.is_ok() {
        converse(&mut socket, &mut pushes, id, shared).await;
    }
    shared.change(|world| world.connections.remove(&id));
}

async fn converse(
    socket: &mut WebSocketStream<TcpStream>,
    pushes: &mut mpsc::UnboundedReceiver<Push>,
    id: u64,
    shared: &Shared,
) {
    loop {
        tokio::select! {
            biased;
            push = pushes.recv() => match push {
                Some(Push::Send(payload)) => {
                    if socket.send(Message::Text(payload.to_string())).await.is_err() {
                        return;
                    }
                }
                Some(Push::Close(code)) => return close(socket, code).await,
                Some(Push::Freeze) => std::future::pending().await,
                Some(Push::Cut) | None => return,
            },
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => {
                    if let Err(code) = shared.change(|world| take(world, shared, id, &text)) {
                        return close(socket, Some(code)).await;
                    }
                }
                Some(Ok(Message::Close(frame))) => {
                    let code = frame.map(|frame| u16::from(frame.code));
                    shared.change(|world| world.logged_off += usize::from(code == Some(1000)));
                    let _ = socket.flush().await;
                    return;
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            },
        }
    }
}

async fn close(socket: &mut WebSocketStream<TcpStream>, code: Option<u16>) {
    let frame = code.map(|code| CloseFrame { code: CloseCode::from(code), reason: "".into() });
    if socket.close(frame).await.is_ok() {
        // Discord waits for the answer, then drops the connection.
        while let Some(Ok(_)) = socket.next().await {}
    }
}

/// One payload of the bot; `Err` is the close code.
fn take(world: &mut World, shared: &Shared, id: u64, text: &str) -> Result<(), u16> {
    if text.len() > PAYLOAD_LIMIT {
        world.complain("a gateway payload over 4096 bytes");
        return Err(4002);
    }
    let payload: Value = serde_json::from_str(text).map_err(|_| 4002_u16)?;
    let data = payload.get("d").unwrap_or(&Value::Null);
    let ready = world.connections.get(&id).is_some_and(|connection| connection.ready);
    match payload.get("op").and_then(Value::as_u64) {
        Some(1) => {
            if world.connections.get(&id).is_some_and(|connection| connection.acks) {
                world.acked += 1;
                send(world, id, json!({ "op": 11, "d": null, "s": null, "t": null }));
            }
            Ok(())
        }
        Some(2) if ready => Err(4005),
        Some(2) => identify(world, shared, id, data),
        Some(6) => resume(world, id, data),
        Some(3 | 4 | 8 | 31) if ready => Ok(()),
        Some(3 | 4 | 8 | 31) => Err(4003),
        _ => {
            world.complain(format!("an unknown gateway opcode: {payload}"));
            Err(4001)
        }
    }
}

fn authorized(data: &Value) -> bool {
    let token = data.get("token").and_then(Value::as_str).unwrap_or_default();
    token.strip_prefix("Bot ").unwrap_or(token) == TOKEN
}

fn identify(world: &mut World, shared: &Shared, id: u64, data: &Value) -> Result<(), u16> {
    if let Some(code) = world.refuse_identify {
        return Err(code);
    }
    if !authorized(data) {
        return Err(4004);
    }
    let intents = data.get("intents").and_then(Value::as_u64).ok_or_else(|| {
        world.complain("IDENTIFY without intents");
        4013_u16
    })?;
    if intents & PRIVILEGED != 0 {
        world.complain(format!("IDENTIFY asks for privileged intents: {intents:b}"));
        return Err(4014);
    }
    let properties = data.get("properties").and_then(Value::as_object);
    if !properties.is_some_and(|properties| ["os", "browser", "device"].iter().all(|key| properties.contains_key(*key)))
    {
        world.complain("IDENTIFY without properties");
        return Err(4002);
    }
    world.identifies += 1;
    world.sessions_left = world.sessions_left.saturating_sub(1);
    let session = format!("session-{}", world.id());
    world.sessions.insert(session.clone(), Session::default());
    world.session = Some(session.clone());
    set_ready(world, id);
    let user = json!({
        "id": BOT, "username": "callboard", "discriminator": "0001", "global_name": null, "avatar": null, "bot": true,
        "verified": true, "mfa_enabled": false, "flags": 0, "email": null,
    });
    let ready = json!({
        "v": 10, "user": user, "user_settings": {}, "session_type": "normal", "guilds": [], "private_channels": [],
        "relationships": [], "presences": [], "session_id": session, "shard": data.get("shard"),
        "resume_gateway_url": format!("ws://{}", shared.gateway), "geo_ordered_rtc_regions": [],
        "application": { "id": APPLICATION, "flags": 565_248 },
    });
    world.dispatch("READY", &ready);
    Ok(())
}

fn resume(world: &mut World, id: u64, data: &Value) -> Result<(), u16> {
    if !authorized(data) {
        return Err(4004);
    }
    let name = data.get("session_id").and_then(Value::as_str).unwrap_or_default().to_owned();
    let heard = data.get("seq").and_then(Value::as_u64).unwrap_or_default();
    let Some(session) = world.sessions.get(&name) else {
        send(world, id, json!({ "op": 9, "d": false, "s": null, "t": null }));
        return Ok(());
    };
    if heard > session.sequence {
        world.complain("RESUME from a sequence number that was never sent");
        return Err(4007);
    }
    let missed: Vec<Value> = session.log.iter().filter(|(n, _)| *n > heard).map(|(_, event)| event.clone()).collect();
    world.resumes += 1;
    world.session = Some(name);
    for event in missed {
        send(world, id, event);
    }
    set_ready(world, id);
    world.dispatch("RESUMED", &json!({ "_trace": [] }));
    Ok(())
}

fn set_ready(world: &mut World, id: u64) {
    if let Some(connection) = world.connections.get_mut(&id) {
        connection.ready = true;
    }
}

fn send(world: &World, id: u64, payload: Value) {
    if let Some(connection) = world.connections.get(&id) {
        let _ = connection.out.send(Push::Send(payload));
    }
}

/// INTERACTION_CREATE as a room of a server sends it.
#[allow(clippy::too_many_arguments)]
pub(super) fn interaction(
    kind: u8,
    id: &str,
    token: &str,
    room: &str,
    user: &str,
    locale: &str,
    data: &Value,
) -> Value {
    let guild = "1100000000000000003";
    let person = json!({
        "id": user, "username": format!("person{user}"), "discriminator": "0", "global_name": "Person", "avatar": null,
        "public_flags": 0, "avatar_decoration_data": null, "clan": null, "primary_guild": null, "collectibles": null,
    });
    json!({
        "version": 1, "type": kind, "id": id, "token": token, "application_id": APPLICATION,
        "channel_id": room, "guild_id": guild, "locale": locale, "guild_locale": "en-US",
        "app_permissions": "2251799813685247", "entitlements": [], "entitlement_sku_ids": [], "context": 0,
        "authorizing_integration_owners": { "0": guild }, "attachment_size_limit": 10_485_760,
        "guild": { "id": guild, "locale": "en-US", "features": [] },
        "channel": {
            "id": room, "type": 0, "name": "releases", "guild_id": guild, "nsfw": false, "position": 0, "flags": 0,
            "permissions": "2251799813685247", "last_message_id": null, "parent_id": null, "topic": null,
            "rate_limit_per_user": 0,
        },
        "member": {
            "user": person, "nick": null, "avatar": null, "banner": null, "roles": [], "deaf": false, "mute": false,
            "joined_at": "2026-01-05T08:00:00.000000+00:00", "premium_since": null, "pending": false, "flags": 0,
            "permissions": "2251799813685247", "communication_disabled_until": null,
            "unusual_dm_activity_until": null,
        },
        "data": data,
    })
}
