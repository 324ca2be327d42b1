//! Composes the settings of the modules, reads them in layers and says everything that is wrong with them at once.
//!
//! The layers, each over the one before: the embedded `config/default.toml`, the file, `CALLBOARD__SECTION__KEY` in
//! the environment. Relative paths (the store, the template folder, secret files) are relative to the working
//! directory. What keys there are is said once, by the settings themselves: the schema derived from them drives the
//! checks of the shape, `callboard schema` and the tests of the manual.

mod check;
mod document;
mod environment;
mod kind;
mod report;
mod shape;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use self::report::{At, Finding, Origin};
use self::shape::Shape;
use crate::model::{Destination, Scope, Selector, Subscription, Timestamp, Workspace};
use crate::settings::Problem;
use crate::{access, channels, dispatcher, http, net, render, sources, store, surfaces};

pub use self::document::nearest;
pub use self::report::{Invalid, Mistake};

/// Every key with its default and one comment: the manual.
pub const DEFAULTS: &str = include_str!("../../config/default.toml");

/// Where the configuration is looked for when nobody says.
pub const DEFAULT_FILE: &str = "config/callboard.toml";

/// The file is read up to here, in bytes.
const FILE_LIMIT: u64 = 1 << 20;

/// The configuration of Callboard. Its `Debug` shows no secret.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The board, health, metrics and inbound commands.
    pub server: http::Settings,
    /// Where subscriptions, runs and deliveries are kept.
    pub store: store::Settings,
    /// The pipeline API that is followed.
    pub dataworks: sources::dataworks::Settings,
    /// The workspaces that are followed.
    #[serde(default)]
    pub workspaces: Vec<WorkspaceSettings>,
    /// The ways out, by name.
    #[serde(default)]
    pub channels: BTreeMap<String, channels::Settings>,
    /// Standing subscriptions, for automated alerts and announcements.
    #[serde(default)]
    pub subscriptions: Vec<StandingSubscription>,
    /// Who hears of troubles of Callboard's own.
    #[serde(default)]
    pub notices: dispatcher::Settings,
    /// Who may do what where; none: everybody in a room of a configured surface may watch every workspace.
    #[serde(default)]
    pub access: Vec<access::Settings>,
    /// The Discord bot; absent: no bot.
    pub discord: Option<surfaces::discord::Settings>,
    /// The Slack app; absent: no commands from Slack and no bot.
    pub slack: Option<surfaces::slack::Settings>,
    /// The DingTalk robot that takes commands; absent: none.
    pub dingtalk: Option<surfaces::dingtalk::Settings>,
    /// What outgoing requests may reach.
    pub network: net::Settings,
    /// The wording.
    pub templates: render::Settings,
}

/// `[[workspaces]]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkspaceSettings {
    /// A short name, used in chat and in messages.
    pub name: String,
    /// The region the workspace lives in, for example `cn-shanghai`.
    pub region: String,
    /// The id of the workspace in DataWorks.
    pub project_id: i64,
}

/// `[[subscriptions]]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StandingSubscription {
    /// The name of a workspace.
    pub workspace: String,
    /// Names of channels; each gets its own message.
    pub channels: Vec<String>,
    /// Which changes.
    pub on: BTreeSet<Selector>,
    /// Only changes of these stages, by code; none: all.
    #[serde(default)]
    pub stages: Vec<String>,
    /// Only runs of these creators, by account id; none: all.
    #[serde(default)]
    pub creators: Vec<String>,
    /// Another template set than the default.
    pub template: Option<String>,
}

impl Config {
    pub fn workspaces(&self) -> Vec<Workspace> {
        self.workspaces.iter().map(WorkspaceSettings::workspace).collect()
    }

