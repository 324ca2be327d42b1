//! The configuration: layers, and mistakes that are all told at once where they were made.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use callboard::channels::webhook;
use callboard::config::{self, Config, Invalid};
use callboard::model::{
    Change, ChangeKind, Content, Destination, Folding, Notice, NoticeKind, Scope, Selector, Status, Timestamp,
};
use callboard::render::Renderer;
use callboard::settings::Secret;
use proptest::prelude::*;
use secrecy::ExposeSecret;
use serde_json::Value;
use toml::de::{DeTable, DeValue};

const EXAMPLE: &str = include_str!("../../config/example.toml");
const CANARY: &str = "sup3rs3cretcanary";

type Env = Vec<(String, String)>;

/// Every variable that the samples name, each with a value that suits its purpose.
fn env() -> Env {
    [
        ("ALIBABA_CLOUD_ACCESS_KEY_ID", "LTAI4canaryKeyId"),
        ("ALIBABA_CLOUD_ACCESS_KEY_SECRET", CANARY),
        ("ALIBABA_CLOUD_SECURITY_TOKEN", CANARY),
        ("OPS_DINGTALK_URL", "https://oapi.dingtalk.com/robot/send?access_token=sup3rs3cretcanary"),
        ("OPS_DINGTALK_SECRET", "SECsup3rs3cretcanary"),
        ("RELEASES_SLACK_URL", "https://hooks.slack.com/services/T00000000/B00000000/sup3rs3cretcanary"),
        ("TEAM_SLACK_URL", "https://hooks.slack.com/services/T00000000/B00000000/sup3rs3cretcanary"),
        ("TEAM_DISCORD_URL", "https://discord.com/api/webhooks/123456789012345678/sup3rs3cretcanary"),
        ("RELEASE_ROOM_DISCORD_URL", "https://discord.com/api/webhooks/123456789012345678/sup3rs3cretcanary"),
        ("AUDIT_URL", "https://audit.example.com/sup3rs3cretcanary"),
        ("AUTOMATION_URL", "https://automation.example.com/sup3rs3cretcanary"),
        ("AUDIT_SECRET", "whsec_c3VwM3JzM2NyZXRjYW5hcnlzdXAzcnMzY3JldA=="),
        ("DISCORD_TOKEN", CANARY),
        ("CALLBOARD_API_TOKEN", "sup3rs3cretcanarysup3rs3cretcanarysup3rs3cretcanary"),
        ("SLACK_SIGNING_SECRET", CANARY),
        ("SLACK_APP_TOKEN", "xapp-sup3rs3cretcanary"),
        ("SLACK_BOT_TOKEN", "xoxb-sup3rs3cretcanary"),
        ("DINGTALK_CLIENT_SECRET", CANARY),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

fn with(more: &[(&str, &str)]) -> Env {
    let mut all = env();
    all.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    all
}

fn parse(text: &str) -> Result<Config, Invalid> {
    config::parse("callboard.toml", text, env())
}

fn good(text: &str, env: Env) -> Config {
    config::parse("callboard.toml", text, env).unwrap_or_else(|invalid| panic!("refused:\n{}", invalid.report(false)))
}

fn samples(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config").join(folder);
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

/// Compares with the file, which `UPDATE_EXPECT=1` rewrites.
fn expect(path: &Path, found: &str) {
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(path, found).unwrap();
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(expected, found, "{} is not current; UPDATE_EXPECT=1 rewrites it", path.display());
}

// ---------------------------------------------------------------------------------------------------------- samples

#[test]
fn good_samples_load() {
    for path in samples("good") {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if let Err(invalid) = config::parse(&name, &text, env()) {
            panic!("{name} was refused:\n{}", invalid.report(false));
        }
    }
}

#[test]
fn bad_samples_say_everything_that_is_wrong_and_no_secret() {
    for path in samples("bad") {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let Err(invalid) = config::parse(&name, &text, env()) else { panic!("{name} was accepted") };
        let report = format!("{}\n{}", invalid.lines(), invalid.report(false));
        let colored = invalid.report(true);
        for shown in [&report, &colored, &format!("{invalid:?}"), &serde_json::to_string(invalid.mistakes()).unwrap()] {
            assert!(!shown.contains("canary"), "{name}: a secret was shown:\n{shown}");
        }
        expect(&path.with_extension("txt"), &report);
    }
}

#[test]
fn the_example_loads() {
    let config = good(EXAMPLE, env());
    assert_eq!(config.workspaces().len(), 2);
    assert_eq!(config.channels.len(), 4);
}

#[test]
fn a_missing_file_is_answered_with_what_to_do() {
    let invalid = config::load(Some(Path::new("/nowhere/callboard.toml")), Env::new()).unwrap_err();
    let said = invalid.to_string();
    assert!(said.starts_with("/nowhere/callboard.toml: "), "{said}");
    assert!(said.contains("callboard demo") && said.contains("config/example.toml"), "{said}");
}

#[test]
fn the_file_is_the_given_one_else_the_environments_else_the_default() {
    let env = BTreeMap::from([("CALLBOARD_CONFIG".to_owned(), "b.toml".to_owned())]);
    assert_eq!(config::locate(Some(Path::new("a.toml")), &env), Path::new("a.toml"));
    assert_eq!(config::locate(None, &env), Path::new("b.toml"));
    assert_eq!(config::locate(None, &BTreeMap::new()), Path::new("config/callboard.toml"));
}

// ----------------------------------------------------------------------------------------------- manual and schema

/// The manual with its commented-out settings in force.
fn whole_manual() -> String {
    config::DEFAULTS
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') => setting,
            _ => line,
        })
        .map(|line| format!("{line}\n"))
        .collect()
}

#[test]
fn the_manual_holds_every_key_of_the_schema_and_no_other() {
    // the manual's secret file does not exist here, everything else must hold
    let manual = whole_manual().replace("{ file = \"/run/secrets/automation\" }", "{ env = \"AUDIT_SECRET\" }");
    good(&manual, env());

    let table = DeTable::parse(&manual).unwrap();
    let mut written = Vec::new();
    keys(table.get_ref(), "", &mut written);
    let written: Vec<String> = written.into_iter().map(|key| key.path).collect();
    let mut missing = Vec::new();
    let schema = config::schema();
    schema_keys(&schema, &schema, "", &mut |key, kind| {
        let channels: Vec<String> = match kind {
            Some(kind) => channels_of(&manual, kind).iter().map(|name| format!("channels.{name}{key}")).collect(),
            None => vec![key.to_owned()],
        };
        if !channels.iter().any(|key| written.contains(key)) {
            missing.push(format!("{key} {}", kind.unwrap_or_default()));
        }
    });
    assert!(missing.is_empty(), "config/default.toml lacks {missing:#?}");
}

fn channels_of(text: &str, kind: &str) -> Vec<String> {
    let table = DeTable::parse(text).unwrap();
    let channels = table.get_ref().get("channels").unwrap().get_ref().as_table().unwrap();
    channels
        .iter()
        .filter(|(_, channel)| channel.get_ref().get("kind").unwrap().get_ref().as_str() == Some(kind))
        .map(|(name, _)| name.get_ref().to_string())
        .collect()
}

/// Every leaf key; those of channels relative to the channel, with their kind.
fn schema_keys(root: &Value, node: &Value, path: &str, tell: &mut dyn FnMut(&str, Option<&str>)) {
    let mut node = node;
    while let Some(reference) = node.get("$ref").and_then(Value::as_str) {
        if reference == "#/$defs/Secret" {
            return tell(path, None);
        }
        node = root.pointer(&reference[1..]).unwrap();
    }
    if let Some(options) = node.get("anyOf").and_then(Value::as_array) {
        return schema_keys(root, &options[0], path, tell);
    }
    let within = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    if let Some(properties) = node.get("properties").and_then(Value::as_object) {
        properties.iter().for_each(|(name, inner)| schema_keys(root, inner, &within(name), tell));
    } else if let Some(named) = node.get("additionalProperties").filter(|inner| inner.is_object()) {
        let channel = root.pointer(&named["$ref"].as_str().unwrap()[1..]).unwrap();
        for variant in channel["oneOf"].as_array().unwrap() {
            let kind = variant["properties"]["kind"]["const"].as_str();
            variant["properties"].as_object().unwrap().keys().for_each(|name| tell(&format!(".{name}"), kind));
        }
    } else if let Some(items) = node.get("items")
        && let Some(reference) = items.get("$ref").and_then(Value::as_str)
        && root.pointer(&reference[1..]).unwrap().get("properties").is_some()
    {
        schema_keys(root, items, &format!("{path}[0]"), tell);
    } else {
        tell(path, None);
    }
}

#[test]
fn the_committed_schema_is_current() {
    let mut text = serde_json::to_string_pretty(&config::schema()).unwrap();
    text.push('\n');
    expect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/config.schema.json"), &text);
}

#[test]
fn the_committed_schema_of_the_webhook_is_current_and_every_body_fits_it() {
    let schema = webhook::schema();
    let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
    expect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/webhook.schema.json"), &text);
    let mut told = BTreeSet::new();
    let changes = Renderer::samples();
    let digest = Content::Digest { changes: changes.clone(), why: Folding::Late };
    let contents = changes.into_iter().map(Content::Change).chain([digest]).chain(notices().map(Content::Notice));
    for content in contents {
        let body: Value = serde_json::from_slice(&webhook::body(&content)).unwrap();
        let misfits = misfits(&schema, &schema, &body, "");
        assert!(misfits.is_empty(), "{}: {misfits:?}\n{body:#}", content.event_type());
        told.insert(body["type"].as_str().unwrap().to_owned());
        for field in body["data"].as_object().unwrap().keys() {
            told.insert(format!("data.{field}"));
        }
    }
    let mut documented = BTreeSet::new();
    let within = |node: &Value| schema.pointer(&node["$ref"].as_str().unwrap()[1..]).unwrap()["properties"].clone();
    for form in schema["anyOf"].as_array().unwrap().iter().map(within) {
        documented.extend(form["type"]["enum"].as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()));
        documented.extend(within(&form["data"]).as_object().unwrap().keys().map(|field| format!("data.{field}")));
    }
    assert_eq!(told, documented, "what the samples hold and what the schema says must be the same");

    let mut wrong: Value =
        serde_json::from_slice(&webhook::body(&Content::Change(Renderer::samples().remove(0)))).unwrap();
    wrong["type"] = "run.stopped".into();
    wrong["data"]["sequence"] = "4".into();
    wrong["data"]["run"]["id"].take();
    wrong["data"]["surprise"] = true.into();
    wrong["data"].as_object_mut().unwrap().remove("message");
    assert_eq!(misfits(&schema, &schema, &wrong, "").len(), 5, "the comparison itself sees nothing");
}

