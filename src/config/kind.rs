//! The JSON Schema of the configuration, read as what each key takes.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// What a key takes.
pub(super) enum Kind<'s> {
    /// [`crate::settings::Secret`]
    Secret,
    /// Fixed keys.
    Table {
        keys: &'s Map<String, Value>,
        required: Vec<&'s str>,
    },
    /// Keys that people name.
    Named(&'s Value),
    /// Fixed keys that depend on the value of one of them.
    Tagged {
        tag: &'s str,
        variants: Vec<(&'s str, &'s Value)>,
    },
    Array(&'s Value),
    /// One of these.
    Words(Vec<&'s str>),
    Text,
    Integer {
        minimum: Option<f64>,
    },
    Number {
        minimum: Option<f64>,
    },
    Boolean,
}

impl Kind<'_> {
    pub(super) fn expected(&self) -> String {
        match self {
            Kind::Secret => r#"a secret: "text", { env = "NAME" } or { file = "path" }"#.to_owned(),
            Kind::Table { .. } | Kind::Named(_) | Kind::Tagged { .. } => "a table".to_owned(),
            Kind::Array(_) => "an array".to_owned(),
            Kind::Words(words) => format!("one of {}", words.join(", ")),
            Kind::Text => "a string".to_owned(),
            Kind::Integer { .. } => "a whole number".to_owned(),
            Kind::Number { .. } => "a number".to_owned(),
            Kind::Boolean => "true or false".to_owned(),
        }
    }

    /// Values of this kind may hold secrets, so a wrong one in their place is not shown.
    pub(super) fn may_hold_secrets(&self) -> bool {
        matches!(self, Kind::Secret | Kind::Table { .. } | Kind::Named(_) | Kind::Tagged { .. } | Kind::Array(_))
    }

    pub(super) fn accepts_text(&self) -> bool {
        matches!(self, Kind::Secret | Kind::Words(_) | Kind::Text)
    }
}

/// Follows `$ref` and forgets that an optional key may be null. The second value: it is a secret.
fn resolve<'s>(root: &'s Value, mut node: &'s Value) -> (&'s Value, bool) {
    loop {
        if let Some(inner) = node.get("anyOf").and_then(Value::as_array)
            && let Some(other) = inner.iter().find(|option| option.get("type") != Some(&Value::from("null")))
            && inner.len() == 2
        {
            node = other;
            continue;
        }
        let Some(name) = node.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix("#/$defs/")) else {
            return (node, false);
        };
        if name == "Secret" {
            return (node, true);
        }
        match root.get("$defs").and_then(|defs| defs.get(name)) {
            Some(found) => node = found,
            None => return (node, false),
        }
    }
}

/// What the schema `node` takes. Panics never; a construct that our settings don't use counts as text.
pub(super) fn of<'s>(root: &'s Value, node: &'s Value) -> Kind<'s> {
    let (node, secret) = resolve(root, node);
    if secret {
        return Kind::Secret;
    }
    if let Some(words) = node.get("enum").and_then(Value::as_array) {
        return Kind::Words(words.iter().filter_map(Value::as_str).collect());
    }
    if let Some(word) = node.get("const").and_then(Value::as_str) {
        return Kind::Words(vec![word]);
    }
    if let Some(options) = node.get("oneOf").and_then(Value::as_array) {
        return one_of(options);
    }
    let minimum = node.get("minimum").and_then(Value::as_f64);
    match type_of(node) {
        Some("object") => object(node),
        Some("array") => node.get("items").map_or(Kind::Text, Kind::Array),
        Some("integer") => Kind::Integer { minimum },
        Some("number") => Kind::Number { minimum },
        Some("boolean") => Kind::Boolean,
        _ => Kind::Text,
    }
}

/// The kind of the keys `path` leads to through tables; `None` when there is no such key.
pub(super) fn at<'s>(root: &'s Value, path: &[String]) -> Option<Kind<'s>> {
    let mut nodes = vec![root];
    for name in path {
        nodes = nodes
            .into_iter()
            .flat_map(|node| match of(root, node) {
                Kind::Table { keys, .. } => keys.get(name).into_iter().collect(),
                Kind::Named(inner) => vec![inner],
                Kind::Tagged { variants, .. } => variants
                    .into_iter()
                    .filter_map(|(_, variant)| variant.get("properties").and_then(|keys| keys.get(name)))
                    .collect(),
                _ => Vec::new(),
            })
            .collect();
    }
    nodes.first().map(|node| of(root, node))
}

fn type_of(node: &Value) -> Option<&str> {
    match node.get("type")? {
        Value::String(name) => Some(name),
        Value::Array(names) => names.iter().filter_map(Value::as_str).find(|name| *name != "null"),
        _ => None,
    }
}

fn object(node: &Value) -> Kind<'_> {
    match (node.get("properties").and_then(Value::as_object), node.get("additionalProperties")) {
        (Some(keys), _) => {
            let required = node.get("required").and_then(Value::as_array);
            Kind::Table { keys, required: required.into_iter().flatten().filter_map(Value::as_str).collect() }
        }
        (None, Some(inner)) if inner.is_object() => Kind::Named(inner),
        _ => Kind::Text,
    }
}

fn one_of(options: &[Value]) -> Kind<'_> {
    let words: Vec<&str> = options.iter().filter_map(|option| option.get("const").and_then(Value::as_str)).collect();
    if words.len() == options.len() {
        return Kind::Words(words);
    }
    let tagged = options.iter().filter_map(|option| {
        let keys = option.get("properties")?.as_object()?;
        let (tag, word) = keys.iter().find_map(|(key, value)| Some((key.as_str(), value.get("const")?.as_str()?)))?;
        Some((tag, word, option))
    });
    let mut tag_name = "kind";
    let variants = tagged
        .map(|(tag, word, option)| {
            tag_name = tag;
            (word, option)
        })
        .collect();
    Kind::Tagged { tag: tag_name, variants }
}

/// The names of all keys, wherever they stand.
pub(super) fn key_names(schema: &Value) -> BTreeSet<String> {
    let inner: Vec<&Value> = match schema {
        Value::Object(entries) => entries.values().collect(),
        Value::Array(items) => items.iter().collect(),
        _ => Vec::new(),
    };
    let own = schema.get("properties").and_then(Value::as_object).into_iter().flat_map(|keys| keys.keys().cloned());
    own.chain(inner.into_iter().flat_map(key_names)).collect()
}
