//! `callboard schema`

use clap::Args;

use super::{Exit, Globals, print_json};

/// Print the JSON Schema of the configuration
///
/// Editors complete and check a configuration whose first line is `#:schema FILE`.
#[derive(Debug, Args)]
pub struct Schema {}

impl Schema {
    pub async fn run(self, _globals: &Globals) -> Exit {
        print_json(&crate::config::schema())
    }
}