/// One of each.
fn notices() -> impl Iterator<Item = Notice> {
    let at = Renderer::samples_at();
    let (destination, surface) = (Destination::Channel("ops".to_owned()), "discord".to_owned());
    let (workspaces, reason) = (vec!["warehouse".to_owned()], "it no longer exists".to_owned());
    let kinds = [
        NoticeKind::DestinationDead { destination: destination.clone(), reason: reason.clone() },
        NoticeKind::DestinationBack { destination: destination.clone(), since: at },
        NoticeKind::DestinationRefusing { destination: destination.clone(), reason: reason.clone() },
        NoticeKind::DestinationAccepting { destination, since: at },
        NoticeKind::BotDenied { surface: surface.clone(), reason: reason.clone() },
        NoticeKind::BotBack { surface, since: at },
        NoticeKind::SourceDenied { workspaces: workspaces.clone(), reason },
        NoticeKind::SourceBack { workspaces, since: at },
    ];
    kinds.into_iter().map(move |kind| Notice { at, kind })
}

/// Where `value` does not fit the schema `node`, as far as types, enumerations and names of fields tell: of several
/// forms, the nearest. A field that the schema does not name is a misfit.
fn misfits(root: &Value, node: &Value, value: &Value, path: &str) -> Vec<String> {
    if let Some(reference) = node["$ref"].as_str() {
        return misfits(root, root.pointer(&reference[1..]).unwrap(), value, path);
    }
    if let Some(forms) = node["anyOf"].as_array() {
        return forms.iter().map(|form| misfits(root, form, value, path)).min_by_key(Vec::len).unwrap();
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let takes = match &node["type"] {
        Value::Array(kinds) => kinds.contains(&kind.into()),
        one => one == kind,
    };
    if !takes {
        return vec![format!("{path} is of type {kind}, not {}", node["type"])];
    }
    let mut found = Vec::new();
    if node["enum"].as_array().is_some_and(|options| !options.contains(value)) {
        found.push(format!("{path} is {value}, which is none of {}", node["enum"]));
    }
    if node["format"] == "date-time" && value.as_str().is_some_and(|text| text.parse::<Timestamp>().is_err()) {
        found.push(format!("{path} is {value}, which is no time"));
    }
    for item in value.as_array().into_iter().flatten() {
        found.extend(misfits(root, &node["items"], item, &format!("{path}[]")));
    }
    if let Some(fields) = value.as_object() {
        for (name, field) in fields {
            match node["properties"].get(name) {
                Some(inner) => found.extend(misfits(root, inner, field, &format!("{path}.{name}"))),
                None => found.push(format!("{path}.{name} is not in the schema")),
            }
        }
        let required = node["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        found.extend(
            required.filter(|name| !fields.contains_key(*name)).map(|name| format!("{path}.{name} is missing")),
        );
    }
    found
}

#[test]
fn a_run_without_words_of_its_own_finishes_with_those_of_its_failed_stage() {
    let failed = |change: &&Change| matches!(&change.kind, ChangeKind::Finished { to: Status::Fail, .. });
    let mut change = Renderer::samples().iter().find(failed).unwrap().clone();
    let message = |change: &Change| {
        let body: Value = serde_json::from_slice(&webhook::body(&Content::Change(change.clone()))).unwrap();
        body["data"]["message"].as_str().unwrap().to_owned()
    };
    change.run.message = "the run's own words".to_owned();
    assert_eq!(message(&change), "the run's own words");
    change.run.message = " ".to_owned();
    assert_eq!(message(&change), "table ods_orders_di does not exist");
    change.run.stages.clear();
    assert_eq!(message(&change), "");
}

#[test]
fn the_schema_requires_only_what_has_no_default() {
    let schema = config::schema();
    assert_eq!(schema.get("required").and_then(Value::as_array).map_or(0, Vec::len), 0, "{:?}", schema["required"]);
    let server = schema["properties"]["server"]["$ref"].as_str().unwrap();
    let listen = &schema.pointer(&server[1..]).unwrap()["properties"]["listen"];
    assert_eq!(listen["default"], "127.0.0.1:8080");
}

// -------------------------------------------------------------------------------------------------------- mutations

struct Key {
    path: String,
    key: std::ops::Range<usize>,
    value: std::ops::Range<usize>,
    table: bool,
    text: bool,
}

fn keys(table: &DeTable<'_>, path: &str, found: &mut Vec<Key>) {
    for (name, value) in table {
        let path = if path.is_empty() { name.get_ref().to_string() } else { format!("{path}.{}", name.get_ref()) };
        let inner = value.get_ref();
        found.push(Key {
            path: path.clone(),
            key: name.span(),
            value: value.span(),
            table: inner.is_table() || inner.as_array().is_some_and(|a| a.iter().any(|item| item.get_ref().is_table())),
            text: inner.is_str(),
        });
        match inner {
            DeValue::Table(table) => keys(table, &path, found),
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    if let DeValue::Table(table) = item.get_ref() {
                        keys(table, &format!("{path}[{index}]"), found);
                    }
                }
            }
            _ => {}
        }
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text[..offset].matches('\n').count() + 1
}

