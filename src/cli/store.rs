//! `callboard store`

use clap::{Args, Subcommand};

use super::{Exit, Globals, counted, fail, print, print_json};
use crate::store::{self, Copied, Settings};

/// Move an installation into another store
#[derive(Debug, Args)]
pub struct Store {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Move everything from an SQLite store into the one of the configuration, which must be empty
    ///
    /// Stop callboard first. Subscriptions, runs, what was sent and what is still owed go over together or not at all;
    /// the file stays where it is, as a backup. A message that was under way when callboard was last killed may have
    /// arrived, and is treated as after any start.
    MigrateFrom {
        /// The store to move from, as sqlite:PATH
        url: String,
        /// Print what was moved as JSON
        #[arg(long)]
        json: bool,
    },
}

impl Store {
    pub async fn run(self, globals: &Globals) -> Exit {
        let config = match globals.load_in_part() {
            Ok(config) => config,
            Err(exit) => return exit,
        };
        let Verb::MigrateFrom { url, json } = self.verb;
        // What was typed is not repeated: it may hold a password.
        if !url.starts_with("sqlite:") {
            return fail(
                Exit::Misused,
                "only an SQLite store is moved; write it as sqlite:PATH, where PATH is its file",
            );
        }
        match store::migrate(&Settings::of(url), &config.store).await {
            Ok(moved) if json => print_json(&serde_json::json!(moved)),
            Ok(moved) => print(&told(&moved)),
            Err(error) => fail(Exit::Failed, &error.to_string()),
        }
    }
}

fn told(moved: &Copied) -> String {
    let Copied { workspaces, runs, subscriptions, changes, deliveries, open, attempts, destinations, audited } = *moved;
    let count = |number: u64, noun: &str| counted(usize::try_from(number).unwrap_or(usize::MAX), noun);
    let deliveries = if deliveries == 1 { "1 delivery".to_owned() } else { format!("{deliveries} deliveries") };
    format!(
        "Moved {}, {}, {}, {}, {deliveries} ({open} still to be sent), {}, {} and {}.\n\
         Next: start callboard. The old file is a backup from now on; a callboard that is started on it repeats what the \
         new one sends.\n",
        count(workspaces, "workspace"),
        count(runs, "run"),
        count(subscriptions, "subscription"),
        count(changes, "change"),
        count(attempts, "attempt"),
        count(destinations, "destination"),
        count(audited, "audit row"),
    )
}
