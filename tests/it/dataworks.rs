//! The real client against the simulated DataWorks over loopback.
// So that clippy knows the helpers below for tests.
#![cfg(test)]

use std::time::Duration;

use callboard::demo::dataworks::{Fault, Quirks, RunSpec, World, serve};
use callboard::model::{RunId, Snapshot, Status, Timestamp, Workspace};
use callboard::settings::{Secret, Span};
use callboard::sources::dataworks::{Action, Budget, Credentials, DataWorks, Poll, Settings, acs3};
use callboard::sources::{Item, PAGE_SIZE, Source, SourceError, SourceErrorKind};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

const KEY: &str = "LTAI-simulated-key";
const SECRET: &str = "simulated-access-key-secret";
const TOKEN: &str = "CAIS/simulated+security=token";
const PROJECT: i64 = 10_000;

/// A world that is being served, and a client of it.
struct Story {
    world: World,
    client: DataWorks,
    endpoint: String,
    _stop: DropGuard,
}

impl Story {
    async fn begin() -> Story {
        Story::in_world(World::new(KEY, SECRET).starting_at(at("2026-11-24T08:00:00Z"))).await
    }

    async fn in_world(world: World) -> Story {
        world.add_workspace(PROJECT);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        tokio::spawn(serve(world.clone(), listener, stop.clone()));
        let client = client(&endpoint, KEY, SECRET, None);
        Story { world, client, endpoint, _stop: stop.drop_guard() }
    }

    fn client_with(&self, key: &str, secret: &str, token: Option<&str>) -> DataWorks {
        client(&self.endpoint, key, secret, token)
    }

    async fn list(&self) -> Result<Vec<Snapshot>, SourceError> {
        self.client.list(&workspace(), 1).await.map(|listing| listing.runs)
    }

    async fn get(&self, run: &RunId) -> Result<Snapshot, SourceError> {
        self.client.get(&workspace(), run).await
    }

