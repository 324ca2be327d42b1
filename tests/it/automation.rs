//! `/api/v1`, as scripts and pipelines use it.

use std::collections::BTreeMap;
use std::path::Path;

use callboard::http;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::bot::{Bot, Kind, Setup};
use crate::pages::Site;
use crate::sink::Answer;

const ALL: &str = "all-4dbb8f4c0e5b49a7a2f6ce1f1e0a7c11";
const READER: &str = "reader-4dbb8f4c0e5b49a7a2f6ce1f1e0a7c1";
const STRANGER: &str = "stranger-4dbb8f4c0e5b49a7a2f6ce1f1e0a7";

fn tokens() -> String {
    let token = |name: &str, token: &str, scopes: &str, workspaces: &str| {
        format!(
            "[[server.tokens]]\nname = {name:?}\ntoken = {token:?}\nscopes = [{scopes}]\nworkspaces = [{workspaces:?}]\n\
             destinations = [\"*\"]\n"
        )
    };
    let all = r#""subscriptions:read", "subscriptions:write", "deliveries:read", "deliveries:write""#;
    let reading = r#""subscriptions:read", "deliveries:read""#;
    token("all", ALL, all, "*")
        + &token("reader", READER, reading, "warehouse")
        + &token("stranger", STRANGER, all, "finance")
}

fn setup() -> Setup {
    let setup = Setup::with(&[("hook", Kind::Webhook)]).and(&tokens());
    Setup { workspaces: vec![("warehouse", crate::bot::PROJECT), ("finance", 20_000)], ..setup }
}

/// The status and the JSON of an answer; null where it has no body.
async fn ask(site: &Site, token: &str, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
    let answer = site.request(method, path, token, body.map(|body| body.to_string())).await;
    let status = answer.status().as_u16();
    (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default())
}

async fn add(site: &Site, body: Value) -> (u16, Value) {
    ask(site, ALL, Method::POST, "/api/v1/subscriptions", Some(body)).await
}

#[tokio::test]
async fn a_pipeline_subscribes_a_run_hears_of_it_and_ends_it_again() {
    let mut bot = Bot::start(setup()).await;
    let site = Site::of(&bot).await;
    let run = bot.add("orders_daily v12");
    bot.turn().await;
    let new = json!({ "workspace": "warehouse", "run": run, "to": "hook", "on": ["stage", "finished"] });
    let (status, made) = add(&site, new.clone()).await;
    assert_eq!((status, &made["workspace"], &made["by"]), (201, &json!("warehouse"), &json!("api:all")), "{made}");
    let (status, same) = add(&site, new).await;
    assert_eq!((status, &same), (200, &made), "the same again is the same");

    bot.world.advance(crate::bot::PROJECT, &run).unwrap();
    bot.turn().await;
    let heard = bot.heard("hook");
    assert_eq!(heard.len(), 1, "the run's first stage began: {heard:?}");

    let path = format!("/api/v1/subscriptions/{}", made["id"].as_str().unwrap());
    assert_eq!(ask(&site, READER, Method::GET, &path, None).await, (200, made.clone()));
    let (_, listed) = ask(&site, READER, Method::GET, "/api/v1/subscriptions?to=hook", None).await;
    assert_eq!(listed, json!({ "subscriptions": [made] }));
    assert_eq!(ask(&site, ALL, Method::DELETE, &path, None).await.0, 204);
    assert_eq!(ask(&site, ALL, Method::GET, &path, None).await.0, 404, "it has ended");
    bot.world.advance(crate::bot::PROJECT, &run).unwrap();
    bot.turn().await;
    assert_eq!(bot.heard("hook"), [""; 0], "nobody asked for more");
    bot.finish().await;
}

