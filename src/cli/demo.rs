//! `callboard demo`

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Exit, Globals, fail, print, stop_signal};
use crate::app::{self, App, AppError, Terminal};
use crate::channels;
use crate::config::{self, Config};
use crate::demo::{self, Release, dataworks};
use crate::model::{DeliveryState, Request, Timestamp};
use crate::settings::Span;
use crate::surfaces::{Inbox, console};

/// Try the whole bot on this machine, with no account and no configuration
///
/// Starts a simulated DataWorks with three releases under way, follows it over real HTTP and gives you a terminal to
/// type commands in. Nothing leaves this machine and nothing is kept.
#[derive(Debug, Args)]
pub struct Demo {
    /// End by itself after this time, for example 20s
    #[arg(long = "for", value_name = "SPAN")]
    ends_after: Option<Span>,
    /// The port of the board; 0 takes a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
}

impl Demo {
    pub async fn run(self, _: &Globals) -> Exit {
        let folder = std::env::temp_dir().join(format!("callboard-demo-{}", uuid::Uuid::new_v4().simple()));
        if let Err(error) = std::fs::create_dir(&folder) {
            return fail(Exit::Failed, &format!("no temporary folder can be made: {error}"));
        }
        let result = self.play(&folder).await;
        // What is left of a temporary folder is the system's to clean.
        drop(std::fs::remove_dir_all(&folder));
        result.unwrap_or_else(|error| fail(Exit::Failed, &error.to_string()))
    }

    async fn play(self, folder: &Path) -> Result<Exit, AppError> {
        let stop = CancellationToken::new();
        let world = dataworks::World::new(demo::ACCESS_KEY_ID, demo::ACCESS_KEY_SECRET);
        let releases = demo::releases(&world);
        let listener = bind(0).await?;
        let api = address(&listener);
        tokio::spawn(dataworks::serve(world.clone(), listener, stop.clone()));
        let config = configuration(&api, folder, self.port)?;
        let listener = app::listen(&config).await?;
        let board = address(&listener);
        let terminal = Terminal {
            surface: Arc::new(console::Console::stdin(Box::new(anstream::stdout()))),
            channel: Arc::new(channels::console::Console::new(Box::new(anstream::stdout()))),
        };
        let app = App::build(&config, Some(terminal), Arc::new(Timestamp::now)).await?;
        let store = Arc::clone(&app.store);
        print(&welcome(&api, &board, &releases));
        stop_signal(stop.clone());
        if let Some(Span(span)) = self.ends_after {
            let stop = stop.clone();
            tokio::spawn(async move {
                tokio::time::sleep(span).await;
                stop.cancel();
            });
        }
        let living = tokio::spawn(demo::live(world));
        if let Some(first) = releases.first() {
            tokio::spawn(type_for_them(app.inbox.clone(), format!("/watch {}", first.id.short())));
        }
        let result = app.run(listener, stop).await;
        living.abort();
        result?;
        let counts = store.overview().await?.deliveries;
        let delivered =
            counts.iter().find(|(state, _)| *state == DeliveryState::Delivered).map_or(0, |(_, count)| *count);
        Ok(print(&farewell(delivered)))
    }
}

async fn bind(port: u16) -> Result<TcpListener, AppError> {
    let bound = TcpListener::bind(("127.0.0.1", port)).await;
    bound.map_err(|error| AppError::Listen { address: format!("127.0.0.1:{port}"), said: error.to_string() })
}

fn address(listener: &TcpListener) -> String {
    listener.local_addr().map_or_else(|_| "an unknown address".to_owned(), |address| format!("http://{address}"))
}

/// The demo's configuration, by the same way as everybody's.
fn configuration(api: &str, folder: &Path, port: u16) -> Result<Config, AppError> {
    let store: PathBuf = folder.join("callboard.db");
    let text = format!(
        r#"
[server]
listen = "127.0.0.1:{port}"

[store]
url = {store:?}

[dataworks]
endpoint = "{api}"
credentials = {{ access_key_id = "{id}", access_key_secret = "{secret}" }}
poll = {{ fastest = "500ms", slowest = "2s", waiting_after = "3s" }}
budget = {{ edition = "enterprise" }}

[[workspaces]]
name = "warehouse"
region = "{region}"
project_id = {project_id}

[network]
allow_private = ["127.0.0.0/8"]
"#,
        store = format!("sqlite:{}", store.display()),
        id = demo::ACCESS_KEY_ID,
        secret = demo::ACCESS_KEY_SECRET,
        region = demo::REGION,
        project_id = demo::PROJECT_ID,
    );
    config::parse("the demo", &text, [])
        .map_err(|invalid| AppError::Settings(crate::settings::Problem::new("demo", invalid.lines())))
}

/// Shows how it is done: the first command comes by itself.
async fn type_for_them(inbox: Inbox, text: String) {
    tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    print(&format!("\x1b[2m>\x1b[0m {text}\n"));
    let request = Request {
        surface: console::NAME.to_owned(),
        room: console::NAME.to_owned(),
        user: "demo".to_owned(),
        text,
        at: Timestamp::now(),
    };
    if let Ok(reply) = inbox.ask(request).await {
        print(&format!("{}\n\n", console::written(&reply.text)));
    }
}

fn welcome(api: &str, board: &str, releases: &[Release]) -> String {
    let mut text = format!(
        "\x1b[1mCallboard demo\x1b[0m: a simulated DataWorks at {api}, the board at {board}\n\n\
         Three releases are under way in the workspace warehouse:\n"
    );
    for Release { id, name, fate } in releases {
        text.push_str(&format!("  \x1b[36m{}\x1b[0m  {name:<21} {fate}\n", id.short()));
    }
    let other = releases.get(1).map_or("", |release| release.id.short());
    text.push_str(&format!(
        "\nType \x1b[36m/watch {other}\x1b[0m, \x1b[36m/runs\x1b[0m or \x1b[36m/help\x1b[0m and press Enter. Ctrl-C ends the demo.\n\n"
    ));
    text
}

fn farewell(delivered: u64) -> String {
    format!(
        "\nThe demo is over: {delivered} messages posted. To follow your own workspaces, copy config/example.toml to \
         config/callboard.toml,\nput your values in, and let \x1b[36mcallboard check\x1b[0m tell what is missing.\n"
    )
}
