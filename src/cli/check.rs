//! `callboard check`

use std::io::IsTerminal;

use clap::Args;
use serde_json::json;

use super::{Exit, Globals, environment, print, print_json};
use crate::config::{self, Config, Invalid};
use crate::settings::Problem;

/// Say everything that is wrong with the configuration, all at once
///
/// Reads the configuration as `run` would and reports each mistake with file, line, column and key: unknown and missing
/// keys, wrong values, sections that don't fit together, unset environment variables and missing secret files. Secrets
/// are never shown.
#[derive(Debug, Args)]
pub struct Check {
    /// Print the mistakes as JSON
    #[arg(long)]
    json: bool,
}

impl Check {
    pub async fn run(self, globals: &Globals) -> Exit {
        let file = globals.config_file().display().to_string();
        match config::load_and_check(globals.config.as_deref(), environment(), &beyond_the_configuration) {
            Err(invalid) => self.tell_mistakes(&invalid),
            Ok(config) => self.tell_fine(&file, &config),
        }
    }

    fn tell_mistakes(&self, invalid: &Invalid) -> Exit {
        let told = if self.json {
            print_json(&json!({ "ok": false, "mistakes": invalid.mistakes() }))
        } else if std::io::stdout().is_terminal() {
            print(&invalid.report(true))
        } else {
            print(&invalid.lines())
        };
        if told == Exit::Done { Exit::Misused } else { told }
    }

    fn tell_fine(&self, file: &str, config: &Config) -> Exit {
        if self.json {
            return print_json(&json!({ "ok": true, "mistakes": [] }));
        }
        let count = |number: usize, noun: &str| format!("{number} {noun}{}", if number == 1 { "" } else { "s" });
        let parts = [
            count(config.workspaces.len(), "workspace"),
            count(config.channels.len(), "channel"),
            count(config.subscriptions.len(), "standing subscription"),
        ];
        print(&format!("{file} is fine: {}\n", parts.join(", ")))
    }
}

/// What the configuration names and other modules check, such as templates; told together with its own mistakes.
/// What needs the network (credentials, destinations) comes after [`config::load_and_check`], on a good configuration.
fn beyond_the_configuration(_config: &Config) -> Vec<Problem> {
    Vec::new()
}
