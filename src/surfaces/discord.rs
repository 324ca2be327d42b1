//! Discord through its gateway.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::settings::{Problem, Secret};

/// `[discord]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The bot's token.
    pub token: Secret,
    /// Base URL, for tests and proxies.
    #[serde(default = "default_api")]
    pub api: String,
    #[serde(default = "crate::settings::default_locale")]
    pub locale: String,
    #[serde(default = "crate::settings::default_timezone")]
    pub timezone: String,
}

fn default_api() -> String {
    "https://discord.com".to_owned()
}

impl Settings {
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = crate::settings::check_locale_and_timezone(&self.locale, &self.timezone);
        problems.extend(crate::settings::check_base_url(&self.api).map(|message| Problem::new("api", message)));
        problems
    }
}
