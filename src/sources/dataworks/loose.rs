//! JSON read loosely: any type in any place, keys in any case, doubled keys, nesting without end.
//!
//! The documentation, the SDKs and captured answers of DataWorks disagree on types, so nothing here depends on one.

use std::fmt;

use serde::Deserialize as _;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Deeper levels are read over: the deepest value of interest, a stage's status in a list, lies at level 6.
const DEEPEST: u8 = 8;

/// A value. What is nested too deep, and null, is `Nothing`.
#[derive(Debug, Clone, PartialEq)]
pub enum Loose {
    Nothing,
    Bool(bool),
    Integer(i64),
    /// Text, and numbers that are no 64 bit integer, as they are written.
    Text(String),
    List(Vec<Loose>),
    Object(Vec<(String, Loose)>),
}

impl Loose {
    /// Err with the parser's words when the bytes are not one JSON value.
    pub fn parse(bytes: &[u8]) -> Result<Loose, String> {
        let mut parser = serde_json::Deserializer::from_slice(bytes);
        let value = Level(0).deserialize(&mut parser).map_err(|error| error.to_string())?;
        parser.end().map_err(|error| error.to_string())?;
        Ok(value)
    }

    /// The value under a key, whatever its case; the exact spelling wins, then the last one given.
    pub fn get(&self, key: &str) -> &Loose {
        let Loose::Object(pairs) = self else { return &Loose::Nothing };
        let exact = pairs.iter().rev().find(|(name, _)| name == key);
        let found = exact.or_else(|| pairs.iter().rev().find(|(name, _)| name.eq_ignore_ascii_case(key)));
        found.map_or(&Loose::Nothing, |(_, value)| value)
    }

    pub fn is_nothing(&self) -> bool {
        *self == Loose::Nothing
    }

    /// Text, or a number or truth value as text.
    pub fn text(&self) -> Option<String> {
        match self {
            Loose::Text(text) => Some(text.clone()),
            Loose::Integer(number) => Some(number.to_string()),
            Loose::Bool(truth) => Some(truth.to_string()),
            Loose::Nothing | Loose::List(_) | Loose::Object(_) => None,
        }
    }

    /// A whole number, or text that is one.
    pub fn integer(&self) -> Option<i64> {
        match self {
            Loose::Integer(number) => Some(*number),
            Loose::Text(text) => whole(text.trim()),
            _ => None,
        }
    }

    pub fn list(&self) -> &[Loose] {
        match self {
            Loose::List(items) => items,
            _ => &[],
        }
    }
}

/// `12`, and `12.0` and `1.2e1` too, which some JSON writers make of a number.
fn whole(text: &str) -> Option<i64> {
    text.parse::<i64>().ok().or_else(|| {
        let number: f64 = text.parse().ok()?;
        let exact = number.fract() == 0.0 && number.abs() < 9e15;
        exact.then_some(number as i64)
    })
}

struct Level(u8);

impl<'de> DeserializeSeed<'de> for Level {
    type Value = Loose;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Loose, D::Error> {
        if self.0 > DEEPEST {
            // The JSON parser skips without recursion, so hostile nesting costs nothing.
            return IgnoredAny::deserialize(deserializer).map(|_| Loose::Nothing);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level {
    type Value = Loose;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Loose, E> {
        Ok(Loose::Nothing)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Loose, E> {
        Ok(Loose::Bool(truth))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Loose, E> {
        Ok(Loose::Integer(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Loose, E> {
        Ok(i64::try_from(number).map_or_else(|_| Loose::Text(number.to_string()), Loose::Integer))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Loose, E> {
        Ok(Loose::Text(number.to_string()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Loose, E> {
        Ok(Loose::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Loose, E> {
        Ok(Loose::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Loose, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Level(self.0 + 1))? {
            list.push(item);
        }
        Ok(Loose::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Loose, A::Error> {
        let mut object = Vec::new();
        while let Some(key) = entries.next_key::<String>()? {
            object.push((key, entries.next_value_seed(Level(self.0 + 1))?));
        }
        Ok(Loose::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_text_stand_for_each_other() {
        let value = Loose::parse(br#"{"a":"12","b":12,"c":12.0,"d":"x","e":99999999999999999999,"f":true}"#).unwrap();
        assert_eq!(["a", "b", "c"].map(|key| value.get(key).integer()), [Some(12); 3]);
        assert_eq!(value.get("b").text().as_deref(), Some("12"));
        assert_eq!(value.get("d").integer(), None);
        assert!(value.get("e").text().is_some(), "a number beyond 64 bits is kept as text");
        assert_eq!(value.get("f").text().as_deref(), Some("true"));
    }

    #[test]
    fn keys_are_found_in_any_case_and_the_last_of_two_wins() {
        let value = Loose::parse(br#"{"code":"a","Code":"b","MESSAGE":"c","x":1,"x":2}"#).unwrap();
        assert_eq!(value.get("Code").text().as_deref(), Some("b"));
        assert_eq!(value.get("Message").text().as_deref(), Some("c"));
        assert_eq!(value.get("x").integer(), Some(2));
    }

    #[test]
    fn nesting_without_end_is_read_over() {
        let deep = format!(r#"{{"Detail":{}1{},"Status":"Init"}}"#, "[".repeat(200_000), "]".repeat(200_000));
        let value = Loose::parse(deep.as_bytes()).unwrap();
        assert_eq!(value.get("Status").text().as_deref(), Some("Init"));
    }

    #[test]
    fn what_is_not_one_json_value_is_an_error() {
        for bytes in [&b""[..], b"<html>", b"{\"a\":", b"{} {}", b"\xff\xfe", b"{\"a\":1e999}"] {
            assert!(Loose::parse(bytes).is_err(), "{}", String::from_utf8_lossy(bytes));
        }
    }
}
