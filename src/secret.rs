//! Secrets as the configuration writes them: `"literal"`, `{ env = "NAME" }` or `{ file = "path" }`. Read when used,
//! never printed, never stored.

use std::path::PathBuf;

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::Deserialize;

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
