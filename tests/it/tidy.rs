//! The rules of ARCHITECTURE.md and CONTRIBUTING.md as tests, and the README's tables derived from the code.
//!
//! `UPDATE_EXPECT=1` writes the tables anew.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use callboard::metrics::{
    ApiCall, AttemptLabels, CommandLabels, Metrics, OfChannelKind, OfKind, OfState, OfSurface, OfWorkspace,
};

// ------------------------------------------------------------------------------------------------------- the tree

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file under `folder`, as paths from the root of the repository, in order.
fn files(folder: &str, extension: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/"));
            }
        }
    }
    found.sort();
    found
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Without comments: what they mention is no dependency.
fn code(path: &str) -> String {
    text(path).lines().map(|line| line.split("//").next().unwrap_or_default()).fold(String::new(), |mut code, line| {
        code.push_str(line);
        code.push('\n');
        code
    })
}

/// The code of a file without the tests at its end.
fn production(path: &str) -> String {
    let code = code(path);
    code.replace("pub mod tests", "mod tests").split("#[cfg(test)]\nmod tests").next().unwrap_or_default().to_owned()
}

/// The top-level module a file of `src/` belongs to.
fn module(path: &str) -> &str {
    path.trim_start_matches("src/").split(['/', '.']).next().unwrap()
}

fn word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// What stands right after `prefix` wherever it occurs: `crate::a`, `crate::{a, b::{c, d}}`.
fn named_after(prefix: &str, code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            names.insert(word(rest).to_owned());
            continue;
        };
        let mut depth = 0;
        let mut begins = true;
        for (index, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => begins = true,
                c if begins && !c.is_whitespace() => {
                    names.insert(word(&group[index..]).to_owned());
                    begins = false;
                }
                _ => {}
            }
        }
    }
    names.remove("");
    names
}

fn assert_none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

// ---------------------------------------------------------------------------------------------------- the building

/// From the ground up. A module may name those on floors below its own, never one beside it.
const FLOORS: &[&[&str]] = &[
    &["model", "metrics", "net", "settings", "text", "planted"],
    &["sources", "channels", "surfaces", "store", "render", "delivery", "schedule", "diff", "access"],
    &["tracker", "meter", "fate", "audit"],
    &["poller", "dispatcher", "commands", "http", "demo"],
    // composes the settings of everything below
    &["config"],
    &["app"],
    &["cli"],
    &["main", "lib"],
];

fn floor(module: &str) -> usize {
    let floor = FLOORS.iter().position(|rooms| rooms.contains(&module));
    floor.unwrap_or_else(|| panic!("src/{module} stands on no floor; add it to FLOORS and to ARCHITECTURE.md"))
}

#[test]
fn imports_point_down() {
    let mut wrong = Vec::new();
    for path in files("src", "rs") {
        let from = module(&path);
        let code = code(&path);
        for to in named_after("crate::", &code).into_iter().chain(named_after("callboard::", &code)) {
            if to != from && floor(&to) >= floor(from) {
                wrong.push(format!("{path} names {to}, which does not stand below {from}"));
            }
        }
    }
    assert_none("a module knows only what stands below it", &wrong);
}

/// Folders whose files are alternatives of each other; what two of them need stands in a third file.
const ROOMS: &[(&str, &[&str])] = &[
    ("channels", &["console", "dingtalk", "discord", "slack", "webhook"]),
    ("surfaces", &["console", "dingtalk", "discord", "slack"]),
    ("commands", &["help", "mute", "runs", "status", "unwatch", "watch", "watches", "why"]),
    (
        "cli",
        &[
            "audit",
            "check",
            "completions",
            "deliveries",
            "demo",
            "render",
            "run",
            "schema",
            "send",
            "simulate",
            "slack",
            "store",
            "subscriptions",
        ],
    ),
    ("http", &["board", "health"]),
];

#[test]
fn rooms_of_one_folder_do_not_know_each_other() {
    let mut wrong = Vec::new();
    for (folder, rooms) in ROOMS {
        for room in *rooms {
            let path = format!("src/{folder}/{room}.rs");
            let code = code(&path);
            let named =
                named_after("super::", &code).into_iter().chain(named_after(&format!("crate::{folder}::"), &code));
            for other in named.filter(|other| other != room && rooms.contains(&other.as_str())) {
                wrong.push(format!("{path} names {folder}/{other}"));
            }
        }
    }
    assert_none("one room must not need another", &wrong);
}

