//! `callboard demo`

use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::screen::Screen;
use super::{Exit, Globals, counted, fail, stop_signal};
use crate::app::{self, App, AppError, Terminal};
use crate::channels;
use crate::config::{self, Config};
use crate::demo::{self, Release, dataworks};
use crate::model::{DeliveryState, Request, Timestamp, Workspace};
use crate::settings::Span;
use crate::store::{Store, StoreError};
use crate::surfaces::{Inbox, console};
use crate::tracker::Tracker;

/// Try the whole bot on this machine, with no account and no configuration
///
/// Starts a simulated DataWorks with three releases under way, follows it over real HTTP and gives you a terminal to
/// type commands in. Nothing leaves this machine and nothing is kept. Ctrl-C, Ctrl-D or `exit` ends it.
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
            return fail(Exit::Failed, &format!("no temporary folder can be made: {}", error.kind()));
        }
        let result = self.play(&folder).await;
        // What is left of a temporary folder is the system's to clean.
        drop(std::fs::remove_dir_all(&folder));
        match result {
            Ok(()) => Exit::Done,
            Err(AppError::Listen { address, said }) => {
                let port = "choose another with --port, or leave --port out and a free one is taken";
                fail(Exit::Failed, &format!("the board can't have {address}: {said}; {port}"))
            }
            Err(error) => fail(Exit::Failed, &error.to_string()),
        }
    }

    async fn play(self, folder: &Path) -> Result<(), AppError> {
        let began = Instant::now();
        let stop = CancellationToken::new();
        let world = dataworks::World::new(demo::ACCESS_KEY_ID, demo::ACCESS_KEY_SECRET);
        let releases = demo::releases(&world);
        let listener = bind().await?;
        let api = address(&listener);
        tokio::spawn(dataworks::serve(world.clone(), listener, stop.clone()));
        let config = configuration(&api, folder, self.port)?;
        let listener = app::listen(&config).await?;
        let board = address(&listener);
        let screen = Screen::new();
        let answers = Box::new(screen.answering());
        let (listens, may_type) = oneshot::channel();
        let terminal = Terminal {
            surface: Arc::new(console::Console::new(keyboard(may_type, stop.clone()), answers)),
            channel: Arc::new(channels::console::Console::new(Box::new(screen.clone()))),
        };
        let app = App::build(&config, Some(terminal), Arc::new(Timestamp::now)).await?;
        let store = Arc::clone(&app.store);
        screen.end(&welcome(&api, &board, &releases));
        screen.prompt();
        stop_signal(stop.clone());
        if let Some(Span(span)) = self.ends_after {
            let stop = stop.clone();
            tokio::spawn(async move {
                tokio::time::sleep(span).await;
                stop.cancel();
            });
        }
        let guide = Guide { world: world.clone(), releases, screen: screen.clone() };
        let guide = guide.lead(Arc::clone(&app.tracker), app.workspaces.clone(), app.inbox.clone(), listens);
        let guide = tokio::spawn(guide);
        let living = tokio::spawn(demo::live(world));
        let result = app.run(listener, stop).await;
        guide.abort();
        living.abort();
        result?;
        screen.end(&farewell(delivered(store.as_ref()).await?, began.elapsed()));
        Ok(())
    }
}

async fn bind() -> Result<TcpListener, AppError> {
    let bound = TcpListener::bind(("127.0.0.1", 0)).await;
    bound.map_err(|error| AppError::Listen { address: "127.0.0.1".to_owned(), said: error.to_string() })
}

fn address(listener: &TcpListener) -> String {
    listener.local_addr().map_or_else(|_| "an unknown address".to_owned(), |address| format!("http://{address}"))
}

/// Lines typed ahead at most.
const TYPED_AHEAD: usize = 64;

/// What is typed from `may_type` on, read in a thread of its own, which the process need not wait for when it ends. At a
/// terminal the end of the input ends the demo; a pipe that has run dry does not.
fn keyboard(may_type: oneshot::Receiver<()>, stop: CancellationToken) -> mpsc::Receiver<String> {
    let (typed, lines) = mpsc::channel(TYPED_AHEAD);
    std::thread::spawn(move || {
        if may_type.blocking_recv().is_err() {
            return;
        }
        let farewells = ["exit", "quit", "/exit", "/quit"];
        // Whatever bytes a terminal sends make a line.
        for line in std::io::stdin().lock().split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if farewells.contains(&line.trim()) {
                return stop.cancel();
            }
            if typed.blocking_send(line).is_err() {
                return;
            }
        }
        if std::io::stdin().is_terminal() {
            stop.cancel();
        }
    });
    lines
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

