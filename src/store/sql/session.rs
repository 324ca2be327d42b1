//! What an engine gives to the verbs: statements within one transaction, and rows read by column.
//!
//! Moments are integer milliseconds, truth is 0 or 1, and JSON is text, so that two types hold everything.

use crate::store::StoreError;

pub type Result<T> = std::result::Result<T, Fault>;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A value does not read back as what it was written as.
    #[error("{0}")]
    Unreadable(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Fault {
    /// Of the store called `name`.
    pub fn about(self, name: &str) -> StoreError {
        match self {
            Fault::Unreadable(said) => StoreError::Damaged { path: name.to_owned(), said },
            Fault::Store(error) => error,
        }
    }
}

/// One transaction. Statements are constants with parameters `?1`, `?2`, …; an engine keeps them prepared.
pub trait Session {
    /// Says how many rows were touched.
    fn execute(&self, statement: &str, values: &[Value]) -> Result<u64>;

    fn query(&self, statement: &str, values: &[Value]) -> Result<Vec<Row>>;

    /// Who claims by it, where several processes do.
    fn replica(&self) -> i64;

    /// Says that whoever claims by it lives. What it claims is left alone for as long as it is heard of.
    fn beat(&self) -> Result<()>;
}

impl dyn Session + '_ {
    pub fn all<T>(&self, statement: &str, values: &[Value], read: impl FnMut(&Row) -> Result<T>) -> Result<Vec<T>> {
        self.query(statement, values)?.iter().map(read).collect()
    }

    /// The first row, if there is one.
    pub fn first<T>(
        &self,
        statement: &str,
        values: &[Value],
        read: impl FnOnce(&Row) -> Result<T>,
    ) -> Result<Option<T>> {
        self.query(statement, values)?.first().map(read).transpose()
    }

    /// The row that is always there.
    pub fn one<T>(&self, statement: &str, values: &[Value], read: impl FnOnce(&Row) -> Result<T>) -> Result<T> {
        let missing = || Fault::Store(StoreError::Failed("a row that is always there is missing".to_owned()));
        self.first(statement, values, read)?.ok_or_else(missing)
    }

    pub fn exists(&self, statement: &str, values: &[Value]) -> Result<bool> {
        Ok(!self.query(statement, values)?.is_empty())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Null,
    Integer(i64),
    Text(String),
}

/// `values![a, b]`: what a statement's parameters are, in order.
macro_rules! values {
    ($($value:expr),* $(,)?) => { &[$($crate::store::sql::session::Value::from(&$value)),*] };
}
pub(super) use values;

impl From<i64> for Value {
    fn from(value: i64) -> Value {
        Value::Integer(value)
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Value {
        Value::Integer(value.into())
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Value {
        Value::Integer(value.into())
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Value {
        Value::Text(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Value {
        Value::Text(value)
    }
}

impl<T: Clone + Into<Value>> From<&T> for Value {
    fn from(value: &T) -> Value {
        value.clone().into()
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::Null, Into::into)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row(pub Vec<Value>);

impl Row {
    pub fn get<T: FromValue>(&self, column: usize) -> Result<T> {
        let value = self.0.get(column).ok_or_else(|| unreadable(column, "there is no such column"))?;
        T::from_value(value).ok_or_else(|| unreadable(column, "it has another type than it was written with"))
    }

    pub fn text(&self, column: usize) -> Result<&str> {
        match self.0.get(column) {
            Some(Value::Text(text)) => Ok(text),
            _ => Err(unreadable(column, "it is no text")),
        }
    }
}

pub fn unreadable(column: usize, cause: impl std::fmt::Display) -> Fault {
    Fault::Unreadable(format!("column {column} can't be read: {cause}"))
}

pub trait FromValue: Sized {
    /// None: it is of another type.
    fn from_value(value: &Value) -> Option<Self>;
}

impl FromValue for i64 {
    fn from_value(value: &Value) -> Option<i64> {
        if let Value::Integer(value) = value { Some(*value) } else { None }
    }
}

impl FromValue for u32 {
    fn from_value(value: &Value) -> Option<u32> {
        i64::from_value(value)?.try_into().ok()
    }
}

impl FromValue for bool {
    fn from_value(value: &Value) -> Option<bool> {
        Some(i64::from_value(value)? != 0)
    }
}

impl FromValue for String {
    fn from_value(value: &Value) -> Option<String> {
        if let Value::Text(value) = value { Some(value.clone()) } else { None }
    }
}

impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: &Value) -> Option<Option<T>> {
        if *value == Value::Null { Some(None) } else { T::from_value(value).map(Some) }
    }
}
