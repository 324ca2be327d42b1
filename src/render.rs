//! Change + channel kind + locale -> message. Loads and checks every template at start.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

/// `[templates]`
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// A folder whose templates take the place of the built-in ones of the same name.
    pub folder: Option<PathBuf>,
}
