//! DingTalk custom robots.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::settings::{Problem, Secret};

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The robot's URL with its access token; it is a secret.
    pub url: Secret,
    /// The signing secret (SEC…), when the robot uses signatures.
    pub secret: Option<Secret>,
    /// A word the robot requires in every message, when it uses keywords.
    pub keyword: Option<String>,
    #[serde(default = "crate::settings::default_locale")]
    pub locale: String,
    #[serde(default = "crate::settings::default_timezone")]
    pub timezone: String,
}

impl Settings {
    pub fn check(&self) -> Vec<Problem> {
        crate::settings::check_locale_and_timezone(&self.locale, &self.timezone)
    }
}
