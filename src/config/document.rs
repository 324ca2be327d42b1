//! The text of a configuration file as plain values, and where in it each key stands.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::{Map, Value};
use toml::de::{DeTable, DeValue};

pub use crate::text::nearest;

/// Where a key stands, in bytes. A table's `value` is its header.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub key: Range<usize>,
    pub value: Range<usize>,
}

/// Keys by path: `channels.ops.url`, `workspaces[1].name`.
pub(super) type Places = BTreeMap<String, Place>;

/// What the TOML parser objected to.
#[derive(Debug)]
pub(super) struct Syntax {
    pub at: Range<usize>,
    pub message: String,
}

/// Dates, and numbers outside 64 bits, become null: no key of ours takes them, so the shape check refuses them.
pub(super) fn parse(text: &str) -> Result<(Value, Places), Vec<Syntax>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let end = text.len()..text.len();
        return Err(errors
            .into_iter()
            .map(|error| Syntax { at: error.span().unwrap_or(end.clone()), message: error.message().to_owned() })
            .collect());
    }
    let mut places = Places::new();
    let value = from_table(table.get_ref(), "", &mut places);
    Ok((value, places))
}

/// One value, as in an environment variable; `None` when it is not TOML.
pub(super) fn parse_value(text: &str) -> Option<Value> {
    let value = DeValue::parse(text).ok()?;
    Some(from_value(value.get_ref(), "", &mut Places::new()))
}

fn from_table(table: &DeTable<'_>, path: &str, places: &mut Places) -> Value {
    let entries = table.iter().map(|(key, value)| {
        let inner = join(path, key.get_ref());
        places.insert(inner.clone(), Place { key: key.span(), value: value.span() });
        (key.get_ref().clone().into_owned(), from_value(value.get_ref(), &inner, places))
    });
    Value::Object(entries.collect::<Map<_, _>>())
}

fn from_value(value: &DeValue<'_>, path: &str, places: &mut Places) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.clone().into_owned()),
        DeValue::Integer(digits) => {
            i64::from_str_radix(digits.as_str(), digits.radix()).map_or(Value::Null, Value::from)
        }
        DeValue::Float(digits) => digits.as_str().parse::<f64>().map_or(Value::Null, Value::from),
        DeValue::Boolean(yes) => Value::Bool(*yes),
        DeValue::Datetime(_) => Value::Null,
        DeValue::Table(table) => from_table(table, path, places),
        DeValue::Array(items) => {
            let items = items.iter().enumerate().map(|(index, item)| {
                let inner = item_of(path, index);
                places.insert(inner.clone(), Place { key: item.span(), value: item.span() });
                from_value(item.get_ref(), &inner, places)
            });
            Value::Array(items.collect())
        }
    }
}

// ------------------------------------------------------------------------------------------------------- key paths

/// The path of `name` in the table at `path`. A name that TOML would quote is quoted.
pub(super) fn join(path: &str, name: &str) -> String {
    let simple = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    let name = if simple { name.to_owned() } else { format!("{name:?}") };
    if path.is_empty() { name } else { format!("{path}.{name}") }
}

pub(super) fn item_of(path: &str, index: usize) -> String {
    format!("{path}[{index}]")
}

/// The table or array around `path`; empty for a section.
pub(super) fn parent(path: &str) -> &str {
    path.rfind(['.', '[']).and_then(|at| path.get(..at)).unwrap_or("")
}

/// `path` is `ancestor` or lies inside it.
pub(super) fn within(path: &str, ancestor: &str) -> bool {
    path.strip_prefix(ancestor).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_nested_keys() {
        let text = "[a]\nb = { c = [1, 2] }\n[[d]]\n\"e f\" = 3\n";
        let (_, places) = parse(text).unwrap();
        let at = |path: &str| text.get(places[path].key.clone()).unwrap().to_owned();
        assert_eq!(at("a.b.c"), "c");
        assert_eq!(at("a.b.c[1]"), "2");
        assert_eq!(at("d[0].\"e f\""), "\"e f\"");
        assert!(within("a.b.c[1]", "a.b") && !within("a.bc", "a.b"));
        assert_eq!(parent("a.b.c[1]"), "a.b.c");
    }
}
