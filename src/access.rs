//! Who may do what where. Pure: decides by what was configured.

pub mod pasted;

use std::sync::{Arc, PoisonError, RwLock};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::model::{AUTOMATION, Asker, Destination, Role, Subscription};
use crate::settings::{Problem, quoted};

/// Everything, everywhere, everybody.
const ANY: &str = "*";

/// `[[access]]`: who may do what with which workspaces from which rooms.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The chat: discord, slack or dingtalk.
    pub surface: String,
    /// Ids of rooms on it; "*": all of them, direct messages included.
    pub rooms: Vec<String>,
    /// Names of workspaces; "*": all of them.
    pub workspaces: Vec<String>,
    /// Who may ask: "*", "user:ID" or "role:ID" (a Discord role, a Slack user group).
    #[serde(default)]
    pub viewers: Vec<String>,
    /// Who may also watch.
    #[serde(default)]
    pub watchers: Vec<String>,
    /// Who may also stop and mute what others began.
    #[serde(default)]
    pub moderators: Vec<String>,
    /// Who may also see to deliveries.
    #[serde(default)]
    pub admins: Vec<String>,
    /// Channels of the configuration that a watch may be sent to from here.
    #[serde(default)]
    pub channels: Vec<String>,
}

impl Settings {
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (key, list) in [("rooms", &self.rooms), ("workspaces", &self.workspaces)] {
            if list.is_empty() {
                problems.push(Problem::new(key, "is empty, so this entry allows nothing; name some, or write [\"*\"]"));
            }
        }
        if Role::ALL.iter().all(|role| self.bound(*role).is_empty()) {
            problems.push(Problem::new("viewers", "nobody is named; name viewers, watchers, moderators or admins"));
        }
        for role in Role::ALL {
            for (who, index) in self.bound(role).iter().zip(0..) {
                let index: usize = index;
                let id = who.strip_prefix("user:").or_else(|| who.strip_prefix("role:"));
                if who != ANY && id.is_none_or(str::is_empty) {
                    let said = format!("{} is nobody; write \"*\", \"user:ID\" or \"role:ID\"", quoted(who));
                    problems.push(Problem::new(format!("{}s[{index}]", role.as_str()), said));
                }
            }
        }
        problems
    }

    fn bound(&self, role: Role) -> &[String] {
        match role {
            Role::Viewer => &self.viewers,
            Role::Watcher => &self.watchers,
            Role::Moderator => &self.moderators,
            Role::Admin => &self.admins,
        }
    }

    fn covers(&self, surface: &str, room: &str) -> bool {
        self.surface == surface && self.rooms.iter().any(|own| own == ANY || own == room)
    }

    fn opens(&self, workspace: &str) -> bool {
        self.workspaces.iter().any(|own| own == ANY || own.eq_ignore_ascii_case(workspace))
    }

    /// The most that this entry gives to the person.
    fn role(&self, asker: &Asker) -> Option<Role> {
        let is_meant = |who: &String| match who.split_once(':') {
            Some(("user", id)) => id == asker.user,
            Some(("role", id)) => asker.roles.iter().any(|own| own == id),
            _ => who == ANY,
        };
        Role::ALL.into_iter().rev().find(|role| self.bound(*role).iter().any(is_meant))
    }
}

/// The rules in force. No entry: everybody in a room of a configured surface may watch every workspace there, and stop
/// what anybody began. Any entry: what none allows is denied.
#[derive(Debug, Default)]
pub struct Access(RwLock<Arc<[Settings]>>);

impl Access {
    pub fn new(entries: Vec<Settings>) -> Access {
        Access(RwLock::new(entries.into()))
    }

    /// From now on these.
    pub fn replace(&self, entries: Vec<Settings>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = entries.into();
    }

    fn entries(&self) -> Arc<[Settings]> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The most that the person may do with a workspace (by its name) from that room. None: not even know of it.
    pub fn role(&self, asker: &Asker, workspace: &str) -> Option<Role> {
        let entries = self.entries();
        if entries.is_empty() {
            return Some(Role::Moderator);
        }
        let meant = entries.iter().filter(|entry| entry.covers(&asker.surface, &asker.room) && entry.opens(workspace));
        meant.filter_map(|entry| entry.role(asker)).max()
    }