#[tokio::test]
async fn a_whole_workspace_is_subscribed_over_a_restart() {
    let mut bot = Bot::start(setup()).await;
    bot.turn().await;
    let site = Site::of(&bot).await;
    let (status, _) = add(&site, json!({ "workspace": "warehouse", "to": "hook", "on": ["started"] })).await;
    assert_eq!(status, 201);
    drop(site);
    bot.restart().await;
    bot.turn().await;
    bot.add("orders_daily v12");
    bot.turn().await;
    assert_eq!(bot.heard("hook").len(), 1, "a run started");
    bot.finish().await;
}

#[tokio::test]
async fn what_died_is_brought_back_and_told() {
    let mut bot = Bot::start(setup()).await;
    let site = Site::of(&bot).await;
    let run = bot.add("orders_daily v12");
    bot.turn().await;
    add(&site, json!({ "workspace": "warehouse", "run": run, "to": "hook" })).await;
    bot.sink.answer(bot.url("hook"), [Answer::status(400)]);
    bot.world.advance(crate::bot::PROJECT, &run).unwrap();
    bot.turn().await;
    let (_, listed) = ask(&site, READER, Method::GET, "/api/v1/deliveries?state=dead", None).await;
    let dead = &listed["deliveries"][0];
    assert_eq!((&dead["run"], &dead["to"], &dead["attempts"]), (&json!(run), &json!("hook"), &json!(1)), "{listed}");
    let path = format!("/api/v1/deliveries/{}", dead["id"].as_str().unwrap());
    let (_, shown) = ask(&site, READER, Method::GET, &path, None).await;
    assert_eq!(shown["tried"][0]["outcome"], "rejected", "{shown}");
    assert_eq!(ask(&site, ALL, Method::POST, &format!("{path}/retry"), None).await.0, 204);
    bot.deliver_all().await;
    let (status, again) = ask(&site, ALL, Method::POST, &format!("{path}/retry"), None).await;
    assert_eq!((status, &again["detail"]), (409, &json!("it is delivered; only what is dead can be retried")));
    assert_eq!(ask(&site, ALL, Method::POST, "/api/v1/destinations/hook/retry", None).await.0, 204);
    bot.read_on("hook");
    bot.take_logs("given up");
    bot.finish().await;
}

/// Every operation of the document × every token: who lacks the right changes nothing and learns nothing.
#[tokio::test]
async fn a_token_opens_what_it_names_and_nothing_else() {
    let mut bot = Bot::start(setup()).await;
    let site = Site::of(&bot).await;
    let run = bot.add("orders_daily v12");
    bot.turn().await;
    let new = json!({ "workspace": "warehouse", "run": run, "to": "hook" });
    let (_, made) = add(&site, new.clone()).await;
    bot.world.advance(crate::bot::PROJECT, &run).unwrap();
    bot.turn().await;
    let (_, listed) = ask(&site, ALL, Method::GET, "/api/v1/deliveries", None).await;
    let ids = [("subscriptions", made["id"].clone()), ("deliveries", listed["deliveries"][0]["id"].clone())];
    let ids: BTreeMap<_, _> = ids.into_iter().chain([("destinations", json!("hook"))]).collect();
    let before = bot.store().load().await.unwrap().subscriptions;

    for (path, operations) in http::document()["paths"].as_object().unwrap() {
        let kind = path.split('/').nth(3).unwrap();
        let path = path.replace("{id}", ids[kind].as_str().unwrap());
        for method in operations.as_object().unwrap().keys() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let body = (method == Method::POST && path == "/api/v1/subscriptions").then(|| new.clone());
            let read = method == Method::GET;
            let asked = format!("{method} {path}");
            for nobody in ["", "all", &ALL.to_uppercase(), &ALL[1..]] {
                let (status, said) = ask(&site, nobody, method.clone(), &path, body.clone()).await;
                assert_eq!(status, 401, "{asked} by {nobody:?}: {said}");
            }
            let (status, said) = ask(&site, READER, method.clone(), &path, body.clone()).await;
            assert_eq!(status == 200, read, "{asked} by who may only read: {status} {said}");
            assert!(read || status == 403, "{asked} by who may only read: {status} {said}");
            let (status, said) = ask(&site, STRANGER, method.clone(), &path, body.clone()).await;
            let expected: &[u16] = match (path.matches('/').count(), &method) {
                (3, &Method::GET) => &[200],
                (3, _) => &[400],
                _ => &[404],
            };
            assert!(expected.contains(&status), "{asked} by whom another workspace is open: {status} {said}");
            let said = said.to_string();
            assert!(!said.contains(run.as_str()) && !said.contains("orders"), "{asked} gave away: {said}");
        }
    }
    assert_eq!(bot.store().load().await.unwrap().subscriptions, before, "nobody without the right changed anything");
    bot.read_on("hook");
    bot.finish().await;
}

