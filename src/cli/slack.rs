//! `callboard slack`

use clap::{Args, Subcommand};
use url::Url;

use super::{Exit, Globals, print_json};
use crate::commands::{CATALOG, usage};
use crate::surfaces::slack::manifest::manifest;

/// Help to set up the Slack app
#[derive(Debug, Args)]
pub struct Slack {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Print the app's manifest, to paste at api.slack.com/apps: Create New App, From a manifest, JSON
    ///
    /// Without --url the app connects over Socket Mode, for which nobody needs to reach this machine.
    Manifest {
        /// The public address of Callboard, to which Slack sends commands by HTTPS
        #[arg(long, value_name = "URL", value_parser = address, conflicts_with = "socket")]
        url: Option<Url>,
        /// Commands over Socket Mode, as without --url
        #[arg(long)]
        socket: bool,
    },
}

/// Slack calls nothing else: <https://docs.slack.dev/interactivity/implementing-slash-commands>
fn address(text: &str) -> Result<Url, String> {
    let url: Option<Url> = text.parse().ok().filter(|url: &Url| url.scheme() == "https" && url.has_host());
    url.ok_or_else(|| "write it like https://callboard.example.com; Slack calls https alone".to_owned())
}

impl Slack {
    pub async fn run(self, _globals: &Globals) -> Exit {
        let Verb::Manifest { url, .. } = self.verb;
        print_json(&manifest(&CATALOG, usage, url.as_ref()))
    }
}
