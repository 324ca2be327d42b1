//! Generic webhooks in the form of Standard Webhooks.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::settings::{Problem, Secret};

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub url: Secret,
    /// The signing secret: `whsec_` and base64. Absent: requests are not signed.
    pub secret: Option<Secret>,
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
