//! A terminal: commands from lines of text, answers back as lines. Everybody at the keyboard is one person in one room.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Inbox, Surface};
use crate::model::{Asker, Clock, CommandInfo, Reply, Request, Span, Text, Timestamp};
use crate::text::clean;

/// The name of this surface, and of its one room.
pub const NAME: &str = "console";

pub struct Console {
    lines: tokio::sync::Mutex<mpsc::Receiver<String>>,
    output: Mutex<Box<dyn Write + Send>>,
    clock: Clock,
}

impl Console {
    /// `lines` is what is typed, `output` where answers go, flushed after each.
    pub fn new(lines: mpsc::Receiver<String>, output: Box<dyn Write + Send>) -> Console {
        Console { lines: tokio::sync::Mutex::new(lines), output: Mutex::new(output), clock: Arc::new(Timestamp::now) }
    }

    /// What tells when a command was typed; the machine's clock otherwise.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Console {
        self.clock = clock;
        self
    }

    fn say(&self, text: &str) {
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        // A terminal that is gone reads nothing; there is nobody to tell.
        drop(writeln!(output, "{text}\n").and_then(|()| output.flush()));
    }
}

#[async_trait]
impl Surface for Console {
    async fn run(&self, inbox: Inbox, _: &'static [CommandInfo], stop: CancellationToken) -> Result<(), String> {
        let mut lines = self.lines.lock().await;
        loop {
            let line = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                line = lines.recv() => line,
            };
            let Some(line) = line else {
                // The input has ended; messages go on until somebody stops us.
                stop.cancelled().await;
                return Ok(());
            };
            if line.trim().is_empty() {
                continue;
            }
            let request = Request { asker: asker(), locale: String::new(), text: line, at: (self.clock)() };
            match inbox.ask(request).await {
                Ok(Reply { text, .. }) => self.say(&written(&text)),
                Err(refused) => self.say(&refused.to_string()),
            }
        }
    }
}

/// Whoever sits at the terminal.
pub fn asker() -> Asker {
    Asker { surface: NAME.to_owned(), room: NAME.to_owned(), user: "you".to_owned(), roles: Vec::new() }
}

/// Bold and links with the terminal's own means; data can hold no escape sequence.
pub fn written(text: &Text) -> String {
    let spans = text.0.iter().map(|span| match span {
        Span::Plain(text) => clean(text),
        Span::Bold(text) => format!("\u{1b}[1m{}\u{1b}[0m", clean(text)),
        Span::Code(text) => format!("\u{1b}[36m{}\u{1b}[0m", clean(text)),
        Span::Link { label, .. } => format!("\u{1b}[1m{}\u{1b}[0m", clean(label)),
    });
    spans.collect()
}
