//! What the settings of every module are made of: problems with their key, durations as text, secrets.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Deserializer};

/// Something wrong in the configuration. `key` is relative to the settings that found it: `url`, `poll.fastest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub key: String,
    /// What is wrong and what to write instead, without the key.
    pub message: String,
}

impl Problem {
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Problem {
        Problem { key: key.into(), message: message.into() }
    }

    /// The same problem, seen from one level up.
    #[must_use]
    pub fn under(mut self, parent: &str) -> Problem {
        self.key = if self.key.is_empty() { parent.to_owned() } else { format!("{parent}.{}", self.key) };
        self
    }
}

/// A duration as people write it: `500ms`, `5s`, `2m`, `1h`, `3d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
pub struct Span(#[schemars(with = "String", regex(pattern = r"^\s*[0-9]+(ms|s|m|h|d)\s*$"))] pub Duration);

impl std::str::FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Span, String> {
        let example = "write it like \"500ms\", \"5s\", \"2m\", \"1h\" or \"3d\"";
        let wrong = || format!("{} is not a duration; {example}", quoted(text));
        let text = text.trim();
        let unit_at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (digits, unit) = text.split_at(unit_at);
        let count: u64 = digits.parse().map_err(|_| wrong())?;
        let unit_ms: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        count.checked_mul(unit_ms).map(|ms| Span(Duration::from_millis(ms))).ok_or_else(wrong)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A secret as the configuration writes it: `"literal"`, `{ env = "NAME" }` or `{ file = "path" }`. Read when used,
/// never printed, never stored.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Secret {
    Literal(#[schemars(with = "String")] SecretString),
    Env(FromEnv),
    File(FromFile),
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FromEnv {
    pub env: String,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FromFile {
    pub file: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    #[error("the environment variable {0} is not set")]
    NoEnv(String),
    #[error("the environment variable {0} is empty")]
    EmptyEnv(String),
    #[error("the secret file {path} can't be read: {said}")]
    NoFile { path: String, said: String },
    #[error("the secret file {0} is empty")]
    EmptyFile(String),
    #[error("the secret is empty")]
    Empty,
}

impl Secret {
    /// The secret itself; a trailing line end of a file is not part of it.
    pub fn read(&self) -> Result<SecretString, SecretError> {
        match self {
            Secret::Literal(text) if secrecy::ExposeSecret::expose_secret(text).is_empty() => Err(SecretError::Empty),
            Secret::Literal(text) => Ok(text.clone()),
            Secret::Env(FromEnv { env }) => match std::env::var(env) {
                Ok(text) if text.is_empty() => Err(SecretError::EmptyEnv(env.clone())),
                Ok(text) => Ok(text.into()),
                Err(_) => Err(SecretError::NoEnv(env.clone())),
            },
            Secret::File(FromFile { file }) => {
                let path = file.display().to_string();
                let text = std::fs::read_to_string(file)
                    .map_err(|error| SecretError::NoFile { path: path.clone(), said: error.kind().to_string() })?;
                let text = text.trim_end_matches(['\r', '\n']);
                if text.is_empty() { Err(SecretError::EmptyFile(path)) } else { Ok(text.to_owned().into()) }
            }
        }
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Secret::Literal(_) => f.write_str("<secret>"),
            Secret::Env(from) => write!(f, "<secret from environment {}>", from.env),
            Secret::File(from) => write!(f, "<secret from file {}>", from.file.display()),
        }
    }
}

/// Locales that templates exist for.
pub const LOCALES: [&str; 2] = ["en", "zh-CN"];

pub fn default_locale() -> String {
    "en".to_owned()
}

pub fn default_timezone() -> String {
    "UTC".to_owned()
}

pub fn check_locale_and_timezone(locale: &str, timezone: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    if !LOCALES.contains(&locale) {
        problems.push(Problem::new("locale", format!("{} is not one of {}", quoted(locale), LOCALES.join(", "))));
    }
    if jiff::tz::TimeZone::get(timezone).is_err() {
        problems.push(Problem::new(
            "timezone",
            format!("{} is not an IANA time zone such as \"Asia/Shanghai\" or \"UTC\"", quoted(timezone)),
        ));
    }
    problems
}

/// What is wrong with the base URL of an API; `None` when it will do. The answer never repeats the URL.
pub fn check_base_url(text: &str) -> Option<String> {
    let example = "write it like \"https://api.example.com\"";
    match url::Url::parse(text) {
        Ok(url) if !matches!(url.scheme(), "http" | "https") => Some(format!("is not an http or https URL; {example}")),
        Ok(url) if !url.has_host() => Some(format!("names no host; {example}")),
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            Some("must not hold a user name or password".to_owned())
        }
        Ok(url) if url.query().is_some() || url.fragment().is_some() => {
            Some(format!("must not hold a query or fragment; {example}"))
        }
        Ok(_) => None,
        Err(_) => Some(format!("is not a URL; {example}")),
    }
}

/// A value as a message repeats it, unless it may be a secret that slipped under another key.
pub fn quoted(text: &str) -> String {
    if looks_secret(text) { "what stands here".to_owned() } else { format!("{text:?}") }
}

/// An address with more than a host, as webhooks have them, or a long word, as tokens are.
pub fn looks_secret(text: &str) -> bool {
    let address = text.split_once("://").is_some_and(|(_, rest)| {
        let (host, path) = rest.split_once(['/', '?', '#']).unwrap_or((rest, ""));
        !text.contains('{') && (host.contains('@') || !path.is_empty())
    });
    address || (text.len() >= 32 && !text.contains(|c: char| c.is_whitespace() || c == '/' || c == '{'))
}