fn replaced(text: &str, span: std::ops::Range<usize>, with: &str) -> String {
    format!("{}{with}{}", &text[..span.start], &text[span.end..])
}

/// The mutation is refused, and some mistake names the key and its line.
fn refused(text: &str, path: &str, line: usize, what: &str) {
    let Err(invalid) = parse(text) else { panic!("{what} {path} was accepted") };
    let hit = invalid.mistakes().iter().any(|mistake| mistake.key == path && mistake.line == Some(line));
    assert!(hit, "{what} {path}: nothing points at line {line}:\n{}", invalid.lines());
    let shown = format!("{}{}{invalid:?}", invalid.lines(), invalid.report(true));
    assert!(!shown.contains("canary"), "{what} {path}: a secret was shown:\n{shown}");
}

#[test]
fn every_mutation_of_the_example_is_refused_where_it_was_made() {
    let example = EXAMPLE.replace("{ env = \"DISCORD_TOKEN\" }", &format!("\"{CANARY}\""));
    good(&example, env());
    let table = DeTable::parse(&example).unwrap();
    let mut all = Vec::new();
    keys(table.get_ref(), "", &mut all);
    let mut mutations = 0;
    for key in &all {
        let line = line_of(&example, key.key.start);
        let free = key.path.starts_with("channels.") && key.path.matches('.').count() == 1;
        let shared = key.table && (key.path == "channels" || key.path == "dataworks" || !key.path.contains('.'));
        if !free && !shared {
            let renamed = replaced(&example, key.key.clone(), &format!("{}q", &example[key.key.clone()]));
            refused(&renamed, &format!("{}q", key.path), line, "renaming");
            mutations += 1;
        }
        if !key.table {
            for other in ["1979-05-27", "99999999999999999999", "{ bogus = 1 }", "[[1]]", "true"] {
                let mutant = replaced(&example, key.value.clone(), other);
                let Err(invalid) = parse(&mutant) else { panic!("{} = {other} was accepted", key.path) };
                let hit = invalid.mistakes().iter().any(|m| m.key.starts_with(&key.path) && m.line == Some(line));
                assert!(hit, "{} = {other}: nothing points at line {line}:\n{}", key.path, invalid.lines());
                mutations += 1;
            }
        }
        let free_text = [".name", ".template", ".env", ".file"].iter().any(|end| key.path.ends_with(end));
        if key.text && !free_text {
            let mutant = replaced(&example, key.value.clone(), "\"\"");
            if let Ok(config) = parse(&mutant) {
                panic!("{} = \"\" was accepted: {config:?}", key.path);
            }
            mutations += 1;
        }
    }
    for section in ["server", "store", "dataworks.poll", "dataworks.budget", "discord", "network", "templates"] {
        let line = line_of(&example, example.find(&format!("[{section}]\n")).unwrap());
        let mutant = example.replace(&format!("[{section}]\n"), &format!("[{section}s]\n"));
        refused(&mutant, &format!("{section}s"), line, "renaming");
        mutations += 1;
    }
    assert!(mutations > 100, "{mutations}");
}

