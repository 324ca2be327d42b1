//! A terminal in which a person types while messages come in: each is put above the line that is being typed. Where
//! nobody types (a pipe, a dumb terminal), text just follows text.

use std::io::{IsTerminal, Write};

use terminal_size::{Height, Width, terminal_size};

/// Text that is written becomes visible, as one block, when it is flushed. Clones write to the same terminal.
#[derive(Debug, Clone, Default)]
pub struct Screen {
    kept: Vec<u8>,
    typed_in: bool,
    answers: bool,
}

const PROMPT: &str = "> ";

impl Screen {
    pub fn new() -> Screen {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let typed_in = std::io::stdin().is_terminal() && std::io::stdout().is_terminal() && !dumb;
        Screen { typed_in, ..Screen::default() }
    }

    /// For answers to what was typed: after each, the prompt is shown again.
    #[must_use]
    pub fn answering(&self) -> Screen {
        Screen { answers: true, ..self.clone() }
    }

    /// Shows the first prompt, where somebody types.
    pub fn prompt(&self) {
        if self.typed_in {
            show(PROMPT);
        }
    }

    pub fn say(&self, text: &str) {
        if !self.typed_in {
            return show(text);
        }
        let (Width(width), Height(height)) = terminal_size().unwrap_or((Width(80), Height(24)));
        let colours = anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never;
        let text = if colours { text.to_owned() } else { anstream::adapter::strip_str(text).to_string() };
        show_raw(&block(&text, width.into(), height.into(), self.answers));
    }

    /// The last words: nothing is typed after them.
    pub fn end(&self, text: &str) {
        if self.typed_in {
            show_raw("\r\u{1b}[K");
        }
        show(text);
    }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.kept.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let kept = std::mem::take(&mut self.kept);
        self.say(&String::from_utf8_lossy(&kept));
        Ok(())
    }
}

/// A terminal that is gone reads nothing; there is nobody to tell.
fn show(text: &str) {
    let mut out = anstream::stdout().lock();
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

/// With what moves the cursor, which is no colour and stays where colours are not wanted.
fn show_raw(text: &str) {
    let mut out = std::io::stdout().lock();
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

/// Makes room below the line that is being typed, moves that line down and writes into the room; the cursor ends where
/// it was in the line. What does not fit on the screen pushes the line away instead.
fn block(text: &str, width: usize, height: usize, answers: bool) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let rows: usize = lines.iter().map(|line| columns(line).div_ceil(width.max(1)).max(1)).sum();
    let written = lines.join("\r\n");
    if rows + 1 >= height {
        return format!("\r\u{1b}[K{written}\r\n{PROMPT}");
    }
    let down = "\u{1b}D".repeat(rows);
    // A prompt is inserted before what was typed ahead.
    let prompt = if answers { format!("\u{1b}7\r\u{1b}[2@{PROMPT}\u{1b}8\u{1b}[2C") } else { String::new() };
    format!("{down}\u{1b}[{rows}A\u{1b}7\u{1b}[{rows}L\r{written}\u{1b}8\u{1b}[{rows}B{prompt}")
}

/// Columns that a line takes at most: what is not ASCII may be wide. Too many leave a blank line, too few would let a
/// message run into what is typed.
fn columns(line: &str) -> usize {
    anstream::adapter::strip_str(line).to_string().chars().map(|c| if c.is_ascii() { 1 } else { 2 }).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_gets_as_many_rows_as_it_may_take() {
        assert_eq!(columns("\u{1b}[32mPROD\u{1b}[0m 通过"), 9);
        let rows = |text: &str| block(text, 10, 24, false).matches("\u{1b}D").count();
        assert_eq!(rows("one\ntwo\n\n"), 3, "the blank line at its end counts");
        assert_eq!(rows("1234567890\n12345678901\n"), 3, "the second line takes two rows");
    }

    #[test]
    fn what_is_larger_than_the_screen_still_shows_whole() {
        let text = "line\n".repeat(30);
        let shown = block(&text, 80, 24, false);
        assert_eq!(shown.matches("line\r\n").count(), 30);
        assert!(shown.ends_with(PROMPT));
    }
}