    /// Rights on that surface are given to roles too, so who has which matters.
    pub fn names_roles(&self, surface: &str) -> bool {
        let names = |entry: &Settings| {
            let bound = Role::ALL.iter().flat_map(|role| entry.bound(*role));
            entry.surface == surface && bound.into_iter().any(|who| who.starts_with("role:"))
        };
        self.entries().iter().any(names)
    }

    /// Somebody in that room may know of the workspace.
    pub fn is_open(&self, surface: &str, room: &str, workspace: &str) -> bool {
        let entries = self.entries();
        entries.is_empty() || entries.iter().any(|entry| entry.covers(surface, room) && entry.opens(workspace))
    }

    /// An entry names that very room.
    pub fn names_room(&self, surface: &str, room: &str) -> bool {
        self.entries().iter().any(|entry| entry.surface == surface && entry.rooms.iter().any(|own| own == room))
    }

    /// The person may have messages about a workspace sent to a channel of the configuration.
    pub fn may_send_to(&self, asker: &Asker, workspace: &str, channel: &str) -> bool {
        let entries = self.entries();
        entries.iter().any(|entry| {
            entry.covers(&asker.surface, &asker.room)
                && entry.opens(workspace)
                && entry.channels.iter().any(|own| own == channel)
                && entry.role(asker) >= Some(Role::Watcher)
        })
    }
}

impl Access {
    /// Whether a destination may hear of the workspace: a room only where somebody there may know of it.
    pub fn may_hear(&self, to: &Destination, workspace: &str) -> bool {
        match to {
            Destination::Room { surface, room } => self.is_open(surface, room, workspace),
            Destination::Channel(_) => true,
        }
    }