    /// The standing subscriptions, one for each channel. Their ids say what they ask for, so the same words mean the
    /// same subscription over restarts, and other words another one.
    pub fn standing(&self, now: Timestamp) -> Vec<Subscription> {
        let workspace = |name: &str| self.workspaces.iter().find(|workspace| workspace.name == name);
        let all = self.subscriptions.iter().filter_map(|standing| Some((standing, workspace(&standing.workspace)?)));
        all.flat_map(|(standing, workspace)| {
            let scope = Scope::Workspace { workspace: workspace.workspace().key() };
            let model = move |channel: &String| standing.model(scope.clone(), channel, now);
            standing.channels.iter().map(model)
        })
        .collect()
    }
}

impl WorkspaceSettings {
    fn workspace(&self) -> Workspace {
        Workspace { name: self.name.clone(), region: self.region.clone(), project_id: self.project_id }
    }
}

impl StandingSubscription {
    fn model(&self, scope: Scope, channel: &str, now: Timestamp) -> Subscription {
        let in_order = |list: &[String]| list.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>();
        let to = Destination::Channel(channel.to_owned());
        let (stages, creators) = (in_order(&self.stages), in_order(&self.creators));
        let on: Vec<&str> = self.on.iter().map(|selector| selector.as_str()).collect();
        let says = serde_json::json!([scope.workspace(), to.to_string(), on, stages, creators, self.template]);
        let digest = hex::encode(Sha256::digest(says.to_string()));
        Subscription {
            id: format!("config:{digest}"),
            scope,
            to,
            on: self.on.clone(),
            stages,
            creators,
            template: self.template.clone(),
            by: "config".to_owned(),
            roles: Vec::new(),
            until: None,
            muted: None,
            stopped: None,
            created_at: now,
        }
    }
}

// --------------------------------------------------------------------------------------------------------- loading

/// Which file to read: `given` (`--config`), else `$CALLBOARD_CONFIG`, else [`DEFAULT_FILE`].
pub fn locate(given: Option<&Path>, env: &BTreeMap<String, String>) -> PathBuf {
    let named = env.get("CALLBOARD_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
    given.map(Path::to_path_buf).or(named).unwrap_or_else(|| PathBuf::from(DEFAULT_FILE))
}

/// The configuration for running: everything is checked, and every secret can be read.
pub fn load(path: Option<&Path>, env: impl IntoIterator<Item = (String, String)>) -> Result<Config, Invalid> {
    load_with(path, env, Needs::Everything, &|_| Vec::new())
}

/// Like [`load`], with more checks of the whole: those of the templates, for example. Their problems carry full keys
/// (`templates.folder`) and are told together with the others.
pub fn load_and_check(
    path: Option<&Path>,
    env: impl IntoIterator<Item = (String, String)>,
    more: &dyn Fn(&Config) -> Vec<Problem>,
) -> Result<Config, Invalid> {
    load_with(path, env, Needs::Everything, more)
}

/// The configuration for commands that follow nothing: a secret that can't be read here is no mistake (whoever needs it
/// says so), nor is a configuration without workspaces.
pub fn load_in_part(path: Option<&Path>, env: impl IntoIterator<Item = (String, String)>) -> Result<Config, Invalid> {
    load_with(path, env, Needs::Part, &|_| Vec::new())
}

/// The configuration in `text`; `file` is what messages call it.
pub fn parse(file: &str, text: &str, env: impl IntoIterator<Item = (String, String)>) -> Result<Config, Invalid> {
    read(file, text, &env.into_iter().collect(), Needs::Everything, &|_| Vec::new())
}

/// The JSON Schema of the configuration file, with descriptions and defaults.
pub fn schema() -> Value {
    let mut schema = merged_schema();
    if let Ok((defaults, _)) = document::parse(DEFAULTS) {
        add_defaults(&mut schema, "", &defaults);
    }
    schema
}

/// What a configuration must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// Secrets that can be read, and a workspace to follow.
    Everything,
    /// What is written must be right.
    Part,
}

