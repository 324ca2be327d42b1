//! What a watch takes, where to and for how long: as typed behind a command, and in words.

use std::collections::BTreeSet;
use std::time::Duration;

use super::words::{self, Tongue};
use super::{Call, CommandError, Context};
use crate::fate::Configured;
use crate::model::{
    Asker, Destination, OptionInfo, Role, Scope, Selector, Snapshot, Subscription, Text, Timestamp, Workspace, elapsed,
};
use crate::text::nearest;

/// Watches a room may hold.
pub const WATCHES_PER_ROOM: usize = 500;
/// Stages that one watch may name.
const STAGES: usize = 10;
const STAGE_LENGTH: usize = 64;

pub const ONLY: OptionInfo = OptionInfo {
    name: "only",
    about: "what to post, several by comma: failed, waiting, finished, succeeded, stopped, stage",
    example: "failed,waiting",
};
pub const OF_STAGES: OptionInfo =
    OptionInfo { name: "stages", about: "codes of the stages to post about, several by comma", example: "PROD,CHECK" };
pub const FOR: OptionInfo =
    OptionInfo { name: "for", about: "stop by itself after so long, 10m to 30d: 90m, 2h, 3d", example: "3d" };
pub const TO: OptionInfo =
    OptionInfo { name: "to", about: "where to post: here, another room, or a configured channel", example: "here" };

/// What is taken for how long.
pub struct Terms {
    pub on: BTreeSet<Selector>,
    pub stages: Vec<String>,
    pub until: Option<Timestamp>,
}

impl Terms {
    pub fn read(call: &Call<'_>) -> Result<Terms, CommandError> {
        let on = call.option(ONLY.name).map_or_else(|| Ok(Selector::watch()), selectors)?;
        let stages = call.option(OF_STAGES.name).map_or_else(|| Ok(Vec::new()), stages)?;
        let (least, most) = (Duration::from_secs(600), Duration::from_secs(30 * 86_400));
        let until = call.option(FOR.name).map(|typed| span(typed, least, most)).transpose()?;
        Ok(Terms { on, stages, until: until.map(|span| call.now() + span) })
    }

    /// Whether the run has all stages that are named.
    pub fn fit(&self, run: &Snapshot) -> Result<(), CommandError> {
        let is_known = |code: &&String| run.stages.iter().any(|stage| stage.code.eq_ignore_ascii_case(code));
        // A run without any stage yet will have some.
        let Some(unknown) = self.stages.iter().find(|code| !is_known(code) && !run.stages.is_empty()) else {
            return Ok(());
        };
        let codes: Vec<String> = run.stages.iter().map(|stage| words::one_line(&stage.code)).collect();
        let meant = nearest(unknown, codes.iter().map(String::as_str));
        let meant = meant.map_or_else(String::new, |code| format!(" Did you mean stages:{code}?"));
        Err(CommandError::user(format!(
            "This run has no stage {}.{meant} Its stages: {}.",
            words::cut(unknown, 40),
            words::cut(&codes.join(", "), 300)
        )))
    }

    pub fn of(subscription: &Subscription) -> Terms {
        Terms { on: subscription.on.clone(), stages: subscription.stages.clone(), until: subscription.until }
    }

    /// The subscription under these terms.
    pub fn put(self, to: Subscription) -> Subscription {
        Subscription { on: self.on, stages: self.stages, until: self.until, ..to }
    }

    /// What is asked for beside the start, by which the watch of the next run tells that it has found it.
    fn selected(&self) -> BTreeSet<Selector> {
        self.on.iter().copied().filter(|one| *one != Selector::Started).collect()
    }

    /// As `/watch` means it without any option.
    pub fn is_usual(&self) -> bool {
        self.selected() == Selector::watch() && self.stages.is_empty()
    }

    /// An end within the same minute is the same: people read minutes.
    pub fn is_same(&self, other: &Terms) -> bool {
        let ends_alike = match (self.until, other.until) {
            (Some(one), Some(other)) => elapsed(one.min(other), one.max(other)) < Duration::from_secs(60),
            (one, other) => one == other,
        };
        self.selected() == other.selected() && self.stages == other.stages && ends_alike
    }