    /// What the next call fails with.
    async fn failing_with(&self, fault: Fault) -> SourceError {
        self.world.inject(fault, 1);
        self.list().await.expect_err("the injected fault must be an error")
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn workspace() -> Workspace {
    Workspace { name: "warehouse".into(), region: "cn-shanghai".into(), project_id: PROJECT }
}

fn settings(endpoint: &str, key: &str, secret: &str, token: Option<&str>) -> Settings {
    let literal = |text: &str| Secret::Literal(text.to_owned().into());
    let seconds = |n| Span(Duration::from_secs(n));
    Settings {
        endpoint: endpoint.to_owned(),
        credentials: Some(Credentials {
            access_key_id: literal(key),
            access_key_secret: literal(secret),
            security_token: token.map(literal),
        }),
        console: "https://dataworks.data.aliyun.com/{region}/ide?defaultProjectId={project_id}#{run_id}".to_owned(),
        poll: Poll { fastest: seconds(5), slowest: seconds(60), waiting_after: seconds(60) },
        budget: Budget { edition: None, calls_per_second: None, calls_per_day: None },
    }
}

fn http() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

fn client(endpoint: &str, key: &str, secret: &str, token: Option<&str>) -> DataWorks {
    DataWorks::new(&settings(endpoint, key, secret, token), http(), http()).unwrap()
}

fn told(run: &Snapshot) -> String {
    let stages: Vec<String> = run.stages.iter().map(|stage| format!("{}={}", stage.code, stage.status)).collect();
    format!("{} {}", run.status, stages.join(" "))
}

fn label(outcome: Result<impl Sized, SourceError>) -> &'static str {
    outcome.map_or_else(|error| error.kind.label(), |_| "ok")
}

// ------------------------------------------------------------------------------------------------- what it reads

#[tokio::test]
async fn a_run_is_followed_stage_by_stage_to_its_end() {
    let story = Story::begin().await;
    let id = story.world.add_run(PROJECT, RunSpec::online("orders_daily v12").created_by("110755000425"));
    let mut seen = Vec::new();
    for _ in 0..7 {
        let listed = story.list().await.unwrap();
        assert_eq!(listed, [story.get(&id).await.unwrap()], "list and get must tell the same");
        seen.push(told(&listed[0]));
        story.world.step(Duration::from_secs(10));
        story.world.advance(PROJECT, &id).unwrap();
    }
    let expected = [
        "Init BUILD_PACKAGE=Init PROD_CHECK=Init PROD=Init",
        "Running BUILD_PACKAGE=Running PROD_CHECK=Init PROD=Init",
        "Running BUILD_PACKAGE=Success PROD_CHECK=Init PROD=Init",
        "Running BUILD_PACKAGE=Success PROD_CHECK=Running PROD=Init",
        "Running BUILD_PACKAGE=Success PROD_CHECK=Success PROD=Init",
        "Running BUILD_PACKAGE=Success PROD_CHECK=Success PROD=Running",
        "Success BUILD_PACKAGE=Success PROD_CHECK=Success PROD=Success",
    ];
    assert_eq!(seen, expected);
    let run = story.get(&id).await.unwrap();
    assert_eq!((run.title(), run.creator.as_str()), ("orders_daily v12", "110755000425"));
    assert_eq!(run.created_at, Some(at("2026-11-24T08:00:00Z")));
    assert_eq!(run.modified_at, Some(at("2026-11-24T08:01:10Z")));
    assert_eq!(story.world.refusals(), [""; 0], "every call was signed and formed as it must be");
}

#[tokio::test]
async fn the_documented_sample_is_read_over_the_wire() {
    let story = Story::begin().await;
    let sample = include_bytes!("../data/get-pipeline-run-sample.json");
    story.world.inject(Fault::body(200, "application/json;charset=utf-8", sample.as_slice()), 1);
    story.world.add_workspace(56_160);
    let id: RunId = "a7ef0634-20ec-4a7c-a214-54020f91XXXX".parse().unwrap();
    let run = story.client.get(&Workspace { project_id: 56_160, ..workspace() }, &id).await.unwrap();
    assert_eq!(run.id, id);
    assert_eq!(told(&run), "Running DEV_CHECK=Running");
    assert_eq!(run.stages[0].message, "Exception information XXX");
}

#[tokio::test]
async fn odd_ways_of_writing_an_answer_do_not_matter() {
    let story = Story::begin().await;
    let id = story.world.add_run(PROJECT, RunSpec::standard("orders"));
    story.world.add_run(PROJECT, RunSpec::of("", &[]));
    story.world.advance(PROJECT, &id).unwrap();
    story.world.fail(PROJECT, &id, "DEV_CHECK", "table missing").unwrap();
    let (listed, got) = (story.list().await.unwrap(), story.get(&id).await.unwrap());
    story.world.set_quirks(Quirks::all());
    assert_eq!(story.list().await.unwrap(), listed);
    assert_eq!(story.get(&id).await.unwrap(), got);
}

#[tokio::test]
async fn a_status_nobody_documented_is_kept_and_ends_nothing() {
    let story = Story::begin().await;
    let id = story.world.add_run(PROJECT, RunSpec::online("orders"));
    story.world.set_run_status(PROJECT, &id, Status::Unknown("Paused".into())).unwrap();
    let run = story.get(&id).await.unwrap();
    assert_eq!(run.status, Status::Unknown("Paused".into()));
    assert!(!run.status.is_terminal());
}

#[tokio::test]
async fn a_hundred_and_thirty_runs_come_as_pages_of_100_and_30_newest_first() {
    let story = Story::begin().await;
    let mut ids = Vec::new();
    for n in 0..130 {
        ids.push(story.world.add_run(PROJECT, RunSpec::online(&format!("run {n}"))));
        story.world.step(Duration::from_secs(n % 2));
    }
    ids.reverse();
    let mut pages = Vec::new();
    for page in 1..=3 {
        pages.push(story.client.list(&workspace(), page).await.unwrap().runs);
    }
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [PAGE_SIZE, 30, 0]);
    let listed: Vec<RunId> = pages.into_iter().flatten().map(|run| run.id).collect();
    assert_eq!(listed, ids, "a run is missing, doubled or out of order");
}

