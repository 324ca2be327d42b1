//! From an interaction to what the asker sees.
//!
//! Discord wants a first response within three seconds and fixes with it whether only the asker sees the answer
//! (<https://discord.com/developers/docs/interactions/receiving-and-responding>). So the command gets a moment first:
//! nearly every answer comes from memory, goes out at once and is seen by whom it is for. Only a command that takes
//! longer is deferred, privately, because a mistake must never be shown to the room: the asker sees "thinking", then
//! the answer in its place. If the answer is for the room it is then posted as a follow-up and the private copy is
//! deleted. In this order the asker has the answer whatever fails half-way, and it is the one that works: a follow-up
//! to a response that is still loading only edits it, private as it was.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::gateway::Asked;
use super::markdown::{cut_plain, units, write};
use super::rest::{Call, Failure, Rest};
use super::{Timing, registration};
use crate::model::{Button, Clock, CommandInfo, Reply, Request, Suggestion, Text};
use crate::surfaces::{Inbox, backoff};
use crate::text::clean_line;

/// Callback types: message, deferred message, choices.
const MESSAGE: u8 = 4;
const DEFERRED: u8 = 5;
const CHOICES: u8 = 8;
/// Message flags.
const NO_PREVIEWS: u64 = 1 << 2;
const ONLY_ASKER: u64 = 1 << 6;
/// <https://discord.com/developers/docs/interactions/application-commands#application-command-object-application-command-option-choice-structure>
const CHOICES_LIMIT: usize = 25;
/// Buttons in a row, characters of a label and of a button's id:
/// <https://docs.discord.com/developers/components/reference#button>
const BUTTONS_LIMIT: usize = 5;
const LABEL_LIMIT: usize = 80;
const BUTTON_ID_LIMIT: usize = 100;
/// Component types and the style of a button that is one of several.
const ROW: u8 = 1;
const BUTTON: u8 = 2;
const SECONDARY: u8 = 2;
const CHOICE_LIMIT: usize = 100;
/// Interaction errors, from Discord's list of JSON error codes.
const ALREADY_ACKNOWLEDGED: i64 = 40060;

/// What answers need; shared by all of them.
pub(super) struct Desk {
    pub(super) rest: Rest,
    pub(super) inbox: Inbox,
    pub(super) commands: &'static [CommandInfo],
    pub(super) timing: Timing,
    clock: Clock,
    /// Every answer on its way.
    pub(super) tasks: TaskTracker,
    /// Ends the answers that are not done in time at a stop.
    pub(super) over: CancellationToken,
    registered: AtomicBool,
}

impl Desk {
    pub(super) fn new(
        rest: Rest,
        inbox: Inbox,
        commands: &'static [CommandInfo],
        timing: Timing,
        clock: Clock,
    ) -> Arc<Desk> {
        Arc::new(Desk {
            rest,
            inbox,
            commands,
            timing,
            clock,
            tasks: TaskTracker::new(),
            over: CancellationToken::new(),
            registered: AtomicBool::new(false),
        })
    }

    /// Answers in a task of its own.
    pub(super) fn command(self: &Arc<Self>, asked: Asked) {
        let desk = Arc::clone(self);
        self.spawn(async move {
            let name = desk.label(&asked.command);
            if let Err(failure) = desk.answer(&asked).await {
                tracing::warn!(command = name, reason = %failure, "an answer did not reach Discord");
            }
        });
    }

    pub(super) fn autocomplete(self: &Arc<Self>, asked: Asked) {
        let desk = Arc::clone(self);
        self.spawn(async move {
            let name = desk.label(&asked.command);
            let until = Instant::now() + desk.timing.first;
            let suggestions = desk.inbox.suggest(desk.request(&asked), desk.timing.suggest).await;
            let data = json!({ "choices": choices(&suggestions) });
            if let Err(failure) = desk.respond(&asked, CHOICES, data, until).await {
                tracing::debug!(command = name, reason = %failure, "suggestions did not reach Discord");
            }
        });
    }

    /// Registers the commands, once in the life of the process: a session that is identified anew says `ready` again.
    pub(super) fn register(self: &Arc<Self>, application: String) {
        if self.registered.swap(true, Ordering::AcqRel) {
            return;
        }
        let desk = Arc::clone(self);
        self.spawn(async move {
            for failures in 1.. {
                match desk.register_once(&application).await {
                    Ok(true) => return tracing::info!("registered the slash commands with Discord"),
                    Ok(false) => return tracing::debug!("the slash commands are registered already"),
                    Err(failure) if failure.is_final() => {
                        tracing::error!(reason = %failure, "Discord refused the slash commands; they are tried again at the next start");
                        return;
                    }
                    Err(failure) => {
                        tracing::warn!(reason = %failure, "the slash commands could not be registered yet");
                        let Timing { pause_first, pause_last, .. } = desk.timing;
                        tokio::time::sleep(backoff(failures, pause_first, pause_last, fastrand::f64())).await;
                    }
                }
            }
        });
    }

