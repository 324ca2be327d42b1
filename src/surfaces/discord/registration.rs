//! The slash commands as Discord stores them.
//!
//! Limits (name 32, description 100, 25 options):
//! <https://discord.com/developers/docs/interactions/application-commands#application-command-object>

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::localized::chinese;
use crate::model::{CommandInfo, OptionInfo};

/// CHAT_INPUT, the type of slash commands.
const SLASH: u8 = 1;
/// The option type for text.
const STRING: u8 = 3;

/// A server and a direct message with the bot:
/// <https://docs.discord.com/developers/interactions/receiving-and-responding#interaction-object-interaction-context-types>
const CONTEXTS: [u8; 2] = [0, 1];

/// By language, as Discord names it.
type Localized = BTreeMap<String, String>;

/// What is compared and sent; everything else Discord keeps of a command is its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Command {
    name: String,
    description: String,
    #[serde(default)]
    description_localizations: Option<Localized>,
    /// Where it can be used. Who may, is for the admins of a server to narrow down; here it is `[[access]]` that counts.
    #[serde(default)]
    contexts: Option<Vec<u8>>,
    #[serde(rename = "type", default = "slash")]
    kind: u8,
    #[serde(default)]
    options: Vec<Argument>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Argument {
    name: String,
    description: String,
    #[serde(default)]
    description_localizations: Option<Localized>,
    #[serde(rename = "type")]
    kind: u8,
    #[serde(default)]
    required: bool,
    #[serde(default)]
    autocomplete: bool,
}

fn slash() -> u8 {
    SLASH
}

/// The body of the overwriting PUT, or None when `registered` (the answer of the GET) says the same already: each
/// write counts against 200 a day and makes clients load the list again.
pub(super) fn difference(registered: Value, commands: &[CommandInfo]) -> Option<Value> {
    let mut wanted: Vec<Command> = commands.iter().map(command).collect();
    wanted.sort_by(|a, b| a.name.cmp(&b.name));
    if let Ok(mut present) = serde_json::from_value::<Vec<Command>>(registered) {
        present.sort_by(|a, b| a.name.cmp(&b.name));
        if present == wanted {
            return None;
        }
    }
    serde_json::to_value(wanted).ok()
}

fn command(info: &CommandInfo) -> Command {
    let argument = |arg: &crate::model::ArgInfo| Argument {
        name: arg.name.to_owned(),
        description: arg.about.to_owned(),
        description_localizations: localized(info.name, arg.name),
        kind: STRING,
        required: arg.required,
        autocomplete: arg.completes_runs,
    };
    let option = |option: &OptionInfo| Argument {
        name: option.name.to_owned(),
        description: option.about.to_owned(),
        description_localizations: localized(info.name, option.name),
        kind: STRING,
        required: false,
        autocomplete: false,
    };
    Command {
        name: info.name.to_owned(),
        description: info.about.to_owned(),
        description_localizations: localized(info.name, ""),
        contexts: Some(CONTEXTS.to_vec()),
        kind: SLASH,
        options: info.args.iter().map(argument).chain(info.options.iter().map(option)).collect(),
    }
}

/// In the languages that Discord shows beside English: <https://docs.discord.com/developers/reference#locales>.
fn localized(command: &str, word: &str) -> Option<Localized> {
    chinese(command, word).map(|said| BTreeMap::from([("zh-CN".to_owned(), said.to_owned())]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::{ArgInfo, Role};

    const COMMANDS: [CommandInfo; 2] = [
        CommandInfo {
            name: "watch",
            about: "Follow a run",
            args: &[ArgInfo { name: "run", about: "Its id", required: true, completes_runs: true }],
            options: &[],
            role: Role::Watcher,
        },
        CommandInfo { name: "help", about: "Show what I can do", args: &[], options: &[], role: Role::Viewer },
    ];

    #[test]
    fn the_same_in_another_order_is_no_difference() {
        let registered = json!([
            { "id": "1", "application_id": "9", "version": "3", "default_member_permissions": null, "type": 1,
              "name": "watch", "name_localizations": null, "description": "Follow a run", "nsfw": false,
              "description_localizations": { "zh-CN": chinese("watch", "") }, "contexts": [0, 1],
              "options": [{
                  "type": 3, "name": "run", "description": "Its id", "required": true, "autocomplete": true,
                  "description_localizations": { "zh-CN": chinese("watch", "run") },
              }] },
            { "id": "2", "name": "help", "description": "Show what I can do", "type": 1, "contexts": [0, 1],
              "description_localizations": { "zh-CN": chinese("help", "") } },
        ]);
        assert_eq!(difference(registered, &COMMANDS), None);
    }

    #[test]
    fn anything_else_is_overwritten() {
        let help = json!({ "name": "help", "description": "Show what I can do", "type": 1 });
        for registered in [json!([]), json!([help]), json!([help, help, help]), json!("nonsense")] {
            let put = difference(registered, &COMMANDS).expect("a difference");
            assert_eq!(put.as_array().map(Vec::len), Some(2));
        }
    }
}
