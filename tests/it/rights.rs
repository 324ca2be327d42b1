//! Who may do what: the whole matrix, rights that are taken away, floods, and what is written down of it all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use callboard::access;
use callboard::commands::CATALOG;
use callboard::demo::dataworks::RunSpec;
use callboard::model::{Asker, Decision, DeliveryState, Destination, Entry, Folding, Scope, Selector, Subscription};
use callboard::store::{self, AuditFilter, DeliveryFilter, Role, Subscribed};
use callboard::surfaces::NoAnswer;

use crate::bot::{Answer, Bot, PROJECT, Setup};

const FINANCE: i64 = PROJECT + 1;

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

/// Everybody in those rooms may watch in those workspaces.
fn open(rooms: &[&str], workspaces: &[&str]) -> access::Settings {
    access::Settings {
        surface: "discord".to_owned(),
        rooms: words(rooms),
        workspaces: words(workspaces),
        viewers: vec![],
        watchers: words(&["*"]),
        moderators: vec![],
        admins: vec![],
        channels: vec![],
    }
}

fn two_workspaces() -> Setup {
    Setup { workspaces: vec![("warehouse", PROJECT), ("finance", FINANCE)], ..Setup::with(&[]) }
}

fn asker(surface: &str, room: &str, user: &str, roles: &[&str]) -> Asker {
    Asker { surface: surface.to_owned(), room: room.to_owned(), user: user.to_owned(), roles: words(roles) }
}

/// The audit log, oldest first, without moments.
async fn log(bot: &Bot) -> Vec<String> {
    bot.keep_house().await;
    let log = audited(bot, 0).await;
    let end = log.rows.iter().try_fold(log.anchor, |link, row| link.follow(row)).unwrap();
    assert_eq!(end.ends_at(&log.head), Ok(()), "the log is not one chain");
    log.rows.iter().map(|row| line(&row.entry)).collect()
}

async fn audited(bot: &Bot, after: i64) -> store::Audited {
    let filter = AuditFilter { after: Some(after), limit: 100_000, ..AuditFilter::default() };
    bot.store().audited(&filter).await.unwrap()
}

fn line(entry: &Entry) -> String {
    let Entry { person, room, action, decision, reason, count, .. } = entry;
    let times = if *count > 1 { format!(" x{count}") } else { String::new() };
    format!("{person} {room} {action}: {} {reason}{times}", decision.as_str()).trim_end().to_owned()
}

async fn in_state(bot: &Bot, state: DeliveryState) -> Vec<callboard::store::DeliveryRow> {
    let filter = DeliveryFilter { state: Some(state), limit: 10_000, ..DeliveryFilter::default() };
    bot.store().deliveries(&filter).await.unwrap()
}

// ---------------------------------------------------------------------------------------------------------- the matrix

/// What each role reads in a room that knows of `warehouse` and not of `finance`. Written by hand, from the design.
///
/// `done`; `nothing`: no workspace is open to them; `role`: they may not; `unknown`: there is no such workspace;
/// `not_own`: somebody else's. RUN is one of warehouse, SECRET one of finance, MISSING one that nobody has.
const MATRIX: &str = "
typed                     nobody  viewer  watcher moderator admin
help                      done    done    done    done      done
watches                   nothing done    done    done      done
runs                      nothing done    done    done      done
runs warehouse            nothing done    done    done      done
runs finance              nothing unknown unknown unknown   unknown
runs nowhere              nothing unknown unknown unknown   unknown
status RUN                nothing done    done    done      done
status RUN warehouse      nothing done    done    done      done
status RUN finance        nothing unknown unknown unknown   unknown
status RUN nowhere        nothing unknown unknown unknown   unknown
status SECRET             nothing no_run  no_run  no_run    no_run
status MISSING            nothing no_run  no_run  no_run    no_run
status SECRET finance     nothing unknown unknown unknown   unknown
why RUN                   nothing done    done    done      done
why RUN warehouse         nothing done    done    done      done
why RUN finance           nothing unknown unknown unknown   unknown
why SECRET                nothing no_run  no_run  no_run    no_run
why SECRET nowhere        nothing unknown unknown unknown   unknown
watch RUN                 nothing role    done    done      done
watch RUN warehouse       nothing role    done    done      done
watch RUN finance         nothing role    unknown unknown   unknown
watch RUN nowhere         nothing role    unknown unknown   unknown
watch SECRET              nothing role    no_run  no_run    no_run
watch MISSING             nothing role    no_run  no_run    no_run
watch SECRET finance      nothing role    unknown unknown   unknown
watch no%id               nothing role    no_id   no_id     no_id
unwatch OWN               nothing role    done    done      done
unwatch OTHERS            nothing role    not_own done      done
mute OWN                  nothing role    done    done      done
mute OTHERS               nothing role    not_own done      done
unmute OWN                nothing role    done    done      done
unmute OTHERS             nothing role    not_own done      done
";