fn load_with(
    path: Option<&Path>,
    env: impl IntoIterator<Item = (String, String)>,
    needs: Needs,
    more: &dyn Fn(&Config) -> Vec<Problem>,
) -> Result<Config, Invalid> {
    let env = env.into_iter().collect();
    let path = locate(path, &env);
    let file = path.display().to_string();
    let text = read_file(&path).map_err(|message| Invalid::file(&file, message))?;
    read(&file, &text, &env, needs, more)
}

fn read_file(path: &Path) -> Result<String, String> {
    use std::io::{ErrorKind, Read};
    let open = std::fs::File::open(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => "there is no such file; write one (config/example.toml shows a whole one), name yours \
                                with --config or CALLBOARD_CONFIG, or try `callboard demo`, which needs none"
            .to_owned(),
        kind => format!("the configuration can't be read: {kind}"),
    })?;
    let mut text = String::new();
    open.take(FILE_LIMIT + 1).read_to_string(&mut text).map_err(|error| match error.kind() {
        ErrorKind::InvalidData => "the configuration is not UTF-8 text".to_owned(),
        kind => format!("the configuration can't be read: {kind}"),
    })?;
    if text.len() as u64 > FILE_LIMIT { Err("the configuration is larger than 1 MiB".to_owned()) } else { Ok(text) }
}

/// What a check says about a value that was made up here, or that was compared with one, is no mistake of the writer.
fn about_mended(problem: &Problem, mended: &[String]) -> bool {
    // a message names another key by its last two parts, such as poll.fastest
    let named = |key: &str| {
        let last = key.rfind('.')?;
        let from = key.get(..last)?.rfind('.').map_or(0, |at| at + 1);
        Some(problem.message.contains(key.get(from..)?))
    };
    mended.iter().any(|key| document::within(&problem.key, key) || named(key) == Some(true))
}

fn read(
    file: &str,
    text: &str,
    env: &BTreeMap<String, String>,
    needs: Needs,
    more: &dyn Fn(&Config) -> Vec<Problem>,
) -> Result<Config, Invalid> {
    let schema = merged_schema();
    let (written, places) = document::parse(text).map_err(|errors| {
        let (places, variables) = (BTreeMap::new(), BTreeMap::new());
        let origin = Origin { file, text, places: &places, variables: &variables };
        let mistakes = errors
            .into_iter()
            .map(|e| origin.placed(Some(e.at), None, String::new(), e.message.replace(", expected nothing", "")));
        Invalid::new(mistakes.collect(), report::blot_lines(text, &schema))
    })?;
    let environment = environment::layer(env, &schema);
    let origin = Origin { file, text, places: &places, variables: &environment.variables };
    let whole = |message: String| Invalid::file(file, message);
    let (defaults, _) = document::parse(DEFAULTS).map_err(|_| whole("config/default.toml is broken".to_owned()))?;
    let layers = [defaults.clone(), written, environment.cleared, environment.value];
    let mut merged = merge(layers).map_err(|error| whole(error.to_string()))?;

    let mut shape = Shape {
        schema: &schema,
        defaults: &defaults,
        env,
        findings: Vec::new(),
        made_up: Vec::new(),
        hidden: Vec::new(),
        unread: Vec::new(),
    };
    shape.walk(&schema, &mut merged, "");
    let Shape { mut findings, made_up, hidden, unread, .. } = shape;
    let config = deserialize(&mut merged, &defaults, &mut findings);
    let mended: Vec<String> = findings.iter().map(|finding| finding.key.clone()).chain(made_up).collect();
    let checks =
        config.iter().flat_map(|config| check::all(config, needs == Needs::Everything).into_iter().chain(more(config)));
    for problem in checks.filter(|problem| !about_mended(problem, &mended)) {
        findings.push(Finding { key: problem.key, at: At::Value, message: problem.message });
    }
    if needs == Needs::Part {
        findings.retain(|finding| !unread.contains(&finding.key));
    }
    match config {
        Some(config) if findings.is_empty() => Ok(config),
        _ => {
            let mistakes = findings.into_iter().map(|finding| origin.mistake(finding)).collect();
            Err(Invalid::new(mistakes, report::blot(text, &places, &hidden)))
        }
    }
}