/// A crate and the places that may name it.
const CRATES: &[(&str, &[&str])] = &[
    ("serenity", &["src/surfaces/discord/gateway.rs"]),
    ("handlebars", &["src/render/"]),
    ("rusqlite", &["src/store/sqlite/"]),
    ("tokio_postgres", &["src/store/postgres/"]),
    ("axum", &["src/http/", "src/demo/dataworks/serve.rs"]),
    ("reqsign_core", &["src/sources/dataworks/credentials.rs"]),
    ("reqsign_aliyun_oss", &["src/sources/dataworks/credentials.rs"]),
    ("prometheus_client", &["src/metrics.rs"]),
    ("dashmap", &["src/tracker/"]),
    ("annotate_snippets", &["src/config/"]),
    ("clap", &["src/cli/"]),
    ("tracing_subscriber", &["src/cli/"]),
];

#[test]
fn crates_are_named_where_they_belong() {
    let mut wrong = Vec::new();
    for path in files("src", "rs") {
        let code = production(&path);
        for (name, places) in CRATES {
            if !named_after(&format!("{name}::"), &code).is_empty()
                && !places.iter().any(|place| path.starts_with(place))
            {
                wrong.push(format!("{path} names {name}, which belongs to {}", places.join(", ")));
            }
        }
        // A module of that name in another crate is no matter.
        let code = code.replace("rusqlite::config::", "").replace("tokio_postgres::config::", "");
        let names_config = code.contains("::config::") || code.contains("use config::");
        if names_config && module(&path) != "config" && !code.contains("crate::config::") {
            wrong.push(format!("{path} names the crate config, which belongs to src/config"));
        }
    }
    assert_none("a crate has one home", &wrong);
}

const PURE: &[&str] = &["model", "text", "diff", "schedule", "delivery", "access", "fate"];

#[test]
fn the_pure_core_asks_nobody() {
    const ASKS: &[&str] =
        &["Timestamp::now", "SystemTime", "Instant::now", "fastrand", "tokio", "std::fs", "std::env", "async fn"];
    let mut wrong = Vec::new();
    let pure: Vec<_> = files("src", "rs").into_iter().filter(|path| PURE.contains(&module(path))).collect();
    assert!(pure.len() > PURE.len(), "the pure modules are elsewhere now: {pure:?}");
    for path in pure {
        let code = code(&path);
        wrong.extend(ASKS.iter().filter(|ask| code.contains(**ask)).map(|ask| format!("{path} holds {ask}")));
    }
    assert_none("time, chance and IO are arguments of the pure modules", &wrong);
}

#[test]
fn the_clock_is_read_at_the_edges_alone() {
    const EDGES: &[&str] = &[
        "src/cli/",
        // when a command came in
        "src/surfaces/",
        // what signatures are dated with; tests replace it
        "src/sources/dataworks/mod.rs",
        "src/demo/",
    ];
    let reads =
        |path: &String| code(path).contains("Timestamp::now") && !EDGES.iter().any(|edge| path.starts_with(edge));
    let wrong: Vec<String> = files("src", "rs").into_iter().filter(reads).collect();
    assert_none("everything else is told the time", &wrong);
}

#[test]
fn production_code_does_not_know_that_it_is_tested() {
    let mut wrong = Vec::new();
    for path in files("src", "rs") {
        let code = code(&path);
        let code = code.replace("pub mod tests", "mod tests");
        let forks = code.matches("cfg(test)").count();
        let modules =
            code.matches("#[cfg(test)]\nmod tests {").count() + code.matches("#[cfg(test)]\nmod tests;").count();
        if forks != modules {
            wrong.push(path);
        }
    }
    assert_none("cfg(test) stands before `mod tests` and nowhere else", &wrong);
}

// ------------------------------------------------------------------------------------------------------- the files

#[test]
fn files_stay_short() {
    let is_long = |path: &String| text(path).lines().count() > 600;
    let wrong: Vec<String> = files("src", "rs").into_iter().filter(is_long).collect();
    assert_none("a file of src/ has at most 600 lines", &wrong);
}

#[test]
fn every_file_says_what_it_is() {
    let all = ["src", "tests", "benches"].iter().flat_map(|folder| files(folder, "rs"));
    let wrong: Vec<String> = all.filter(|path| !text(path).starts_with("//! ")).collect();
    assert_none("a file begins with `//! ` and its purpose", &wrong);
}

