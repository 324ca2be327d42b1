//! The app manifest, from the one table of commands: <https://docs.slack.dev/reference/app-manifest>.

use serde_json::{Value, json};
use url::Url;

use crate::model::CommandInfo;

/// The command that leads to all others.
pub(super) const UMBRELLA: &str = "callboard";

/// Names that Slack keeps to itself, or that belong to everybody in a workspace. A manifest that holds `/status` or
/// `/mute` is refused as a whole; these commands are typed behind `/callboard`.
/// <https://slack.com/help/articles/201259356-Slash-commands-in-Slack>
pub(super) const RESERVED: [&str; 26] = [
    "active",
    "apps",
    "archive",
    "away",
    "call",
    "collapse",
    "dm",
    "dnd",
    "expand",
    "feed",
    "help",
    "invite",
    "join",
    "leave",
    "me",
    "msg",
    "mute",
    "open",
    "remind",
    "rename",
    "search",
    "shortcuts",
    "shrug",
    "status",
    "topic",
    "who",
];

/// What the bot may: answer commands, post, see whether it is in a channel, join what is open to all, and see who is in
/// which user group.
const SCOPES: [&str; 6] =
    ["commands", "chat:write", "channels:read", "groups:read", "channels:join", "usergroups:read"];

/// With `base`, the public address of Callboard, for commands by HTTPS; without, for Socket Mode.
pub fn manifest(commands: &[CommandInfo], usage: fn(&CommandInfo) -> String, base: Option<&Url>) -> Value {
    let address = |action: &str| {
        let mut url = base?.clone();
        url.path_segments_mut().ok()?.pop_if_empty().extend(["slack", action]);
        Some(url.to_string())
    };
    let names: Vec<&str> = commands.iter().map(|info| info.name).collect();
    let umbrella = slash(
        UMBRELLA,
        "Follow release pipelines: every command of Callboard",
        &format!("{} …", names.join("|")),
        address("commands"),
    );
    let own = commands.iter().filter(|info| !RESERVED.contains(&info.name)).map(|info| {
        let hint = usage(info);
        let hint = hint.split_once(' ').map_or("", |(_, rest)| rest).to_owned();
        slash(info.name, info.about, &hint, address("commands"))
    });
    let slash_commands: Vec<Value> = std::iter::once(umbrella).chain(own).collect();
    let mut interactivity = json!({ "is_enabled": true });
    if let (Some(fields), Some(url)) = (interactivity.as_object_mut(), address("interactions")) {
        fields.insert("request_url".to_owned(), url.into());
    }
    json!({
        "display_information": {
            "name": "Callboard",
            "description": "Follows release pipelines and posts each stage change where somebody asked for it",
        },
        "features": {
            "bot_user": { "display_name": UMBRELLA, "always_online": true },
            "slash_commands": slash_commands,
        },
        "oauth_config": { "scopes": { "bot": SCOPES } },
        "settings": {
            "interactivity": interactivity,
            "org_deploy_enabled": false,
            "socket_mode_enabled": base.is_none(),
            "token_rotation_enabled": false,
        },
    })
}

/// With ids for the channels and people that somebody names.
fn slash(name: &str, about: &str, hint: &str, url: Option<String>) -> Value {
    let mut slash = json!({ "command": format!("/{name}"), "description": about, "should_escape": true });
    if let Some(fields) = slash.as_object_mut() {
        let optional = [("usage_hint", Some(hint.to_owned()).filter(|hint| !hint.is_empty())), ("url", url)];
        for (key, value) in optional {
            if let Some(value) = value {
                fields.insert(key.to_owned(), value.into());
            }
        }
    }
    slash
}