/// Literal secrets everywhere, so that whatever is cut or pasted, one is near.
fn example_with_literals() -> String {
    env().into_iter().fold(EXAMPLE.to_owned(), |text, (name, _)| {
        text.replace(&format!("{{ env = \"{name}\" }}"), &format!("\"https://example.com/{CANARY}\""))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_answered(text in "(?s).{0,200}") {
        if let Err(invalid) = parse(&text) {
            prop_assert!(!invalid.report(true).is_empty() && !invalid.lines().is_empty());
        }
    }

    #[test]
    fn a_torn_file_is_answered_without_its_secrets(
        from in any::<prop::sample::Index>(),
        length in 0_usize..40,
        paste in prop_oneof![Just(String::new()), "[\\[\\]{}=\"'#.\n a-z0-9é]{0,6}"],
    ) {
        let text = example_with_literals();
        let from = from.index(text.len());
        let torn = replaced(&text, from..(from + length).min(text.len()), &paste);
        if let Err(invalid) = parse(&torn) {
            let shown = format!("{}{}", invalid.lines(), invalid.report(false));
            // a fragment under a foreign key is past recognising; a whole one is not
            prop_assert!(!shown.contains(&format!("https://example.com/{CANARY}")), "{}", shown);
        }
    }
}

#[test]
fn dropping_a_required_key_points_at_its_table() {
    let cases = [
        ("name = \"warehouse\"\n", "workspaces[0].name", "[[workspaces]]"),
        ("region = \"cn-shanghai\"\n", "workspaces[0].region", "[[workspaces]]"),
        ("project_id = 10000\n", "workspaces[0].project_id", "[[workspaces]]"),
        ("kind = \"dingtalk\"\n", "channels.ops.kind", "[channels.ops]"),
        ("url = { env = \"OPS_DINGTALK_URL\" }\n", "channels.ops.url", "[channels.ops]"),
        ("url = { env = \"AUDIT_URL\" }\n", "channels.audit.url", "[channels.audit]"),
        ("workspace = \"warehouse\"\n", "subscriptions[0].workspace", "[[subscriptions]]"),
        ("channels = [\"ops\"]\n", "subscriptions[0].channels", "[[subscriptions]]"),
        ("on = [\"waiting\", \"failed\", \"stopped\"]\n", "subscriptions[0].on", "[[subscriptions]]"),
        ("token = { env = \"DISCORD_TOKEN\" }\n", "discord.token", "[discord]"),
        ("client_id = \"dingue4kfzdxbynxxxxx\"\n", "dingtalk.client_id", "[dingtalk]"),
        ("client_secret = { env = \"DINGTALK_CLIENT_SECRET\" }\n", "dingtalk.client_secret", "[dingtalk]"),
    ];
    for (line, key, table) in cases {
        let mutant = EXAMPLE.replacen(line, "", 1);
        assert_ne!(mutant, EXAMPLE, "{line}");
        let at = line_of(&mutant, mutant.find(&format!("\n{table}\n")).unwrap() + 1);
        refused(&mutant, key, at, "dropping");
    }
}

// ----------------------------------------------------------------------------------------------------------- layers

const SMALL: &str =
    "[[workspaces]]\nname = \"w\"\nregion = \"cn-shanghai\"\nproject_id = 1\n[channels.ops]\nkind = \"console\"\n";

#[test]
fn the_file_wins_over_the_defaults_and_the_environment_over_the_file() {
    let listens = |text: &str, env: Env| good(text, env).server.listen.to_string();
    let file = format!("{SMALL}[server]\nlisten = \"127.0.0.1:1111\"\n");
    assert_eq!(listens(SMALL, env()), "127.0.0.1:8080");
    assert_eq!(listens(&file, env()), "127.0.0.1:1111");
    assert_eq!(listens(&file, with(&[("CALLBOARD__SERVER__LISTEN", "127.0.0.1:2222")])), "127.0.0.1:2222");
}

#[test]
fn environment_values_are_read_as_their_key_wants() {
    let config = good(
        SMALL,
        with(&[
            ("CALLBOARD__DATAWORKS__BUDGET__CALLS_PER_SECOND", "3"),
            ("CALLBOARD__DATAWORKS__POLL__SLOWEST", "5m"),
            ("CALLBOARD__NETWORK__ALLOW_PRIVATE", "[\"127.0.0.0/8\"]"),
            ("CALLBOARD__CHANNELS__OPS__LOCALE", "zh-CN"),
            ("CALLBOARD__DISCORD__TOKEN", "12345"),
            ("CALLBOARD__WORKSPACES", "[{ name = \"v\", region = \"cn-beijing\", project_id = 7 }]"),
            ("CALLBOARD_LOG", "debug"),
        ]),
    );
    assert_eq!(config.dataworks.budget.calls_per_second, Some(3.0));
    assert_eq!(config.dataworks.poll.slowest.0.as_secs(), 300);
    assert_eq!(config.network.allow_private.len(), 1);
    assert_eq!(config.discord.unwrap().token.read().unwrap().expose_secret(), "12345");
    assert_eq!(config.workspaces[0].project_id, 7);
}

#[test]
fn a_secret_in_the_environment_replaces_the_one_in_the_file() {
    let text = format!("{SMALL}[discord]\ntoken = {{ env = \"NOT_SET\" }}\n");
    let table = with(&[("CALLBOARD__DISCORD__TOKEN", "{ env = \"DISCORD_TOKEN\" }")]);
    assert_eq!(good(&text, table).discord.unwrap().token.read().unwrap().expose_secret(), CANARY);
    let literal = with(&[("CALLBOARD__DISCORD__TOKEN", "literal")]);
    assert_eq!(good(&text, literal).discord.unwrap().token.read().unwrap().expose_secret(), "literal");
}

#[test]
fn a_mistake_in_the_environment_names_its_variable() {
    let said = |name: &str, value: &str| {
        config::parse("callboard.toml", SMALL, with(&[(name, value)])).unwrap_err().lines().trim_end().to_owned()
    };
    let unknown = said("CALLBOARD__SERVER__LISTN", "x");
    assert!(unknown.starts_with("CALLBOARD__SERVER__LISTN: server.listn: unknown key; did you mean"), "{unknown}");
    let wrong = said("CALLBOARD__DATAWORKS__BUDGET__CALLS_PER_DAY", "many");
    assert!(wrong.contains("calls_per_day: expected a whole number, found a string"), "{wrong}");
    let format = said("CALLBOARD__SERVER__LISTEN", "nowhere");
    assert!(format.starts_with("CALLBOARD__SERVER__LISTEN: server.listen: \"nowhere\" is not"), "{format}");
    let section = said("CALLBOARD__UNKNOWN__X", "1");
    assert!(section.starts_with("CALLBOARD__UNKNOWN__X: unknown: unknown key; known here"), "{section}");
    let array = said("CALLBOARD__WORKSPACES__0__NAME", "x");
    assert!(array.starts_with("CALLBOARD__WORKSPACES__0__NAME: workspaces: expected an array"), "{array}");
    let lonely = said("CALLBOARD__DISCORD__LOCALE", "en");
    assert!(lonely.starts_with("CALLBOARD__DISCORD__LOCALE: discord.token: missing"), "{lonely}");
}

#[test]
fn commands_that_follow_nothing_do_without_secrets_and_workspaces() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("callboard.toml");
    std::fs::write(&path, EXAMPLE).unwrap();
    let invalid = config::load(Some(&path), Env::new()).unwrap_err();
    assert_eq!(invalid.mistakes().len(), 12, "{}", invalid.lines());
    assert!(config::load_in_part(Some(&path), Env::new()).is_ok());
    std::fs::write(&path, "[channels.here]\nkind = \"console\"\n").unwrap();
    assert!(config::load_in_part(Some(&path), Env::new()).is_ok(), "a workspace is demanded of who follows none");
    assert!(config::load(Some(&path), Env::new()).unwrap_err().lines().contains("no workspace is given"));
    std::fs::write(&path, EXAMPLE.replace("kind = \"dingtalk\"", "kind = \"dingtlk\"")).unwrap();
    let invalid = config::load_in_part(Some(&path), Env::new()).unwrap_err();
    assert_eq!(invalid.mistakes().len(), 1, "{}", invalid.lines());
}

#[test]
fn debug_shows_no_secret() {
    let text = EXAMPLE.replace("{ env = \"AUDIT_SECRET\" }", "\"whsec_c3VwM3JzM2NyZXRjYW5hcnlzdXAzcnMzY3JldA==\"");
    let shown = format!("{:?}", good(&text, env()));
    assert!(!shown.contains("canary") && !shown.contains("c3VwM3"), "{shown}");
    assert!(shown.contains("<secret>"));
}

#[test]
fn a_secret_file_is_read_when_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let text = format!("{SMALL}[discord]\ntoken = {{ file = {:?} }}\n", path.display().to_string());
    let missing = parse(&text).unwrap_err();
    assert!(missing.lines().contains("discord.token: the secret file"), "{}", missing.lines());
    std::fs::write(&path, "first\n").unwrap();
    let token = good(&text, env()).discord.unwrap().token;
    assert!(matches!(token, Secret::File(_)));
    std::fs::write(&path, "second\n").unwrap();
    assert_eq!(token.read().unwrap().expose_secret(), "second");
}