#[test]
fn every_file_is_part_of_the_program_or_of_the_tests() {
    let mut wrong = Vec::new();
    for path in files("src", "rs").into_iter().chain(files("tests", "rs")) {
        let path_of = Path::new(&path);
        let stem = path_of.file_stem().unwrap().to_str().unwrap();
        let folder = path_of.parent().unwrap().to_str().unwrap();
        if ["src/main.rs", "src/lib.rs", "tests/it/main.rs"].contains(&path.as_str()) {
            continue;
        }
        let (name, home) = match stem {
            "mod" => (folder.rsplit('/').next().unwrap(), Path::new(folder).parent().unwrap().to_str().unwrap()),
            stem => (stem, folder),
        };
        let parents =
            [format!("{home}/mod.rs"), format!("{home}.rs"), format!("{home}/lib.rs"), format!("{home}/main.rs")];
        let declared = parents.iter().filter(|parent| root().join(parent).exists()).any(|parent| {
            code(parent).lines().any(|line| line.trim_start_matches("pub ").trim() == format!("mod {name};"))
        });
        if !declared {
            wrong.push(path);
        }
    }
    assert_none("no file declares these, so nobody compiles them", &wrong);
}

#[test]
fn nothing_is_left_for_later_and_nothing_is_skipped() {
    // In pieces, so that this file is clean too.
    let words = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:"), concat!("#[ig", "nore")];
    let machines = [concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/tm", "p/wt"), concat!("C:\\", "Users")];
    let mut wrong = Vec::new();
    let code = ["src", "tests", "benches"].iter().flat_map(|folder| files(folder, "rs"));
    let wording = ["templates", "docs", "config"].iter().flat_map(|folder| {
        ["hbs", "md", "toml", "json"].iter().flat_map(|extension| files(folder, extension)).collect::<Vec<_>>()
    });
    let documents = [
        "README.md",
        "ARCHITECTURE.md",
        "RELIABILITY.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "Cargo.toml",
        "deny.toml",
    ];
    let scripts = ["scripts/test", "scripts/prove", ".ci/run"];
    let others = documents.iter().chain(&scripts).map(|name| (*name).to_owned());
    for path in code.chain(wording).chain(others) {
        let text = text(&path);
        wrong.extend(
            words.iter().chain(&machines).filter(|word| text.contains(**word)).map(|word| format!("{path}: {word}")),
        );
    }
    assert_none("work to be done is an issue, and no path of somebody's machine belongs here", &wrong);
}

#[test]
fn no_drawer_for_odds_and_ends() {
    let stem = |path: &String| Path::new(path).file_stem().unwrap().to_str().unwrap().to_owned();
    let is_drawer = |path: &String| {
        let path = path.clone();
        let folders = path.split('/').map(str::to_owned).chain([stem(&path)]);
        folders
            .into_iter()
            .any(|name| ["utils", "util", "common", "prelude", "helpers", "misc"].contains(&name.as_str()))
    };
    let wrong: Vec<String> = files("src", "rs").into_iter().filter(is_drawer).collect();
    assert_none("a module is named after what it holds", &wrong);
}

#[test]
fn documents_name_files_that_exist() {
    let mut wrong = Vec::new();
    for document in ["README.md", "ARCHITECTURE.md", "RELIABILITY.md", "CONTRIBUTING.md", "docs/templates.md"] {
        let text = text(document);
        let spans = text.split('`').skip(1).step_by(2);
        let is_path = |span: &&str| {
            ["src/", "tests/", "config/", "templates/", "docs/", "scripts/", "benches/"]
                .iter()
                .any(|top| span.starts_with(top))
                && !span.contains(['<', '*', ' ', '{'])
                && !span.chars().any(char::is_uppercase)
        };
        for span in spans.filter(is_path).filter(|span| !["config/callboard.toml"].contains(span)) {
            if !root().join(span).exists() {
                wrong.push(format!("{document}: {span}"));
            }
        }
    }
    assert_none("these are gone or were never there", &wrong);
}

#[test]
fn every_floor_is_in_the_architecture() {
    let text = text("ARCHITECTURE.md");
    for (index, rooms) in FLOORS.iter().enumerate().filter(|(_, rooms)| !rooms.contains(&"lib")) {
        let line = format!("{index}  {}", rooms.join(" "));
        assert!(text.contains(&line), "ARCHITECTURE.md does not show the floor {line:?}");
    }
}

// ----------------------------------------------------------------------------------------------- the README's tables

/// What stands between the markers must be `expected`; `UPDATE_EXPECT=1` puts it there.
fn check_table(name: &str, expected: &str) {
    let path = root().join("README.md");
    let text = text("README.md");
    let (begin, end) = (format!("<!-- begin: {name} -->\n"), format!("<!-- end: {name} -->"));
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("README.md lacks {begin}"));
    let (actual, after) = rest.split_once(&end).unwrap_or_else(|| panic!("README.md lacks {end}"));
    if actual == expected {
        return;
    }
    assert!(
        std::env::var_os("UPDATE_EXPECT").is_some(),
        "the table of {name} in README.md is out of date; UPDATE_EXPECT=1 writes it anew. It should be:\n{expected}"
    );
    std::fs::write(path, format!("{before}{begin}{expected}{end}{after}")).unwrap();
}

