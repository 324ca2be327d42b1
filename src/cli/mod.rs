//! The command line: one file per command, and the one list of them.
//!
//! A command is a struct of its arguments, whose doc comment is its help, with
//! `pub async fn run(self, globals: &Globals) -> Exit`. To add one: its file, a `mod` line and a line in the list.

mod audit;
mod check;
mod completions;
mod deliveries;
mod demo;
mod render;
mod run;
mod schema;
mod screen;
mod send;
mod simulate;
mod slack;
mod store;
mod subscriptions;

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::config::{self, Config, Invalid};
use crate::settings::Problem;

/// In the order of the help.
macro_rules! commands {
    ($($command:ident in $file:ident),* $(,)?) => {
        #[derive(Debug, Subcommand)]
        enum Command { $($command($file::$command)),* }

        impl Command {
            async fn run(self, globals: &Globals) -> Exit {
                match self { $(Command::$command(command) => command.run(globals).await),* }
            }
        }
    };
}

commands! {
    Run in run,
    Demo in demo,
    Check in check,
    Render in render,
    Send in send,
    Subscriptions in subscriptions,
    Deliveries in deliveries,
    Audit in audit,
    Store in store,
    Simulate in simulate,
    Slack in slack,
    Completions in completions,
    Schema in schema,
}

/// Follows release pipelines and posts one message for each change to the chats that asked for it.
#[derive(Debug, Parser)]
#[command(name = "callboard", version, about, after_help = AFTER_HELP, max_term_width = 100)]
#[command(arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "Exit status: 0 done, 1 failed, 2 wrong use or wrong configuration.";

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Globals {
    /// The configuration file [default: $CALLBOARD_CONFIG, else ./config/callboard.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How logs look on standard error [default: text on a terminal, else json]
    #[arg(long, global = true, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// What is logged: error, warn, info, debug or trace, also by module: warn,callboard=debug [default: info, in the
    /// demo error]
    #[arg(long, global = true, value_name = "LEVEL", env = "CALLBOARD_LOG", hide_env_values = true)]
    pub log: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Done,
    Failed,
    /// Wrong use or wrong configuration.
    Misused,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Misused => 2,
        })
    }
}

/// Arguments in, exit status out. The first argument is the program's name.
pub async fn main(args: impl IntoIterator<Item = OsString>) -> Exit {
    let Cli { globals, command } = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(said) => {
            // a closed pipe leaves nobody to tell
            let _ = said.print();
            return if said.use_stderr() { Exit::Misused } else { Exit::Done };
        }
    };
    let quiet = matches!(command, Command::Demo(_));
    match globals.start_logging(if quiet { "error" } else { "info" }) {
        Ok(()) => command.run(&globals).await,
        Err(said) => fail(Exit::Misused, &said),
    }
}

impl Globals {
    /// The configuration, fit to run, with more checks of the whole; what is wrong with it has been said on standard
    /// error.
    fn load_and_check(&self, more: &dyn Fn(&Config) -> Vec<Problem>) -> Result<Config, Exit> {
        config::load_and_check(self.config.as_deref(), environment(), more).map_err(|invalid| refuse(&invalid))
    }

    /// The same for commands that follow nothing: they need no workspace, and say themselves which secret they miss.
    pub fn load_in_part(&self) -> Result<Config, Exit> {
        config::load_in_part(self.config.as_deref(), environment()).map_err(|invalid| refuse(&invalid))
    }

    /// Where the configuration is read from.
    pub fn config_file(&self) -> PathBuf {
        config::locate(self.config.as_deref().map(Path::new), &environment().collect())
    }

    /// Whether somebody said where the configuration is, so that it must be there.
    fn names_config(&self) -> bool {
        self.config.is_some() || std::env::var_os("CALLBOARD_CONFIG").is_some_and(|path| !path.is_empty())
    }

    fn start_logging(&self, default: &str) -> Result<(), String> {
        let log = self.log.as_deref().unwrap_or(default);
        let wrong = |error: &dyn std::fmt::Display| format!("--log {log:?} is not a filter: {error}");
        // A level alone is ours; libraries tell more than anybody can read.
        let ours = ["info", "debug", "trace"].contains(&log.to_ascii_lowercase().as_str());
        let directives = if ours { format!("warn,callboard={log}") } else { log.to_owned() };
        let filter = EnvFilter::builder().parse(directives).map_err(|error| wrong(&error))?;
        let terminal = std::io::stderr().is_terminal();
        let format = self.log_format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json });
        let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(terminal);
        match format {
            LogFormat::Text => logs.try_init(),
            LogFormat::Json => logs.json().flatten_event(true).try_init(),
        }
        .map_err(|error| error.to_string())
    }
}

/// The environment of the process, without variables that are not UTF-8.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// Cancels `stop` on Ctrl-C and SIGTERM; a second one ends the process at once.
fn stop_signal(stop: CancellationToken) {
    tokio::spawn(async move {
        signalled().await;
        stop.cancel();
        signalled().await;
        std::process::exit(130);
    });
}

async fn signalled() {
    #[cfg(unix)]
    if let Ok(mut terminated) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminated.recv() => {}
        }
        return;
    }
    // Without signals the process ends the hard way, which loses nothing.
    drop(tokio::signal::ctrl_c().await);
}

/// Says what is wrong with the configuration on standard error.
fn refuse(invalid: &Invalid) -> Exit {
    let terminal = std::io::stderr().is_terminal();
    let _ = write!(anstream::stderr(), "{}", if terminal { invalid.report(true) } else { invalid.lines() });
    Exit::Misused
}

/// Says on standard error why a command did not do what it was asked for.
pub fn fail(exit: Exit, said: &str) -> Exit {
    let _ = writeln!(anstream::stderr(), "callboard: {said}");
    exit
}

/// Writes a result to standard output. A reader that has seen enough (`| head`) is no failure.
pub fn print(text: &str) -> Exit {
    let mut out = anstream::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            fail(Exit::Failed, &format!("the result can't be written: {}", error.kind()))
        }
        _ => Exit::Done,
    }
}

/// Writes a value to standard output as JSON.
pub fn print_json(value: &serde_json::Value) -> Exit {
    print(&format!("{value:#}\n"))
}

/// `1 message`, `3 messages`
fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Columns under their heads, two blanks apart; what stands last may be of any length.
fn table<const COLUMNS: usize>(heads: [&str; COLUMNS], rows: &[[String; COLUMNS]]) -> String {
    let length = |cell: &str| cell.chars().count();
    let heads = heads.map(str::to_owned);
    let all = || std::iter::once(&heads).chain(rows);
    let line = |row: &[String; COLUMNS]| {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let width = all().filter_map(|row| row.get(column)).map(|cell| length(cell)).max().unwrap_or_default();
            format!("{cell}{}", " ".repeat(width - length(cell)))
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    all().map(line).collect()
}

/// Every command with its arguments, as the README and the completion scripts show them.
pub fn command_tree() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_tree_is_sound_and_every_argument_has_help() {
        let mut tree = super::command_tree();
        tree.build();
        tree.clone().debug_assert();
        for command in tree.get_subcommands() {
            assert!(command.get_about().is_some(), "{} has no help", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {} has no help", command.get_name(), argument.get_id());
            }
        }
    }
}
