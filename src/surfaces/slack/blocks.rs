//! Writes a reply in Slack's blocks, data inert, cut to what one message may hold.
//!
//! Limits: <https://docs.slack.dev/reference/block-kit/blocks/>.

use serde_json::{Value, json};

use super::manifest::{RESERVED, UMBRELLA};
use crate::model::{Button, Dialect, Reply, Span, Text};
use crate::text::{clean, clean_line, cut, length, utf16};

const SECTION_LIMIT: usize = 3000;
/// Room for the mark that something is missing.
const LINE_LIMIT: usize = SECTION_LIMIT - 2;
/// Fifty blocks would be taken; nobody reads as much.
const SECTIONS: usize = 10;
const TEXT_LIMIT: usize = 4000;
const LABEL_LIMIT: usize = 75;
const BUTTONS: usize = 25;
/// A message without text is refused.
const NOTHING: &str = "Nothing to show.";

/// What the answer to a command holds, wherever it is sent.
pub(super) fn body(reply: &Reply, dialect: &Dialect) -> Value {
    let mut blocks: Vec<Value> = sections(&lines(&reply.text, dialect))
        .into_iter()
        .map(|text| json!({ "type": "section", "text": { "type": "mrkdwn", "text": text, "verbatim": true } }))
        .collect();
    if !reply.buttons.is_empty() {
        blocks.push(actions(&reply.buttons));
    }
    let plain = fitting(&reply.text.to_string(), TEXT_LIMIT, dialect.escape);
    let plain = if plain.trim().is_empty() { NOTHING } else { &plain };
    json!({
        "response_type": if reply.private { "ephemeral" } else { "in_channel" },
        "text": plain,
        "blocks": blocks,
        "unfurl_links": false,
        "unfurl_media": false,
    })
}

fn actions(buttons: &[Button]) -> Value {
    let element = |(Button { label, command }, number): (&Button, usize)| {
        let label = cut(&clean_line(label), LABEL_LIMIT, utf16);
        let text = json!({ "type": "plain_text", "text": label, "emoji": false });
        json!({ "type": "button", "action_id": format!("command-{number}"), "text": text, "value": command })
    };
    json!({ "type": "actions", "elements": buttons.iter().zip(0..BUTTONS).map(element).collect::<Vec<_>>() })
}

/// Lines of markup, none longer than fits into a section: marks never span lines.
fn lines(text: &Text, dialect: &Dialect) -> Vec<String> {
    let mut lines = vec![String::new()];
    for span in &text.0 {
        match span {
            Span::Plain(data) => {
                for (number, line) in clean(data).split('\n').enumerate() {
                    if number > 0 {
                        lines.push(String::new());
                    }
                    add(&mut lines, fitting(line, LINE_LIMIT, dialect.escape));
                }
            }
            Span::Bold(data) => {
                let bold = |data: &str| (dialect.bold)(&(dialect.escape)(data));
                add(&mut lines, fitting(&clean_line(data), LINE_LIMIT, bold));
            }
            Span::Code(data) => add(&mut lines, fitting(&typed_here(&clean_line(data)), LINE_LIMIT, code)),
            Span::Link { label, url } => {
                let link = (dialect.link)(&(dialect.escape)(&clean_line(label)), url);
                let fits = length(&link, utf16) <= LINE_LIMIT;
                add(&mut lines, if fits { link } else { fitting(&clean_line(label), LINE_LIMIT, dialect.escape) });
            }
        }
    }
    lines
}

fn add(lines: &mut Vec<String>, piece: String) {
    match lines.last_mut() {
        Some(last) if length(last, utf16) + length(&piece, utf16) <= LINE_LIMIT => last.push_str(&piece),
        _ => lines.push(piece),
    }
}

/// Data as `write` writes it, shortened until that fits.
fn fitting(data: &str, limit: usize, write: impl Fn(&str) -> String) -> String {
    let mut room = limit;
    loop {
        let written = write(&cut(data, room, utf16));
        if length(&written, utf16) <= limit || room == 0 {
            return written;
        }
        room /= 2;
    }
}

/// No markup but entities is read inside; a back-tick would end it.
fn code(data: &str) -> String {
    if data.trim().is_empty() {
        return String::new();
    }
    let inert = data.replace('`', "\u{02CB}").replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    format!("`{inert}`")
}