/// Shows how it is done by a first command, and keeps something to follow.
struct Guide {
    world: dataworks::World,
    releases: Vec<Release>,
    screen: Screen,
}

impl Guide {
    /// `listens` is told when a run can be found by the beginning of its id: once the workspace was polled.
    async fn lead(self, tracker: Arc<Tracker>, workspaces: Vec<Workspace>, inbox: Inbox, listens: oneshot::Sender<()>) {
        const LOOKS_EVERY: Duration = Duration::from_millis(100);
        const READING: Duration = Duration::from_millis(500);
        while !workspaces.iter().all(|workspace| tracker.was_polled(&workspace.key())) {
            tokio::time::sleep(LOOKS_EVERY).await;
        }
        tokio::time::sleep(READING).await;
        if let Some(first) = self.releases.first() {
            self.type_for_them(&inbox, format!("/watch {}", first.id.short())).await;
        }
        if listens.send(()).is_ok() {
            self.start_others().await;
        }
    }

    /// When all has ended, another release starts.
    async fn start_others(&self) {
        const LOOKS_EVERY: Duration = Duration::from_secs(1);
        // The last messages come first.
        const PAUSE: Duration = Duration::from_secs(4);
        for number in 3.. {
            while !demo::all_ended(&self.world) {
                tokio::time::sleep(LOOKS_EVERY).await;
            }
            tokio::time::sleep(PAUSE).await;
            let Release { id, name, fate } = demo::another(&self.world, number);
            let id = id.short();
            self.screen.say(&format!(
                "Every release has ended, so another one starts: {name}, which {fate}.\n\
                 Follow it: {CYAN}/watch {id}{RESET}\n\n"
            ));
        }
    }

    async fn type_for_them(&self, inbox: &Inbox, text: String) {
        self.screen.say(&format!("{DIM}>{RESET} {text}\n"));
        let request = Request { asker: console::asker(), locale: String::new(), text, at: Timestamp::now() };
        if let Ok(reply) = inbox.ask(request).await {
            self.screen.say(&format!("{}\n\n", console::written(&reply.text)));
        }
    }
}

const BOLD: &str = "\u{1b}[1m";
const DIM: &str = "\u{1b}[2m";
const CYAN: &str = "\u{1b}[36m";
const RESET: &str = "\u{1b}[0m";

fn welcome(api: &str, board: &str, releases: &[Release]) -> String {
    let mut text = format!(
        "{BOLD}Callboard demo{RESET}: everything is on this machine, and nothing of it is kept.\n\
         The board: {BOLD}{board}/{RESET}   The simulated DataWorks: {api}\n\n\
         Three releases are under way in the workspace warehouse:\n"
    );
    for Release { id, name, fate } in releases {
        text.push_str(&format!("  {CYAN}{}{RESET}  {name:<19}  {fate}\n", id.short()));
    }
    let other = releases.get(1).map_or("", |release| release.id.short());
    text.push_str(&format!(
        "\nI watch the first one for you.\nType {CYAN}/watch {other}{RESET}, {CYAN}/runs{RESET} or {CYAN}/help{RESET} and press \
         Enter; Ctrl-C ends the demo.\n\n"
    ));
    text
}

async fn delivered(store: &dyn Store) -> Result<usize, StoreError> {
    let counts = store.overview().await?.deliveries;
    let delivered = counts.iter().find(|(state, _)| *state == DeliveryState::Delivered);
    Ok(delivered.map_or(0, |(_, count)| usize::try_from(*count).unwrap_or(usize::MAX)))
}

fn farewell(delivered: usize, ran: Duration) -> String {
    format!(
        "\nThe demo ran for {} s and posted {}.\n\
         To follow your own workspaces, write config/callboard.toml (config/example.toml shows a whole one)\n\
         and let {CYAN}callboard check --online{RESET} tell what is missing.\n",
        ran.as_secs(),
        counted(delivered, "message"),
    )
}
