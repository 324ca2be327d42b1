//! What a draft is about: which template words it, what that may say, and what is said without one.

use super::clean;
use super::digest::{Digest, SIZES, Size};
use super::facts::{self, Facts, View};
use super::notice;
use crate::model::{Change, ChangeKind, Content, Draft, Notice, Tone};

const DIGEST: &str = "digest";
const NOTICE: &str = "notice";

/// The templates: one for each kind of change, one for several changes, one for what Callboard says of itself.
pub(super) const KINDS: [&str; 7] = {
    let [started, stage, waiting, finished, lost] = ChangeKind::NAMES;
    [started, stage, waiting, finished, lost, DIGEST, NOTICE]
};

pub(super) enum Topic<'a> {
    Change(&'a Change),
    Digest(Digest<'a>),
    Notice(&'a Notice),
}

/// The template that words it.
pub(super) fn what(content: &Content) -> &'static str {
    match content {
        Content::Change(change) => change.kind.name(),
        Content::Digest { .. } => DIGEST,
        Content::Notice(_) => NOTICE,
    }
}

impl<'a> Topic<'a> {
    pub(super) fn of(draft: &'a Draft) -> Topic<'a> {
        match &draft.content {
            Content::Change(change) => Topic::Change(change),
            Content::Digest { changes, why } => Topic::Digest(Digest::of(changes, *why, draft.present.as_ref())),
            Content::Notice(notice) => Topic::Notice(notice),
        }
    }

    pub(super) fn what(&self) -> &'static str {
        match self {
            Topic::Change(change) => change.kind.name(),
            Topic::Digest(_) => DIGEST,
            Topic::Notice(_) => NOTICE,
        }
    }

    pub(super) fn tone(&self) -> Tone {
        match self {
            Topic::Change(change) => change.tone(),
            Topic::Digest(digest) => digest.tone(),
            Topic::Notice(notice) => notice::tone(notice),
        }
    }

    /// Empty where there is nothing to open.
    pub(super) fn url(&self) -> &'a str {
        match self {
            Topic::Change(change) => &change.url,
            Topic::Digest(digest) => digest.url(),
            Topic::Notice(_) => "",
        }
    }

    /// Nothing of a digest may be cut off by its platform; other messages begin with what counts.
    pub(super) fn has_to_fit(&self) -> bool {
        matches!(self, Topic::Digest(_))
    }

    /// The sizes to try, in this order. Only digests have more than one.
    pub(super) fn sizes(&self) -> &'static [Size] {
        if self.has_to_fit() { &SIZES } else { SIZES.get(..1).unwrap_or(&SIZES) }
    }

    pub(super) fn facts(&self, view: &View<'_>, size: Size) -> Facts {
        match self {
            Topic::Change(change) => facts::facts(change, view),
            Topic::Digest(digest) => digest.facts(view, size),
            Topic::Notice(notice) => notice::facts(notice, view),
        }
    }

    /// Title and body without a template, not escaped.
    pub(super) fn plain(&self, view: &View<'_>, size: Size) -> (String, String) {
        match self {
            Topic::Change(change) => plain_change(change),
            Topic::Digest(digest) => digest.plain(view, size),
            Topic::Notice(notice) => {
                let title = format!("{} {}: {}", self.tone().symbol(), notice.kind.name(), notice.kind.subject());
                let reason = notice::facts(notice, view).reason.unwrap_or_default();
                (clean::line(&title, 200), reason)
            }
        }
    }
}

fn plain_change(change: &Change) -> (String, String) {
    let title = match &change.kind {
        ChangeKind::Started => "Run started".to_owned(),
        ChangeKind::StageChanged { stage, from, to, .. } => {
            format!("{stage} {} → {}", facts::status_text(from), facts::status_text(to))
        }
        ChangeKind::Waiting { stage, .. } => format!("{stage} waits for someone to start it"),
        ChangeKind::Finished { from, to, .. } => {
            format!("Run {} → {}", facts::status_text(from), facts::status_text(to))
        }
        ChangeKind::Lost { .. } => "Run no longer found".to_owned(),
    };
    let title = clean::line(&format!("{} {title} · {}", change.tone().symbol(), change.run.title()), 200);
    (title, clean::line(&format!("{} · {}", change.workspace.name, change.run.id.short()), 200))
}
