//! Alibaba Cloud DataWorks, API version 2024-05-18.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::settings::{Problem, Secret, Span};

/// `[dataworks]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `{region}` is replaced; a fixed URL serves tests and VPCs.
    pub endpoint: String,
    /// Absent: the official default chain (environment, OIDC, CLI profile, shared file, instance role, URI).
    pub credentials: Option<Credentials>,
    /// Link into the console; `{region}`, `{project_id}` and `{run_id}` are replaced.
    pub console: String,
    pub poll: Poll,
    pub budget: Budget,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    pub access_key_id: Secret,
    pub access_key_secret: Secret,
    /// With temporary credentials of STS.
    pub security_token: Option<Secret>,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Poll {
    /// Between two lists of a workspace where something moves.
    pub fastest: Span,
    /// Between two lists of a workspace where everything waits or has ended.
    pub slowest: Span,
    /// How long a stage stands still before it is said to wait for a person.
    pub waiting_after: Span,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    pub edition: Edition,
    /// Instead of the edition's.
    pub calls_per_second: Option<f64>,
    /// Instead of the edition's.
    pub calls_per_day: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Edition {
    Basic,
    Standard,
    Professional,
    Enterprise,
}

impl Settings {
    pub fn check(&self) -> Vec<Problem> {
        Vec::new()
    }
}