/// The schema of the merged configuration: what has a default is required, because the layers always bring it.
fn merged_schema() -> Value {
    schemars::schema_for!(Config).to_value()
}

/// Later layers win; tables are merged key by key, everything else is replaced.
fn merge(layers: [Value; 4]) -> Result<Value, config::ConfigError> {
    let mut builder = config::Config::builder();
    for layer in layers {
        let value = serde_json::from_value(layer).map_err(|error| config::ConfigError::Foreign(Box::new(error)))?;
        builder = builder.add_source(Layer(value));
    }
    builder.build()?.get(ROOT)
}

/// Values under one name of ours, because `config` reads top-level names as path expressions.
#[derive(Debug, Clone)]
struct Layer(config::Value);

const ROOT: &str = "callboard";

impl config::Source for Layer {
    fn clone_into_box(&self) -> Box<dyn config::Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<config::Map<String, config::Value>, config::ConfigError> {
        Ok(config::Map::from_iter([(ROOT.to_owned(), self.0.clone())]))
    }
}

/// The shape is right by now, so what fails here is a single text that its type refuses, such as a duration. It is
/// noted, replaced by its default or taken out, and the rest is read again.
fn deserialize(merged: &mut Value, defaults: &Value, findings: &mut Vec<Finding>) -> Option<Config> {
    let mut taken_out: BTreeMap<String, usize> = BTreeMap::new();
    loop {
        let error = match serde_path_to_error::deserialize::<_, Config>(&*merged) {
            Ok(config) => return Some(config),
            Err(error) => error,
        };
        let (path, message) = (error.path().to_string(), in_plain_words(error.inner().to_string()));
        let (around, index) = match path.strip_suffix(']').and_then(|path| path.rsplit_once('[')) {
            Some((array, index)) => (array.to_owned(), index.parse::<usize>().ok()),
            None => (path.clone(), None),
        };
        // items before this one that were taken out moved it forward
        let key = match index {
            Some(index) => document::item_of(&around, index + taken_out.get(&around).copied().unwrap_or_default()),
            None => path.clone(),
        };
        let known = findings.iter().any(|finding| finding.key == key);
        if !known {
            findings.push(Finding { key, at: At::Value, message });
        }
        let pointer = format!("/{}", around.replace(['.', '['], "/").replace(']', ""));
        let target = merged.pointer_mut(&pointer)?;
        match (index, target, defaults.pointer(&pointer)) {
            (Some(index), Value::Array(items), _) if index < items.len() => {
                items.remove(index);
                *taken_out.entry(around).or_default() += 1;
            }
            (None, target, Some(default)) if target != default => *target = default.clone(),
            _ => return None,
        }
    }
}

/// The messages of types that are not ours.
fn in_plain_words(message: String) -> String {
    if message.contains("invalid IP address syntax") || message.contains("prefix length") {
        return "is not a network; write it like \"10.20.0.0/16\" or \"fd00::/8\"".to_owned();
    }
    message
}

/// Puts the embedded defaults into the schema of the table at `pointer`; what has one need not be written.
fn add_defaults(schema: &mut Value, pointer: &str, defaults: &Value) {
    let Value::Object(defaults) = defaults else { return };
    for (name, default) in defaults {
        if let Some(required) = schema.pointer_mut(&format!("{pointer}/required")).and_then(Value::as_array_mut) {
            required.retain(|other| other != name);
        }
        let property = format!("{pointer}/properties/{name}");
        if default.is_object() {
            let reference = schema.pointer(&property).and_then(|node| node.get("$ref")).and_then(Value::as_str);
            let inner = reference.and_then(|r| r.strip_prefix('#')).unwrap_or(&property).to_owned();
            add_defaults(schema, &inner, default);
        } else if let Some(Value::Object(node)) = schema.pointer_mut(&property) {
            node.insert("default".to_owned(), default.clone());
        }
    }
}
