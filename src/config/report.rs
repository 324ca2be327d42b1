//! What is wrong with a configuration, all of it, told with file, line and key, and without the secrets around it.

use std::collections::BTreeMap;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde::Serialize;
use serde_json::Value;

use super::document::{Places, item_of, parent, within};
use super::kind;
use crate::settings::looks_secret;

/// A mistake before it is known where its key was written.
#[derive(Debug, Clone)]
pub(super) struct Finding {
    pub key: String,
    pub at: At,
    pub message: String,
}

/// What to point at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    Key,
    Value,
    /// The key is missing from this table.
    Parent,
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mistake {
    /// The configuration file.
    pub file: String,
    /// From 1; absent when the key stands in no file.
    pub line: Option<usize>,
    /// In characters, from 1.
    pub column: Option<usize>,
    /// The environment variable that set the key, when one did.
    pub variable: Option<String>,
    /// `channels.ops.url`, `workspaces[1].name`; empty when the file as a whole is meant.
    pub key: String,
    /// What is wrong and what to write instead.
    pub message: String,
    #[serde(skip)]
    span: Option<Range<usize>>,
}

/// A configuration that can't be used, with everything that is wrong in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    mistakes: Vec<Mistake>,
    /// The file's text with every secret blotted out, byte for byte as long.
    text: String,
}

impl Invalid {
    /// About a file that can't be read at all.
    pub(super) fn file(file: &str, message: String) -> Invalid {
        let whole = Mistake {
            file: file.to_owned(),
            line: None,
            column: None,
            variable: None,
            key: String::new(),
            message,
            span: None,
        };
        Invalid { mistakes: vec![whole], text: String::new() }
    }

    pub(super) fn new(mut mistakes: Vec<Mistake>, text: String) -> Invalid {
        mistakes.sort_by(|a, b| {
            let order = |m: &Mistake| (m.line.is_none(), m.line, m.column, m.variable.clone(), m.key.clone());
            order(a).cmp(&order(b))
        });
        mistakes.dedup();
        Invalid { mistakes, text }
    }

    /// In the order of the file, those from the environment last.
    pub fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }

    /// For a terminal: each mistake pointed at in its line, then their number.
    pub fn report(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let mut report = String::new();
        for mistake in &self.mistakes {
            let title = Level::ERROR.primary_title(mistake.what());
            let group = match (&mistake.span, &mistake.variable) {
                (Some(span), _) => title.element(
                    Snippet::source(self.text.as_str())
                        .path(mistake.file.as_str())
                        .annotation(AnnotationKind::Primary.span(span.clone())),
                ),
                (None, Some(variable)) => {
                    title.element(Level::NOTE.message(format!("set by the environment variable {variable}")))
                }
                (None, None) => title.element(Level::NOTE.message(format!("in {}", mistake.file))),
            };
            report.push_str(&renderer.render(&[group]));
            report.push_str("\n\n");
        }
        report.push_str(&self.count());
        report.push('\n');
        report
    }

    /// For logs and pipes: `file:line:column: key: message`, one line each.
    pub fn lines(&self) -> String {
        self.mistakes.iter().map(|mistake| format!("{mistake}\n")).collect()
    }

    /// `3 problems`
    pub fn count(&self) -> String {
        match self.mistakes.len() {
            1 => "1 problem".to_owned(),
            many => format!("{many} problems"),
        }
    }
}

impl std::fmt::Display for Invalid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.lines().trim_end())
    }
}

impl std::error::Error for Invalid {}

impl Mistake {
    fn what(&self) -> String {
        let message = self.message.replace(['\n', '\r'], " ");
        if self.key.is_empty() { message } else { format!("{}: {message}", self.key) }
    }
}

impl std::fmt::Display for Mistake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.variable, self.line, self.column) {
            (Some(variable), ..) => write!(f, "{variable}: ")?,
            (None, Some(line), Some(column)) => write!(f, "{}:{line}:{column}: ", self.file)?,
            _ => write!(f, "{}: ", self.file)?,
        }
        f.write_str(&self.what())
    }
}

// ------------------------------------------------------------------------------------------- from keys to positions

/// A file, and where its keys came from.
pub(super) struct Origin<'a> {
    pub file: &'a str,
    pub text: &'a str,
    pub places: &'a Places,
    pub variables: &'a BTreeMap<String, String>,
}

