//! Chat logs that run as tests: every file in `tests/conversations`.
//!
//! ```text
//! # what this is about
//! ~ channels team=slack ops=dingtalk         standing subscriptions on everything; only as the first step
//! ~ workspaces finance                       beside warehouse; only as the first step
//! ~ access rooms=1 workspaces=warehouse viewers=* watchers=bob | rooms=2 …     from now on
//! ~ run 7b1e04c2 begins: orders_daily v12
//! alice@discord#1> /watch 7b1e04c2           somebody types a command in room 1 of Discord
//! bot> Watching …                            the answer, which the room sees
//!     [Stop] [Mute 1 h]                      its buttons
//! alice@discord#1> [Stop]                    somebody presses the button shown last; wei has Discord in Chinese
//! bot (only to alice)> …                     the answer, which nobody else sees
//! ~ run 7b1e04c2 moves on                    the running stage passes, else the next one starts
//! ~ run 7b1e04c2 stage PROD Running          one stage, and nothing else
//! ~ run 7b1e04c2 fails at PROD: no such table
//! ~ run 7b1e04c2 is Cancel
//! ~ run 7b1e04c2 is gone
//! bot@discord#1> …                           a message the bot posts by itself
//! ~ 30s                                      time passes; also 5m, 2h, 3d
//! ~ team answers 429 retry-after 30          once
//! ~ dataworks fails                          until: ~ dataworks works
//! ~ the bot restarts
//! you@console> /runs                         the terminal
//! alice@slack#C1> /callboard status 7b1e04c2 somebody in room C1 of Slack; /status is Slack's own there
//! carol@dingtalk#cid1> @callboard /runs      DingTalk, where everybody in the room reads every answer
//! ```
//!
//! A step that happens to a run takes the 5 s until the next poll. Lines of the bot, with their indented further lines,
//! are what is checked; `UPDATE_EXPECT=1` writes them anew.

use std::path::{Path, PathBuf};
use std::time::Duration;

use callboard::access;
use callboard::demo::dataworks::{Fault, RunSpec};
use callboard::model::{RunId, Status};

use crate::bot::{Bot, Kind, PROJECT, Setup};
use crate::sink::Answer;

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conversations");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    files
}

#[tokio::test]
async fn every_conversation_goes_as_it_is_written() {
    let files = files();
    assert!(files.len() >= 12, "conversations are missing");
    let mut differing = Vec::new();
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let written = std::fs::read_to_string(&file).unwrap();
        let held = Conversation::hold(&name, &written).await;
        if held != written && std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&file, &held).unwrap();
        } else if held != written {
            differing.push(format!("--- {name} as it is written\n{written}\n--- as it went\n{held}"));
        }
    }
    assert!(differing.is_empty(), "UPDATE_EXPECT=1 takes over what was said:\n{}", differing.join("\n"));
}

/// Every command is talked about, on each surface.
#[test]
fn every_command_has_a_conversation() {
    let all: String = files().iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    for info in &callboard::commands::CATALOG {
        for surface in ["discord#1", "console", "dingtalk#cid1"] {
            let typed = format!("@{surface}> /{}", info.name);
            let found = all.lines().any(|line| line.contains(&typed));
            assert!(found, "no conversation with {typed}");
        }
        // Slack keeps some names to itself; /callboard leads to every command.
        let typed = ["", "callboard "].map(|through| format!("> /{through}{}", info.name));
        let found = all.lines().any(|line| line.contains("@slack#") && typed.iter().any(|typed| line.contains(typed)));
        assert!(found, "no conversation with {typed:?} at Slack");
    }
}