    /// Whether anything had to be written.
    async fn register_once(&self, application: &str) -> Result<bool, Failure> {
        let path = ["applications", application, "commands"];
        let call = |method, body| Call {
            method,
            path: &path,
            // Without it the answer leaves out what is compared.
            query: Some(("with_localizations", "true")),
            as_bot: true,
            body,
            repeatable: true,
            until: Instant::now() + self.timing.late,
        };
        let registered = match self.rest.call(call(Method::GET, None)).await {
            // A proxy that lets commands be written but not read.
            Err(failure) if matches!(failure.status(), 404 | 405 | 500..) => Value::Null,
            registered => registered?,
        };
        match registration::difference(registered, self.commands) {
            Some(commands) => self.rest.call(call(Method::PUT, Some(commands))).await.map(|_| true),
            None => Ok(false),
        }
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let over = self.over.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = over.cancelled() => {}
                () = work => {}
            }
        });
    }

    async fn answer(&self, asked: &Asked) -> Result<(), Failure> {
        let arrived = Instant::now();
        let asking = self.inbox.ask(self.request(asked));
        tokio::pin!(asking);
        let first = arrived + self.timing.first;
        if let Ok(answer) = timeout(self.timing.direct, &mut asking).await {
            return self.respond(asked, MESSAGE, message(&answer.unwrap_or_else(private)), first).await;
        }
        self.respond(asked, DEFERRED, json!({ "flags": ONLY_ASKER }), first).await?;
        let reply = match timeout(self.timing.late, asking).await {
            Ok(answer) => answer.unwrap_or_else(private),
            Err(_) => private("No answer came in time; ask again in a few minutes"),
        };
        self.answer_late(asked, &reply, arrived + self.timing.life).await
    }

    async fn answer_late(&self, asked: &Asked, reply: &Reply, until: Instant) -> Result<(), Failure> {
        let original = ["webhooks", &asked.application, &asked.token, "messages", "@original"];
        let follow_up = ["webhooks", &asked.application, &asked.token];
        let mut edit = message(reply);
        if let Some(fields) = edit.as_object_mut() {
            // Who sees it was fixed by deferring.
            fields.remove("flags");
        }
        let call =
            |method, path, body, repeatable| Call { method, path, query: None, as_bot: false, body, repeatable, until };
        self.rest.call(call(Method::PATCH, &original, Some(edit), true)).await?;
        if reply.private {
            return Ok(());
        }
        self.rest.call(call(Method::POST, &follow_up, Some(message(reply)), false)).await?;
        self.rest.call(call(Method::DELETE, &original, None, true)).await.map(|_| ())
    }

    async fn respond(&self, asked: &Asked, kind: u8, data: Value, until: Instant) -> Result<(), Failure> {
        let path = ["interactions", &asked.id, &asked.token, "callback"];
        let body = Some(json!({ "type": kind, "data": data }));
        let call =
            Call { method: Method::POST, path: &path, query: None, as_bot: false, body, repeatable: true, until };
        match self.rest.call(call).await {
            // An earlier attempt arrived although its answer was lost.
            Err(failure) if failure.code() == ALREADY_ACKNOWLEDGED => Ok(()),
            result => result.map(|_| ()),
        }
    }

    fn request(&self, asked: &Asked) -> Request {
        let text = asked.pressed.as_deref().map_or_else(|| self.text(asked), clean_line);
        Request { asker: asked.asker.clone(), locale: asked.locale.clone(), text, at: (self.clock)() }
    }

    /// Name and values as people type them in chats without forms: arguments in the order of the command's table,
    /// whatever order they were given in, then `name:value` for each option.
    fn text(&self, asked: &Asked) -> String {
        let (args, options): (&[_], &[_]) =
            self.info(&asked.command).map_or((&[], &[]), |info| (info.args, info.options));
        let place = |name: &str| args.iter().position(|arg| arg.name == name).unwrap_or(usize::MAX);
        let mut given: Vec<_> = asked.options.iter().collect();
        given.sort_by_key(|(name, _)| place(name));
        let word = |(name, value): &(String, String)| {
            let value = clean_line(value);
            match options.iter().any(|option| option.name == name) {
                true if !value.is_empty() => format!("{name}:{}", value.replace(' ', "")),
                _ => value,
            }
        };
        let words = given.into_iter().map(word).filter(|word| !word.is_empty());
        std::iter::once(asked.command.clone()).chain(words).collect::<Vec<_>>().join(" ")
    }

    fn info(&self, command: &str) -> Option<&'static CommandInfo> {
        self.commands.iter().find(|info| info.name == command)
    }

    /// What logs may say of a command: nothing a person typed.
    fn label(&self, command: &str) -> &'static str {
        self.info(command).map_or("unknown", |info| info.name)
    }
}

fn private(words: impl ToString) -> Reply {
    Reply::to_asker(Text::default().plain(words.to_string()))
}