#[tokio::test]
async fn items_tell_what_a_run_deploys() {
    let story = Story::begin().await;
    let item = |name: &str, kind: &str| Item { name: name.into(), kind: kind.into() };
    let items = vec![item("orders_daily", "Node"), item("udf", "Function")];
    let id = story.world.add_run(PROJECT, RunSpec::online("orders").with_items(items.clone()));
    assert_eq!(story.client.items(&workspace(), &id).await.unwrap(), items);
    assert_eq!(Action::ALL.map(|action| story.world.calls(action)), [0, 0, 1]);
}

#[tokio::test]
async fn the_link_follows_the_template() {
    let story = Story::begin().await;
    let url = story.client.url(&workspace(), &"7b1e04c2-1".parse().unwrap());
    assert_eq!(url, "https://dataworks.data.aliyun.com/cn-shanghai/ide?defaultProjectId=10000#7b1e04c2-1");
}

// ---------------------------------------------------------------------------------------------- what is refused

#[tokio::test]
async fn an_unknown_run_is_no_such_run_however_dataworks_says_it() {
    let story = Story::begin().await;
    let unknown: RunId = "00000000-0000-4000-8000-000000000000".parse().unwrap();
    assert_eq!(label(story.get(&unknown).await), "no_such_run");
    assert_eq!(label(story.client.items(&workspace(), &unknown).await), "no_such_run");
    story.world.set_quirks(Quirks { null_for_unknown_run: true, ..Quirks::default() });
    assert_eq!(label(story.get(&unknown).await), "no_such_run");
    let id = story.world.add_run(PROJECT, RunSpec::online("orders"));
    story.world.remove_run(PROJECT, &id).unwrap();
    assert_eq!(label(story.get(&id).await), "no_such_run", "a run that was removed");
}

#[tokio::test]
async fn a_workspace_one_is_no_member_of_is_a_matter_of_permission() {
    let story = Story::begin().await;
    let error = story.client.list(&Workspace { project_id: 99, ..workspace() }, 1).await.unwrap_err();
    assert_eq!(error.kind.label(), "permission");
    assert!(error.to_string().contains("Visitor"), "it must say what to do: {error}");
}

#[tokio::test]
async fn wrong_credentials_say_which_setting_to_check() {
    let story = Story::begin().await;
    for (key, secret, words) in [("LTAI-other", SECRET, "access_key_id"), (KEY, "another secret", "access_key_secret")]
    {
        let error = story.client_with(key, secret, None).list(&workspace(), 1).await.unwrap_err();
        assert_eq!(error.kind.label(), "credentials", "{error}");
        assert!(error.to_string().contains(words), "{words} is missing in: {error}");
        assert!(error.request_id.is_some(), "the vendor's support asks for the RequestId");
    }
}

#[tokio::test]
async fn temporary_credentials_work_until_they_expire() {
    let story = Story::in_world(World::new(KEY, SECRET).with_security_token(TOKEN)).await;
    let sts = story.client_with(KEY, SECRET, Some(TOKEN));
    assert_eq!(label(sts.list(&workspace(), 1).await), "ok");
    let error = story.list().await.unwrap_err();
    assert!(error.to_string().contains("security_token"), "a temporary key without its token: {error}");
    let error = story.client_with(KEY, SECRET, Some("other")).list(&workspace(), 1).await.unwrap_err();
    assert!(error.to_string().contains("security_token"), "another key's token: {error}");
    story.world.expire_security_token();
    let error = sts.list(&workspace(), 1).await.unwrap_err();
    assert!(error.to_string().contains("STS"), "{error}");
    assert!(!error.to_string().contains(TOKEN), "the token is in the error");
}

#[tokio::test]
async fn a_clock_more_than_15_minutes_off_is_named_as_the_cause() {
    let world = World::new(KEY, SECRET).with_clock(|| at("2026-11-24T08:00:00Z"));
    let story = Story::in_world(world).await;
    let dated = |clock| story.client_with(KEY, SECRET, None).with_clock(clock);
    assert_eq!(label(dated(|| at("2026-11-24T07:45:00.5Z")).list(&workspace(), 1).await), "ok");
    for clock in [|| at("2026-11-24T08:15:01Z"), || at("2026-11-24T07:44:59Z")] {
        let error = dated(clock).list(&workspace(), 1).await.unwrap_err();
        assert!(error.to_string().contains("clock"), "{error}");
    }
}