impl Origin<'_> {
    pub(super) fn mistake(&self, finding: Finding) -> Mistake {
        let variable = self.variable(&finding);
        let span = if variable.is_some() { None } else { self.span(&finding) };
        self.placed(span, variable, finding.key, finding.message)
    }

    pub(super) fn placed(
        &self,
        span: Option<Range<usize>>,
        variable: Option<String>,
        key: String,
        message: String,
    ) -> Mistake {
        let span = span.map(|span| first_line(self.text, span));
        let position = span.as_ref().map(|span| position(self.text, span.start));
        Mistake {
            file: self.file.to_owned(),
            line: position.map(|(line, _)| line),
            column: position.map(|(_, column)| column),
            variable,
            key,
            message,
            span,
        }
    }

    /// The variable that set the key or something around it; for a table that is not in the file, or that took the
    /// place of an array, one that set something in it; for a key that nothing set, one that set a neighbour.
    fn variable(&self, finding: &Finding) -> Option<String> {
        let around =
            self.variables.iter().filter(|(key, _)| within(&finding.key, key)).max_by_key(|(key, _)| key.len());
        let inside = || {
            let (key, first) = (&finding.key, item_of(&finding.key, 0));
            let is_of_file = self.places.contains_key(key) && !self.places.contains_key(&first);
            (!key.is_empty() && !is_of_file)
                .then(|| self.variables.iter().find(|(key, _)| within(key, &finding.key)))
                .flatten()
        };
        let beside = || {
            let table = parent(&finding.key);
            let lonely = finding.at == At::Parent && !table.is_empty() && !self.places.contains_key(table);
            lonely.then(|| self.variables.iter().find(|(key, _)| within(key, table))).flatten()
        };
        around.or_else(inside).or_else(beside).map(|(_, variable)| variable.clone())
    }

    fn span(&self, finding: &Finding) -> Option<Range<usize>> {
        if let (Some(place), false) = (self.places.get(&finding.key), finding.at == At::Parent) {
            return Some(if finding.at == At::Key { place.key.clone() } else { place.value.clone() });
        }
        let mut around = parent(&finding.key);
        while !around.is_empty() {
            if let Some(place) = self.places.get(around) {
                return Some(place.value.clone());
            }
            around = parent(around);
        }
        None
    }
}

/// Line and column from 1, the column in characters.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before.get(line_start..).unwrap_or("").chars().count() + 1)
}

/// A value over several lines is pointed at where it begins.
fn first_line(text: &str, span: Range<usize>) -> Range<usize> {
    let start = span.start.min(text.len());
    let end = span.end.clamp(start, text.len());
    let length = text.get(start..end).and_then(|inner| inner.find(['\n', '\r'])).unwrap_or(end - start);
    start..start + length
}

// -------------------------------------------------------------------------------------------------- hiding secrets

/// The text with the values of the `hidden` paths blotted out, and what looks like a secret under whatever key.
pub(super) fn blot(text: &str, places: &Places, hidden: &[String]) -> String {
    let mut blotted: Vec<u8> = text.as_bytes().to_vec();
    for (path, place) in places {
        let written = text.get(place.value.clone()).unwrap_or_default();
        let quoted = written.starts_with(['"', '\'']);
        // of a table or an array, the values inside are hidden; a dotted key stands for its table
        let item = path.ends_with(']');
        let leaf = !written.starts_with(['[', '{']) && (item || place.key != place.value);
        let stray = quoted && looks_secret(written.trim_matches(['"', '\'']));
        if leaf && (stray || hidden.iter().any(|hidden| within(path, hidden))) {
            blot_bytes(&mut blotted, place.value.clone());
        }
    }
    String::from_utf8(blotted).unwrap_or_default()
}

/// For a file that does not parse, where nobody knows what is a value: of each line only a key of ours is shown.
pub(super) fn blot_lines(text: &str, schema: &Value) -> String {
    let keys = kind::key_names(schema);
    let mut result = Vec::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let start = line.find(|c: char| !c.is_whitespace() && c != '[').unwrap_or(line.len());
        let word = line.get(start..).unwrap_or_default();
        let length = word.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(word.len());
        let shown = match word.get(..length) {
            Some(key) if keys.contains(key) => {
                let rest = word.get(length..).unwrap_or_default();
                line.len() - rest.trim_start_matches([' ', '\t', '=', ']']).len()
            }
            _ => start,
        };
        let mut bytes = line.as_bytes().to_vec();
        blot_bytes(&mut bytes, shown..line.len());
        result.extend(bytes);
    }
    String::from_utf8(result).unwrap_or_default()
}

/// Every byte becomes a star except line ends, so that offsets stay and nothing of a character is left.
fn blot_bytes(bytes: &mut [u8], span: Range<usize>) {
    for byte in bytes.get_mut(span).unwrap_or_default() {
        if !matches!(byte, b'\n' | b'\r') {
            *byte = b'*';
        }
    }
}
