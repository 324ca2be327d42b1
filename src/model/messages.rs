//! Messages: a change in words, in the dialect of the channel kind that sends it.

use super::{Button, Change, Folding, Notice, RunId, Snapshot, Timestamp, Tone};

/// What one message tells.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "nearly all of them are changes")]
pub enum Content {
    Change(Change),
    /// Several changes, grouped by run, each run's in order. Of one run only where they are late; a single late change
    /// is told this way too.
    Digest {
        changes: Vec<Change>,
        why: Folding,
    },
    Notice(Notice),
}

impl Content {
    /// The `type` of the generic webhook.
    pub fn event_type(&self) -> &'static str {
        match self {
            Content::Change(change) => change.kind.event_type(),
            Content::Digest { .. } => "digest",
            Content::Notice(_) => "notice",
        }
    }

    /// The run it is about, where it is about one.
    pub fn run(&self) -> Option<&RunId> {
        match self {
            Content::Change(change) => Some(&change.run.id),
            Content::Digest { changes, .. } => {
                let run = &changes.first()?.run.id;
                changes.iter().all(|change| change.run.id == *run).then_some(run)
            }
            Content::Notice(_) => None,
        }
    }

    /// When the newest of it was seen.
    pub fn at(&self) -> Timestamp {
        match self {
            Content::Change(change) => change.at,
            Content::Digest { changes, .. } => changes.iter().map(|change| change.at).max().unwrap_or_default(),
            Content::Notice(notice) => notice.at,
        }
    }
}

/// What is to be put into words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Constant over retries.
    pub id: uuid::Uuid,
    pub content: Content,
    /// An earlier attempt may have arrived, and people would see this one as well.
    pub repeated: bool,
    /// Where the run stands now; for what is late.
    pub present: Option<Snapshot>,
}

impl Draft {
    /// On time, and for the first time.
    pub fn of(id: uuid::Uuid, content: Content) -> Draft {
        Draft { id, content, repeated: false, present: None }
    }
}

/// A rendered change, in the dialect of the channel kind that will send it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Constant over retries; a platform may recognise a repetition by it.
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
    /// What a reader may do about it, in rooms of bots that have buttons.
    pub buttons: Vec<Button>,
    pub content: Content,
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
    /// The longest `body` that arrives whole, in units of `measure`.
    pub limit: usize,
    /// How much a character of `body` counts.
    pub measure: fn(char) -> usize,
}