#[tokio::test]
async fn wrong_requests_are_answered_with_what_to_do() {
    let bot = Bot::start(setup()).await;
    let site = Site::of(&bot).await;
    bot.turn().await;
    let cases = [
        (json!({ "workspace": "warehouse" }), "missing field `to`"),
        (json!({ "workspace": "warehouse", "to": "hook", "tos": 1 }), "tos: unknown field `tos`"),
        (json!({ "workspace": "warehose", "to": "hook" }), "workspace: this token opens no workspace \"warehose\""),
        (
            json!({ "workspace": "warehouse", "to": "pager" }),
            "to: there is no pager that this token may have messages sent to",
        ),
        (json!({ "workspace": "warehouse", "to": "hook", "on": [] }), "on: is empty"),
        (json!({ "workspace": "warehouse", "to": "hook", "on": ["ended"] }), "on[0]: unknown variant `ended`"),
        (json!({ "workspace": "warehouse", "to": "hook", "run": "a b" }), "run: a run id is 1 to 64"),
        (json!({ "workspace": "warehouse", "to": "hook", "run": "7b1e04c2" }), "run: warehouse has no run 7b1e04c2"),
        (
            json!({ "workspace": "warehouse", "to": "hook", "template": "x" }),
            "template: there is no template set \"x\"",
        ),
        (json!({ "workspace": "warehouse", "to": "hook", "until": "2020-01-01T00:00:00Z" }), "until: has passed"),
        (json!("no object"), "invalid type"),
    ];
    for (body, expected) in cases {
        let (status, said) = add(&site, body.clone()).await;
        let detail = said["detail"].as_str().unwrap_or_default();
        assert!(status == 400 && detail.contains(expected), "{body}: {status} {said}");
    }
    for (path, expected) in [
        ("/api/v1/deliveries?limit=0", "limit: is 1 to 500"),
        ("/api/v1/deliveries?state=gone", "unknown variant `gone`"),
        ("/api/v1/deliveries?runs=1", "unknown field `runs`"),
        ("/api/v1/subscriptions?workspace=none", "this token opens no workspace"),
    ] {
        let (status, said) = ask(&site, ALL, Method::GET, path, None).await;
        assert!(status == 400 && said["detail"].as_str().unwrap().contains(expected), "{path}: {status} {said}");
    }
    let long = site.request(Method::POST, "/api/v1/subscriptions", ALL, Some(" ".repeat(65 * 1024))).await;
    assert_eq!(long.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(long.headers()["content-type"], "application/problem+json");
    let nobody = site.get("/api/v1/subscriptions").await;
    assert_eq!((nobody.status().as_u16(), &nobody.headers()["www-authenticate"]), (401, &"Bearer".parse().unwrap()));
    bot.finish().await;
}

#[test]
fn the_document_is_current_and_whole() {
    let document = http::document();
    let text = serde_json::to_string_pretty(&document).unwrap() + "\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(written, text, "docs/openapi.json is not current; UPDATE_EXPECT=1 rewrites it");
    let mut references = Vec::new();
    collect(&document, &mut references);
    for reference in &references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    assert!(references.len() > 20, "only {} references were found", references.len());
}

fn collect(value: &Value, references: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            references.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| collect(value, references));
        }
        Value::Array(items) => items.iter().for_each(|value| collect(value, references)),
        _ => {}
    }
}
