//! Whether the merged configuration has the shape of the schema: unknown keys, missing keys, wrong types, wrong words.
//!
//! Every mistake is noted and then mended in the value with something harmless, so that the checks that follow see
//! the rest of the configuration; what they say about mended keys is dropped.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::document::{item_of, join, nearest};
use super::kind::{self, Kind};
use super::report::{At, Finding};
use crate::settings::{FromFile, Secret, SecretError, quoted};

pub(super) struct Shape<'a> {
    pub schema: &'a Value,
    /// The embedded defaults.
    pub defaults: &'a Value,
    pub env: &'a BTreeMap<String, String>,
    pub findings: Vec<Finding>,
    /// Paths of which the checks know nothing true, beside the keys of the findings.
    pub made_up: Vec<String>,
    /// Paths whose values are, or may be, secrets.
    pub hidden: Vec<String>,
    /// Paths of secrets that are written well but can't be read here.
    pub unread: Vec<String>,
}

impl Shape<'_> {
    pub(super) fn walk(&mut self, node: &Value, value: &mut Value, path: &str) {
        let kind = kind::of(self.schema, node);
        match (&kind, &mut *value) {
            (Kind::Secret, _) => self.secret(value, path),
            (Kind::Table { keys, required }, Value::Object(entries)) => self.table(keys, required, entries, path),
            (Kind::Named(inner), Value::Object(entries)) => {
                for (name, entry) in entries {
                    self.walk(inner, entry, &join(path, name));
                }
            }
            (Kind::Tagged { tag, variants }, Value::Object(_)) => self.tagged(tag, variants, value, path),
            (Kind::Array(inner), Value::Array(items)) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.walk(inner, item, &item_of(path, index));
                }
            }
            (Kind::Words(words), Value::String(word)) if !words.contains(&word.as_str()) => {
                let guess =
                    nearest(word, words.iter().copied()).map_or(String::new(), |w| format!("; did you mean {w:?}?"));
                self.note(path, At::Value, format!("{} is not one of {}{guess}", quoted(word), words.join(", ")));
                *value = self.placeholder(node, path);
            }
            (Kind::Words(_) | Kind::Text, Value::String(_)) | (Kind::Boolean, Value::Bool(_)) => {}
            (Kind::Integer { minimum }, Value::Number(number)) if number.is_i64() || number.is_u64() => {
                let number = number.as_f64();
                self.at_least(*minimum, number, node, value, path);
            }
            (Kind::Number { minimum }, Value::Number(number)) => {
                let number = number.as_f64();
                self.at_least(*minimum, number, node, value, path);
            }
            _ => {
                if kind.may_hold_secrets() {
                    self.hidden.push(path.to_owned());
                }
                self.note(path, At::Value, format!("expected {}, found {}", kind.expected(), name_of(value)));
                *value = self.placeholder(node, path);
            }
        }
    }

    fn note(&mut self, key: &str, at: At, message: String) {
        self.findings.push(Finding { key: key.to_owned(), at, message });
    }

    fn at_least(&mut self, minimum: Option<f64>, number: Option<f64>, node: &Value, value: &mut Value, path: &str) {
        if let (Some(minimum), Some(number)) = (minimum, number)
            && number < minimum
        {
            self.note(path, At::Value, format!("must not be below {minimum}"));
            *value = self.placeholder(node, path);
        }
    }

    fn table(&mut self, keys: &Map<String, Value>, required: &[&str], entries: &mut Map<String, Value>, path: &str) {
        let unknown: Vec<String> = entries.keys().filter(|name| !keys.contains_key(*name)).cloned().collect();
        for name in unknown {
            entries.remove(&name);
            let inner = join(path, &name);
            let message = unknown_key(&name, keys);
            self.hidden.push(inner.clone());
            self.note(&inner, At::Key, message);
        }
        for (name, node) in keys {
            let inner = join(path, name);
            if let Some(entry) = entries.get_mut(name) {
                self.walk(node, entry, &inner);
            } else if required.contains(&name.as_str()) {
                let expected = kind::of(self.schema, node).expected();
                self.note(&inner, At::Parent, format!("missing; it takes {expected}"));
                entries.insert(name.clone(), self.placeholder(node, &inner));
            }
        }
    }

    fn tagged(&mut self, tag: &str, variants: &[(&str, &Value)], value: &mut Value, path: &str) {
        let inner = join(path, tag);
        let words: Vec<&str> = variants.iter().map(|(word, _)| *word).collect();
        let written = value.get(tag);
        if let Some((_, variant)) = variants.iter().find(|(word, _)| written.and_then(Value::as_str) == Some(*word)) {
            return self.walk(variant, value, path);
        }
        let known: Map<String, Value> = variants
            .iter()
            .filter_map(|(_, variant)| variant.get("properties").and_then(Value::as_object))
            .flat_map(|keys| keys.iter().map(|(name, node)| (name.clone(), node.clone())))
            .collect();
        let (at, message) = match written {
            None => (At::Parent, format!("missing; it takes one of {}", words.join(", "))),
            Some(Value::String(word)) => {
                let guess =
                    nearest(word, words.iter().copied()).map_or(String::new(), |w| format!("; did you mean {w:?}?"));
                (At::Value, format!("{} is not one of {}{guess}", quoted(word), words.join(", ")))
            }
            Some(other) => (At::Value, format!("expected one of {}, found {}", words.join(", "), name_of(other))),
        };
        self.note(&inner, at, message);
        // which keys belong here is not known, but a key of no kind at all is a mistake
        for name in value.as_object().into_iter().flat_map(Map::keys).filter(|name| *name != tag) {
            self.hidden.push(join(path, name));
            if !known.contains_key(name) {
                self.note(&join(path, name), At::Key, unknown_key(name, &known));
            }
        }
        self.made_up.push(path.to_owned());
        if let Some((_, variant)) = variants.first() {
            *value = self.placeholder(variant, path);
        }
    }

    /// A secret from the environment is read here, from the environment that was handed in; a file when used.
    fn secret(&mut self, value: &mut Value, path: &str) {
        let read = match written_secret(value) {
            Ok(Written::Literal) => {
                self.hidden.push(path.to_owned());
                if value.as_str() == Some("") { Err(SecretError::Empty) } else { Ok(()) }
            }
            Ok(Written::Env(name)) => match self.env.get(&name) {
                None => Err(SecretError::NoEnv(name)),
                Some(found) if found.is_empty() => Err(SecretError::EmptyEnv(name)),
                Some(found) => {
                    *value = Value::from(found.clone());
                    Ok(())
                }
            },
            Ok(Written::File(file)) => Secret::File(FromFile { file: file.into() }).read().map(drop),
            Err(Miswritten { key, at, message }) => {
                self.hidden.push(path.to_owned());
                self.made_up.push(path.to_owned());
                let key = key.map_or_else(|| path.to_owned(), |key| join(path, &key));
                self.note(&key, at, message);
                *value = Value::from(PLACEHOLDER);
                return;
            }
        };
        if let Err(error) = read {
            if error != SecretError::Empty {
                self.unread.push(path.to_owned());
            }
            self.note(path, At::Value, error.to_string());
        }
    }

    /// Something harmless of the right shape.
    fn placeholder(&self, node: &Value, path: &str) -> Value {
        if let Some(default) = self.defaults.pointer(&format!("/{}", path.replace('.', "/"))) {
            return default.clone();
        }
        match kind::of(self.schema, node) {
            Kind::Secret | Kind::Text => Value::from(PLACEHOLDER),
            Kind::Words(words) => words.first().copied().map(Value::from).unwrap_or_default(),
            Kind::Integer { .. } => Value::from(1),
            Kind::Number { .. } => Value::from(1.0),
            Kind::Boolean => Value::from(false),
            Kind::Array(_) => Value::Array(Vec::new()),
            Kind::Named(_) => Value::Object(Map::new()),
            Kind::Tagged { variants, .. } => {
                variants.first().map(|(_, variant)| self.placeholder(variant, path)).unwrap_or_default()
            }
            Kind::Table { keys, required } => {
                let entries = required.iter().filter_map(|name| {
                    let node = keys.get(*name)?;
                    Some(((*name).to_owned(), self.placeholder(node, &join(path, name))))
                });
                Value::Object(entries.collect())
            }
        }
    }
}

