//! What Slack sends, as far as it matters: slash commands and presses of buttons. The same fields come as a form by HTTPS
//! and as JSON over Socket Mode.

use serde_json::Value;
use url::Url;

use crate::model::{Asker, CommandInfo};
use crate::text::clean_line;

/// A command, typed or pressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) asker: Asker,
    /// Name and arguments, without the slash.
    pub(super) text: String,
    /// Where answers go later. A secret: whoever knows it can write there.
    pub(super) response_url: Option<Url>,
}

/// A slash command: <https://docs.slack.dev/interactivity/implementing-slash-commands#app_command_handling>. `field` looks
/// up what Slack sent. Called by a name of the table it is that command; by any other name, as `/callboard`, the
/// command is the first word. `None`: it is none of Slack's.
pub(super) fn command(field: impl Fn(&str) -> Option<String>, commands: &[CommandInfo]) -> Option<Asked> {
    let name = field("command")?.strip_prefix('/')?.to_ascii_lowercase();
    let typed = unescaped(&field("text").unwrap_or_default());
    let text = if commands.iter().any(|info| info.name == name) { format!("{name} {typed}") } else { typed };
    Some(Asked {
        asker: asker(field("user_id")?, field("channel_id")?)?,
        text: text.trim().to_owned(),
        response_url: url(field("response_url")),
    })
}

/// The press of a button: <https://docs.slack.dev/reference/interaction-payloads/block_actions-payload>. `None`: another
/// kind of interaction, or a button that is only a link.
pub(super) fn press(payload: &Value) -> Option<Asked> {
    let text = |pointer: &str| payload.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    if text("/type")? != "block_actions" || text("/actions/0/type")? != "button" {
        return None;
    }
    let command = clean_line(&text("/actions/0/value")?);
    let room = text("/channel/id").or_else(|| text("/container/channel_id"))?;
    Some(Asked {
        asker: asker(text("/user/id")?, room)?,
        text: Some(command).filter(|command| !command.trim().is_empty())?,
        response_url: url(text("/response_url")),
    })
}

/// By ids alone. User groups are not in what Slack sends.
fn asker(user: String, room: String) -> Option<Asker> {
    let is_id =
        |id: &str| (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
    let roles = Vec::new();
    (is_id(&user) && is_id(&room)).then(|| Asker { surface: super::NAME.to_owned(), room, user, roles })
}

fn url(text: Option<String>) -> Option<Url> {
    text?.parse().ok()
}

/// What was typed, without what Slack makes of it: `&lt;` is `<` again, `<https://…|shown>` the address alone, and
/// `<#C123|name>` loses the name, which never counts.
/// <https://docs.slack.dev/messaging/formatting-message-text#retrieving-messages>
fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, (inside, after))) =
        rest.split_once('<').and_then(|(before, tail)| Some((before, tail.split_once('>')?)))
    {
        out.push_str(before);
        let target = inside.split('|').next().unwrap_or_default();
        match target.starts_with("http://") || target.starts_with("https://") {
            true => out.push_str(target),
            false => out.extend(["<", target, ">"]),
        }
        rest = after;
    }
    out.push_str(rest);
    clean_line(&out.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::model::Role;

    const COMMANDS: [CommandInfo; 1] =
        [CommandInfo { name: "watch", about: "Follow a run", args: &[], options: &[], role: Role::Watcher }];

    fn typed(command_name: &str, text: &str) -> Option<String> {
        let fields = [("command", command_name), ("text", text), ("user_id", "U1"), ("channel_id", "C1")];
        let field = |name: &str| fields.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned());
        command(field, &COMMANDS).map(|asked| asked.text)
    }

    #[test]
    fn commands_are_called_by_their_name_or_through_one_for_all() {
        for (name, text, expected) in [
            ("/watch", "7b1e", Some("watch 7b1e")),
            ("/watch", "", Some("watch")),
            ("/WATCH", " 7b1e\n now ", Some("watch 7b1e now")),
            ("/callboard", "watch 7b1e", Some("watch 7b1e")),
            ("/callboard", "", Some("")),
            ("/releases", "watch 7b1e", Some("watch 7b1e")),
            ("watch", "7b1e", None),
        ] {
            assert_eq!(typed(name, text).as_deref(), expected, "{name} {text}");
        }
    }

    #[test]
    fn what_slack_makes_of_text_is_undone() {
        for (text, expected) in [
            ("<https://dataworks.example/?a=1&amp;b=2|dataworks.example>", "https://dataworks.example/?a=1&b=2"),
            ("<https://dataworks.example/>", "https://dataworks.example/"),
            ("7b1e to <#C123|releases> by <@U1|ann>", "7b1e to <#C123> by <@U1>"),
            ("a &lt;b&gt; &amp;amp; c", "a <b> &amp; c"),
            ("a < b", "a < b"),
            ("<", "<"),
        ] {
            assert_eq!(unescaped(text), expected, "{text}");
        }
    }

    #[test]
    fn only_buttons_that_name_a_command_are_pressed() {
        let pressed = json!({
            "type": "block_actions", "user": { "id": "U1", "name": "admin" }, "channel": { "id": "C1", "name": "x" },
            "response_url": "https://hooks.slack.com/actions/T/1/x",
            "actions": [{ "type": "button", "action_id": "command-0", "value": "unwatch 7b1e04c2" }],
        });
        let asked = press(&pressed).unwrap();
        assert_eq!((asked.text.as_str(), asked.asker.user.as_str()), ("unwatch 7b1e04c2", "U1"));
        for (pointer, wrong) in [
            ("/type", json!("view_submission")),
            ("/actions/0/type", json!("static_select")),
            ("/actions/0/value", json!(" ")),
            ("/actions/0/value", json!(null)),
            ("/actions", json!([])),
            ("/user/id", json!("ann")),
            ("/channel", json!(null)),
        ] {
            let mut payload = pressed.clone();
            *payload.pointer_mut(pointer).unwrap() = wrong.clone();
            assert_eq!(press(&payload), None, "{pointer} is {wrong}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_is_sent_breaks_the_parser(
            fields in proptest::collection::vec(("[a-z_]{0,12}|command|text|user_id|channel_id|response_url", any::<String>()), 0..8),
            json in "\\PC{0,200}",
        ) {
            let field = |name: &str| fields.iter().find(|(own, _)| own == name).map(|(_, value)| value.clone());
            if let Some(asked) = command(field, &COMMANDS) {
                prop_assert!(!asked.text.contains('\n'));
                prop_assert!(asked.asker.user.bytes().all(|b| b.is_ascii_alphanumeric()));
            }
            prop_assert!(press(&serde_json::from_str(&json).unwrap_or_default()).is_none());
            unescaped(&json);
        }
    }
}
