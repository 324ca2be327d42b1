//! Chat: what people type and what they read.

use std::fmt;

use super::Timestamp;

/// A command as a surface received it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `discord`, `console`, …
    pub surface: String,
    /// The room's id on that surface.
    pub room: String,
    /// The person's id on that surface, verified by the platform.
    pub user: String,
    /// Name and arguments as typed, without the slash: `watch 7b1e04c2-…`.
    pub text: String,
    pub at: Timestamp,
}

/// What the asker reads. Built from spans so that data can never become markup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub text: Text,
    /// Only the asker sees it.
    pub private: bool,
}

/// Text with a little structure; each surface writes it in its own dialect.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Text(pub Vec<Span>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Span {
    Plain(String),
    Bold(String),
    Code(String),
    Link { label: String, url: String },
}

impl Text {
    #[must_use]
    pub fn plain(mut self, text: impl Into<String>) -> Self {
        self.0.push(Span::Plain(text.into()));
        self
    }

    #[must_use]
    pub fn bold(mut self, text: impl Into<String>) -> Self {
        self.0.push(Span::Bold(text.into()));
        self
    }

    #[must_use]
    pub fn code(mut self, text: impl Into<String>) -> Self {
        self.0.push(Span::Code(text.into()));
        self
    }

    #[must_use]
    pub fn link(mut self, label: impl Into<String>, url: impl Into<String>) -> Self {
        self.0.push(Span::Link { label: label.into(), url: url.into() });
        self
    }

    #[must_use]
    pub fn line(self) -> Self {
        self.plain("\n")
    }
}

impl fmt::Display for Text {
    /// Without any markup.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|span| match span {
            Span::Plain(text) | Span::Bold(text) | Span::Code(text) => f.write_str(text),
            Span::Link { label, url } => write!(f, "{label} ({url})"),
        })
    }
}

/// What surfaces know of a command: registration, help and the README's table come from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandInfo {
    pub name: &'static str,
    /// One line, imperative, no full stop, at most 100 characters (Discord's limit).
    pub about: &'static str,
    pub args: &'static [ArgInfo],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArgInfo {
    pub name: &'static str,
    pub about: &'static str,
    pub required: bool,
    /// Surfaces that can, offer recent runs while the person types.
    pub completes_runs: bool,
}

/// One line that a surface offers while the person types an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suggestion {
    pub label: String,
    pub value: String,
}