#[tokio::test]
async fn every_refusal_reaches_whoever_must_react() {
    let story = Story::begin().await;
    for (fault, expected) in [
        (Fault::throttled(), "throttled"),
        (Fault::throttled_by_number(), "throttled"),
        (Fault::refusal(200, "9990020002", "Throttling.User"), "throttled"),
        (Fault::quota_gone(), "quota_gone"),
        (Fault::refusal(429, "Throttling.Resource", "upgrade"), "throttled"),
        (Fault::internal_error(), "transient"),
        (Fault::body(502, "text/html", "<html>Bad Gateway</html>"), "transient"),
        (Fault::body(503, "text/plain", ""), "transient"),
        (Fault::refusal(403, "Forbidden.RAM", "not authorized"), "permission"),
        (Fault::refusal(400, "9990010001", "not activated"), "permission"),
        (Fault::refusal(400, "InvalidTimeStamp.Expired", "expired"), "credentials"),
        (Fault::garbage(), "broken"),
        (Fault::body(200, "application/json", ""), "broken"),
        (Fault::body(200, "application/json", "[]"), "broken"),
        (Fault::body(200, "application/json", r#"{"RequestId":"r"}"#), "broken"),
        (Fault::body(200, "application/json", r#"{"Success":false,"PagingInfo":{}}"#), "broken"),
        (Fault::body(200, "application/json", "[".repeat(1_000_000)), "broken"),
        (Fault::body(302, "text/html", ""), "broken"),
    ] {
        let error = story.failing_with(fault.clone()).await;
        assert_eq!(error.kind.label(), expected, "{fault:?} was told as {error}");
        assert!(error.to_string().chars().count() < 500, "{error}");
    }
    assert_eq!(label(story.list().await), "ok", "and nothing of it stays");
}

#[tokio::test]
async fn a_throttled_call_says_how_long_to_wait() {
    let story = Story::begin().await;
    for (fault, expected) in [
        (Fault::throttled(), None),
        (Fault::throttled_for(1_500), Some(Duration::from_millis(1_500))),
        (Fault::throttled_for(0), None),
        (Fault::throttled().with_header("retry-after", "7"), Some(Duration::from_secs(7))),
        (Fault::throttled_for(10_000_000), Some(Duration::from_secs(120))),
    ] {
        let error = story.failing_with(fault.clone()).await;
        let SourceErrorKind::Throttled { after, .. } = error.kind else { panic!("{error:?}") };
        assert_eq!(after, expected, "{fault:?}");
    }
}

#[tokio::test]
async fn the_budget_of_a_second_and_of_a_day_is_kept_by_the_worlds_own_time() {
    let world = World::new(KEY, SECRET).starting_at(at("2026-11-24T08:00:00Z")).with_budget(Some(2), Some(5));
    let story = Story::in_world(world).await;
    let mut outcomes = Vec::new();
    for wait in [0, 0, 0, 1, 1, 1, 24 * 3_600] {
        story.world.step(Duration::from_secs(wait));
        outcomes.push(label(story.list().await));
    }
    assert_eq!(outcomes, ["ok", "ok", "throttled", "ok", "ok", "quota_gone", "ok"], "refused calls count too");
    assert_eq!(story.world.refusals(), ["Throttling.User", "Throttling.Api.Risk"]);
}

// ------------------------------------------------------------------------------------------- the network fails

#[tokio::test]
async fn a_server_that_never_answers_costs_one_deadline() {
    let story = Story::begin().await;
    story.world.break_down(Fault::Hang);
    let client = story.client_with(KEY, SECRET, None).with_deadline(Duration::from_millis(50));
    let error = client.list(&workspace(), 1).await.unwrap_err();
    assert_eq!(error.kind, SourceErrorKind::Transient { said: "no answer within 0.05 s".into() });
    story.world.recover();
    assert_eq!(label(story.list().await), "ok");
}

#[tokio::test]
async fn the_simulated_dataworks_ends_when_told_though_a_request_hangs() {
    let world = World::new(KEY, SECRET);
    world.add_workspace(PROJECT);
    world.break_down(Fault::Hang);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client(&format!("http://{}", listener.local_addr().unwrap()), KEY, SECRET, None);
    let stop = CancellationToken::new();
    let served = tokio::spawn(serve(world.clone(), listener, stop.clone()));
    let listing = tokio::spawn(async move { client.list(&workspace(), 1).await });
    world.wait_for_calls(1).await;
    stop.cancel();
    served.await.unwrap().unwrap();
    assert_eq!(label(listing.await.unwrap()), "transient");
}

#[tokio::test]
async fn an_answer_that_breaks_off_or_never_ends_is_not_taken_for_one() {
    let story = Story::begin().await;
    assert_eq!(story.failing_with(Fault::BreakOff).await.kind.label(), "transient");
    let endless = format!(r#"{{"PagingInfo":{{"PipelineRuns":[]}},"x":"{}"}}"#, "x".repeat(4 * 1024 * 1024));
    let error = story.failing_with(Fault::body(200, "application/json", endless)).await;
    assert_eq!(error.kind.label(), "broken", "{error}");
}

#[tokio::test]
async fn nobody_at_the_other_end_is_told_without_the_address() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = client(&format!("http://{address}"), KEY, SECRET, None).list(&workspace(), 1).await.unwrap_err();
    assert_eq!(error.kind.label(), "transient");
    let said = error.to_string();
    assert!(said.contains("no connection") && !said.contains("http") && !said.contains("Signature"), "{said}");
}

#[tokio::test]
async fn each_try_is_one_request_and_is_signed_anew() {
    let story = Story::begin().await;
    story.world.inject(Fault::internal_error(), 2);
    let mut outcomes = Vec::new();
    for _ in 0..3 {
        outcomes.push(label(story.list().await));
    }
    assert_eq!(outcomes, ["transient", "transient", "ok"]);
    assert_eq!(story.world.total_calls(), 3, "the client must not retry by itself");
    assert_eq!(story.world.refusals(), [""; 0], "no nonce was used twice");
}

#[tokio::test]
async fn no_secret_and_no_address_reaches_an_error() {
    let story = Story::in_world(World::new(KEY, SECRET).with_security_token(TOKEN)).await;
    let client = story.client_with(KEY, SECRET, Some(TOKEN));
    let echo = format!("you sent {SECRET} and {TOKEN} to {}/?x=1", story.endpoint);
    for fault in [
        Fault::refusal(400, "SignatureDoesNotMatch", &echo),
        Fault::refusal(400, "InvalidParameter", &echo),
        Fault::refusal(429, "Throttling.User", &echo),
        Fault::refusal(500, &echo, ""),
        Fault::body(200, "text/plain", echo.clone()),
        // Cut in the middle of the secret.
        Fault::body(500, "text/plain", format!("{}{SECRET}", "x".repeat(190))),
    ] {
        story.world.inject(fault.clone(), 1);
        let error = client.list(&workspace(), 1).await.unwrap_err();
        let shown = format!("{error} {error:?}");
        for hidden in [SECRET, TOKEN, "127.0.0.1", "simulated-a"] {
            assert!(!shown.contains(hidden), "{hidden} is in the error of {fault:?}: {shown}");
        }
    }
}

// ---------------------------------------------------------------------------- the simulated DataWorks is strict

/// Sends a request made by hand; `change` may spoil it after signing. Returns the code of the answer, `ok` if none.
async fn send_by_hand(
    story: &Story,
    method: &str,
    action: &str,
    nonce: &str,
    query: &[(&str, &str)],
    change: impl FnOnce(&mut reqwest::Request),
) -> String {
    let host = story.endpoint.trim_start_matches("http://");
    let date = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let headers = [
        ("x-acs-action", action),
        ("x-acs-version", "2024-05-18"),
        ("x-acs-date", &date),
        ("x-acs-signature-nonce", nonce),
    ];
    let unsigned = acs3::Unsigned { method, host, path: "/", query, headers: &headers, body: b"" };
    let signed = acs3::sign(&unsigned, KEY, SECRET);
    let url = format!("{}/?{}", story.endpoint, signed.canonical_query);
    let mut request = http()
        .request(method.parse().unwrap(), url)
        .header("accept", "application/json")
        .header(acs3::CONTENT_SHA256, &signed.payload_sha256)
        .header("authorization", &signed.authorization);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let mut request = request.build().unwrap();
    change(&mut request);
    let body = http().execute(request).await.unwrap().text().await.unwrap();
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    body["Code"].as_str().unwrap_or("ok").to_owned()
}

const LIST: [(&str, &str); 3] = [("PageNumber", "1"), ("PageSize", "100"), ("ProjectId", "10000")];

fn nonce(n: u32) -> String {
    format!("{n:032x}")
}

#[tokio::test]
async fn a_request_sent_twice_is_refused_the_second_time() {
    let story = Story::begin().await;
    let send = || send_by_hand(&story, "GET", "ListPipelineRuns", "3156853299f313e23d1673dc12e1703d", &LIST, |_| {});
    assert_eq!((send().await.as_str(), send().await.as_str()), ("ok", "SignatureNonceUsed"));
}

#[tokio::test]
async fn what_the_api_does_not_take_is_refused() {
    let story = Story::begin().await;
    let sized = [("PageNumber", "1"), ("PageSize", "101"), ("ProjectId", "10000")];
    let extra = [("Action", "x"), ("PageNumber", "1"), ("PageSize", "100"), ("ProjectId", "10000")];
    type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str);
    let cases: [Case<'_>; 6] = [
        ("POST", "ListPipelineRuns", &LIST, "UnsupportedHTTPMethod"),
        ("GET", "CreatePipelineRun", &LIST, "InvalidAction.NotFound"),
        ("GET", "ListPipelineRuns", &sized, "InvalidParameter"),
        ("GET", "ListPipelineRuns", &LIST[..2], "MissingParameter"),
        ("GET", "ListPipelineRuns", &extra, "InvalidParameter"),
        ("GET", "GetPipelineRun", &[("ProjectId", "10000")], "MissingParameter"),
    ];
    for (n, (method, action, query, code)) in (1..).zip(cases) {
        assert_eq!(send_by_hand(&story, method, action, &nonce(n), query, |_| {}).await, code, "{action} {query:?}");
    }
}

#[tokio::test]
async fn a_request_spoiled_after_signing_is_refused() {
    let story = Story::begin().await;
    let send = |n, change: fn(&mut reqwest::Request)| {
        let story = &story;
        async move { send_by_hand(story, "GET", "ListPipelineRuns", &nonce(n), &LIST, change).await }
    };
    assert_eq!(send(1, |r| set(r, "x-acs-extra", "unsigned")).await, "SignatureDoesNotMatch");
    assert_eq!(
        send(2, |r| r.url_mut().set_query(Some("PageNumber=2&PageSize=100&ProjectId=10000"))).await,
        "SignatureDoesNotMatch"
    );
    assert_eq!(
        send(3, |r| r.url_mut().set_query(Some("ProjectId=10000&PageNumber=1&PageSize=100"))).await,
        "SignatureDoesNotMatch"
    );
    assert_eq!(send(4, |r| *r.body_mut() = Some("{}".into())).await, "InvalidParameter");
    assert_eq!(send(5, |r| set(r, "host", "elsewhere.example")).await, "SignatureDoesNotMatch");
    assert_eq!(send(6, |r| set(r, "x-acs-version", "2020-05-18")).await, "InvalidVersion");
    assert_eq!(send(7, |_| {}).await, "ok");
}

fn set(request: &mut reqwest::Request, name: &'static str, value: &'static str) {
    request.headers_mut().insert(name, value.parse().unwrap());
}

#[test]
fn the_client_knows_no_call_that_changes_anything() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sources/dataworks");
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for call in ["CreatePipelineRun", "ExecPipelineRunStage", "AbolishPipelineRun", ".post(", ".put(", ".delete("] {
            assert!(!text.contains(call), "{} names {call}", path.display());
        }
    }
    assert_eq!(Action::ALL.map(Action::name), ["ListPipelineRuns", "GetPipelineRun", "ListPipelineRunItems"]);
}
