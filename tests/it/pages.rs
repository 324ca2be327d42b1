//! What is served over HTTP: to a load balancer, to Prometheus, to a person with a browser.

use callboard::demo::dataworks::{Fault, RunSpec};
use callboard::http;
use callboard::model::Status;
use reqwest::Response;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::bot::{Bot, PROJECT, Setup};

/// The bot's pages, served.
pub struct Site {
    base: String,
    _stop: DropGuard,
}

impl Site {
    pub async fn of(bot: &Bot) -> Site {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        tokio::spawn(http::serve(listener, bot.pages(), stop.clone()));
        Site { base, _stop: stop.drop_guard() }
    }

    pub async fn get(&self, path: &str) -> Response {
        reqwest::get(format!("{}{path}", self.base)).await.unwrap()
    }

    /// By whoever carries that token; an empty one is sent as it is.
    pub async fn request(&self, method: reqwest::Method, path: &str, token: &str, body: Option<String>) -> Response {
        let request = reqwest::Client::new().request(method, format!("{}{path}", self.base));
        request.bearer_auth(token).body(body.unwrap_or_default()).send().await.unwrap()
    }

    pub async fn ready(&self) -> (u16, serde_json::Value) {
        let response = self.get("/readyz").await;
        (response.status().as_u16(), response.json().await.unwrap())
    }
}

#[tokio::test]
async fn a_load_balancer_sends_nothing_before_the_first_poll_and_nothing_more_at_the_end() {
    let bot = Bot::start(Setup::with(&[])).await;
    let site = Site::of(&bot).await;
    assert_eq!(site.get("/healthz").await.status(), 200, "the process lives");
    assert_eq!(site.ready().await.0, 503, "no workspace was polled yet");
    bot.poll().await;
    let (status, body) = site.ready().await;
    assert_eq!((status, &body["ready"], &body["store"]), (200, &true.into(), &"ok".into()), "{body}");
    bot.pages().drain();
    assert_eq!(site.ready().await.0, 503, "it is ending");
    assert_eq!(site.get("/healthz").await.status(), 200);
    bot.finish().await;
}

#[tokio::test]
async fn polls_that_fail_show_in_the_body_but_do_not_take_the_bot_out_of_service() {
    let bot = Bot::start(Setup::with(&[])).await;
    let site = Site::of(&bot).await;
    bot.world.break_down(Fault::internal_error());
    bot.poll().await;
    let (status, body) = site.ready().await;
    assert_eq!(status, 200, "starting it again would not mend DataWorks: {body}");
    let said = body["workspaces"][0]["error"].as_str().unwrap();
    assert!(said.contains("InternalError"), "{said}");
    assert_eq!(bot.take_logs("polling fails"), 1, "one warning for one outage");
    bot.finish().await;
}

#[tokio::test]
async fn the_board_shows_strangers_text_as_text() {
    let bot = Bot::start(Setup::with(&[])).await;
    let site = Site::of(&bot).await;
    let run = bot.world.add_run(PROJECT, RunSpec::online("<script>alert(1)</script> \"v12\" & co"));
    bot.world.set_stage(PROJECT, &run, "BUILD_PACKAGE", Status::Fail, "\"><img src=x onerror=alert(2)>").unwrap();
    bot.poll().await;
    let response = site.get("/").await;
    let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
    let page = response.text().await.unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt; &quot;v12&quot; &amp; co"), "{page}");
    assert!(!page.contains("<script") && !page.contains("<img"), "{page}");
    bot.finish().await;
}

#[tokio::test]
async fn metrics_are_read_by_prometheus_and_name_no_run() {
    let bot = Bot::start(Setup::with(&[])).await;
    let site = Site::of(&bot).await;
    let run = bot.world.add_run(PROJECT, RunSpec::online("orders_daily v12"));
    bot.poll().await;
    let response = site.get("/metrics").await;
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    let text = response.text().await.unwrap();
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    assert!(text.ends_with("# EOF\n"), "{text}");
    assert!(text.contains("callboard_api_calls_total{action=\"ListPipelineRuns\",outcome=\"ok\"} 1\n"), "{text}");
    assert!(text.contains("callboard_poll_lag_seconds{workspace=\"warehouse\"} 0"), "{text}");
    assert!(!text.contains(run.short()) && !text.contains("orders_daily"), "{text}");
    bot.finish().await;
}