const PLACEHOLDER: &str = "x";

enum Written {
    Literal,
    Env(String),
    File(String),
}

/// Never repeats what was written: it may be the secret itself.
struct Miswritten {
    /// Inside the secret's table.
    key: Option<String>,
    at: At,
    message: String,
}

fn written_secret(value: &Value) -> Result<Written, Miswritten> {
    let expected = Kind::Secret.expected();
    let wrong = |key: Option<&String>, at, message| Err(Miswritten { key: key.cloned(), at, message });
    let entries = match value {
        Value::String(_) => return Ok(Written::Literal),
        Value::Object(entries) => entries,
        other => return wrong(None, At::Value, format!("expected {expected}, found {}", name_of(other))),
    };
    if let Some(name) = entries.keys().find(|name| !matches!(name.as_str(), "env" | "file")) {
        let message = match nearest(name, ["env", "file"]) {
            Some(known) => format!("unknown key; did you mean {known:?}?"),
            None => format!("unknown key; expected {expected}"),
        };
        return wrong(Some(name), At::Key, message);
    }
    let mut pairs = entries.iter();
    match (pairs.next(), pairs.next()) {
        (Some((key, Value::String(name))), None) if key == "env" && !is_variable_name(name) => {
            let message = "expected the name of an environment variable: letters, digits and _".to_owned();
            wrong(Some(key), At::Value, message)
        }
        (Some((key, Value::String(name))), None) if key == "env" => Ok(Written::Env(name.clone())),
        (Some((_, Value::String(path))), None) => Ok(Written::File(path.clone())),
        (Some((key, other)), None) => {
            wrong(Some(key), At::Value, format!("expected a string, found {}", name_of(other)))
        }
        _ => wrong(None, At::Value, format!("expected {expected}")),
    }
}

fn unknown_key(name: &str, keys: &Map<String, Value>) -> String {
    match nearest(name, keys.keys().map(String::as_str)) {
        Some(known) => format!("unknown key; did you mean {known:?}?"),
        None => format!("unknown key; known here: {}", keys.keys().cloned().collect::<Vec<_>>().join(", ")),
    }
}

fn is_variable_name(text: &str) -> bool {
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    (1..=64).contains(&text.len()) && plain && !text.starts_with(|c: char| c.is_ascii_digit())
}

fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "a date or a number out of range",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "a table",
    }
}