    /// Whether what a subscription asks for may still go where it goes. Of those that a person began, the person is
    /// looked at too, with what they belonged to then; the configuration, the command line and the API's tokens answer
    /// for themselves.
    pub fn still_allows(&self, subscription: &Subscription, workspace: &str) -> bool {
        let entries = self.entries();
        if entries.is_empty() {
            return true;
        }
        let person = subscription.by.split_once(':').filter(|(surface, _)| *surface != AUTOMATION);
        let Some((surface, user)) = person else {
            return self.may_hear(&subscription.to, workspace);
        };
        let asker = |room: &str| Asker {
            surface: surface.to_owned(),
            room: room.to_owned(),
            user: user.to_owned(),
            roles: subscription.roles.clone(),
        };
        match &subscription.to {
            Destination::Room { surface: its, room } => {
                its == surface && self.role(&asker(room), workspace) >= Some(Role::Watcher)
            }
            // In which room it was begun is not kept: one that allows it is enough.
            Destination::Channel(channel) => entries.iter().any(|entry| {
                entry.surface == surface
                    && entry.opens(workspace)
                    && entry.channels.iter().any(|own| own == channel)
                    && entry.role(&asker("")) >= Some(Role::Watcher)
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(rooms: &[&str], workspaces: &[&str]) -> Settings {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        Settings {
            surface: "discord".to_owned(),
            rooms: owned(rooms),
            workspaces: owned(workspaces),
            viewers: vec![],
            watchers: vec![],
            moderators: vec![],
            admins: vec![],
            channels: vec![],
        }
    }

    fn asker(room: &str, user: &str, roles: &[&str]) -> Asker {
        let roles = roles.iter().map(|role| (*role).to_owned()).collect();
        Asker { surface: "discord".to_owned(), room: room.to_owned(), user: user.to_owned(), roles }
    }

    #[test]
    fn without_entries_everybody_may_watch_and_nobody_may_send_elsewhere() {
        let access = Access::default();
        assert_eq!(access.role(&asker("1", "9", &[]), "warehouse"), Some(Role::Moderator));
        assert!(access.is_open("discord", "1", "warehouse"));
        assert!(!access.may_send_to(&asker("1", "9", &[]), "warehouse", "ops"));
    }

    #[test]
    fn with_entries_the_most_that_one_gives_counts_and_the_rest_is_denied() {
        let everybody = Settings { viewers: vec!["*".to_owned()], ..entry(&["1"], &["warehouse"]) };
        let some = Settings {
            watchers: vec!["role:77".to_owned()],
            moderators: vec!["user:9".to_owned()],
            channels: vec!["ops".to_owned()],
            ..entry(&["*"], &["Warehouse", "finance"])
        };
        let access = Access::new(vec![everybody, some]);
        let role = |room, user, roles: &[&str], workspace| access.role(&asker(room, user, roles), workspace);
        assert_eq!(role("1", "5", &[], "warehouse"), Some(Role::Viewer));
        assert_eq!(role("1", "5", &["77"], "warehouse"), Some(Role::Watcher));
        assert_eq!(role("1", "9", &["77"], "warehouse"), Some(Role::Moderator));
        assert_eq!(role("2", "5", &[], "warehouse"), None);
        assert_eq!(role("2", "9", &[], "finance"), Some(Role::Moderator));
        assert_eq!(role("1", "9", &[], "other"), None);
        assert_eq!(access.role(&Asker { surface: "slack".to_owned(), ..asker("1", "9", &[]) }, "warehouse"), None);
        // Of another surface, or by a name: nobody.
        assert_eq!(role("1", "role:77", &["user:9"], "finance"), None);
        assert!(access.may_send_to(&asker("3", "5", &["77"]), "finance", "ops"));
        assert!(!access.may_send_to(&asker("3", "5", &[]), "finance", "ops"));
        assert!(!access.may_send_to(&asker("1", "5", &["77"]), "finance", "pager"));
        access.replace(vec![]);
        assert_eq!(role("2", "5", &[], "warehouse"), Some(Role::Moderator));
    }

    #[test]
    fn an_entry_that_means_nobody_or_nothing_is_a_problem() {
        let keys = |settings: Settings| settings.check().into_iter().map(|p| p.key).collect::<Vec<_>>();
        assert_eq!(keys(entry(&[], &["*"])), ["rooms", "viewers"]);
        let wrong = ["5", "user:", "role:1", "group:1", "*"].map(str::to_owned).to_vec();
        assert_eq!(
            keys(Settings { watchers: wrong, ..entry(&["1"], &["*"]) }),
            ["watchers[0]", "watchers[1]", "watchers[3]"]
        );
    }

    fn subscription(by: &str, to: &str, roles: &[&str]) -> Subscription {
        let json = serde_json::json!({
            "id": "a", "scope": "workspace", "workspace": "cn-shanghai/1", "to": to, "on": ["stage"], "by": by,
            "roles": roles, "created_at": "2026-11-24T08:00:00Z",
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_subscription_outlives_neither_the_right_of_its_maker_nor_that_of_its_room() {
        let entry = Settings {
            viewers: vec!["*".to_owned()],
            watchers: vec!["user:9".to_owned(), "role:77".to_owned()],
            channels: vec!["ops".to_owned()],
            ..entry(&["1"], &["warehouse"])
        };
        let access = Access::new(vec![entry]);
        let allows = |by, to, roles: &[&str]| access.still_allows(&subscription(by, to, roles), "warehouse");
        assert!(allows("discord:9", "discord:1", &[]));
        assert!(allows("discord:5", "discord:1", &["77"]), "by what they belonged to");
        assert!(!allows("discord:5", "discord:1", &[]), "may look, and no more");
        assert!(!allows("slack:9", "discord:1", &[]), "ids of another chat are nobody here");
        assert!(!allows("discord:9", "discord:2", &[]), "its room lost the workspace");
        assert!(allows("cli", "discord:1", &[]) && !allows("cli", "discord:2", &[]), "the room's rule holds for all");
        assert!(allows("config", "ops", &[]) && allows("cli", "ops", &[]), "channels are the configuration's own");
        assert!(allows("discord:9", "ops", &[]) && !allows("discord:9", "pager", &[]));
        assert!(!allows("discord:5", "ops", &[]));
        access.replace(vec![]);
        assert!(allows("discord:5", "discord:2", &[]));
    }
}