const ROLES: [&str; 5] = ["nobody", "viewer", "watcher", "moderator", "admin"];
/// As access rules name them; how each brings its requests in has tests of its own.
const SURFACES: [&str; 3] = ["discord", "slack", "dingtalk"];
const KNOWN_ROOM: &str = "1";
const OTHER_ROOM: &str = "2";

fn outcome(answer: &Answer) -> &'static str {
    let found = [
        ("No workspace is open", "nothing"),
        ("That takes the role", "role"),
        ("I follow no workspace", "unknown"),
        ("Somebody else began", "not_own"),
        ("No run ", "no_run"),
        ("That is no run id", "no_id"),
    ];
    found.iter().find(|(said, _)| answer.text.starts_with(said)).map_or("done", |(_, outcome)| outcome)
}

fn rules() -> Vec<access::Settings> {
    let of = |surface: &str, room: &str, workspaces: &[&str]| access::Settings {
        surface: surface.to_owned(),
        rooms: words(&[room]),
        workspaces: words(workspaces),
        viewers: words(&["role:viewer"]),
        watchers: words(&["role:watcher"]),
        moderators: words(&["role:moderator"]),
        admins: words(&["role:admin"]),
        channels: vec![],
    };
    // Of another room all may be known: it lends nothing to this one.
    SURFACES.iter().flat_map(|surface| [of(surface, KNOWN_ROOM, &["Warehouse"]), of(surface, "9", &["*"])]).collect()
}

/// One field of the matrix, with the watches it begins with and what must be left and written down.
struct Field<'a> {
    bot: &'a Bot,
    typed: String,
    run: String,
    asker: Asker,
    role: &'static str,
    expected: &'a str,
}