/// Ids of requests as `…`.
fn masked(log: &str) -> String {
    let mut parts = log.split("RequestId ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| format!("{text}RequestId …{}", part.get(36..).unwrap_or_default()))
}

struct Conversation {
    bot: Bot,
    name: String,
    channels: Vec<(&'static str, Kind)>,
    rooms: Vec<String>,
    log: String,
}

impl Conversation {
    async fn hold(name: &str, written: &str) -> String {
        let channels = written.lines().find_map(|line| line.strip_prefix("~ channels ")).unwrap_or_default();
        let channels: Vec<(&'static str, Kind)> = channels.split_whitespace().map(channel).collect();
        let gateway = written.contains("@discord#");
        let dingtalk = written.contains("@dingtalk#");
        let setup = if channels.is_empty() { Setup::with(&[]) } else { Setup::standing(&channels) };
        let setup = if written.contains("@slack#") { setup.with_slack() } else { setup };
        let mut setup = Setup { gateway, dingtalk, ..setup };
        if written.contains("~ workspaces finance\n") {
            setup.workspaces.push(("finance", PROJECT + 1));
        }
        let bot = Bot::start(setup).await;
        bot.discord.speak(&user("wei"), "zh-CN");
        bot.turn().await;
        let mut rooms: Vec<String> = Vec::new();
        for room in written.lines().filter_map(|line| Some(speaker(line)?.0.split_once('@')?.1)) {
            if !rooms.iter().any(|known| known == room) {
                rooms.push(room.to_owned());
            }
        }
        let mut conversation = Conversation { bot, name: name.to_owned(), channels, rooms, log: String::new() };
        for line in written.lines().filter(|line| !line.starts_with("bot") && !line.starts_with("    ")) {
            conversation.write(line);
            if let Some(step) = line.strip_prefix("~ ") {
                conversation.step(step).await;
            } else if let Some((who, text)) = speaker(line) {
                let (person, room) = who.split_once('@').unwrap_or_else(|| panic!("{name}: who says {line:?}?"));
                let (bot, place) = (&conversation.bot, place(room));
                let answer = match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                    Some(label) => bot.press_as(&user(person), &place, label).await,
                    None => bot.say_as(&user(person), &place, text).await,
                };
                let to = if answer.private { format!("bot (only to {person})> ") } else { "bot> ".to_owned() };
                conversation.write(&format!("{to}{}", indented(&answer.text)));
                if !answer.buttons.is_empty() {
                    let labels: Vec<String> = answer.buttons.iter().map(|label| format!("[{label}]")).collect();
                    conversation.write(&format!("    {}", labels.join(" ")));
                }
            }
        }
        let Conversation { bot, log, .. } = conversation;
        bot.take_logs("");
        bot.finish().await;
        // Different each time, and nobody's business here.
        masked(&log)
    }

    fn write(&mut self, line: &str) {
        self.log.push_str(line);
        self.log.push('\n');
    }

    async fn step(&mut self, step: &str) {
        let words: Vec<&str> = step.split_whitespace().collect();
        match words.as_slice() {
            ["channels" | "workspaces", ..] => {}
            ["access", entries @ ..] => self.bot.reload(entries.split(|word| *word == "|").map(entry).collect()).await,
            ["run", id, rest @ ..] => {
                self.run(&run(id), rest, step);
                self.bot.turn().await;
            }
            ["dataworks", "fails"] => self.bot.world.break_down(Fault::internal_error()),
            ["dataworks", "works"] => self.bot.world.recover(),
            ["the", "bot", "restarts"] => self.bot.restart().await,
            [channel, "answers", status, rest @ ..] => {
                let wait = rest.get(1).copied().unwrap_or("0");
                let headers: &[_] = if rest.is_empty() { &[] } else { &[("retry-after", wait)] };
                let url = self.bot.url(channel).to_owned();
                self.bot.sink.answer(&url, [Answer::text(status.parse().unwrap(), headers, "")]);
            }
            [span] => self.bot.pass(duration(span)).await,
            _ => panic!("{}: nobody knows the step {step:?}", self.name),
        }
        let channels: Vec<String> = self.channels.iter().map(|(name, _)| (*name).to_owned()).collect();
        for room in self.rooms.clone().into_iter().chain(channels) {
            for message in self.bot.read_on(&place(&room)) {
                self.write(&format!("bot@{room}> {}", indented(&message)));
            }
        }
    }

    fn run(&self, id: &RunId, words: &[&str], step: &str) {
        let world = &self.bot.world;
        let said = step.split_once(": ").map_or("", |(_, said)| said);
        let done = match words {
            ["begins:", ..] => {
                world.add_run(PROJECT, RunSpec::online(said).with_id(id.clone()));
                Ok(())
            }
            ["moves", "on"] => world.advance(PROJECT, id),
            ["stage", code, status] => world.set_stage(PROJECT, id, code, Status::from(*status), ""),
            ["fails", "at", code, ..] => world.fail(PROJECT, id, code.trim_end_matches(':'), said),
            ["is", "gone"] => world.remove_run(PROJECT, id),
            ["is", status] => world.set_run_status(PROJECT, id, Status::from(*status)),
            _ => panic!("{}: nobody knows the step {step:?}", self.name),
        };
        done.unwrap_or_else(|error| panic!("{}: {step}: {error}", self.name));
    }
}

/// `alice@discord#1> /watches`
fn speaker(line: &str) -> Option<(&str, &str)> {
    line.split_once("> ").filter(|(who, _)| who.contains('@') && !who.contains(' '))
}

/// The id of somebody.
fn user(person: &str) -> String {
    let number: u64 = person.bytes().take(6).fold(1, |number, byte| number * 100 + u64::from(byte % 100));
    number.to_string()
}

/// `rooms=1 workspaces=warehouse viewers=* watchers=bob`
fn entry(words: &[&str]) -> access::Settings {
    let list = |key: &str| -> Vec<String> {
        let found = words.iter().filter_map(|word| word.split_once('=')).find(|(name, _)| *name == key);
        found.map(|(_, list)| list.split(',').map(str::to_owned).collect()).unwrap_or_default()
    };
    let people = |key: &str| {
        let who = |name: String| if name == "*" { name } else { format!("user:{}", user(&name)) };
        list(key).into_iter().map(who).collect::<Vec<_>>()
    };
    access::Settings {
        surface: "discord".to_owned(),
        rooms: list("rooms"),
        workspaces: list("workspaces"),
        viewers: people("viewers"),
        watchers: people("watchers"),
        moderators: people("moderators"),
        admins: people("admins"),
        channels: list("channels"),
    }
}

/// `team=slack`
fn channel(text: &str) -> (&'static str, Kind) {
    match text {
        "chat=discord" => ("chat", Kind::Discord),
        "team=slack" => ("team", Kind::Slack),
        "ops=dingtalk" => ("ops", Kind::DingTalk),
        "hook=webhook" => ("hook", Kind::Webhook),
        other => panic!("channels are chat=discord, team=slack, ops=dingtalk and hook=webhook, not {other}"),
    }
}

fn run(id: &str) -> RunId {
    let whole = if id.len() == 8 { format!("{id}-20ec-4a7c-a214-54020f910000") } else { id.to_owned() };
    whole.parse().unwrap()
}

/// `discord#1` is written `discord:1` inside.
fn place(room: &str) -> String {
    room.replace('#', ":")
}

fn indented(text: &str) -> String {
    let mut lines = text.trim_end().lines().map(str::trim_end).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default().to_owned();
    lines.fold(first, |text, line| format!("{text}\n    {}", line.trim_start()))
}

fn duration(text: &str) -> Duration {
    let (number, unit) = text.split_at(text.len() - 1);
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        other => panic!("time is written 30s, 5m, 2h or 3d, not {other}"),
    };
    Duration::from_secs(number.parse::<u64>().unwrap() * factor)
}