/// The tables, one after the other: they share a file.
#[test]
fn tables_in_the_readme_are_current() {
    check_table("chat commands", &chat_commands());
    check_table("command line", &command_line());
    check_table("metrics", &metrics());
}

fn chat_commands() -> String {
    let mut table = "| command | what it does |\n|---|---|\n".to_owned();
    for info in &callboard::commands::CATALOG {
        writeln!(table, "| `{}` | {} |", callboard::commands::usage(info), info.about).unwrap();
    }
    table
}

fn command_line() -> String {
    let mut table = "| command | what it does |\n|---|---|\n".to_owned();
    let mut tree = callboard::cli::command_tree();
    tree.build();
    for command in tree.get_subcommands() {
        row(&mut table, "callboard", command);
    }
    table
}

fn row(table: &mut String, before: &str, command: &clap::Command) {
    // clap's own.
    if command.get_name() == "help" {
        return;
    }
    let name = format!("{before} {}", command.get_name());
    if command.has_subcommands() {
        command.get_subcommands().for_each(|inner| row(table, &name, inner));
        return;
    }
    let mut usage = name;
    for argument in command.get_arguments().filter(|argument| !argument.is_global_set() && argument.get_id() != "help")
    {
        let value =
            argument.get_value_names().and_then(|names| names.first()).map(ToString::to_string).unwrap_or_default();
        let shown = match argument.get_long() {
            Some(long) if argument.get_action().takes_values() => format!("--{long} <{value}>"),
            Some(long) => format!("--{long}"),
            None => format!("<{value}>"),
        };
        let shown = if argument.is_required_set() { shown } else { format!("[{shown}]") };
        write!(usage, " {shown}").unwrap();
    }
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    writeln!(table, "| `{usage}` | {about} |").unwrap();
}

/// Each metric once, with every label it can carry.
fn metrics() -> String {
    let metrics = Metrics::new();
    metrics.api_calls.get_or_create(&ApiCall { action: "a", outcome: "o" }).inc();
    metrics.poll_lag.get_or_create(&OfWorkspace { workspace: "w".to_owned() }).set(0.0);
    metrics.changes.get_or_create(&OfKind { kind: "k" }).inc();
    metrics.attempts.get_or_create(&AttemptLabels { channel_kind: "c", outcome: "o" }).inc();
    metrics.latency.get_or_create(&OfChannelKind { channel_kind: "c" }).observe(0.0);
    metrics.deliveries.get_or_create(&OfState { state: "s" }).set(0);
    metrics.connected.get_or_create(&OfSurface { surface: "s" }).set(0);
    metrics.commands.get_or_create(&CommandLabels { command: "c", outcome: "o" }).inc();
    let encoded = metrics.encode().unwrap();

    let mut table = "| metric | type | labels | what it says |\n|---|---|---|---|\n".to_owned();
    let mut shown = 0;
    for help in encoded.lines().filter_map(|line| line.strip_prefix("# HELP ")) {
        let (name, said) = help.split_once(' ').unwrap();
        let kind = encoded.lines().find_map(|line| line.strip_prefix(&format!("# TYPE {name} "))).unwrap();
        let sample = encoded.lines().find(|line| line.starts_with(name) && !line.starts_with('#')).unwrap();
        let labels = sample.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map_or("", |(labels, _)| labels);
        let labels: Vec<&str> =
            labels.split(',').filter_map(|label| label.split('=').next()).filter(|l| !l.is_empty()).collect();
        let ending = if kind == "counter" { "_total" } else { "" };
        writeln!(table, "| `{name}{ending}` | {kind} | {} | {} |", labels.join(", "), said.trim_end_matches('.'))
            .unwrap();
        shown += 1;
    }
    let registered = code("src/metrics.rs").matches("r.register(").count();
    assert_eq!(shown, registered, "give the new metric a sample in this test, so that its row has its labels");
    table
}