/// A command as it is typed at Slack, which keeps some names to itself.
fn typed_here(code: &str) -> String {
    let name = code.strip_prefix('/').map(|rest| rest.split(' ').next().unwrap_or_default());
    match (name, code.strip_prefix('/')) {
        (Some(name), Some(rest)) if RESERVED.contains(&name) => format!("/{UMBRELLA} {rest}"),
        _ => code.to_owned(),
    }
}

/// What is too long for one section goes on in the next, at the end of a line.
fn sections(lines: &[String]) -> Vec<String> {
    let mut sections: Vec<String> = Vec::new();
    for line in lines {
        let is_last = sections.len() == SECTIONS;
        match sections.last_mut() {
            Some(last) if length(last, utf16) + 1 + length(line, utf16) <= LINE_LIMIT => {
                last.push('\n');
                last.push_str(line);
            }
            Some(last) if is_last => {
                last.push_str("\n…");
                break;
            }
            _ if line.trim().is_empty() => {}
            _ => sections.push(line.clone()),
        }
    }
    if sections.is_empty() { vec![NOTHING.to_owned()] } else { sections }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dialect() -> Dialect {
        crate::model::Dialect {
            kind: "slack",
            escape: |data| data.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;"),
            escape_title: str::to_owned,
            bold: |escaped| format!("*{escaped}*"),
            link: |label, url| format!("<{url}|{label}>"),
            limit: SECTION_LIMIT,
            measure: utf16,
        }
    }

    fn text_of(reply: &Reply) -> String {
        body(reply, &dialect())["blocks"][0]["text"]["text"].as_str().unwrap().to_owned()
    }

    #[test]
    fn spans_become_markup_and_data_stays_data() {
        let text =
            Text::default().plain("Watching <!channel> ").bold("v12").line().code("a`b <c>").link("run", "https://x/");
        let written = text_of(&Reply::to_room(text));
        assert_eq!(written, "Watching &lt;!channel&gt; *v12*\n`aˋb &lt;c&gt;`<https://x/|run>");
    }

    #[test]
    fn commands_that_slack_keeps_to_itself_are_shown_as_they_are_typed_here() {
        let shown = |code: &str| text_of(&Reply::to_asker(Text::default().code(code)));
        assert_eq!(shown("/status 7b1e04c2"), "`/callboard status 7b1e04c2`");
        assert_eq!(shown("/unwatch 7b1e04c2"), "`/unwatch 7b1e04c2`");
        assert_eq!(shown("/statuses"), "`/statuses`");
    }

    #[test]
    fn who_sees_an_answer_and_what_may_be_pressed() {
        let reply = Reply::to_asker(Text::default()).button("Unwatch", "unwatch 7b1e04c2");
        let body = body(&reply, &dialect());
        assert_eq!(body["response_type"], "ephemeral");
        assert_eq!(body["text"], NOTHING);
        let button = &body["blocks"][1]["elements"][0];
        assert_eq!(
            (button["text"]["text"].as_str(), button["value"].as_str()),
            (Some("Unwatch"), Some("unwatch 7b1e04c2"))
        );
    }

    proptest! {
        #[test]
        fn no_limit_is_passed_whatever_is_said(
            data in proptest::collection::vec("[<>&\n a-z]{0,4000}|\\PC{0,2500}", 0..6),
            kind in 0..4,
        ) {
            let text = data.iter().fold(Text::default(), |text, data| match kind {
                0 => text.plain(data.as_str()),
                1 => text.bold(data.as_str()),
                2 => text.code(data.as_str()),
                _ => text.link(data.as_str(), "https://x.example/"),
            });
            let body = body(&Reply::to_room(text), &dialect());
            let blocks = body["blocks"].as_array().unwrap();
            prop_assert!((1..=50).contains(&blocks.len()));
            prop_assert!((1..=TEXT_LIMIT).contains(&length(body["text"].as_str().unwrap(), utf16)));
            for block in blocks {
                let length = length(block["text"]["text"].as_str().unwrap(), utf16);
                prop_assert!((1..=SECTION_LIMIT).contains(&length), "{length}");
            }
        }
    }
}
