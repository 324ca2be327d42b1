//! Discord's HTTP interface, as far as a bot with slash commands needs it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{APPLICATION, BOT, Interaction, Posted, Seen, Shared, Stage, TOKEN, World};

const EPHEMERAL: u64 = 1 << 6;
const SUPPRESS_EMBEDS: u64 = 1 << 2;

type App = State<Arc<Shared>>;

/// A refusal: status, Discord's code, words.
struct Refusal(u16, i64, String);

/// A refusal that the test asked for.
#[derive(Clone)]
struct OnCommand;

type Answer = Result<(StatusCode, Json<Value>), Refusal>;

fn refuse<T>(status: u16, code: i64, words: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal(status, code, words.into()))
}

fn invalid<T>(words: impl Into<String>) -> Result<T, Refusal> {
    refuse(400, 50035, words)
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0).expect("a status");
        (status, Json(json!({ "message": self.2, "code": self.1 }))).into_response()
    }
}

pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let router = Router::new()
        .route("/gateway", get(gateway))
        .route("/gateway/bot", get(gateway_bot))
        .route("/users/@me", get(me))
        .route("/applications/{application}/commands", get(commands).put(overwrite_commands))
        .route("/interactions/{id}/{token}/callback", post(callback))
        .route("/webhooks/{application}/{token}", post(follow_up))
        .route("/webhooks/{application}/{token}/messages/{message}", get(read).patch(edit).delete(remove))
        .route("/channels/{room}/messages", post(post_message));
    let app = Router::new()
        .nest("/api/v10", router)
        .fallback(|| async { Refusal(404, 0, "404: Not Found".to_owned()) })
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), guard))
        .with_state(shared);
    axum::serve(listener, app).await.expect("loopback serves");
}

/// Outages and limits; everything else that is refused is a complaint.
async fn guard(State(shared): App, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let what = format!("{} {path}", request.method());
    let stopped = shared.change(|world| {
        if world.down {
            return Some((StatusCode::SERVICE_UNAVAILABLE, "upstream connect error").into_response());
        }
        let limit = world.limits.iter_mut().find(|limit| limit.times > 0 && path.contains(&limit.path_part))?;
        limit.times -= 1;
        let wait = limit.retry_after;
        world.limited += 1;
        let body = json!({ "message": "You are being rate limited.", "retry_after": wait, "global": false });
        let headers = [("Retry-After", format!("{:.0}", wait.ceil())), ("X-RateLimit-Scope", "user".to_owned())];
        Some((StatusCode::TOO_MANY_REQUESTS, headers, Json(body)).into_response())
    });
    if let Some(response) = stopped {
        return response;
    }
    let response = next.run(request).await;
    if response.status().is_client_error() && response.extensions().get::<OnCommand>().is_none() {
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap_or_default();
        let words = String::from_utf8_lossy(&bytes).into_owned();
        shared.change(|world| world.complain(format!("{what}: {} {words}", parts.status)));
        return Response::from_parts(parts, axum::body::Body::from(bytes));
    }
    response
}

fn authorize(headers: &HeaderMap) -> Result<(), Refusal> {
    let sent = headers.get("authorization").and_then(|value| value.to_str().ok());
    if sent == Some(&format!("Bot {TOKEN}")) { Ok(()) } else { refuse(401, 0, "401: Unauthorized") }
}

fn parse(body: &[u8]) -> Result<Value, Refusal> {
    serde_json::from_slice(body).or_else(|_| refuse(400, 50109, "The request body contains invalid JSON."))
}

fn ok(body: Value) -> Answer {
    Ok((StatusCode::OK, Json(body)))
}

// ------------------------------------------------------------------------------------------------ gateway and self

async fn gateway(State(shared): App) -> Answer {
    ok(json!({ "url": format!("ws://{}", shared.gateway) }))
}

async fn gateway_bot(State(shared): App, headers: HeaderMap) -> Answer {
    authorize(&headers)?;
    let left = shared.change(|world| {
        world.looked_up += 1;
        world.sessions_left
    });
    let limit = json!({ "total": 1000, "remaining": left, "reset_after": 3_600_000, "max_concurrency": 1 });
    ok(json!({ "url": format!("ws://{}", shared.gateway), "shards": 1, "session_start_limit": limit }))
}