impl Field<'_> {
    async fn look(&self) -> Vec<String> {
        let Field { bot, typed, run, asker, role, expected } = self;
        let name = format!("{typed} by {role} in {}:{}", asker.surface, asker.room);
        let mut wrong = Vec::new();
        let of = |user: &str, role: &str| Asker { user: user.to_owned(), roles: words(&[role]), ..asker.clone() };
        let stops = typed.starts_with("unwatch");
        let begins = (stops || typed.contains("mute ")) && asker.room == KNOWN_ROOM;
        if begins {
            let owner = if typed.ends_with("OTHERS") { format!("{}-other", asker.user) } else { asker.user.clone() };
            bot.ask(of(&owner, "watcher"), &format!("watch {run}")).await.unwrap();
        }
        // What the tidying after the field before left behind is not of this one.
        bot.commands().audit.flush(bot.now()).await.unwrap();
        let before = audited(bot, i64::MAX).await.head.number;
        let text = typed.replace("OTHERS", run).replace("OWN", run);
        let answer = bot.ask(asker.clone(), &text).await.unwrap();
        if outcome(&answer) != *expected {
            wrong.push(format!("{name}: {} instead of {expected}: {}", outcome(&answer), answer.text));
        }
        if *expected != "done" && !answer.private {
            wrong.push(format!("{name}: the room reads that somebody was refused"));
        }
        if answer.text.to_lowercase().replace(&typed.to_lowercase(), "").contains("finance")
            && !typed.contains("finance")
        {
            wrong.push(format!("{name}: the answer tells of finance: {}", answer.text));
        }
        let room = Destination::Room { surface: asker.surface.clone(), room: asker.room.clone() };
        let watches = bot.tracker().in_destination(&room).len();
        let changes = typed.starts_with("watch ") || stops || typed.starts_with("mute ");
        let expected_watches = usize::from(
            (typed.starts_with("watch ") && *expected == "done") || (begins && !(stops && *expected == "done")),
        );
        if watches != expected_watches {
            wrong.push(format!("{name}: {watches} watches are left instead of {expected_watches}"));
        }
        bot.commands().audit.flush(bot.now()).await.unwrap();
        let written: Vec<String> = audited(bot, before).await.rows.iter().map(|row| line(&row.entry)).collect();
        let denied =
            ["nothing", "role", "not_own"].contains(expected) || (*expected == "unknown" && typed.contains("finance"));
        let is_fit = match written.as_slice() {
            [] => !(denied || changes && *expected == "done"),
            [one] if denied => one.contains(": denied ") && one.starts_with(&asker.person()),
            [one] => changes && *expected == "done" && one.ends_with(": allowed") && one.starts_with(&asker.person()),
            _ => false,
        };
        if !is_fit {
            wrong.push(format!("{name} ({expected}): written down was {written:?}"));
        }
        let _ = bot.ask(of(&format!("{}-after", asker.user), "moderator"), &format!("unwatch {run}")).await.unwrap();
        wrong
    }
}

