//! `callboard render`

use std::collections::BTreeMap;
use std::io::Read;

use clap::Args;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Exit, Globals, fail, print, print_json};
use crate::app;
use crate::channels::{self, DIALECTS, console, dingtalk, discord, slack, webhook};
use crate::config::nearest;
use crate::model::{Change, Content, Draft, Message, Selector};
use crate::render::{Reader, Renderer, Sample, Settings};
use crate::settings::LOCALES;

/// Show a message as it would look
///
/// For a chat, prints title and body in its markup; for webhook the JSON body; for console the lines of a terminal.
/// Needs no configuration; one that is there says where templates are.
#[derive(Debug, Args)]
#[command(after_help = samples_help())]
pub struct Render {
    /// A sample's name; or an event type or a selector, for the first sample it fits; or a file with a recorded change as
    /// `callboard deliveries show --json` prints it; or - for standard input
    #[arg(value_name = "CHANGE")]
    message: String,
    /// The kind of channel, not its name: console, webhook, discord-webhook, slack-webhook, dingtalk, or discord, slack and dingtalk-bot for rooms of the bots
    #[arg(long, value_name = "KIND", default_value = "console")]
    channel: String,
    /// The language: en, zh-CN
    #[arg(long, value_name = "LOCALE", default_value = "en")]
    locale: String,
    /// The time zone, such as Asia/Shanghai
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    timezone: String,
    /// Another template set than the default, such as release
    #[arg(long, value_name = "SET")]
    template: Option<String>,
    /// Print the JSON that would be posted; for console title, body and plain text
    #[arg(long)]
    json: bool,
}

fn samples_help() -> String {
    format!("Samples: {}\nAlso understood: {}", names().join(", "), wider_names().join(", "))
}

impl Render {
    pub async fn run(self, globals: &Globals) -> Exit {
        let (settings, channels) = match globals.names_config() || globals.config_file().exists() {
            true => match globals.load_in_part() {
                Ok(config) => (config.templates, config.channels),
                Err(exit) => return exit,
            },
            false => (Settings::default(), BTreeMap::new()),
        };
        let renderer = app::renderer(&settings);
        match self.misuse(&renderer, &channels).map_or_else(|| find(&self.message), Err) {
            Ok(sample) => self.show(&renderer, &sample),
            Err(said) => fail(Exit::Misused, &said),
        }
    }

    fn misuse(&self, renderer: &Renderer, channels: &BTreeMap<String, channels::Settings>) -> Option<String> {
        let kinds = DIALECTS.map(|dialect| dialect.kind);
        let named = channels.get(&self.channel).map(channels::Settings::kind);
        let named = named.filter(|_| !kinds.contains(&self.channel.as_str())).map(|kind| {
            format!("--channel takes a kind, and {:?} is a channel's name; write --channel {kind}", self.channel)
        });
        let places = crate::settings::check_locale_and_timezone(&self.locale, &self.timezone);
        let set = self.template.as_deref().and_then(|set| app::unknown_set(renderer, set));
        named
            .or_else(|| unknown("--channel takes a kind", &self.channel, &kinds))
            .or_else(|| unknown("--locale", &self.locale, &LOCALES))
            .or_else(|| places.first().map(|problem| format!("--{}: {}", problem.key, problem.message)))
            .or_else(|| set.map(|said| format!("--template: {said}")))
    }

    fn show(&self, renderer: &Renderer, sample: &Sample) -> Exit {
        let Render { channel, locale, timezone, template, .. } = self;
        let reader = Reader { kind: channel, locale, timezone, template: template.as_deref() };
        let message = renderer.render(&sample.draft, &reader, sample.now).message;
        match channel.as_str() {
            "webhook" => print(&format!("{}\n", webhook::indented(&message.content))),
            _ if self.json => print_json(&posted(channel, &message)),
            "console" => print(&format!("{}\n", console::lines(&message).trim_end())),
            _ => print(&format!("{}\n\n{}\n", message.title, message.body)),
        }
    }
}

/// What the channel of a chat would post. Signatures and the ids of a delivery come with the delivery.
fn posted(kind: &str, message: &Message) -> Value {
    match kind {
        "discord" => discord::bot_payload(message),
        "discord-webhook" => discord::payload(message),
        "slack" => slack::bot_payload("C0123456789", message),
        "slack-webhook" => slack::payload(message),
        "dingtalk" => dingtalk::payload(message, None),
        "dingtalk-bot" => dingtalk::bot::payload(message),
        _ => {
            let Message { title, body, plain, url, .. } = message;
            json!({ "title": title, "body": body, "plain": plain, "url": url })
        }
    }
}

fn unknown(option: &str, given: &str, known: &[&str]) -> Option<String> {
    match nearest(given, known.iter().copied()) {
        _ if known.contains(&given) => None,
        Some(close) => Some(format!("{option}: there is no {given:?}; did you mean {close:?}?")),
        None => Some(format!("{option}: there is no {given:?}; write one of {}", known.join(", "))),
    }
}

/// A recorded change is read up to here, in bytes.
const CHANGE_AT_MOST: u64 = 1 << 20;