async fn me(headers: HeaderMap) -> Answer {
    authorize(&headers)?;
    ok(json!({ "id": BOT, "username": "callboard", "discriminator": "0001", "avatar": null, "bot": true }))
}

// -------------------------------------------------------------------------------------------------------- commands

async fn commands(
    State(shared): App,
    Path(application): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Answer {
    authorize(&headers)?;
    known_application(&application)?;
    let mut commands = shared.change(|world| {
        world.command_reads += 1;
        world.commands.clone()
    });
    if query.get("with_localizations").map(String::as_str) != Some("true") {
        for command in &mut commands {
            command.as_object_mut().expect("checked").remove("description_localizations");
        }
    }
    ok(Value::Array(commands))
}

async fn overwrite_commands(
    State(shared): App,
    Path(application): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    authorize(&headers)?;
    known_application(&application)?;
    let Value::Array(commands) = parse(&body)? else {
        return invalid("not a list of commands");
    };
    let mut names = HashSet::new();
    for command in &commands {
        check_command(command)?;
        if !names.insert(command["name"].to_string()) {
            return invalid("two commands of one name");
        }
    }
    let stored = shared.change(|world| {
        world.command_writes += 1;
        world.commands = commands.into_iter().map(|command| stored_command(world, command)).collect();
        world.commands.clone()
    });
    ok(Value::Array(stored))
}

fn known_application(application: &str) -> Result<(), Refusal> {
    if application == APPLICATION { Ok(()) } else { refuse(404, 10002, "Unknown Application") }
}

/// Discord adds what it knows and leaves out what is false or empty.
fn stored_command(world: &mut World, mut command: Value) -> Value {
    let fields = command.as_object_mut().expect("checked");
    fields.insert("id".to_owned(), json!(world.id()));
    fields.insert("version".to_owned(), json!(world.id()));
    fields.insert("application_id".to_owned(), json!(APPLICATION));
    fields.insert("default_member_permissions".to_owned(), Value::Null);
    fields.insert("nsfw".to_owned(), json!(false));
    fields.entry("type").or_insert(json!(1));
    for option in fields.get_mut("options").and_then(Value::as_array_mut).into_iter().flatten() {
        let option = option.as_object_mut().expect("checked");
        option.retain(|_, value| *value != json!(false));
    }
    fields.retain(|key, value| key != "options" || *value != json!([]));
    command
}

fn check_command(command: &Value) -> Result<(), Refusal> {
    check_name(&command["name"])?;
    check_text(&command["description"], 100, "description")?;
    let options = command["options"].as_array().cloned().unwrap_or_default();
    if options.len() > 25 {
        return invalid("more than 25 options");
    }
    let mut optional_seen = false;
    for option in &options {
        check_name(&option["name"])?;
        check_text(&option["description"], 100, "option description")?;
        let required = option["required"] == json!(true);
        if required && optional_seen {
            return invalid("required options must come before optional ones");
        }
        optional_seen |= !required;
    }
    if command["contexts"].as_array().is_some_and(|all| all.iter().any(|one| one.as_u64().is_none_or(|one| one > 2))) {
        return invalid("no such context");
    }
    for described in std::iter::once(command).chain(&options) {
        for (language, said) in described["description_localizations"].as_object().into_iter().flatten() {
            if !["zh-CN", "zh-TW", "en-GB"].contains(&language.as_str()) {
                return invalid(format!("no language of Discord's: {language}"));
            }
            check_text(said, 100, "localized description")?;
        }
    }
    if command.to_string().len() > 8000 {
        return invalid("a command over 8000 characters");
    }
    Ok(())
}

fn check_name(name: &Value) -> Result<(), Refusal> {
    let name = name.as_str().unwrap_or_default();
    let fits = (1..=32).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_'));
    if fits { Ok(()) } else { invalid(format!("not a name: {name:?}")) }
}

fn units(text: &str) -> usize {
    text.encode_utf16().count()
}

fn check_text(text: &Value, limit: usize, what: &str) -> Result<(), Refusal> {
    let text = text.as_str().unwrap_or_default();
    let fits = !text.trim().is_empty() && units(text) <= limit;
    if fits { Ok(()) } else { invalid(format!("{what} must be 1 to {limit} long: {text:?}")) }
}

// ---------------------------------------------------------------------------------------------------- interactions

fn find<'a>(world: &'a mut World, token: &str) -> Result<&'a mut Interaction, Refusal> {
    match world.interactions.get_mut(token) {
        Some(interaction) if !interaction.expired => Ok(interaction),
        _ => refuse(404, 10062, "Unknown interaction"),
    }
}