// ----------------------------------------------------------------------------------------------------- subscriptions

#[test]
fn standing_subscriptions_are_one_for_each_channel_with_ids_that_say_what_they_ask() {
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let config = good(EXAMPLE, env());
    let standing = config.standing(now);
    assert_eq!(standing.len(), 5);
    let finance = &standing[1];
    assert_eq!(finance.to, Destination::Channel("ops".to_owned()));
    assert_eq!(finance.scope, Scope::Workspace { workspace: config.workspaces()[1].key() });
    assert!(finance.on.contains(&Selector::Stage) && finance.id.starts_with("config:"));
    assert_eq!((finance.by.as_str(), finance.created_at), ("config", now));

    let ids = |text: &str| -> Vec<String> { good(text, env()).standing(now).into_iter().map(|s| s.id).collect() };
    let reordered = EXAMPLE.replace("[\"PROD_CHECK\", \"PROD\"]", "[\"PROD\", \"PROD_CHECK\"]");
    let renamed = EXAMPLE.replace("\"warehouse\"", "\"stock\"");
    assert_eq!(ids(EXAMPLE), ids(&reordered), "the order of a filter is no other subscription");
    assert_eq!(ids(EXAMPLE), ids(&renamed), "a workspace's name is not its identity");
    let other = ids(&EXAMPLE.replace("on = [\"succeeded\"]", "on = [\"finished\"]"));
    let same = ids(EXAMPLE).into_iter().filter(|id| other.contains(id)).count();
    assert_eq!(same, 3, "the two that ask for something else are others");
}