    /// `only failures and ends of PROD`
    pub fn what(&self, tongue: Tongue) -> String {
        let on = self.selected();
        let stages = words::list(&self.stages, tongue);
        if on == Selector::watch() {
            return match stages.is_empty() {
                true => tongue.say("each stage change", "发布每个阶段变化"),
                false => tongue.say(format!("each change of {stages}"), format!("发布 {stages} 的每个变化")),
            };
        }
        let nouns: Vec<String> = on.into_iter().map(|selector| noun(selector, tongue)).collect();
        let nouns = words::list(&nouns, tongue);
        match stages.is_empty() {
            true => tongue.say(format!("only {nouns}"), format!("只发布{nouns}")),
            false => tongue.say(format!("only {nouns} of {stages}"), format!("只发布 {stages} 的{nouns}")),
        }
    }

    /// `until it ends, at the latest until 2026-11-27 08:00 UTC`
    pub fn how_long(&self, scope: &Scope, now: Timestamp, tongue: Tongue) -> String {
        let until = self.until.map(|until| words::moment(until, now));
        match (scope, until) {
            (Scope::Workspace { .. }, None) => tongue.say("until somebody stops it", "直到有人停止"),
            (Scope::Workspace { .. }, Some(until)) => tongue.say(format!("until {until}"), format!("直到 {until}")),
            (_, None) => tongue.say("until it ends", "直到它结束"),
            (_, Some(until)) => {
                tongue.say(format!("until it ends, at the latest until {until}"), format!("直到它结束，最迟到 {until}"))
            }
        }
    }
}

fn noun(selector: Selector, tongue: Tongue) -> String {
    let (english, chinese) = match selector {
        Selector::Started => ("starts", "开始"),
        Selector::Stage => ("stage changes", "阶段变化"),
        Selector::Waiting => ("waits for someone", "等待人工"),
        Selector::Failed => ("failures", "失败"),
        Selector::Succeeded => ("successes", "成功"),
        Selector::Finished => ("ends", "结束"),
        Selector::Stopped => ("stops", "终止或取消"),
    };
    tongue.say(english, chinese)
}

/// The values behind a colon, at Chinese commas too.
fn values(typed: &str) -> impl Iterator<Item = &str> {
    typed.split([',', '，', '|']).map(str::trim).filter(|value| !value.is_empty())
}

fn selectors(typed: &str) -> Result<BTreeSet<Selector>, CommandError> {
    let known = || Selector::ALL.into_iter().filter(|selector| *selector != Selector::Started);
    let read = |value: &str| {
        known().find(|selector| selector.as_str().eq_ignore_ascii_case(value)).ok_or_else(|| {
            let meant = nearest(value, known().map(Selector::as_str));
            let meant = meant.map_or_else(String::new, |meant| format!(" Did you mean only:{meant}?"));
            let all: Vec<&str> = known().map(Selector::as_str).collect();
            let said = Text::default().code(format!("only:{}", words::cut(value, 32)));
            CommandError::User(said.plain(format!(" is nothing I know.{meant} It takes {}.", all.join(", "))))
        })
    };
    let read: BTreeSet<Selector> = values(typed).map(read).collect::<Result<_, _>>()?;
    if read.is_empty() { Err(CommandError::user("only: needs a value, for example only:failed.")) } else { Ok(read) }
}

fn stages(typed: &str) -> Result<Vec<String>, CommandError> {
    let stages: Vec<String> = values(typed).map(words::one_line).collect();
    if stages.is_empty() || stages.len() > STAGES || stages.iter().any(|code| code.chars().count() > STAGE_LENGTH) {
        return Err(CommandError::user(format!(
            "stages: takes 1 to {STAGES} codes of stages, for example stages:PROD,CHECK; /status <run> lists them."
        )));
    }
    Ok(stages)
}

/// `90m`, `2h`, `1d12h`
pub fn span(typed: &str, least: Duration, most: Duration) -> Result<Duration, CommandError> {
    let said = |said: String| {
        let text = Text::default().code(format!("for:{}", words::cut(typed, 32))).plain(" ").plain(said);
        CommandError::User(text.plain(" Write minutes, hours or days: for:30m, for:2h, for:1d."))
    };
    let mut seconds = 0_u64;
    let mut number = String::new();
    for letter in typed.to_lowercase().chars() {
        let unit = match letter {
            '0'..='9' if number.len() < 6 => {
                number.push(letter);
                continue;
            }
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return Err(said("is no time that I understand.".to_owned())),
        };
        let count: u64 = number.parse().map_err(|_| said("is no time that I understand.".to_owned()))?;
        seconds = seconds.saturating_add(count.saturating_mul(unit));
        number.clear();
    }
    if !number.is_empty() {
        return Err(said("has no unit.".to_owned()));
    }
    let span = Duration::from_secs(seconds);
    if span < least || span > most {
        let range = format!("is out of range: {} to {}.", words::duration(least), words::duration(most));
        return Err(said(range));
    }
    Ok(span)
}

