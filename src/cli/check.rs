//! `callboard check`

use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde_json::json;

use super::{Exit, Globals, counted, environment, fail, print, print_json};
use crate::app::{self, AppError};
use crate::channels::{self, Channel, DIALECTS};
use crate::config::{self, Config, Invalid};
use crate::net::Net;
use crate::render::Renderer;
use crate::settings::Problem;
use crate::sources::Source;

/// Say everything that is wrong with configuration and templates, all at once
///
/// Reads the configuration as `run` would and reports each mistake with file, line, column and key: unknown and missing
/// keys, wrong values, sections that don't fit together, unset environment variables, missing secret files, templates
/// that can't be rendered. Secrets are never shown.
///
/// With --online it then asks the outside world, without posting anything: DataWorks for one page of runs of each
/// workspace, Discord for its webhooks and the bot, Slack for the bot, DingTalk for the application, and of every other channel only whether its host answers; what its
/// secret is worth only a message shows, see `callboard send`.
///
/// Exit status: 0 all is well, 1 something did not answer as it should, 2 the configuration is wrong.
#[derive(Debug, Args)]
pub struct Check {
    /// Also try credentials and destinations, without posting anything
    #[arg(long)]
    online: bool,
    /// Print what was found as JSON
    #[arg(long)]
    json: bool,
}