/// The message object, mentions off: <https://discord.com/developers/docs/resources/message#allowed-mentions-object>
fn message(reply: &Reply) -> Value {
    let flags = if reply.private { NO_PREVIEWS | ONLY_ASKER } else { NO_PREVIEWS };
    json!({
        "content": write(&reply.text), "components": components(&reply.buttons), "allowed_mentions": { "parse": [] },
        "flags": flags,
    })
}

/// A row of buttons, each with its command as its id. A command that does not fit is left out: cut, it would be another.
fn components(buttons: &[Button]) -> Vec<Value> {
    let fitting = buttons.iter().filter(|button| units(&button.command) <= BUTTON_ID_LIMIT).take(BUTTONS_LIMIT);
    let button = |button: &Button| {
        let label = cut_plain(&button.label, LABEL_LIMIT);
        json!({ "type": BUTTON, "style": SECONDARY, "label": label, "custom_id": button.command })
    };
    let row: Vec<Value> = fitting.map(button).collect();
    if row.is_empty() { Vec::new() } else { vec![json!({ "type": ROW, "components": row })] }
}

/// A value too long is left out: cut, it would name another run.
fn choices(suggestions: &[Suggestion]) -> Vec<Value> {
    suggestions
        .iter()
        .filter(|suggestion| !suggestion.value.is_empty() && units(&suggestion.value) <= CHOICE_LIMIT)
        .map(|suggestion| {
            let label = cut_plain(&suggestion.label, CHOICE_LIMIT);
            let name = if label.is_empty() { suggestion.value.clone() } else { label };
            json!({ "name": name, "value": suggestion.value })
        })
        .take(CHOICES_LIMIT)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ArgInfo, Asker, Role};

    const COMMANDS: [CommandInfo; 1] = [CommandInfo {
        name: "watch",
        about: "Follow a run",
        args: &[
            ArgInfo { name: "run", about: "Its id", required: true, completes_runs: true },
            ArgInfo { name: "workspace", about: "Where", required: false, completes_runs: false },
        ],
        options: &[],
        role: Role::Watcher,
    }];

    fn desk() -> Arc<Desk> {
        let rest = Rest::new(reqwest::Client::new(), "http://127.0.0.1:1", "x".to_owned().into());
        Desk::new(rest, Inbox::new().0, &COMMANDS, Timing::default(), Arc::new(crate::model::Timestamp::now))
    }

    fn asked(command: &str, options: &[(&str, &str)]) -> Asked {
        Asked {
            id: "1".to_owned(),
            token: "t".to_owned(),
            application: "2".to_owned(),
            command: command.to_owned(),
            options: options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            pressed: None,
            asker: Asker::default(),
            locale: String::new(),
        }
    }

    #[test]
    fn options_come_in_the_order_of_the_table() {
        let typed = asked("watch", &[("workspace", "warehouse"), ("run", " 7b1e\n04c2 ")]);
        assert_eq!(desk().text(&typed), "watch 7b1e 04c2 warehouse");
        assert_eq!(desk().text(&asked("watch", &[("run", "  ")])), "watch");
        assert_eq!(desk().text(&asked("gone", &[("b", "1"), ("a", "2")])), "gone 1 2");
    }

    #[test]
    fn logs_name_only_commands_of_the_table() {
        assert_eq!(desk().label("watch"), "watch");
        assert_eq!(desk().label("whatever a person made up"), "unknown");
    }

    #[test]
    fn a_button_is_its_command_and_none_is_cut() {
        let reply = |command: &str| private("x").button("Stop", command);
        let pressed = Asked { pressed: Some("unwatch  7b1e\n04c2".to_owned()), ..asked("unwatch", &[]) };
        assert_eq!(desk().request(&pressed).text, "unwatch 7b1e 04c2");
        let row = &message(&reply(&"x".repeat(100)))["components"][0];
        assert_eq!(row["components"][0]["custom_id"], "x".repeat(100));
        assert_eq!(message(&reply(&"x".repeat(101)))["components"], json!([]));
        let many = (0..9).fold(private("x"), |reply, n| reply.button(format!("{n}"), format!("watch {n}")));
        assert_eq!(message(&many)["components"][0]["components"].as_array().map(Vec::len), Some(BUTTONS_LIMIT));
    }

    #[test]
    fn choices_fit_what_discord_takes() {
        let suggestion = |label: &str, value: &str| Suggestion { label: label.to_owned(), value: value.to_owned() };
        let mut many = vec![suggestion(&"😀".repeat(80), "7b1e"), suggestion("too long", &"x".repeat(101))];
        many.extend((0..40).map(|n| suggestion("", &format!("run-{n}"))));
        let choices = choices(&many);
        assert_eq!(choices.len(), CHOICES_LIMIT);
        for choice in &choices {
            for field in ["name", "value"] {
                let text = choice[field].as_str().unwrap();
                assert!((1..=CHOICE_LIMIT).contains(&units(text)), "{field} {text:?}");
            }
        }
        assert_eq!(choices[1]["name"], "run-0");
    }
}
