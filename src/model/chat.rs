//! Chat: what people type and what they read.

use std::fmt;

use super::{Asker, Role, Timestamp};

/// A command as a surface received it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub asker: Asker,
    /// The asker's language as the platform names it: `zh-CN`, `en-US`; empty where it does not say.
    pub locale: String,
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
    /// What may follow at a press, where the surface has buttons; the text says it as well.
    pub buttons: Vec<Button>,
}

impl Reply {
    /// For everybody in the room.
    pub fn to_room(text: Text) -> Reply {
        Reply { text, private: false, buttons: Vec::new() }
    }

    /// For the asker alone.
    pub fn to_asker(text: Text) -> Reply {
        Reply { text, private: true, buttons: Vec::new() }
    }

    #[must_use]
    pub fn button(mut self, label: impl Into<String>, command: impl Into<String>) -> Reply {
        self.buttons.push(Button { label: label.into(), command: command.into() });
        self
    }
}

/// To press it is to type a command, as whoever presses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Button {
    /// At most 40 characters.
    pub label: String,
    /// Without the slash, at most 100 characters: what Discord keeps of a button
    /// (<https://docs.discord.com/developers/components/reference#button>).
    pub command: String,
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
    /// Words of the form `name:value`, anywhere behind the name, each at most once.
    pub options: &'static [OptionInfo],
    /// Who may not at least this with a workspace, may not use the command there.
    pub role: Role,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionInfo {
    pub name: &'static str,
    /// One line, at most 100 characters (Discord's limit).
    pub about: &'static str,
    /// For help: `failed|waiting|finished`, `3d`.
    pub example: &'static str,
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