#[tokio::test]
async fn every_role_may_do_what_the_table_says_with_every_resource_in_every_chat_and_no_more() {
    // Nothing is promised where no bot could post it.
    let mut bot = Bot::start(Setup { dingtalk: true, ..two_workspaces().with_slack() }).await;
    let run = bot.add("orders_daily v12").to_string();
    let secret = bot.world.add_run(FINANCE, RunSpec::online("closing 2026")).to_string();
    bot.turn().await;
    bot.reload(rules()).await;
    let missing = "ffffffff-20ec-4a7c-a214-54020f910000";
    let rows: Vec<Vec<&str>> = MATRIX
        .lines()
        .skip(2)
        .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    let of_table: BTreeSet<&str> = rows.iter().filter_map(|row| row[0].split(' ').next()).collect();
    let of_code: BTreeSet<&str> = CATALOG.iter().map(|info| info.name).collect();
    assert_eq!(of_table, of_code, "each command has its rows in the table");
    let (mut fields, mut wrong) = (0, Vec::new());
    for row in &rows {
        let cells: Vec<&str> = row[1..].iter().flat_map(|cells| cells.split_whitespace()).collect();
        assert_eq!(cells.len(), ROLES.len(), "{row:?}");
        for (surface, room) in SURFACES.iter().flat_map(|surface| [(surface, KNOWN_ROOM), (surface, OTHER_ROOM)]) {
            for (role, cell) in ROLES.iter().zip(&cells) {
                fields += 1;
                // Time passes, so that no rate stands in the way; each asks for the first time.
                bot.step(std::time::Duration::from_secs(3));
                let expected =
                    if room == KNOWN_ROOM || *cell == "done" && row[0] == "help" { cell } else { &"nothing" };
                let typed = row[0].replace("RUN", &run).replace("SECRET", &secret).replace("MISSING", missing);
                let asker = asker(surface, room, &format!("person-{fields}"), &[role]);
                let field = Field { bot: &bot, typed, run: run.clone(), asker, role, expected };
                wrong.extend(field.look().await);
            }
        }
    }
    assert!(wrong.is_empty(), "{} mismatches in {fields} fields:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(fields, 32 * 5 * 6);
    bot.finish().await;
}

#[tokio::test]
async fn what_is_hidden_is_answered_in_the_words_for_what_does_not_exist_and_never_asked_for() {
    let mut bot = Bot::start(two_workspaces()).await;
    let secret = bot.world.add_run(FINANCE, RunSpec::online("closing 2026")).to_string();
    bot.turn().await;
    bot.reload(vec![open(&["1"], &["warehouse"])]).await;
    let missing = secret.replace(secret.chars().last().unwrap(), "e");
    let calls = bot.world.total_calls();
    for command in ["status", "why", "watch"] {
        let hidden = bot.say("discord:1", &format!("/{command} {secret}")).await;
        let unknown = bot.say("discord:1", &format!("/{command} {missing}")).await;
        assert_eq!(hidden.text.replace(&secret, "…"), unknown.text.replace(&missing, "…"));
    }
    assert_eq!(bot.world.total_calls() - calls, 6, "warehouse is asked each time, finance never");
    let hidden = bot.say("discord:1", "/runs finance").await.text.replace("finance", "…");
    assert_eq!(hidden, bot.say("discord:1", "/runs nowhere").await.text.replace("nowhere", "…"));
    bot.finish().await;
}

// ------------------------------------------------------------------------------------------------- rights taken away

#[tokio::test]
async fn a_room_that_may_not_know_any_more_hears_nothing_of_what_was_owed_and_nothing_new_is_owed() {
    let mut bot = Bot::start(two_workspaces()).await;
    bot.reload(vec![open(&["1"], &["*"])]).await;
    bot.turn().await;
    let run = bot.add("orders_daily v12");
    bot.say("discord:1", &format!("/watch {run}")).await;
    bot.world.advance(PROJECT, &run).unwrap();
    bot.poll().await;
    assert_eq!(bot.open().await.len(), 1, "owed, and not sent yet");
    bot.config.access = vec![open(&["1"], &["finance"])];
    bot.restart().await;
    bot.deliver_all().await;
    assert_eq!(bot.take_logs("withheld"), 1);
    let dead = in_state(&bot, DeliveryState::Dead).await;
    assert_eq!(dead[0].reason.as_deref(), Some("this room may not know of warehouse any more"));
    let place = bot.store().places().await.unwrap().into_iter().find(|row| row.to.to_string() == "discord:1");
    let place = place.unwrap().place;
    assert_eq!((place.failures, place.rejected.len(), place.dead), (0, 0, None), "nothing is wrong with the room");
    bot.world.advance(PROJECT, &run).unwrap();
    bot.turn().await;
    assert_eq!(in_state(&bot, DeliveryState::Dead).await.len(), 1, "nothing more is owed");
    let line = format!("callboard discord:1 send {} in warehouse: withheld workspace", run.short());
    assert!(log(&bot).await.contains(&line), "{:?}", log(&bot).await);

    bot.reload(vec![open(&["1"], &["warehouse"])]).await;
    assert!(bot.store().retry(dead[0].delivery.id, bot.now()).await.unwrap(), "a person may bring it back");
    bot.world.advance(PROJECT, &run).unwrap();
    bot.turn().await;
    assert!(!bot.heard("discord:1").is_empty(), "the watch itself was kept");
    // The books are held against the rights of now, and know of no time without.
    bot.reload(vec![open(&["1"], &["finance"])]).await;
    bot.finish().await;
}

#[tokio::test]
async fn a_digest_is_told_without_what_its_room_may_not_know_any_more() {
    let mut bot = Bot::start(two_workspaces()).await;
    bot.turn().await;
    for project in [PROJECT, FINANCE] {
        let subscription = Subscription {
            id: format!("all-{project}"),
            scope: Scope::Workspace { workspace: callboard::model::WorkspaceKey(format!("cn-shanghai/{project}")) },
            to: Destination::from("discord:1".to_owned()),
            on: BTreeSet::from([Selector::Started]),
            stages: Vec::new(),
            creators: Vec::new(),
            template: None,
            by: "cli".to_owned(),
            roles: Vec::new(),
            until: None,
            muted: None,
            stopped: None,
            created_at: bot.now(),
        };
        let added = bot.store().subscribe(&subscription, None).await.unwrap();
        assert_eq!(added, Subscribed::New { run: None });
    }
    bot.restart().await;
    let mut runs: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    for number in 0..40 {
        for project in [PROJECT, FINANCE] {
            let run = bot.world.add_run(project, RunSpec::online(&format!("release {number}")));
            runs.entry(project).or_default().push(run.short().to_owned());
        }
    }
    bot.poll().await;
    assert_eq!(bot.open().await.len(), 80);
    bot.reload(vec![open(&["1"], &["warehouse"])]).await;
    while !bot.open().await.is_empty() {
        bot.deliver_all().await;
        bot.step(std::time::Duration::from_secs(5));
    }
    let folded =
        in_state(&bot, DeliveryState::Delivered).await.iter().filter(|row| row.folding == Some(Folding::Rate)).count();
    assert!(folded > 0 || !in_state(&bot, DeliveryState::Delivered).await.is_empty());
    let heard = bot.read_on("discord:1").join("\n");
    assert!(runs[&PROJECT].iter().all(|run| heard.contains(run)), "each of warehouse is told: {heard}");
    assert!(!runs[&FINANCE].iter().any(|run| heard.contains(run)) && !heard.contains("finance"), "{heard}");
    assert_eq!(in_state(&bot, DeliveryState::Dead).await.len(), 40);
    let withheld = log(&bot).await.iter().filter(|line| line.contains(": withheld")).count();
    assert_eq!(withheld, 40, "each is written down");
    bot.take_logs("withheld");
    bot.finish().await;
}

#[tokio::test]
async fn a_person_who_lost_their_right_is_told_no_more_and_why_says_so() {
    let mut bot = Bot::start(two_workspaces()).await;
    let entry = |watchers: &[&str]| access::Settings {
        viewers: words(&["*"]),
        watchers: words(watchers),
        ..open(&["1"], &["warehouse"])
    };
    bot.reload(vec![entry(&["user:7", "user:8"])]).await;
    bot.turn().await;
    let (run, other) = (bot.add("orders_daily v12"), bot.add("customers v3"));
    bot.say_as("7", "discord:1", &format!("/watch {run}")).await;
    bot.say_as("8", "discord:1", &format!("/watch {other}")).await;
    bot.reload(vec![entry(&["user:8"])]).await;
    for run in [&run, &other] {
        bot.world.advance(PROJECT, run).unwrap();
    }
    bot.turn().await;
    assert_eq!(bot.heard("discord:1"), ["▶️ BUILD_PACKAGE running · customers v3"]);
    let why = bot.say_as("8", "discord:1", &format!("/why {run}")).await;
    assert!(why.text.contains("Not allowed any more: the watch of this run"), "{}", why.text);
    bot.reload_broken().await;
    assert_eq!(bot.take_logs("the configuration is wrong; everything stays as it is"), 1);
    let last = log(&bot).await.pop().unwrap();
    assert_eq!(last, "callboard  reload access: denied configuration");
    let refused = bot.say_as("7", "discord:1", &format!("/watch {run}")).await;
    assert!(
        refused.text.starts_with("That takes the role watcher of warehouse, and here yours is viewer."),
        "{refused:?}"
    );
    bot.finish().await;
}

#[tokio::test]
async fn rights_taken_away_under_load_end_every_send_before_the_reload_is_done() {
    let mut bot = Bot::start(two_workspaces()).await;
    bot.turn().await;
    let rooms: Vec<String> = (1..=20).map(|room| room.to_string()).collect();
    let run = bot.add("orders_daily v12");
    let all: Vec<&str> = rooms.iter().map(String::as_str).collect();
    for (room, user) in all.iter().zip(100..) {
        let watched = bot.say_as(&user.to_string(), &format!("discord:{room}"), &format!("/watch {run}")).await;
        assert!(watched.text.starts_with("Watching"), "{watched:?}");
    }
    let (mut withheld, mut sent) = (0, 0);
    for round in 0..6_u32 {
        bot.reload(vec![open(&all, &["*"])]).await;
        bot.world.set_stage(PROJECT, &run, "PROD", if round % 2 == 0 { "Running" } else { "Init" }.into(), "").unwrap();
        bot.poll().await;
        bot.poll().await;
        let before: usize = all.iter().map(|room| bot.discord.messages(room).len()).sum();
        bot.begin_delivery().await;
        for _ in 0..round * 40 {
            tokio::task::yield_now().await;
        }
        bot.reload(vec![open(&["99"], &["*"])]).await;
        let at_the_reload: usize = all.iter().map(|room| bot.discord.messages(room).len()).sum();
        bot.deliver_all().await;
        bot.pass(std::time::Duration::from_secs(20)).await;
        let after: usize = all.iter().map(|room| bot.discord.messages(room).len()).sum();
        assert_eq!(after, at_the_reload, "messages began after the reload was done, in round {round}");
        sent += at_the_reload - before;
        withheld += bot.take_logs("withheld");
    }
    assert!(withheld > 0, "nothing was left to withhold");
    assert!(sent + withheld >= 20, "{sent} sent, {withheld} withheld");
    let written = log(&bot).await.iter().filter(|line| line.contains(": withheld")).count();
    assert_eq!(written, withheld, "each is written down");
    for room in &all {
        drop(bot.heard(&format!("discord:{room}")));
    }
    bot.finish().await;
}

// -------------------------------------------------------------------------------------------------------------- floods

#[tokio::test]
async fn ten_thousand_requests_of_one_person_make_nobody_else_wait() {
    let mut bot = Bot::start(Setup::with(&[])).await;
    bot.turn().await;
    let run = bot.add("orders_daily v12");
    bot.turn().await;
    bot.say_as("8", "discord:1", &format!("/watch {run}")).await;
    bot.world.advance(PROJECT, &run).unwrap();
    let flooder = || asker("discord", "1", "666", &[]);
    let mut askers: Vec<(Asker, &'static str)> = (0..10_000).map(|_| (flooder(), "runs")).collect();
    askers.push((asker("discord", "1", "8", &[]), "watches"));
    let mut heard = bot.flood(askers).await;
    assert_eq!(heard.pop(), Some(Ok(())), "the honest one is answered");
    let count = |of: Result<(), NoAnswer>| heard.iter().filter(|one| **one == of).count();
    assert_eq!(count(Ok(())), 10, "the burst of one person");
    assert_eq!((count(Err(NoAnswer::TooMuch)), count(Err(NoAnswer::StillTooMuch))), (1, 9_989), "told once");
    bot.turn().await;
    assert_eq!(bot.heard("discord:1"), ["▶️ BUILD_PACKAGE running · orders_daily v12"], "and events go on");
    let flooded: Vec<String> = log(&bot).await.into_iter().filter(|line| line.contains("666")).collect();
    assert_eq!(flooded, ["discord:666 discord:1 ask: denied rate x9990"]);
    bot.finish().await;
}

#[tokio::test]
async fn a_person_watches_fifty_runs_over_all_rooms_and_no_more() {
    let bot = Bot::start(Setup::with(&[])).await;
    let runs: Vec<_> = (0..51).map(|number| bot.add(&format!("release {number}"))).collect();
    bot.turn().await;
    for (run, room) in runs.iter().zip((1..=3).cycle()) {
        bot.step(std::time::Duration::from_secs(3));
        let answer = bot.say_as("7", &format!("discord:{room}"), &format!("/watch {run}")).await;
        let expected = if run == runs.last().unwrap() { "You watch 50 runs already" } else { "Watching" };
        assert!(answer.text.starts_with(expected), "{}", answer.text);
    }
    let other = bot.say_as("8", "discord:1", &format!("/watch {}", runs[50])).await;
    assert!(other.text.starts_with("Watching"), "it is nobody else's quota: {}", other.text);
    assert_eq!(log(&bot).await.iter().filter(|line| line.ends_with("watch: denied quota")).count(), 1);
    bot.finish().await;
}

#[tokio::test]
async fn a_secret_typed_by_mistake_is_nowhere() {
    let bot = Bot::start(Setup::with(&[])).await;
    bot.turn().await;
    let secret = format!("xox{}-123456789012-{}", "b", "aBcDeFgHiJkLmNoPqRsTuVwX");
    for text in [format!("/watch {secret}"), format!("/{secret}"), format!("/status 7b1e workspace:{secret}")] {
        let answer = bot.say_as("7", "discord:1", &text).await;
        assert!(
            answer.private && answer.text.contains("a Slack token") && !answer.text.contains("123456789012"),
            "{answer:?}"
        );
    }
    let written = log(&bot).await;
    assert_eq!(written, ["discord:7 discord:1 ask: denied secret x3"]);
    bot.finish().await;
}

// ----------------------------------------------------------------------------------------------------------- the log

fn callboard(folder: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_callboard"));
    let output = command.args(args).env_clear().current_dir(folder).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn whoever_changes_the_log_in_the_file_is_found_by_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("c.toml"), "[store]\nurl = \"sqlite:callboard.db\"\n").unwrap();
    let (run, file) = (
        |args: &[&str]| callboard(folder.path(), &[&["--config", "c.toml", "audit"], args].concat()),
        folder.path().join("callboard.db"),
    );
    assert_eq!(run(&["list", "--json"]), (Some(0), "[]\n".to_owned(), String::new()), "there is no store yet");
    let settings = store::Settings::of(format!("sqlite:{}", file.display()));
    let store = store::open(&settings, Role::Owner).await.unwrap();
    let entry = |person: &str, decision| Entry {
        at: "2026-11-24T08:00:00Z".parse().unwrap(),
        person: person.to_owned(),
        room: "discord:1".to_owned(),
        action: "watch 7b1e04c2 in warehouse".to_owned(),
        decision,
        reason: if decision == Decision::Allowed { String::new() } else { "role".to_owned() },
        count: 1,
    };
    let entries: Vec<Entry> =
        (0..2_500).map(|number| entry(&format!("discord:{number}"), Decision::ALL[number % 3])).collect();
    store.audit(&entries).await.unwrap();
    drop(store);
    assert_eq!(run(&["verify"]), (Some(0), "2500 rows fit\n".to_owned(), String::new()));
    let (status, listed, _) = run(&["list", "--denied", "--limit", "2"]);
    assert_eq!(status, Some(0));
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines.len(), 3, "{listed}");
    assert!(
        lines[1].starts_with(
            "2499  2026-11-24 08:00:00  discord:2498  discord:1  watch 7b1e04c2 in warehouse  withheld: role"
        ),
        "{listed}"
    );
    let (_, listed, _) = run(&["list", "--person", "discord:3", "--json"]);
    let rows: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(
        (rows.as_array().unwrap().len(), &rows[0]["decision"], &rows[0]["number"]),
        (1, &"allowed".into(), &4.into())
    );

    for (change, row) in [
        ("UPDATE audit SET decision = 'denied' WHERE number = 1", "row 1 is not what was written"),
        ("DELETE FROM audit WHERE number = 1200", "row 1200 is missing"),
        ("DELETE FROM audit WHERE number > 2400", "row 2401 is missing"),
        ("UPDATE audit SET person = 'discord:9' WHERE number = 2500", "row 2500 is not what was written"),
        ("UPDATE audit_ends SET number = 5 WHERE name = 'anchor'", "row 6 is missing"),
    ] {
        let copy = folder.path().join("copy.db");
        std::fs::copy(&file, &copy).unwrap();
        rusqlite::Connection::open(&copy).unwrap().execute_batch(change).unwrap();
        std::fs::write(folder.path().join("copy.toml"), "[store]\nurl = \"sqlite:copy.db\"\n").unwrap();
        let (status, said, error) = callboard(folder.path(), &["--config", "copy.toml", "audit", "verify"]);
        let found = error.contains(row) || change.contains("audit_ends") && error.contains("callboard: row ");
        assert!(status == Some(1) && said.is_empty() && found, "{change}: {status:?} {said} {error}");
        for ending in ["", "-wal", "-shm", ".lock"] {
            let _ = std::fs::remove_file(folder.path().join(format!("copy.db{ending}")));
        }
    }
}
