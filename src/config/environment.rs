//! The environment as a layer: `CALLBOARD__SECTION__KEY=value` sets `section.key`.
//!
//! Where the key takes text, the value is the text; elsewhere it is read as TOML: `30`, `true`, `["127.0.0.0/8"]`,
//! `[{ name = "warehouse", region = "cn-shanghai", project_id = 10000 }]`. A secret may be an inline table.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::document::{self, join};
use super::kind::{self, Kind};

const PREFIX: &str = "CALLBOARD__";

pub(super) struct Layer {
    pub value: Value,
    /// Null where this layer replaces a whole table instead of adding to it.
    pub cleared: Value,
    /// Which variable set which path.
    pub variables: BTreeMap<String, String>,
}

pub(super) fn layer(env: &BTreeMap<String, String>, schema: &Value) -> Layer {
    let empty = || Value::Object(Map::new());
    let mut layer = Layer { value: empty(), cleared: empty(), variables: BTreeMap::new() };
    for (variable, text) in env {
        let Some(name) = variable.strip_prefix(PREFIX) else { continue };
        let path: Vec<String> = name.split("__").map(str::to_lowercase).collect();
        let value = read(text, kind::at(schema, &path));
        if value.is_object() {
            set(&mut layer.cleared, &path, Value::Null);
        }
        set(&mut layer.value, &path, value);
        let key = path.iter().fold(String::new(), |key, name| join(&key, name));
        layer.variables.insert(key, variable.clone());
    }
    layer
}

fn read(text: &str, kind: Option<Kind<'_>>) -> Value {
    let as_toml = match kind {
        Some(Kind::Secret) => text.trim_start().starts_with('{'),
        Some(kind) => !kind.accepts_text(),
        None => false,
    };
    as_toml.then(|| document::parse_value(text.trim())).flatten().unwrap_or_else(|| Value::from(text))
}

fn set(root: &mut Value, path: &[String], value: Value) {
    let mut node = root;
    for name in path {
        if !node.is_object() {
            *node = Value::Object(Map::new());
        }
        let Value::Object(entries) = node else { return };
        node = entries.entry(name.clone()).or_insert(Value::Null);
    }
    *node = value;
}