// ------------------------------------------------------------------------------------------------- the command line

struct Ran {
    status: Option<i32>,
    out: String,
    err: String,
}

/// The real program, with nothing in its environment but what is given.
fn callboard(args: &[&str], env: &Env) -> Ran {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_callboard"))
        .args(args)
        .env_clear()
        .envs(env.iter().cloned())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ran { status: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

#[test]
fn check_tells_mistakes_on_standard_output_and_ends_with_2() {
    let fine = callboard(&["check", "--config", "config/example.toml"], &env());
    assert_eq!((fine.status, fine.err.as_str()), (Some(0), ""), "{}", fine.out);
    assert_eq!(
        fine.out,
        "config/example.toml is fine: 2 workspaces, 4 channels, 3 standing subscriptions\nNext: `callboard check --online` asks DataWorks and the channels\n"
    );

    let unset = callboard(&["--config", "config/example.toml", "check"], &Env::new());
    assert_eq!((unset.status, unset.out.lines().count()), (Some(2), 12), "{}", unset.out);
    let first = "config/example.toml:12:33: dataworks.credentials.access_key_id: the environment variable \
                 ALIBABA_CLOUD_ACCESS_KEY_ID is not set\n";
    assert!(unset.out.starts_with(first), "{}", unset.out);

    let missing = callboard(&["check"], &with(&[("CALLBOARD_CONFIG", "nowhere.toml")]));
    assert_eq!(missing.status, Some(2));
    assert!(missing.out.starts_with("nowhere.toml: there is no such file"), "{}", missing.out);
}

#[test]
fn check_tells_mistakes_as_json() {
    let ran = callboard(&["check", "--json", "--config", "tests/config/bad/everything.toml"], &env());
    assert_eq!(ran.status, Some(2));
    let told: Value = serde_json::from_str(&ran.out).unwrap();
    let first = serde_json::json!({
        "file": "tests/config/bad/everything.toml", "line": 2, "column": 1, "variable": null,
        "key": "server.listn", "message": "unknown key; did you mean \"listen\"?"
    });
    assert_eq!((&told["ok"], &told["mistakes"][0]), (&Value::Bool(false), &first));
}

#[test]
fn schema_and_completions_go_to_standard_output() {
    let schema = callboard(&["schema"], &Env::new());
    assert_eq!(serde_json::from_str::<Value>(&schema.out).unwrap(), config::schema());
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = callboard(&["completions", shell], &Env::new());
        assert!(ran.status == Some(0) && ran.out.contains("callboard"), "{shell}: {}", ran.err);
    }
}

#[test]
fn wrong_use_ends_with_2_and_help_with_0() {
    for args in [&["chek"][..], &["check", "--nonsense"], &[], &["--log", "a=b=c", "schema"]] {
        let ran = callboard(args, &Env::new());
        assert_eq!((ran.status, ran.out.as_str()), (Some(2), ""), "{args:?}: {}", ran.err);
        assert!(!ran.err.is_empty(), "{args:?} was refused without a word");
    }
    let help = callboard(&["--help"], &Env::new());
    assert_eq!(help.status, Some(0));
    assert!(help.out.contains("check") && help.out.contains("Exit status"), "{}", help.out);
}
