//! Messages: a change in words, in the dialect of the channel kind that sends it.

use super::{Change, Tone};

/// A rendered change, in the dialect of the channel kind that will send it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The delivery's id, constant over retries.
    pub id: uuid::Uuid,
    /// One line, escaped for the dialect's headline.
    pub title: String,
    /// Lines in the dialect's markup, data escaped.
    pub body: String,
    /// Title and body with no markup at all: notification previews, fallbacks, terminals.
    pub plain: String,
    pub tone: Tone,
    pub url: String,
    /// Words of the link to `url`, in the channel's locale.
    pub url_label: String,
    pub change: Change,
}

/// How a channel kind writes text. Owned by the channel, handed to the renderer as a value.
#[derive(Debug, Clone, Copy)]
pub struct Dialect {
    /// The channel kind, as in the configuration: `slack-webhook`.
    pub kind: &'static str,
    /// Makes data inert inside `body`: no mention, no markup, no link.
    pub escape: fn(&str) -> String,
    /// Makes data inert inside `title`, where platforms read other markup than in the body.
    pub escape_title: fn(&str) -> String,
    /// Bold text around something already escaped.
    pub bold: fn(&str) -> String,
    /// A link from an escaped label and a URL of ours.
    pub link: fn(&str, &str) -> String,
}