/// The text of a message that answers a command.
fn check_message(message: &Value, flags_allowed: u64) -> Result<Seen, Refusal> {
    let text = message["content"].as_str().unwrap_or_default();
    if text.trim().is_empty() {
        return refuse(400, 50006, "Cannot send an empty message");
    }
    if units(text) > 2000 {
        return invalid("content over 2000");
    }
    check_mentions(message)?;
    let flags = message["flags"].as_u64().unwrap_or_default();
    if flags & !flags_allowed != 0 {
        return invalid(format!("flags that may not be set here: {flags}"));
    }
    Ok(Seen { text: text.to_owned(), ephemeral: flags & EPHEMERAL != 0, buttons: check_components(message)? })
}

/// Labels and ids of buttons: rows of one to five, each with a label and an id of its own.
/// <https://docs.discord.com/developers/components/reference>
fn check_components(message: &Value) -> Result<Vec<(String, String)>, Refusal> {
    let rows = message["components"].as_array().cloned().unwrap_or_default();
    if rows.len() > 5 {
        return invalid("more than 5 rows of components");
    }
    let mut buttons: Vec<(String, String)> = Vec::new();
    for row in &rows {
        let of_row = row["components"].as_array().cloned().unwrap_or_default();
        if row["type"] != json!(1) || !(1..=5).contains(&of_row.len()) {
            return invalid("a row holds 1 to 5 components");
        }
        for button in &of_row {
            if button["type"] != json!(2) || !(1..=4).contains(&button["style"].as_u64().unwrap_or_default()) {
                return invalid(format!("no button: {button}"));
            }
            check_text(&button["label"], 80, "label")?;
            check_text(&button["custom_id"], 100, "custom_id")?;
            let field = |name: &str| button[name].as_str().unwrap_or_default().to_owned();
            if buttons.iter().any(|(_, id)| *id == field("custom_id")) {
                return invalid("two components of one custom_id");
            }
            buttons.push((field("label"), field("custom_id")));
        }
    }
    Ok(buttons)
}

/// Stricter than Discord: whoever says nothing lets people be pinged.
fn check_mentions(message: &Value) -> Result<(), Refusal> {
    match message["allowed_mentions"]["parse"].as_array() {
        Some(parse) if parse.is_empty() => Ok(()),
        _ => invalid("allowed_mentions must be given, with an empty parse"),
    }
}