/// Where the asker wants it posted. What does not exist and what they may not use get the same answer.
pub fn destination(context: &Context, call: &Call<'_>, workspace: &Workspace) -> Result<Destination, CommandError> {
    let here = call.destination();
    let typed = call.option(TO.name).unwrap_or("here");
    let asker = call.asker();
    if typed.eq_ignore_ascii_case("here") {
        return Ok(here);
    }
    let channel = Destination::Channel(typed.to_owned());
    if !typed.contains(':') && (context.configuration)(&channel, None) != Configured::No {
        if context.access.may_send_to(asker, &workspace.name, typed) {
            return Ok(channel);
        }
    } else {
        // As Discord and Slack write a room that was picked: <#123>, <#C123|name>.
        let picked = typed.strip_prefix("<#").and_then(|rest| rest.strip_suffix('>'));
        let room = picked.map_or(typed, |picked| picked.split('|').next().unwrap_or_default());
        let there = Asker { room: room.to_owned(), ..asker.clone() };
        if room == asker.room {
            return Ok(here);
        }
        // A room that nobody named may be anybody's: whether the asker is in it is not known here.
        let is_named = context.access.names_room(&asker.surface, room);
        let role = context.access.role(&there, &workspace.name);
        if is_named && is_room(&asker.surface, room) && role >= Some(Role::Watcher) {
            return Ok(Destination::Room { surface: asker.surface.clone(), room: room.to_owned() });
        }
    }
    let text = Text::default().plain("I can't post to ").code(words::cut(typed, 64)).plain(format!(
        " for you. Name a room of this chat that whoever runs me has named for {}, and where you may watch it, or a channel \
         opened to this room.",
        workspace.name
    ));
    Err(CommandError::Denied { reason: "destination", text })
}

/// `here`, `in room 5`, `in ops`
pub fn place(call: &Call<'_>, to: &Destination, tongue: Tongue) -> String {
    match to {
        to if *to == call.destination() => tongue.say("here", "在此"),
        Destination::Room { room, .. } => tongue.say(format!("in room {room}"), format!("在房间 {room} ")),
        Destination::Channel(name) => tongue.say(format!("in {name}"), format!("在 {name} ")),
    }
}

/// Whether a surface may have a room of this id.
fn is_room(surface: &str, id: &str) -> bool {
    let plain = (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=_-".contains(&b));
    match surface {
        // https://docs.discord.com/developers/reference#snowflakes
        "discord" => id.len() <= 20 && id.bytes().all(|b| b.is_ascii_digit()) && plain,
        // https://docs.slack.dev/reference/objects/conversation-object
        "slack" => plain && id.len() >= 9 && id.starts_with(['C', 'G', 'D']),
        // One terminal, one room.
        "console" => false,
        _ => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_within_their_bounds() {
        let (least, most) = (Duration::from_secs(600), Duration::from_secs(30 * 86_400));
        let read = |typed: &str| span(typed, least, most).ok().map(|span| span.as_secs());
        for (typed, seconds) in [("10m", 600), ("2H", 7200), ("3d", 259_200), ("1d12h", 129_600), ("30d", 2_592_000)] {
            assert_eq!(read(typed), Some(seconds), "{typed}");
        }
        for wrong in ["", "9m", "31d", "3", "h", "3x", "-3h", "3h2", "999999999d", "1.5h", "99999999999999999999d"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn only_takes_what_it_knows() {
        assert_eq!(selectors("Failed，waiting").unwrap(), BTreeSet::from([Selector::Failed, Selector::Waiting]));
        for wrong in ["faild", "started", ",", "failed,x"] {
            assert!(selectors(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_room_is_an_id_of_its_surface() {
        for (surface, id, right) in [
            ("discord", "123456789012345678", true),
            ("discord", "ops", false),
            ("discord", "", false),
            ("slack", "C024BE7LR", true),
            ("slack", "general", false),
            ("dingtalk", "cidAbc+/==", true),
            ("dingtalk", "a b", false),
            ("console", "other", false),
        ] {
            assert_eq!(is_room(surface, id), right, "{surface} {id}");
        }
    }
}
