//! Notices: what Callboard tells its operators about itself.

use serde::{Deserialize, Serialize};

use super::{Destination, Timestamp};

/// A trouble that began or ended. Kept in the store as JSON, like a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    pub at: Timestamp,
    #[serde(flatten)]
    pub kind: NoticeKind,
}

/// The kinds come in pairs: what begins a trouble is told once until its end was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "notice")]
pub enum NoticeKind {
    /// Nothing is sent to a destination until a person acts.
    #[serde(rename = "destination.dead")]
    DestinationDead { destination: Destination, reason: String },
    /// A person acted, and it takes messages again.
    #[serde(rename = "destination.back")]
    DestinationBack { destination: Destination, since: Timestamp },
    /// One message after the other is refused for good; each is tried all the same.
    #[serde(rename = "destination.refusing")]
    DestinationRefusing { destination: Destination, reason: String },
    /// It took one again.
    #[serde(rename = "destination.accepting")]
    DestinationAccepting { destination: Destination, since: Timestamp },
    /// A bot's credentials are refused: none of its rooms is reached.
    #[serde(rename = "bot.denied")]
    BotDenied { surface: String, reason: String },
    #[serde(rename = "bot.back")]
    BotBack { surface: String, since: Timestamp },
    /// The pipeline API refuses the credentials or a permission in these workspaces.
    #[serde(rename = "source.denied")]
    SourceDenied { workspaces: Vec<String>, reason: String },
    #[serde(rename = "source.back")]
    SourceBack { workspaces: Vec<String>, since: Timestamp },
}

impl NoticeKind {
    pub fn name(&self) -> &'static str {
        match self {
            NoticeKind::DestinationDead { .. } => "destination.dead",
            NoticeKind::DestinationBack { .. } => "destination.back",
            NoticeKind::DestinationRefusing { .. } => "destination.refusing",
            NoticeKind::DestinationAccepting { .. } => "destination.accepting",
            NoticeKind::BotDenied { .. } => "bot.denied",
            NoticeKind::BotBack { .. } => "bot.back",
            NoticeKind::SourceDenied { .. } => "source.denied",
            NoticeKind::SourceBack { .. } => "source.back",
        }
    }

    /// What is in trouble: notices of one subject keep their order, and its trouble is told once.
    pub fn subject(&self) -> String {
        match self {
            NoticeKind::DestinationDead { .. } | NoticeKind::DestinationBack { .. } => {
                format!("destination {}", self.about())
            }
            // A trouble of its own: it may die of another one meanwhile.
            NoticeKind::DestinationRefusing { .. } | NoticeKind::DestinationAccepting { .. } => {
                format!("messages to {}", self.about())
            }
            NoticeKind::BotDenied { .. } | NoticeKind::BotBack { .. } => format!("bot {}", self.about()),
            NoticeKind::SourceDenied { .. } | NoticeKind::SourceBack { .. } => "source".to_owned(),
        }
    }

    /// The name of what is in trouble, for people: of the destination, of the bot, or of the workspaces.
    pub fn about(&self) -> String {
        match self {
            NoticeKind::DestinationDead { destination, .. }
            | NoticeKind::DestinationBack { destination, .. }
            | NoticeKind::DestinationRefusing { destination, .. }
            | NoticeKind::DestinationAccepting { destination, .. } => destination.to_string(),
            NoticeKind::BotDenied { surface, .. } | NoticeKind::BotBack { surface, .. } => surface.clone(),
            NoticeKind::SourceDenied { workspaces, .. } | NoticeKind::SourceBack { workspaces, .. } => {
                workspaces.join(", ")
            }
        }
    }

    /// It ends a trouble.
    pub fn is_end(&self) -> bool {
        match self {
            NoticeKind::DestinationBack { .. }
            | NoticeKind::DestinationAccepting { .. }
            | NoticeKind::BotBack { .. }
            | NoticeKind::SourceBack { .. } => true,
            NoticeKind::DestinationDead { .. }
            | NoticeKind::DestinationRefusing { .. }
            | NoticeKind::BotDenied { .. }
            | NoticeKind::SourceDenied { .. } => false,
        }
    }
}
