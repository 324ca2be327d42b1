//! Bearer tokens of the API: who may do what over it.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::model::{AUTOMATION, Destination};
use crate::settings::{Problem, Secret};

/// Fewer characters can be guessed.
const SHORTEST: usize = 32;
/// Every workspace.
const ANY: &str = "*";

/// `[[server.tokens]]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// What the log and the audit call it.
    pub name: String,
    /// The secret, at least 32 characters.
    pub token: Secret,
    /// What it may do.
    pub scopes: BTreeSet<TokenScope>,
    /// Names of workspaces; "*": all of them.
    pub workspaces: Vec<String>,
    /// Where it may have messages sent: names of channels, rooms as surface:room; "*": everywhere.
    #[serde(default)]
    pub destinations: Vec<String>,
}

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum TokenScope {
    #[serde(rename = "subscriptions:read")]
    ReadSubscriptions,
    #[serde(rename = "subscriptions:write")]
    WriteSubscriptions,
    #[serde(rename = "deliveries:read")]
    ReadDeliveries,
    #[serde(rename = "deliveries:write")]
    WriteDeliveries,
}

impl TokenScope {
    pub fn as_str(self) -> &'static str {
        match self {
            TokenScope::ReadSubscriptions => "subscriptions:read",
            TokenScope::WriteSubscriptions => "subscriptions:write",
            TokenScope::ReadDeliveries => "deliveries:read",
            TokenScope::WriteDeliveries => "deliveries:write",
        }
    }
}

impl Settings {
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.name.is_empty() || self.name.chars().count() > 32 || self.name.chars().any(char::is_whitespace) {
            problems.push(Problem::new("name", "a name is 1 to 32 characters without spaces"));
        }
        if self.token.read().is_ok_and(|token| token.expose_secret().chars().count() < SHORTEST) {
            let said =
                format!("is too short to be safe; use at least {SHORTEST} characters, e.g. `openssl rand -hex 32`");
            problems.push(Problem::new("token", said));
        }
        for (key, is_empty) in [("scopes", self.scopes.is_empty()), ("workspaces", self.workspaces.is_empty())] {
            if is_empty {
                problems.push(Problem::new(key, "is empty, so the token could do nothing"));
            }
        }
        if self.scopes.contains(&TokenScope::WriteSubscriptions) && self.destinations.is_empty() {
            let said = "is empty, so the token could subscribe nothing; name channels or rooms, or write [\"*\"]";
            problems.push(Problem::new("destinations", said));
        }
        problems
    }
}

/// A token, ready to be recognised: of the secret itself only its digest is kept.
#[derive(Debug, Clone)]
pub struct Token {
    pub name: String,
    digest: [u8; 32],
    scopes: BTreeSet<TokenScope>,
    workspaces: Vec<String>,
    destinations: Vec<String>,
}

impl Token {
    /// The problem's key is relative to the token's settings.
    pub fn new(settings: &Settings) -> Result<Token, Problem> {
        let secret = settings.token.read().map_err(|error| Problem::new("token", error.to_string()))?;
        Ok(Token {
            name: settings.name.clone(),
            digest: digest(secret.expose_secret()),
            scopes: settings.scopes.clone(),
            workspaces: settings.workspaces.clone(),
            destinations: settings.destinations.clone(),
        })
    }

    /// Who it is, for what is kept.
    pub fn person(&self) -> String {
        format!("{AUTOMATION}:{}", self.name)
    }

    /// It may have messages sent there.
    pub fn reaches(&self, to: &Destination) -> bool {
        let to = to.to_string();
        self.destinations.iter().any(|own| own == ANY || *own == to)
    }

    /// Digests are compared, so how long it takes tells nothing of the secret.
    pub fn is(&self, presented: &str) -> bool {
        self.digest == digest(presented)
    }

    pub fn may(&self, scope: TokenScope) -> bool {
        self.scopes.contains(&scope)
    }

    pub fn opens(&self, workspace: &str) -> bool {
        self.workspaces.iter().any(|own| own == ANY || own == workspace)
    }
}

fn digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}