async fn callback(State(shared): App, Path((id, token)): Path<(String, String)>, body: Bytes) -> Response {
    let result = parse(&body).and_then(|body| {
        shared.change(|world| respond(world, &id, &token, &body).map(|()| remember_buttons(world, &token)))
    });
    match result {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

fn respond(world: &mut World, id: &str, token: &str, body: &Value) -> Result<(), Refusal> {
    let interaction = find(world, token)?;
    if interaction.id != id {
        return refuse(404, 10062, "Unknown interaction");
    }
    if interaction.stage != Stage::Unanswered {
        return refuse(400, 40060, "Interaction has already been acknowledged.");
    }
    let data = &body["data"];
    match (body["type"].as_u64(), interaction.autocomplete) {
        (Some(4), false) => {
            interaction.original = Some(check_message(data, SUPPRESS_EMBEDS | EPHEMERAL)?);
            interaction.stage = Stage::Answered;
        }
        (Some(5), false) => {
            let flags = data["flags"].as_u64().unwrap_or_default();
            if flags & !EPHEMERAL != 0 {
                return invalid("a deferred response takes only the ephemeral flag");
            }
            interaction.stage = Stage::Loading { ephemeral: flags & EPHEMERAL != 0 };
            interaction.deferred = true;
        }
        (Some(8), true) => {
            interaction.choices = Some(check_choices(&data["choices"])?);
            interaction.stage = Stage::Answered;
        }
        (kind, _) => return invalid(format!("a response of type {kind:?} to this interaction")),
    }
    Ok(())
}

/// What can be pressed from now on.
fn remember_buttons(world: &mut World, token: &str) {
    let Some(interaction) = world.interactions.get(token) else { return };
    let seen = interaction.original.iter().chain(interaction.follow_ups.iter().map(|(_, seen)| seen));
    let of_seen = |seen: &Seen| seen.buttons.clone();
    let room = interaction.room.clone();
    let buttons: Vec<_> = seen.flat_map(of_seen).map(|(label, id)| (room.clone(), label, id)).collect();
    world.buttons.extend(buttons);
}

fn check_choices(choices: &Value) -> Result<Vec<(String, String)>, Refusal> {
    let Some(choices) = choices.as_array().filter(|choices| choices.len() <= 25) else {
        return invalid("choices must be a list of at most 25");
    };
    let check = |choice: &Value| {
        check_text(&choice["name"], 100, "choice name")?;
        check_text(&choice["value"], 100, "choice value")?;
        let field = |name: &str| choice[name].as_str().unwrap_or_default().to_owned();
        Ok((field("name"), field("value")))
    };
    choices.iter().map(check).collect()
}

async fn follow_up(State(shared): App, Path((application, token)): Path<(String, String)>, body: Bytes) -> Answer {
    known_application(&application)?;
    let body = parse(&body)?;
    shared.change(|world| {
        let message_id = world.id();
        let interaction = find(world, &token)?;
        let mut seen = check_message(&body, SUPPRESS_EMBEDS | EPHEMERAL)?;
        match interaction.stage {
            Stage::Unanswered => return refuse(404, 10015, "Unknown Webhook"),
            // A follow-up to a response that still loads is an edit of it, and stays as private as it was.
            Stage::Loading { ephemeral } => {
                seen.ephemeral = ephemeral;
                interaction.stage = Stage::Answered;
                interaction.original = Some(seen.clone());
            }
            Stage::Answered => interaction.follow_ups.push((message_id.clone(), seen.clone())),
        }
        remember_buttons(world, &token);
        ok(message(&message_id, &seen.text))
    })
}

async fn edit(
    State(shared): App,
    Path((application, token, message_id)): Path<(String, String, String)>,
    body: Bytes,
) -> Answer {
    known_application(&application)?;
    let body = parse(&body)?;
    shared.change(|world| {
        let interaction = find(world, &token)?;
        let seen = check_message(&body, SUPPRESS_EMBEDS)?;
        if message_id != "@original" {
            let Some((_, old)) = interaction.follow_ups.iter_mut().find(|(id, _)| *id == message_id) else {
                return refuse(404, 10008, "Unknown Message");
            };
            (old.text, old.buttons) = (seen.text.clone(), seen.buttons);
            return ok(message(&message_id, &seen.text));
        }
        let ephemeral = match (interaction.stage, &interaction.original) {
            (Stage::Loading { ephemeral }, _) => ephemeral,
            (Stage::Answered, Some(original)) => original.ephemeral,
            _ => return refuse(404, 10008, "Unknown Message"),
        };
        interaction.stage = Stage::Answered;
        interaction.original = Some(Seen { text: seen.text.clone(), ephemeral, buttons: seen.buttons });
        ok(message("1300000000000000000", &seen.text))
    })
}

async fn read(State(shared): App, Path((application, token, message_id)): Path<(String, String, String)>) -> Answer {
    known_application(&application)?;
    shared.change(|world| {
        let interaction = find(world, &token)?;
        let seen = match message_id.as_str() {
            "@original" => interaction.original.clone(),
            id => interaction.follow_ups.iter().find(|(known, _)| known == id).map(|(_, seen)| seen.clone()),
        };
        match seen {
            Some(seen) => ok(message(&message_id, &seen.text)),
            None => refuse(404, 10008, "Unknown Message"),
        }
    })
}

async fn remove(State(shared): App, Path((application, token, id)): Path<(String, String, String)>) -> Response {
    let result = known_application(&application).and_then(|()| {
        shared.change(|world| {
            let interaction = find(world, &token)?;
            let before = interaction.follow_ups.len();
            interaction.follow_ups.retain(|(known, _)| *known != id);
            let loading = matches!(interaction.stage, Stage::Loading { .. });
            let original = id == "@original" && (interaction.original.take().is_some() || loading);
            if original || interaction.follow_ups.len() < before {
                interaction.stage = Stage::Answered;
                return Ok(());
            }
            refuse(404, 10008, "Unknown Message")
        })
    });
    match result {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

pub(super) fn message(id: &str, content: &str) -> Value {
    json!({
        "id": id, "type": 0, "channel_id": "1400000000000000000", "content": content, "attachments": [], "embeds": [],
        "author": { "id": BOT, "username": "callboard", "discriminator": "0001", "avatar": null, "bot": true },
        "mentions": [], "mention_roles": [], "mention_everyone": false, "pinned": false, "tts": false,
        "timestamp": "2026-11-24T08:00:05.000000+00:00", "edited_timestamp": null, "flags": 0, "components": [],
    })
}

// ----------------------------------------------------------------------------------------------------------- rooms

async fn post_message(
    State(shared): App,
    Path(room): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    authorize(&headers)?;
    let body = parse(&body)?;
    let refuses = shared.change(|world| {
        world.posts.push((room.clone(), body["nonce"].as_str().unwrap_or_default().to_owned()));
        world.refuses
    });
    if refuses {
        // On command, so it is no complaint.
        let (mut response, on_command) = (Refusal(401, 0, "401: Unauthorized".to_owned()).into_response(), OnCommand);
        response.extensions_mut().insert(on_command);
        return Ok(response);
    }
    let answer = take_post(&shared, room, body)?;
    let silent = shared.change(|world| {
        let silent = world.silent > 0;
        world.silent = world.silent.saturating_sub(1);
        silent
    });
    Ok(if silent { StatusCode::BAD_GATEWAY.into_response() } else { answer.into_response() })
}

fn take_post(shared: &Shared, room: String, body: Value) -> Answer {
    if room.parse::<u64>().is_err() {
        return invalid(format!("Value \"{room}\" is not snowflake."));
    }
    check_post(&body)?;
    let buttons = check_components(&body)?;
    shared.change(|world| {
        if world.unknown_rooms.contains(&room) {
            return refuse(404, 10003, "Unknown Channel");
        }
        let nonce = body["nonce"].as_str().map(ToOwned::to_owned);
        let content = body["content"].as_str().unwrap_or_default().to_owned();
        let id = world.id();
        let buttons = buttons.into_iter().map(|(label, id)| (room.clone(), label, id));
        world.buttons.extend(buttons);
        let posted = world.posted.entry(room).or_default();
        let enforced = body["enforce_nonce"] == json!(true);
        let again = posted.iter().find(|old| enforced && nonce.is_some() && old.nonce == nonce);
        if let Some(old) = again {
            return ok(message(&old.id, &old.content));
        }
        let answer = message(&id, &content);
        posted.push(Posted { id, content, nonce, body });
        ok(answer)
    })
}

fn check_post(body: &Value) -> Result<(), Refusal> {
    check_mentions(body)?;
    let content = body["content"].as_str().unwrap_or_default();
    let embeds = body["embeds"].as_array().cloned().unwrap_or_default();
    if content.trim().is_empty() && embeds.is_empty() {
        return refuse(400, 50006, "Cannot send an empty message");
    }
    if units(content) > 2000 || embeds.len() > 10 {
        return invalid("content over 2000 or more than 10 embeds");
    }
    if body["nonce"].as_str().is_some_and(|nonce| nonce.is_empty() || nonce.len() > 25) {
        return invalid("nonce must be 1 to 25 long");
    }
    let total: usize = embeds.iter().map(check_embed).sum::<Result<usize, Refusal>>()?;
    if total > 6000 { invalid("embeds over 6000 together") } else { Ok(()) }
}

/// Returns what counts towards the limit of all embeds.
fn check_embed(embed: &Value) -> Result<usize, Refusal> {
    let mut total = 0;
    let mut part = |text: &Value, limit: usize, what: &str| {
        if text.is_null() {
            return Ok(());
        }
        total += units(text.as_str().unwrap_or_default());
        check_text(text, limit, what)
    };
    part(&embed["title"], 256, "embed title")?;
    part(&embed["description"], 4096, "embed description")?;
    part(&embed["footer"]["text"], 2048, "embed footer")?;
    part(&embed["author"]["name"], 256, "embed author")?;
    let fields = embed["fields"].as_array().cloned().unwrap_or_default();
    if fields.len() > 25 {
        return invalid("more than 25 embed fields");
    }
    for field in &fields {
        check_text(&field["name"], 256, "field name")?;
        check_text(&field["value"], 1024, "field value")?;
        part(&field["name"], 256, "field name")?;
        part(&field["value"], 1024, "field value")?;
    }
    if embed["color"].as_u64().is_some_and(|color| color > 0x00FF_FFFF) {
        return invalid("embed color out of range");
    }
    Ok(total)
}
