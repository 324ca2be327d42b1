//! The terminal.

use std::io::Write;
use std::sync::Mutex;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Channel, Manner, PLAIN};
use crate::model::{Dialect, Message, Outcome, Repetitions, Terms, Timestamp, Tone};
use crate::settings::Problem;
use crate::text::{clean, clean_line};

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    #[serde(flatten)]
    pub manner: Manner,
}

impl Settings {
    pub fn check(&self) -> Vec<Problem> {
        self.manner.check()
    }
}

pub const DIALECT: Dialect = Dialect { kind: "console", ..PLAIN };

/// `[channels.NAME] kind = "console"`
pub struct Console {
    out: Mutex<Box<dyn Write + Send>>,
}

impl Console {
    /// `out` decides whether colours are shown: [`anstream::stdout`] drops them where nobody sees them.
    pub fn new(out: Box<dyn Write + Send>) -> Console {
        Console { out: Mutex::new(out) }
    }
}

/// The message as written: a symbol, the first line in the colour of its tone, the link at the end, a blank line after
/// the last.
pub fn lines(message: &Message) -> String {
    let plain = clean(&anstream::adapter::strip_str(&message.plain).to_string());
    let symbol = message.tone.symbol();
    let plain = plain.trim().strip_prefix(symbol).unwrap_or(plain.trim()).trim_start();
    let (first, rest) = plain.split_once('\n').unwrap_or((plain, ""));
    let color = color(message.tone);
    let mut text = format!("{symbol} {color}{first}{RESET}\n");
    for line in rest.lines() {
        text.push_str("   ");
        text.push_str(line);
        text.push('\n');
    }
    if let Some(link) = link(message) {
        text.push_str(&format!("   {DIM}{link}{RESET}\n"));
    }
    text.push('\n');
    text
}

/// A terminal makes no link of words, so the address stands there, as long as it is one of the web.
fn link(message: &Message) -> Option<String> {
    let url: url::Url = message.url.parse().ok()?;
    let label = clean_line(&message.url_label);
    match url.scheme() {
        "https" | "http" if label.is_empty() => Some(url.to_string()),
        "https" | "http" => Some(format!("{label}: {url}")),
        _ => None,
    }
}

const DIM: &str = "\u{1b}[2m";
const RESET: &str = "\u{1b}[0m";

fn color(tone: Tone) -> &'static str {
    match tone {
        Tone::Progress => "\u{1b}[34m",
        Tone::Good => "\u{1b}[32m",
        Tone::Bad => "\u{1b}[31m",
        Tone::Waiting => "\u{1b}[33m",
        Tone::Stopped => "\u{1b}[90m",
        Tone::Unknown => "\u{1b}[35m",
    }
}

#[async_trait]
impl Channel for Console {
    fn dialect(&self) -> Dialect {
        DIALECT
    }

    fn terms(&self) -> Terms {
        Terms { paces: &[], repetitions: Repetitions::Shown }
    }

    async fn send(&self, _address: &str, message: &Message, _now: Timestamp) -> Outcome {
        let text = lines(message);
        let mut out = self.out.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => Outcome::Delivered { message_id: None, pause: None },
            Err(error) => Outcome::Dead { reason: format!("the terminal can't be written to: {}", error.kind()) },
        }
    }

    async fn probe(&self) -> Result<(), String> {
        Ok(())
    }
}