/// A sample by its name, else the first that a wider name means, else a file.
fn find(given: &str) -> Result<Sample, String> {
    let samples = Renderer::named_samples();
    let named = samples.iter().find(|sample| sample.name == given);
    if let Some(sample) = named.or_else(|| samples.iter().find(|sample| means(given, sample))) {
        return Ok(sample.clone());
    }
    let read = |from: &mut dyn Read| {
        let mut text = String::new();
        from.take(CHANGE_AT_MOST).read_to_string(&mut text).map(|_| text)
    };
    let (called, text) = match given {
        "-" => ("standard input", read(&mut std::io::stdin().lock())),
        file => (file, std::fs::File::open(file).and_then(|mut file| read(&mut file))),
    };
    let text = text.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            let names: Vec<String> = names().into_iter().chain(wider_names()).collect();
            let meant = nearest(given, names.iter().map(String::as_str));
            match meant {
                Some(close) => format!("{given:?} is neither a sample nor a file; did you mean {close:?}?"),
                None => format!("{given:?} is neither a sample nor a file; samples: {}", names.join(", ")),
            }
        }
        kind => format!("{called} can't be read: {kind}"),
    })?;
    recorded(called, &text)
}

/// A change or a notice by itself, or inside of what `deliveries show --json` prints.
fn recorded(called: &str, text: &str) -> Result<Sample, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("{called} is not JSON: {error}"))?;
    let none = |error: serde_json::Error| format!("{called} holds no recorded change: {error}");
    // A notice by itself has its kind under that name.
    let content = match (value.get("change"), value.get("notice")) {
        (Some(change), _) => Content::Change(serde_json::from_value(change.clone()).map_err(none)?),
        (None, Some(notice @ Value::Object(_))) => {
            Content::Notice(serde_json::from_value(notice.clone()).map_err(none)?)
        }
        (None, Some(_)) => Content::Notice(serde_json::from_value(value).map_err(none)?),
        (None, None) => Content::Change(serde_json::from_value(value).map_err(none)?),
    };
    Ok(Sample { name: called.to_owned(), now: content.at(), draft: Draft::of(Uuid::nil(), content) })
}

fn names() -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for sample in Renderer::named_samples() {
        if !names.contains(&sample.name) {
            names.push(sample.name);
        }
    }
    names
}

/// Whether `given` is the template, the event type or a selector of the message.
fn means(given: &str, sample: &Sample) -> bool {
    let content = &sample.draft.content;
    let selected =
        |change: &Change| Selector::ALL.iter().any(|selector| selector.as_str() == given && selector.matches(change));
    Renderer::template_of(content) == given
        || content.event_type() == given
        || matches!(content, Content::Change(change) if selected(change))
}

/// What [`means`] knows beyond the samples' own names: event types, then templates, then selectors.
fn wider_names() -> Vec<String> {
    let samples = Renderer::named_samples();
    let types = samples.iter().map(|sample| sample.draft.content.event_type());
    let templates = samples.iter().map(|sample| Renderer::template_of(&sample.draft.content));
    let selectors = Selector::ALL.iter().map(|selector| selector.as_str());
    let mut all: Vec<String> = Vec::new();
    for wider in types.chain(templates).chain(selectors).map(str::to_owned) {
        if !all.contains(&wider) && !samples.iter().any(|sample| sample.name == wider) {
            all.push(wider);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_event_type_and_selector_finds_a_sample_and_exact_names_come_first() {
        for (given, found) in [
            ("stage", "stage-running"),
            ("run.stage.changed", "stage-running"),
            ("finished", "finished-success"),
            ("run.finished", "finished-success"),
            ("run.started", "started"),
            ("run.waiting", "waiting"),
            ("run.lost", "lost"),
            ("failed", "stage-fail"),
            ("succeeded", "finished-success"),
            ("stopped", "finished-termination"),
            ("started", "started"),
            ("waiting", "waiting"),
            ("lost", "lost"),
            ("finished-fail", "finished-fail"),
            ("digest", "digest"),
            ("catch-up", "catch-up"),
            ("notice", "notice-destination-dead"),
            ("repeated", "repeated"),
        ] {
            assert_eq!(find(given).map(|sample| sample.name), Ok(found.to_owned()), "{given}");
        }
        for wider in wider_names() {
            assert!(find(&wider).is_ok(), "the help offers {wider:?}, which finds nothing");
        }
    }

    #[test]
    fn every_kind_of_channel_is_offered_and_shows_what_it_posts() {
        let renderer = app::renderer(&Settings::default());
        let sample = find("stage-fail").unwrap();
        let mut tree = crate::cli::command_tree();
        let render = tree.find_subcommand_mut("render").unwrap();
        let help =
            render.get_arguments().find(|one| one.get_id() == "channel").unwrap().get_help().unwrap().to_string();
        for kind in DIALECTS.map(|dialect| dialect.kind) {
            assert!(help.contains(kind), "the help of render --channel does not offer {kind}");
            let reader = Reader { kind, locale: "en", timezone: "UTC", template: None };
            let message = renderer.render(&sample.draft, &reader, sample.now).message;
            let as_console = posted("console", &message) == posted(kind, &message);
            assert_eq!(as_console, matches!(kind, "console" | "webhook"), "`posted` does not know {kind}");
        }
    }

    #[test]
    fn what_was_recorded_is_found_by_itself_and_inside_of_a_delivery() {
        for sample in Renderer::named_samples() {
            let (key, value) = match &sample.draft.content {
                Content::Change(change) => ("change", json!(change)),
                Content::Notice(notice) => ("notice", json!(notice)),
                Content::Digest { .. } => continue,
            };
            for text in [value.to_string(), json!({ "id": "x", key: value }).to_string()] {
                assert_eq!(recorded("it", &text).unwrap().draft.content, sample.draft.content, "{text}");
            }
        }
    }
}
