//! The real program, as a person starts it: what each command says and how it ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use callboard::demo::dataworks::{RunSpec, World, serve};
use callboard::model::{self, Change, ChangeKind, Destination, RunId, Snapshot, Status, Timestamp, Workspace};
use callboard::{diff, store};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::sink::{Answer, Sink};

const PROJECT: i64 = 10_000;

/// Longer than anything here takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(20);

// ------------------------------------------------------------------------------------------------- the program

#[derive(Debug)]
struct Ran {
    status: Option<i32>,
    out: String,
    err: String,
}

fn program(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_callboard"));
    command
        .args(args)
        .env_clear()
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs to the end, with `typed` on standard input and then its end.
fn callboard_reading(folder: &Path, args: &[&str], typed: &str) -> Ran {
    let mut child = program(folder, args).spawn().unwrap();
    // A program that reads nothing may be gone already.
    let _ = child.stdin.take().unwrap().write_all(typed.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { status: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

fn callboard(folder: &Path, args: &[&str]) -> Ran {
    callboard_reading(folder, args, "")
}

fn nowhere() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// What a command said, as a transcript.
fn told(args: &[&str], ran: &Ran) -> String {
    let mut text = format!("$ callboard {}\n{}", args.join(" "), ran.out);
    for line in ran.err.lines() {
        text.push_str(&format!("! {line}\n"));
    }
    text + &format!("exit {}\n\n", ran.status.map_or("by a signal".to_owned(), |status| status.to_string()))
}

/// Ids, moments and ports differ from one time to the next.
fn redacted(text: &str) -> String {
    let mut result = String::new();
    let mut word = String::new();
    for c in text.chars().chain(['\0']) {
        if c.is_ascii_alphanumeric() || matches!(c, '-' | ':' | '.') {
            word.push(c);
            continue;
        }
        // A colon may end a clause.
        let inner = word.trim_end_matches(':');
        result.push_str(&redacted_word(inner));
        result.push_str(word.strip_prefix(inner).unwrap_or_default());
        word.clear();
        if c != '\0' {
            result.push(c);
        }
    }
    result
}

fn redacted_word(word: &str) -> String {
    let groups: Vec<usize> = word.split('-').map(str::len).collect();
    let is_id = groups == [8, 4, 4, 4, 12] && word.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    let is_moment = word.len() >= 20 && word.ends_with('Z') && word.as_bytes().get(10) == Some(&b'T');
    match word.rsplit_once(':') {
        _ if is_id => format!("[id{}]", "-".repeat(32)),
        _ if is_moment && word.len() == 20 => "[moment------------]".to_owned(),
        _ if is_moment => "[moment]".to_owned(),
        Some(("127.0.0.1", _)) => "127.0.0.1:[port]".to_owned(),
        _ => word.to_owned(),
    }
}

/// Waits for another process; only how long is bounded by the clock.
async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("{what} did not happen"))
}

// --------------------------------------------------------------------------------------------------- its world

struct Stage {
    folder: tempfile::TempDir,
    world: World,
    sink: Sink,
    api: String,
    _ends: tokio_util::sync::DropGuard,
}

impl Stage {
    async fn set() -> Stage {
        let stop = CancellationToken::new();
        let world = World::new("id", "secret");
        world.add_workspace(PROJECT);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(serve(world.clone(), listener, stop.clone()));
        Stage { folder: nowhere(), world, sink: Sink::start().await, api, _ends: stop.drop_guard() }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// `more` are further sections.
    fn configure(&self, more: &str) {
        let api = &self.api;
        let text = format!(
            r#"
[server]
listen = "127.0.0.1:0"
[store]
url = "sqlite:callboard.db"
[dataworks]
endpoint = "{api}"
credentials = {{ access_key_id = "id", access_key_secret = "secret" }}
poll = {{ fastest = "500ms", slowest = "500ms" }}
budget = {{ calls_per_second = 50.0, calls_per_day = 10000000 }}
[[workspaces]]
name = "warehouse"
region = "cn-shanghai"
project_id = {PROJECT}
[network]
allow_private = ["127.0.0.0/8"]
{more}
"#
        );
        let config = self.path().join("config");
        std::fs::create_dir_all(&config).unwrap();
        std::fs::write(config.join("callboard.toml"), text).unwrap();
    }

    fn callboard(&self, args: &[&str]) -> Ran {
        callboard(self.path(), args)
    }

    /// Runs a command that must do its work, and gives its JSON.
    fn json(&self, args: &[&str]) -> Value {
        let ran = self.callboard(args);
        assert_eq!(ran.status, Some(0), "{args:?}: {ran:?}");
        serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{args:?} prints no JSON: {error}\n{}", ran.out))
    }
}

/// A program that goes on until it is told to stop.
struct Going {
    child: Child,
    out: Arc<Mutex<String>>,
    err: Arc<Mutex<String>>,
}

impl Going {
    fn start(folder: &Path, args: &[&str]) -> Going {
        let mut child = program(folder, args).spawn().unwrap();
        let out = collected(child.stdout.take().unwrap());
        let err = collected(child.stderr.take().unwrap());
        Going { child, out, err }
    }

    fn out(&self) -> String {
        self.out.lock().unwrap().clone()
    }

    fn err(&self) -> String {
        self.err.lock().unwrap().clone()
    }

    async fn says(&self, text: &str) {
        eventually(&format!("that it says {text:?}"), || (self.out() + &self.err()).contains(text).then_some(())).await;
    }

    /// Ctrl-C.
    async fn interrupt(&mut self) -> Option<i32> {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
        let status = eventually("the end after Ctrl-C", || self.child.try_wait().unwrap()).await;
        status.code()
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collected(pipe: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let kept = Arc::clone(&text);
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            kept.lock().unwrap().push_str(&(line + "\n"));
        }
    });
    text
}

// ----------------------------------------------------------------------------------------------- help and misuse

#[test]
fn every_command_has_a_help() {
    let folder = nowhere();
    let all = [
        &[][..],
        &["run"],
        &["demo"],
        &["check"],
        &["render"],
        &["send"],
        &["subscriptions"],
        &["subscriptions", "add"],
        &["subscriptions", "import"],
        &["subscriptions", "diff"],
        &["deliveries"],
        &["deliveries", "list"],
        &["deliveries", "retry"],
        &["simulate"],
        &["completions"],
        &["schema"],
    ];
    let mut transcript = String::new();
    for command in all {
        let args: Vec<&str> = command.iter().copied().chain(["--help"]).collect();
        let ran = callboard(folder.path(), &args);
        assert_eq!((ran.status, ran.err.as_str()), (Some(0), ""), "{args:?}");
        transcript.push_str(&told(&args, &ran));
    }
    insta::assert_snapshot!("help", transcript);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_use_ends_with_2_and_says_what_would_be_right() {
    let stage = Stage::set().await;
    stage.configure("[channels.hook]\nkind = \"webhook\"\nurl = \"https://example.com/hook\"\n");
    let mut transcript = String::new();
    for args in [
        &["demo", "--for", "soon"][..],
        &["simulate", "--port", "0", "--listen", "127.0.0.1:0"],
        &["render", "stage-fial"],
        &["render", "nonsense"],
        &["render", "waiting", "--channel", "teams"],
        &["render", "waiting", "--channel", "hook"],
        &["render", "waiting", "--channel", "team"],
        &["render", "waiting", "--locale", "de"],
        &["render", "waiting", "--timezone", "Mars/Base"],
        &["render", "waiting", "--template", "relase"],
        &["render", "waiting", "--config", "nowhere.toml"],
        &["send", "hok"],
        &["subscriptions", "add", "--workspace", "warehose", "--to", "hook"],
        &["subscriptions", "add", "--workspace", "warehouse", "--to", "hok"],
        &["subscriptions", "add", "--workspace", "warehouse", "--to", "discord:5"],
        &["subscriptions", "add", "--workspace", "warehouse", "--to", "hook", "--on", "stag"],
        &["subscriptions", "add", "--workspace", "warehouse", "--to", "hook", "--template", "relase"],
        &["subscriptions", "remove", "config:1"],
        &["deliveries", "list", "--state", "lost"],
        &["deliveries", "list", "--run", "a b"],
        &["deliveries", "retry"],
        &["deliveries", "retry", "5", "--to", "hook"],
        &["deliveries", "retry", "--to", "hok"],
        &["completions", "cmd"],
        &["run", "--config", "nowhere.toml"],
        &["send", "hook", "--config", "nowhere.toml"],
    ] {
        let ran = stage.callboard(args);
        assert_eq!((ran.status, ran.out.as_str()), (Some(2), ""), "{args:?}: {}", ran.err);
        transcript.push_str(&told(args, &ran));
    }
    insta::assert_snapshot!("wrong-use", transcript);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_done_ends_with_1() {
    let stage = Stage::set().await;
    stage.configure("[channels.here]\nkind = \"console\"\n");
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let address = format!("127.0.0.1:{port}");
    let mut transcript = String::new();
    let unknown = "00000000-0000-0000-0000-000000000000";
    for args in [
        &["demo", "--port", &port][..],
        &["simulate", "--listen", &address],
        &["simulate", "--port", &port],
        &["deliveries", "show", "5"],
        &["deliveries", "retry", "5"],
        &["subscriptions", "remove", "5"],
        &["subscriptions", "import", "nowhere.json"],
        &["subscriptions", "add", "--workspace", "warehouse", "--run", unknown, "--to", "here"],
    ] {
        let ran = stage.callboard(args);
        assert_eq!(ran.out, "", "{args:?}");
        transcript.push_str(&redacted(&told(args, &ran).replace(&port, "[port]")));
    }
    insta::assert_snapshot!("failures", transcript);
}

// ------------------------------------------------------------------------------------------------------- render

#[test]
fn a_message_shows_as_each_channel_would_post_it_without_any_configuration() {
    let folder = nowhere();
    let mut transcript = String::new();
    for args in [
        &["render", "stage-fail"][..],
        &["render", "waiting", "--locale", "zh-CN", "--timezone", "Asia/Shanghai"],
        &["render", "finished-success", "--template", "release", "--channel", "slack-webhook"],
        &["render", "stage-fail", "--channel", "webhook"],
        &["render", "stage-fail", "--channel", "discord-webhook", "--json"],
        &["render", "stage-fail", "--channel", "slack-webhook", "--json"],
        &["render", "stage-fail", "--channel", "dingtalk", "--json"],
        &["render", "stage-fail", "--json"],
        &["render", "digest", "--channel", "discord"],
        &["render", "catch-up"],
        &["render", "notice"],
    ] {
        let ran = callboard(folder.path(), args);
        assert_eq!((ran.status, ran.err.as_str()), (Some(0), ""), "{args:?}");
        transcript.push_str(&told(args, &ran));
    }
    insta::assert_snapshot!("render", transcript);
}

// -------------------------------------------------------------------------------------------------------- check

#[tokio::test(flavor = "multi_thread")]
async fn check_online_tells_what_each_answer_proves_and_posts_nothing() {
    let stage = Stage::set().await;
    let (discord, hook) = (stage.sink.discord_webhook("1"), stage.sink.webhook("good", None));
    let bot = stage.sink.discord_bot("77", "right-token");
    let more = |token: &str| {
        format!(
            "[channels.team]\nkind = \"discord-webhook\"\nurl = \"{discord}\"\n\
             [channels.audit]\nkind = \"webhook\"\nurl = \"{hook}\"\n\
             [channels.here]\nkind = \"console\"\n\
             [discord]\ntoken = \"{token}\"\napi = \"{bot}\"\n"
        )
    };
    stage.configure(&more("right-token"));
    let args = &["check", "--online"];
    let fine = stage.callboard(args);
    assert_eq!((fine.status, fine.err.as_str()), (Some(0), ""), "{}", fine.out);

    stage.configure(&more("wrong-token").replace("/webhooks/1/", "/webhooks/2/"));
    let bad = stage.callboard(args);
    assert_eq!((bad.status, bad.err.as_str()), (Some(1), ""), "{}", bad.out);
    insta::assert_snapshot!("check-online", told(args, &fine) + &told(args, &bad));
    assert!(!bad.out.contains("wrong-token"), "the token is shown: {}", bad.out);

    let told = stage.callboard(&["check", "--online", "--json"]);
    let json: Value = serde_json::from_str(&told.out).unwrap();
    assert_eq!((told.status, &json["ok"], json["online"].as_array().unwrap().len()), (Some(1), &Value::Bool(false), 5));
    assert_eq!(stage.sink.accepted().len(), 0, "a check posted something");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_tells_broken_templates_and_unknown_sets_with_all_the_rest() {
    let stage = Stage::set().await;
    let templates = stage.path().join("wording");
    std::fs::create_dir(&templates).unwrap();
    std::fs::write(templates.join("stage.hbs"), "{{nonsense}}\n\nbody\n").unwrap();
    stage.configure(
        "[channels.far]\nkind = \"webhook\"\nurl = \"https://10.0.0.1/hook\"\n\
         [[subscriptions]]\nworkspace = \"warehouse\"\nchannels = [\"far\"]\non = [\"stage\"]\ntemplate = \"relase\"\n\
         [templates]\nfolder = \"wording\"\n",
    );
    let args = &["check", "--online"];
    let ran = stage.callboard(args);
    assert_eq!((ran.status, ran.err.as_str()), (Some(2), ""), "{}", ran.out);
    insta::assert_snapshot!("check-templates", told(args, &ran));
    assert_eq!(stage.world.total_calls(), 0, "a wrong configuration must not be tried");
}

// --------------------------------------------------------------------------------------------------------- send

#[tokio::test(flavor = "multi_thread")]
async fn send_posts_a_test_message_and_says_how_it_went() {
    let stage = Stage::set().await;
    let url = stage.sink.discord_webhook("1");
    stage.configure(&format!(
        "[channels.team]\nkind = \"discord-webhook\"\nurl = \"{url}\"\n[channels.here]\nkind = \"console\"\n"
    ));
    let took = stage.callboard(&["send", "team"]);
    assert_eq!((took.status, took.out.as_str()), (Some(0), "team took the test message\n"), "{}", took.err);
    let accepted = stage.sink.accepted();
    assert!(accepted[0].json().to_string().contains("Callboard test message"), "{accepted:?}");
    assert_eq!(stage.sink.complaints(), Vec::<String>::new());

    stage.sink.answer(&url, [Answer::status(404), Answer::status(503), Answer::Drop]);
    let mut transcript = String::new();
    for _ in 0..3 {
        let ran = stage.callboard(&["send", "team"]);
        assert_eq!((ran.status, ran.out.as_str()), (Some(1), ""));
        transcript.push_str(&told(&["send", "team"], &ran));
    }
    insta::assert_snapshot!("send", transcript);
    let here = stage.callboard(&["send", "here"]);
    assert!(here.status == Some(0) && here.out.contains("nothing is released"), "{here:?}");
}

#[test]
fn who_follows_nothing_needs_no_workspace_and_only_its_own_secrets() {
    let folder = nowhere();
    std::fs::create_dir(folder.path().join("config")).unwrap();
    let text = "[channels.here]\nkind = \"console\"\n\
                [channels.far]\nkind = \"webhook\"\nurl = { env = \"FAR_URL\" }\n";
    std::fs::write(folder.path().join("config/callboard.toml"), text).unwrap();
    let sent = callboard(folder.path(), &["send", "here"]);
    assert_eq!((sent.status, sent.err.as_str()), (Some(0), ""), "{sent:?}");
    let far = callboard(folder.path(), &["send", "far"]);
    assert_eq!((far.status, far.out.as_str()), (Some(2), ""), "{far:?}");
    assert!(far.err.contains("channels.far.url: ") && far.err.contains("FAR_URL"), "{}", far.err);
    for args in [&["deliveries", "list"][..], &["subscriptions", "list"], &["subscriptions", "export"]] {
        let ran = callboard(folder.path(), args);
        assert_eq!((ran.status, ran.err.as_str()), (Some(0), ""), "{args:?}");
    }
    for args in [&["check"][..], &["run"]] {
        let ran = callboard(folder.path(), args);
        assert_eq!(ran.status, Some(2), "{args:?}");
        assert!((ran.out + &ran.err).contains("no workspace is given"), "{args:?}");
    }
}

// -------------------------------------------------------------------------- subscriptions and deliveries, beside run

/// A finished run whose texts are all `text`, owed to the channel `audit` since `at`, and the id of that delivery.
fn owed_since(at: Timestamp, text: &str) -> (store::Poll, String) {
    let place = model::Stage {
        code: text.into(),
        name: text.into(),
        step: 1,
        kind: "Check".into(),
        status: Status::Fail,
        message: text.into(),
    };
    let run = Snapshot {
        id: "7b1e04c2-20ec-4a7c-a214-54020f910000".parse().unwrap(),
        description: text.into(),
        creator: text.into(),
        status: Status::Unknown(text.into()),
        message: text.into(),
        created_at: None,
        modified_at: None,
        stages: vec![place],
    };
    let change = Change {
        workspace: Workspace { name: "warehouse".into(), region: "cn-shanghai".into(), project_id: PROJECT },
        run: run.clone(),
        url: String::new(),
        sequence: 1,
        at,
        unseen_since: None,
        kind: ChangeKind::Finished { from: Status::Running, to: Status::Unknown(text.into()), took_ms: None },
    };
    let owed = store::NewDelivery {
        id: uuid::Uuid::now_v7(),
        run: run.id.clone(),
        sequence: 1,
        to: Destination::from("audit".to_owned()),
        template: None,
        subscriptions: vec!["a subscription".into()],
        urgent: true,
        missed: false,
        at,
    };
    let poll = store::Poll {
        key: change.workspace.key(),
        workspace: Some(store::WorkspaceState {
            key: change.workspace.key(),
            baseline_at: at,
            horizon: None,
            seen_at: None,
        }),
        runs: vec![diff::baseline(run, at)],
        changes: vec![change],
        deliveries: vec![owed.clone()],
        begun: Vec::new(),
        ended: vec![],
        forgotten: vec![],
    };
    (poll, owed.id.to_string())
}

#[tokio::test]
async fn what_strangers_wrote_does_not_act_on_the_operators_terminal() {
    const HOSTILE: &str = "\u{1b}]0;owned\u{7}\u{1b}[2Jorders\u{202e} v12\r\nID";
    let stage = Stage::set().await;
    stage.configure("[channels.audit]\nkind = \"webhook\"\nurl = \"https://example.org/hook\"\n");
    let settings = store::Settings::of(format!("sqlite:{}", stage.path().join("callboard.db").display()));
    let store = store::open(&settings, store::Role::Owner).await.unwrap();
    // Late, even for what somebody has to act on.
    let at = Timestamp::now() - Duration::from_secs(7 * 3600);
    let (poll, id) = owed_since(at, HOSTILE);
    assert_eq!(store.record(&poll).await.unwrap(), store::Recorded::Done);
    let (destination, reason) = (Destination::from("chat".to_owned()), HOSTILE.to_owned());
    let notice = model::Notice { at, kind: model::NoticeKind::DestinationDead { destination, reason } };
    let to = vec![(uuid::Uuid::now_v7(), Destination::from("audit".to_owned()))];
    let told_of = to[0].0.to_string();
    assert!(store.announce(&store::Announcement { notice, to }).await.unwrap());
    drop(store);

    for (args, lines) in [
        (vec!["deliveries", "list", "--run", "7b1e04c2-20ec-4a7c-a214-54020f910000"], 2),
        (vec!["deliveries", "show", &id], 7),
    ] {
        let ran = stage.callboard(&args);
        assert_eq!(ran.status, Some(0), "{ran:?}");
        assert!(ran.out.contains("orders v12 ID"), "{args:?} lost what was said: {ran:?}");
        let acts = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
        assert!(!ran.out.contains(acts), "{args:?} lets a description act on the terminal: {:?}", ran.out);
        assert_eq!(ran.out.lines().count(), lines, "{args:?} lets a description write lines: {}", ran.out);
    }
    let listed = stage.callboard(&["deliveries", "list", "--limit", "1"]).out;
    assert!(listed.contains("  chat   destination.dead  it is due"), "a notice says what it is about: {listed}");
    // The end of an id is what a message that may be a repetition shows.
    let shown = stage.callboard(&["deliveries", "show", &told_of[28..]]).out;
    assert!(shown.contains("tells     the notice destination.dead about chat\n"), "{shown}");
    let retried = stage.callboard(&["deliveries", "retry", "--to", "audit"]);
    assert!(retried.out.contains("what is late by now comes in one message for each run"), "{retried:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_delivery_is_brought_back_beside_the_running_service() {
    let stage = Stage::set().await;
    let url = stage.sink.webhook("audit", None);
    stage.configure(&format!("[channels.audit]\nkind = \"webhook\"\nurl = \"{url}\"\n"));
    let run = stage.world.add_run(PROJECT, RunSpec::online("orders_daily v12"));
    let mut service = Going::start(stage.path(), &["run"]);
    // Nobody watches yet, so the next look would be long in coming: the subscription must bring it forward.
    tokio::time::timeout(PATIENCE, stage.world.wait_for_calls(1)).await.expect("the service polls");

    let id = run.to_string();
    let add = ["subscriptions", "add", "--workspace", "warehouse", "--run", &id, "--to", "audit"];
    let added = stage.callboard(&add);
    assert_eq!(added.status, Some(0), "{}", added.err);
    let again = stage.callboard(&add);
    assert!(again.status == Some(0) && again.out.ends_with("sends the same there already\n"), "{again:?}");
    let second = stage.callboard(&["run"]);
    assert!(second.status == Some(1) && second.err.contains("callboard: "), "two services on one store: {second:?}");
    // A poll that does not know of the subscription yet is refused by the store and computed again.
    stage.sink.answer(&url, [Answer::status(400)]);
    stage.world.advance(PROJECT, &run).unwrap();
    let list = ["deliveries", "list", "--state", "dead", "--json"];
    let dead = eventually("a dead delivery", || stage.json(&list)[0]["id"].as_str().map(str::to_owned)).await;

    let mut transcript = String::new();
    let mut tell = |args: &[&str], status: i32| {
        let ran = stage.callboard(args);
        assert_eq!(ran.status, Some(status), "{args:?}: {ran:?}");
        transcript
            .push_str(&redacted(&told(args, &ran)).replace(run.as_str(), "[run]").replace(run.short(), "[short]"));
    };
    tell(&["subscriptions", "list"], 0);
    tell(&["deliveries", "list"], 0);
    tell(&["deliveries", "show", &dead], 0);
    let shown = stage.callboard(&["deliveries", "show", &dead, "--json"]);
    let rendered = callboard_reading(stage.path(), &["render", "-", "--channel", "webhook"], &shown.out);
    assert!(rendered.out.contains("run.stage.changed") && rendered.out.contains(&id), "{rendered:?}");

    tell(&["deliveries", "retry", "dead"], 0);
    eventually("the message, once it is brought back", || (stage.sink.accepted().len() == 1).then_some(())).await;
    let delivered = ["deliveries", "list", "--state", "delivered", "--json"];
    eventually("that it is noted", || stage.json(&delivered)[0].is_object().then_some(())).await;
    tell(&["deliveries", "show", &dead], 0);
    tell(&["deliveries", "retry", &dead], 1);
    tell(&["deliveries", "discard", &dead], 1);
    tell(&["deliveries", "retry", "dead"], 0);

    stage.sink.answer(&url, [Answer::status(400)]);
    stage.world.advance(PROJECT, &run).unwrap();
    let dead = eventually("another one", || stage.json(&list)[0]["id"].as_str().map(str::to_owned)).await;
    tell(&["deliveries", "discard", &dead], 0);
    tell(&["deliveries", "show", &dead], 0);
    tell(&["deliveries", "list", "--state", "dead"], 0);
    insta::assert_snapshot!("deliveries", transcript);
    assert_eq!(service.interrupt().await, Some(0), "{}", service.err());
    assert_eq!(service.out(), "", "logs go to standard error");
    assert!(service.err().lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{}", service.err());
    assert_eq!(stage.sink.complaints(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_destination_is_brought_back_beside_the_running_service() {
    let stage = Stage::set().await;
    let url = stage.sink.webhook("audit", None);
    let standing = "[[subscriptions]]\nworkspace = \"warehouse\"\nchannels = [\"audit\"]\non = [\"stage\"]\n";
    let channel = |name: &str| format!("[channels.{name}]\nkind = \"webhook\"\nurl = \"{url}\"\n");
    stage.configure(&(channel("audit") + standing));
    let run = stage.world.add_run(PROJECT, RunSpec::online("orders_daily v12"));
    let mut service = Going::start(stage.path(), &["run"]);
    tokio::time::timeout(PATIENCE, stage.world.wait_for_calls(2)).await.expect("the service polls");
    stage.sink.answer(&url, [Answer::status(404)]);
    stage.world.advance(PROJECT, &run).unwrap();
    let list = ["deliveries", "list", "--json"];
    let is_dead = || {
        let id = stage.json(&list)[0]["id"].as_str()?.to_owned();
        let shown = stage.json(&["deliveries", "show", &id, "--json"]);
        // The newest may have come between the two looks.
        (shown["destination"]["state"] == "dead" && shown["state"] == "pending").then_some(id)
    };
    let first = eventually("that the destination is dead", is_dead).await;
    stage.world.advance(PROJECT, &run).unwrap();
    eventually("that more is owed to it", || (stage.json(&list).as_array()?.len() == 2).then_some(())).await;

    let mut transcript = String::new();
    let mut tell = |args: &[&str], status: i32| {
        let ran = stage.callboard(args);
        assert_eq!(ran.status, Some(status), "{args:?}: {ran:?}");
        transcript
            .push_str(&redacted(&told(args, &ran)).replace(run.as_str(), "[run]").replace(run.short(), "[short]"));
    };
    let second = stage.json(&list)[0]["id"].as_str().unwrap().to_owned();
    tell(&["deliveries", "list"], 0);
    tell(&["deliveries", "list", "--to", "audit", "--limit", "1"], 0);
    tell(&["deliveries", "list", "--to", "nobody"], 2);
    tell(&["deliveries", "show", "0"], 1);
    tell(&["deliveries", "show", &first], 0);
    tell(&["deliveries", "show", &second], 0);
    tell(&["deliveries", "retry", "dead"], 0);
    tell(&["deliveries", "retry", "--to", "audti"], 2);
    stage.configure(&channel("other"));
    tell(&["deliveries", "list", "--limit", "1"], 0);
    tell(&["deliveries", "show", &first], 0);
    tell(&["deliveries", "retry", "--to", "audit"], 1);
    stage.configure(&(channel("audit") + standing));
    tell(&["deliveries", "retry", "--to", "audit"], 0);
    let accepted = || (stage.sink.accepted().len() >= 2).then_some(());
    eventually("the messages, once their destination is back", accepted).await;
    let open =
        || (stage.json(&["deliveries", "list", "--state", "pending", "--json"]) == serde_json::json!([])).then_some(());
    eventually("that they are noted", open).await;
    tell(&["deliveries", "retry", "--to", "audit"], 0);
    tell(&["deliveries", "list"], 0);

    stage.sink.answer(&url, [Answer::status(404)]);
    stage.world.advance(PROJECT, &run).unwrap();
    let third = eventually("that it is dead again", is_dead).await;
    tell(&["deliveries", "retry", &third], 0);
    eventually("the third message", || (stage.sink.accepted().len() >= 3).then_some(())).await;
    insta::assert_snapshot!("destinations", transcript);
    assert_eq!(service.interrupt().await, Some(0), "{}", service.err());
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_are_carried_from_one_store_to_another() {
    let stage = Stage::set().await;
    stage.configure(
        "[channels.here]\nkind = \"console\"\n\
         [[subscriptions]]\nworkspace = \"warehouse\"\nchannels = [\"here\"]\non = [\"failed\"]\nstages = [\"PROD\"]\n",
    );
    let gone: RunId = stage.world.add_run(PROJECT, RunSpec::online("orders_daily v12"));
    let add = |more: &[&str]| {
        let args: Vec<&str> = ["subscriptions", "add", "--workspace", "warehouse", "--to", "here"]
            .into_iter()
            .chain(more.iter().copied())
            .collect();
        let ran = stage.callboard(&args);
        assert_eq!(ran.status, Some(0), "{args:?}: {}", ran.err);
        ran.out.split_once(' ').unwrap().0.to_owned()
    };
    let all = add(&["--on", "started,finished", "--creators", "1379463177660001", "--template", "release"]);
    add(&["--run", gone.as_str()]);
    let listed = stage.callboard(&["subscriptions", "list"]);
    let listed = redacted(&listed.out).replace(gone.as_str(), "[run]");
    insta::assert_snapshot!("subscriptions", listed);

    let exported = stage.callboard(&["subscriptions", "export"]);
    let other = Stage::set().await;
    other.configure("");
    let import = ["subscriptions", "import", "-"];
    let imported = callboard_reading(other.path(), &import, &exported.out);
    let said = format!("1 added, 0 existed, 1 left out because DataWorks knows no such run: {gone}\n");
    assert_eq!((imported.status, imported.out), (Some(0), said), "{}", imported.err);
    // Somebody edits the file: what differs is shown, and stays.
    let edited = exported.out.replace("\"started\"", "\"failed\"");
    let diff = ["subscriptions", "diff", "-"];
    let agreed = callboard_reading(stage.path(), &diff, &exported.out);
    assert_eq!((agreed.status, agreed.out.as_str()), (Some(0), "the file and the store agree\n"));
    let differs = callboard_reading(other.path(), &diff, &edited);
    assert_eq!(differs.status, Some(1), "{}", differs.err);
    insta::assert_snapshot!("subscriptions-diff", differs.out.replace(gone.as_str(), "[run]"));
    let kept = callboard_reading(other.path(), &import, &edited);
    assert!(kept.out.starts_with("0 added, 1 existed, 1 left out"), "{}", kept.out);
    assert!(kept.out.ends_with("1 of these ask for something else than the file and stay as they are: `callboard subscriptions diff` shows how\n"), "{}", kept.out);
    assert_eq!(callboard_reading(other.path(), &diff, &edited).out, differs.out, "nothing was changed");
    let removed = other.callboard(&["subscriptions", "remove", &all]);
    assert_eq!((removed.status, removed.out), (Some(0), format!("{all} removed\n")), "{}", removed.err);
    assert_eq!(other.json(&["subscriptions", "list", "--json"]), serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_asks_for_the_runs_its_store_does_not_know() {
    let stage = Stage::set().await;
    stage.configure("[channels.here]\nkind = \"console\"\n[channels.there]\nkind = \"console\"\n");
    let [going, ended] =
        ["orders_daily v12", "customer_profile v7"].map(|name| stage.world.add_run(PROJECT, RunSpec::online(name)));
    for (run, to) in [(&going, "here"), (&going, "there"), (&ended, "here")] {
        let added =
            stage.callboard(&["subscriptions", "add", "--workspace", "warehouse", "--run", run.as_str(), "--to", to]);
        assert_eq!(added.status, Some(0), "{added:?}");
    }
    std::fs::write(stage.path().join("kept.json"), stage.callboard(&["subscriptions", "export"]).out).unwrap();
    stage.world.finish(PROJECT, &ended).unwrap();
    let own = std::fs::read_to_string(stage.path().join("config/callboard.toml")).unwrap();
    let installed = |file: &str, text: String| std::fs::write(stage.path().join(file), text).unwrap();
    let new = own.replace("sqlite:callboard.db", "sqlite:new.db");
    installed("new.toml", new.clone());
    installed("wrong-key.toml", new.replace("= \"secret\"", "= \"another\""));
    installed("no-key.toml", new.replace("= \"secret\"", "= { env = \"NOT_SET\" }"));
    let import = |config: &str| {
        let ran = stage.callboard(&["subscriptions", "import", "kept.json", "--config", config]);
        (ran.status, ran.out, ran.err)
    };

    let (status, out, err) = import("no-key.toml");
    assert_eq!((status, out.as_str()), (Some(2), ""), "{err}");
    assert!(err.contains("dataworks.credentials.access_key_secret: ") && err.contains("NOT_SET"), "{err}");
    let before = stage.world.total_calls();
    let (status, out, err) = import("wrong-key.toml");
    assert_eq!((status, out.as_str()), (Some(1), "0 added, 0 existed\n"), "{err}");
    assert!(err.contains(going.as_str()) && err.contains(ended.as_str()), "{err}");
    assert!(err.ends_with("3 subscriptions left out because of that; import the same file again later\n"), "{err}");
    assert!(stage.world.total_calls() <= before + 1, "a wrong key was tried again and again");

    let said = "2 added, 0 existed, 1 left out because their run has ended\n";
    assert_eq!(import("new.toml"), (Some(0), said.to_owned(), String::new()));
    let said = "0 added, 2 existed, 1 left out because their run has ended\n";
    assert_eq!(import("new.toml"), (Some(0), said.to_owned(), String::new()));
}

// --------------------------------------------------------------------------------------------- simulate and demo

#[tokio::test(flavor = "multi_thread")]
async fn what_simulate_prints_is_a_configuration_that_follows_it() {
    let folder = nowhere();
    let mut simulated = Going::start(folder.path(), &["simulate", "--port", "0"]);
    simulated.says("allow_private").await;
    std::fs::write(folder.path().join("simulated.toml"), simulated.out()).unwrap();
    let args = ["check", "--online", "--config", "simulated.toml"];
    let checked = callboard(folder.path(), &args);
    assert_eq!(checked.status, Some(0), "{checked:?}");
    let transcript = redacted(&(simulated.out() + "\n" + &told(&args, &checked)));
    insta::assert_snapshot!("simulate", transcript);
    assert_eq!((simulated.interrupt().await, simulated.err()), (Some(0), String::new()));
}

#[test]
fn the_demo_answers_what_is_typed_posts_messages_and_ends_by_itself() {
    let folder = nowhere();
    let ran = callboard_reading(folder.path(), &["demo", "--for", "4s"], "/watch 3f9a51d0\n/runs\n");
    assert_eq!((ran.status, ran.err.as_str()), (Some(0), ""), "{}", ran.out);
    assert!(!ran.out.contains('\u{1b}'), "colours in a pipe: {}", ran.out);
    let welcome: String = ran.out.lines().take(12).map(|line| format!("{line}\n")).collect();
    insta::assert_snapshot!("demo-welcome", redacted(&welcome));
    for expected in [
        "> /watch 7b1e04c2\nWatching orders_daily v12 in warehouse (7b1e04c2)",
        "Watching customer_profile v7 in warehouse (3f9a51d0)",
        "finance_report v3: stage 1 of 3",
        "✅ BUILD_PACKAGE passed · orders_daily v12",
        "The demo ran for ",
        " s and posted ",
    ] {
        assert!(ran.out.contains(expected), "{expected:?} is missing in\n{}", ran.out);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_and_exit_end_the_demo_at_once_and_well() {
    let folder = nowhere();
    let mut demo = Going::start(folder.path(), &["demo"]);
    demo.says("Watching orders_daily").await;
    assert_eq!(demo.interrupt().await, Some(0), "{}", demo.err());
    demo.says("To follow your own workspaces").await;
    assert_eq!(demo.err(), "");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the demo left something behind");

    let left = callboard_reading(folder.path(), &["demo"], "/help\nexit\n");
    assert!(left.status == Some(0) && left.out.contains("To follow your own workspaces"), "{left:?}");
}