impl Check {
    pub async fn run(self, globals: &Globals) -> Exit {
        let file = globals.config_file().display().to_string();
        let more = |config: &Config| templates(config).into_iter().chain(app::beyond_the_shape(config)).collect();
        match config::load_and_check(globals.config.as_deref(), environment(), &more) {
            Err(invalid) => self.tell_mistakes(&invalid),
            Ok(config) => self.tell_fine(&file, &config).await,
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

    async fn tell_fine(&self, file: &str, config: &Config) -> Exit {
        if !self.json {
            let parts = [
                counted(config.workspaces.len(), "workspace"),
                counted(config.channels.len(), "channel"),
                counted(config.subscriptions.len(), "standing subscription"),
            ];
            let next =
                if self.online { "" } else { "\nNext: `callboard check --online` asks DataWorks and the channels" };
            let told = print(&format!("{file} is fine: {}{next}\n", parts.join(", ")));
            if told != Exit::Done || !self.online {
                return told;
            }
        }
        if !self.online {
            return print_json(&json!({ "ok": true, "mistakes": [] }));
        }
        match self.ask_around(config).await {
            Ok(found) => self.sum_up(&found),
            Err(error @ AppError::Settings(_)) => fail(Exit::Misused, &error.to_string()),
            Err(error) => fail(Exit::Failed, &error.to_string()),
        }
    }

    /// Each finding is told as soon as it is there.
    async fn ask_around(&self, config: &Config) -> Result<Vec<Finding>, AppError> {
        let questions = questions(config)?;
        let width = questions.iter().map(|question| question.about.chars().count()).max().unwrap_or_default();
        let answers = questions.into_iter().map(Question::ask);
        let mut answers = std::pin::pin!(futures_util::stream::iter(answers).buffered(AT_ONCE));
        let mut found = Vec::new();
        while let Some(finding) = answers.next().await {
            if !self.json {
                let (symbol, word) = if finding.ok { ("✓", "ok    ") } else { ("✗", "failed") };
                print(&format!("{symbol} {word}  {:<width$}  {}\n", finding.about, finding.said));
            }
            found.push(finding);
        }
        Ok(found)
    }

    fn sum_up(&self, found: &[Finding]) -> Exit {
        let failed = found.iter().filter(|finding| !finding.ok).count();
        let told = match (self.json, failed) {
            (true, _) => print_json(&json!({ "ok": failed == 0, "mistakes": [], "online": found })),
            (false, 0) => print("Everything answers; nothing was posted.\n"),
            (false, _) => print(&format!("{failed} of {} failed; nothing was posted.\n", found.len())),
        };
        if told == Exit::Done && failed > 0 { Exit::Failed } else { told }
    }
}

// ------------------------------------------------------------------------------------------------------- offline

/// What is wrong with the operator's templates, told at the key that names their folder.
fn templates(config: &Config) -> Vec<Problem> {
    let at_folder = |Problem { key, message }: Problem| {
        let message = if key == "folder" { message } else { format!("{key}: {message}") };
        Problem::new("templates.folder", message)
    };
    Renderer::load(&config.templates, &DIALECTS).1.into_iter().map(at_folder).collect()
}

// -------------------------------------------------------------------------------------------------------- online

/// Questions under way at once.
const AT_ONCE: usize = 8;

/// What one question to the outside world showed.
#[derive(Debug, Serialize)]
struct Finding {
    /// `workspace warehouse`, `channel ops`, `discord`
    about: String,
    ok: bool,
    said: String,
}

struct Question {
    about: String,
    /// What a good answer proves, and no more.
    proves: &'static str,
    answer: BoxFuture<'static, Result<(), String>>,
}

impl Question {
    async fn ask(self) -> Finding {
        let answer = self.answer.await;
        let ok = answer.is_ok();
        Finding { about: self.about, ok, said: answer.err().unwrap_or_else(|| self.proves.to_owned()) }
    }
}

fn questions(config: &Config) -> Result<Vec<Question>, AppError> {
    let net = Net::new(&config.network)?;
    let source = std::sync::Arc::new(app::dataworks(config, &net)?);
    // As many a second as the budget allows.
    let apart = Duration::try_from_secs_f64(1.0 / config.dataworks.budget.per_second()).unwrap_or_default();
    let of_workspace = |(workspace, position)| {
        let source = std::sync::Arc::clone(&source);
        let crate::model::Workspace { name, .. } = &workspace;
        Question {
            about: format!("workspace {name}"),
            proves: "DataWorks lists its runs",
            answer: Box::pin(async move {
                tokio::time::sleep(apart.saturating_mul(position)).await;
                source.list(&workspace, 1).await.map(drop).map_err(|error| error.to_string())
            }),
        }
    };
    let mut questions: Vec<Question> = config.workspaces().into_iter().zip(0..).map(of_workspace).collect();
    for (name, settings) in &config.channels {
        let channel = app::outlet(name, settings, config, &net)?.channel;
        let answer: BoxFuture<'static, _> = Box::pin(async move { channel.probe().await });
        questions.push(Question { about: format!("channel {name}"), proves: proof(settings), answer });
    }
    if let Some(settings) = &config.discord {
        let bot = app::discord_bot(settings, &net)?;
        let answer: BoxFuture<'static, _> = Box::pin(async move { bot.probe().await });
        questions.push(Question { about: "discord".to_owned(), proves: "Discord knows the bot's token", answer });
    }
    if let Some(access) = app::slack_bot(config)? {
        let bot = channels::slack::Bot::new(access, net.clone());
        let answer: BoxFuture<'static, _> = Box::pin(async move { bot.probe().await });
        questions.push(Question { about: "slack".to_owned(), proves: "Slack knows the bot's token", answer });
    }
    if let Some(settings) = &config.dingtalk {
        let bot = app::dingtalk_bot(settings, &net)?;
        let answer: BoxFuture<'static, _> = Box::pin(async move { bot.probe().await });
        let proves = "DingTalk knows the application; whether its robot may post only a message shows";
        questions.push(Question { about: "dingtalk".to_owned(), proves, answer });
    }
    Ok(questions)
}

fn proof(settings: &channels::Settings) -> &'static str {
    match settings {
        channels::Settings::DiscordWebhook(_) => "Discord knows the webhook",
        channels::Settings::Slack(_) => {
            "Slack knows the bot's token; whether the channel takes messages only `callboard send` shows"
        }
        channels::Settings::SlackWebhook(_) | channels::Settings::Dingtalk(_) | channels::Settings::Webhook(_) => {
            "its host answers; whether it takes messages only `callboard send` shows"
        }
        channels::Settings::Console(_) => "writes to standard output; nothing to ask",
    }
}
