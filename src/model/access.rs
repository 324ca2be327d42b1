//! Who asks, and what a person may do.

use serde::{Deserialize, Serialize};

/// What a person may do with a workspace from a room; each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Ask where things stand.
    Viewer,
    /// Watch, and stop what they began themselves.
    Watcher,
    /// Stop and mute what others began in the room.
    Moderator,
    /// See what is wrong with deliveries, and bring destinations back.
    Admin,
}

impl Role {
    pub const ALL: [Role; 4] = [Role::Viewer, Role::Watcher, Role::Moderator, Role::Admin];

    pub fn as_str(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Watcher => "watcher",
            Role::Moderator => "moderator",
            Role::Admin => "admin",
        }
    }
}

/// In place of a surface: who asked over the API, by the name of the token.
pub const AUTOMATION: &str = "api";

/// Who asks from where: ids only, as the platform has verified them. Names that people choose never count.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Asker {
    /// `discord`, `console`, …
    pub surface: String,
    /// The room's id on that surface.
    pub room: String,
    /// The person's id on that surface.
    pub user: String,
    /// Ids of what the person belongs to there: Discord roles, Slack user groups.
    pub roles: Vec<String>,
}

impl Asker {
    /// `discord:137946317766`: the person, for what is kept.
    pub fn person(&self) -> String {
        format!("{}:{}", self.surface, self.user)
    }
}
