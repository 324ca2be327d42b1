//! `/why <run> [workspace]`: for each change of a run, what became of it in this room, and why.

use std::fmt::Write;
use std::sync::Arc;

use futures_util::FutureExt;
use uuid::Uuid;

use super::find::{Found, find};
use super::{Call, Command, CommandError, Context, words};
use crate::fate::{self, Behind, Condition, Fate};
use crate::model::{
    ArgInfo, Change, ChangeKind, CommandInfo, DeliveryState, Destination, Match, Reply, Role, RunState, Scope,
    Selector, Status, Subscription, Text, Timestamp, Workspace,
};
use crate::store::{Attempt, DeliveryFilter, DeliveryRow, PlaceRow, Told};
use crate::{diff, text};

/// Changes told of at most.
const CHANGES: usize = 10;
/// Attempts shown of one delivery.
const ATTEMPTS: usize = 3;
/// Names in one list.
const NAMES: usize = 4;

pub const COMMAND: Command = Command {
    info: CommandInfo {
        name: "why",
        about: "Say what became of each change of a run here, and why",
        args: &[
            ArgInfo {
                name: "run",
                about: "the run's id, its beginning, or a link",
                required: true,
                completes_runs: true,
            },
            super::WORKSPACE,
        ],
        options: &[],
        role: Role::Viewer,
    },
    run: |context, call| why(context, call).boxed(),
};

async fn why(context: &Context, call: Call<'_>) -> Result<Reply, CommandError> {
    let now = call.now();
    let Found { workspace, id, snapshot } = find(context, &call, call.arg(0), call.arg(1)).await?;
    let key = workspace.key();
    let state = match (context.tracker.state(&key, &id), snapshot) {
        (Some(state), _) => (*state).clone(),
        (None, Some(snapshot)) => diff::baseline(snapshot, now),
        (None, None) => return Err(CommandError::Internal("a run was found but is not known".to_owned())),
    };
    let told = context.store.history(&key, &id, CHANGES).await?;
    let places = context.store.places().await?;
    let filter = DeliveryFilter {
        state: Some(DeliveryState::InFlight),
        to: Some(call.destination()),
        limit: 1,
        ..DeliveryFilter::default()
    };
    let in_flight = context.store.deliveries(&filter).await?.first().map(|row| row.delivery.id);
    let run = context.tracker.of_scope(&Scope::Run { workspace: key.clone(), run: id.clone() });
    let all = run.into_iter().chain(context.tracker.of_scope(&Scope::Workspace { workspace: key.clone() }));
    let (stopped, going): (Vec<_>, Vec<_>) = all.partition(|one| one.stopped.is_some());
    let (here, elsewhere): (Vec<_>, Vec<_>) = going.into_iter().partition(|one| one.to == call.destination());
    let stopped: Vec<_> = stopped.into_iter().filter(|one| one.to == call.destination()).collect();
    let (to, workspace, told, places) = (call.destination(), &workspace, told.as_slice(), places.as_slice());
    let room = Room { context, to, here, stopped, workspace, told, places, in_flight, now };

    let head = words::head(workspace, &state, context.meter.url(workspace, &id), now);
    let foot = room.foot(&state, elsewhere.len());
    Ok(Reply::to_asker(fitted(head, told.iter().map(|told| room.change(told)).collect(), foot)))
}

/// The newest changes that one message holds.
fn fitted(head: Text, changes: Vec<Text>, foot: Text) -> Text {
    let length = |text: &Text| text.to_string().chars().count();
    let mut room = words::LENGTH.saturating_sub(length(&head) + length(&foot));
    let count = changes.len();
    let mut shown: Vec<Text> = Vec::new();
    for change in changes.into_iter().rev() {
        let Some(left) = room.checked_sub(length(&change)) else { break };
        room = left;
        shown.push(change);
    }
    let mut text = head;
    if shown.len() == CHANGES || shown.len() < count {
        text = text.line().plain(format!("The newest {} changes:", shown.len()));
    }
    shown.into_iter().rev().for_each(|change| text.0.extend(change.0));
    text.0.extend(foot.0);
    text
}

/// What the answer is made of.
struct Room<'a> {
    context: &'a Context,
    to: Destination,
    /// Subscriptions of this room to the run.
    here: Vec<Arc<Subscription>>,
    /// Those that somebody stopped here not long ago.
    stopped: Vec<Arc<Subscription>>,
    workspace: &'a Workspace,
    told: &'a [Told],
    places: &'a [PlaceRow],
    /// What is in flight to this room.
    in_flight: Option<Uuid>,
    now: Timestamp,
}

impl Room<'_> {
    // ------------------------------------------------------------------------------------------------- one change

    fn change(&self, told: &Told) -> Text {
        let change = &told.change;
        let mut text = Text::default()
            .line()
            .plain(format!("{} ", change.tone().symbol()))
            .bold(headline(change))
            .plain(format!(" · {} UTC", self.at(change.at)));
        if let Some(since) = change.unseen_since {
            text = text.plain(format!(", not looked at since {}", self.at(since)));
        }
        let (here, others): (Vec<_>, Vec<_>) = told.deliveries.iter().partition(|(row, _)| row.delivery.to == self.to);
        for (row, attempts) in &here {
            text = text.line();
            text.0.extend(self.delivery(row, attempts).0);
        }
        let kept = self.kept_away(change, here.is_empty());
        text = kept.into_iter().fold(text, |text, line| text.line().plain(line));
        if here.is_empty() && self.here.is_empty() && self.was_here() {
            text = text.line().plain("Not asked for here.");
        }
        let elsewhere = self.elsewhere(&others);
        let space = if here.is_empty() && self.here.is_empty() && !self.was_here() { "\n" } else { " " };
        if elsewhere.is_empty() { text } else { text.plain(format!("{space}Elsewhere: {elsewhere}.")) }
    }

    /// What became of it here: `Delivered here 08:05:00.`
    fn delivery(&self, row: &DeliveryRow, attempts: &[Attempt]) -> Text {
        let asked = self.asked(row);
        let text = match self.fate(row, attempts) {
            Fate::Delivered { at, before } => {
                let told = row.folding.map_or("", |_| ", in one message with others");
                let twice =
                    before.map(|at| format!(" It may stand here twice: the try of {} may have arrived.", self.at(at)));
                Text::default().plain(format!(
                    "Delivered here {}{told}{asked}.{}",
                    self.at(at),
                    twice.unwrap_or_default()
                ))
            }
            Fate::Told { by, at } => {
                let when = at.map(|at| format!(" {}", self.at(at))).unwrap_or_default();
                Text::default()
                    .plain(format!("Superseded: told here{when} by the message of {}{asked}.", self.name(by)))
            }
            Fate::Discarded { .. } => Text::default().plain(format!("Superseded: given up by whoever runs me{asked}.")),
            Fate::Dead { since, reason } => {
                let since = since.map(|at| format!(" since {}", self.at(at))).unwrap_or_default();
                let text = format!("Dead{since}: {} Back with ", text::stopped(&fate::short(&reason)));
                let id: String = row.delivery.id.to_string();
                Text::default().plain(text).code(format!("callboard deliveries retry {id}")).plain(".")
            }
            Fate::UnderWay { since } => {
                let since = since.map(|at| format!(" since {}", self.at(at))).unwrap_or_default();
                Text::default().plain(format!("In flight{since}{asked}."))
            }
            Fate::Waits { behind, condition, unknown_since } => {
                let state = if row.state == DeliveryState::Unknown { "Unknown" } else { "Pending" };
                let text = Text::default().plain(format!("{state}{}", self.waits(behind, &condition)));
                match unknown_since {
                    Some(at) => text.plain(format!(" It may have arrived {}, and is repeated.", self.at(at))),
                    None => text,
                }
            }
        };
        text.plain(self.attempts(row, attempts))
    }

    fn fate(&self, row: &DeliveryRow, attempts: &[Attempt]) -> Fate {
        let older = fate::older(row, self.told.iter().flat_map(|told| &told.deliveries).map(|(row, _)| row));
        let condition = fate::condition(&row.delivery.to, self.places, &self.context.configuration, self.now);
        let other = self.in_flight.filter(|_| row.delivery.to == self.to);
        fate::fate(row, attempts, older.map(|row| row.delivery.id), other, condition, self.now)
    }

    /// What follows `Pending` or `Unknown`.
    fn waits(&self, behind: Behind, condition: &Condition) -> String {
        match behind {
            Behind::Lead(lead) => format!(", to be told by the message of {}.", self.name(lead)),
            Behind::Older(older) => format!(": {} goes first.", self.name(older)),
            Behind::Until(until) => format!("; next try {}.", self.at(until)),
            // What holds this room is said once, in the foot.
            _ if condition.holds() => "; see below.".to_owned(),
            Behind::Other(_) => "; another message to this room is in flight.".to_owned(),
            Behind::Nothing => "; its turn comes within moments.".to_owned(),
        }
    }

    /// The last attempts, where there was more than the one that passed.
    fn attempts(&self, row: &DeliveryRow, attempts: &[Attempt]) -> String {
        let is_plain = |attempt: &Attempt| matches!(attempt.outcome.as_deref(), None | Some("delivered"));
        if attempts.len() < 2 && attempts.iter().all(is_plain) {
            return String::new();
        }
        let mut said = String::from(" Tried");
        let left_out = attempts.len().saturating_sub(ATTEMPTS);
        for (index, attempt) in attempts.iter().skip(left_out).enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let outcome = attempt.outcome.as_deref().unwrap_or("in flight");
            let reason = attempt.reason.as_deref().filter(|reason| !reason.is_empty());
            // A condition or a fate has just said this one.
            let reason = reason.filter(|reason| row.reason.as_deref() != Some(*reason) || attempts.len() > 1);
            let reason =
                reason.map(|said| format!(" ({})", words::cut(&words::one_line(said), 80))).unwrap_or_default();
            let _cannot_fail = write!(said, "{comma} {} {outcome}{reason}", self.at(attempt.started_at));
        }
        if left_out > 0 {
            let _cannot_fail = write!(said, "; {left_out} earlier");
        }
        said + "."
    }

    /// `, asked for by the watch of this run`, where that is not clear from the foot.
    fn asked(&self, row: &DeliveryRow) -> String {
        if self.here.len() < 2 {
            return String::new();
        }
        let asked = self.here.iter().filter(|subscription| row.subscriptions.contains(&subscription.id));
        let asked: Vec<String> = asked.map(|subscription| self.label(subscription)).collect();
        if asked.is_empty() { String::new() } else { format!(", asked for by {}", list(&asked)) }
    }

    /// A line for each subscription of this room that let it pass by.
    fn kept_away(&self, change: &Change, is_missing: bool) -> Vec<String> {
        let line = |subscription: &Arc<Subscription>| {
            let label = self.label(subscription);
            Some(match self.context.tracker.explain(subscription, change) {
                Match::NotScope => return None,
                Match::Matched | Match::Muted | Match::Ended | Match::Stopped | Match::NotAllowed if !is_missing => {
                    return None;
                }
                Match::Stopped if subscription.stopped.is_some_and(|stopped| stopped > change.at) => return None,
                Match::Stopped => {
                    let at = subscription.stopped.map(|at| self.at(at)).unwrap_or_default();
                    format!("Not posted here: {label} was stopped {at}.")
                }
                Match::Matched | Match::Muted | Match::Ended if subscription.created_at >= change.at => {
                    format!("Not posted here: it was seen before {label} began.")
                }
                Match::Matched => "What became of it here is not kept any more.".to_owned(),
                Match::Ended => {
                    let at = subscription.until.map(|until| self.at(until)).unwrap_or_default();
                    format!("Not posted here: the time of {label} was over {at}.")
                }
                Match::Muted => {
                    let at = subscription.muted.as_ref().map(|muted| self.at(muted.until)).unwrap_or_default();
                    format!("Held back here: {label} is muted until {at}, and nobody has to act on this.")
                }
                Match::NotAllowed => format!(
                    "Not allowed any more: {label} may not tell of {} here, by what whoever runs me configured.",
                    self.workspace.name
                ),
                Match::Creator => {
                    let by = words::cut(&words::one_line(&change.run.creator), 40);
                    let creators = list(&subscription.creators);
                    format!("Not for {label}: it takes only runs of {creators}; this one was started by {by}.")
                }
                Match::Stage => format!("Not for {label}: it takes only {}.", stages(subscription)),
                Match::Selector => format!("Not for {label}: it takes only {}.", on(subscription)),
            })
        };
        let mut lines: Vec<String> = self.here.iter().chain(&self.stopped).filter_map(line).collect();
        lines.truncate(2);
        lines
    }

    /// `ops delivered 08:05:00, 2 rooms`
    fn elsewhere(&self, others: &[&(DeliveryRow, Vec<Attempt>)]) -> String {
        let mut said: Vec<String> = Vec::new();
        let mut rooms = 0;
        for (row, attempts) in others {
            let Destination::Channel(name) = &row.delivery.to else {
                rooms += 1;
                continue;
            };
            said.push(match self.fate(row, attempts) {
                Fate::Delivered { at, .. } => format!("{name} delivered {}", self.at(at)),
                Fate::Told { at: Some(at), .. } => format!("{name} superseded {}", self.at(at)),
                _ => format!("{name} {}", row.state.as_str().replace('_', " ")),
            });
        }
        let more = said.len().saturating_sub(NAMES);
        said.truncate(NAMES);
        if more > 0 {
            said.push(format!("{more} more"));
        }
        if rooms > 0 {
            said.push(format!("{rooms} {}", if rooms == 1 { "room" } else { "rooms" }));
        }
        said.join(", ")
    }

    // --------------------------------------------------------------------------------------------------- the foot

    /// Who watches, what comes next, how old the data is.
    fn foot(&self, state: &RunState, elsewhere: usize) -> Text {
        let snapshot = &state.snapshot;
        let mut text = Text::default();
        if self.told.is_empty() {
            text = text.line().plain("No change of it was seen since I know it.");
        }
        let over = snapshot.status.is_terminal() || state.lost;
        text = match self.here.as_slice() {
            [] => self.unwatched(text.line(), over, elsewhere, snapshot.id.short()),
            here => here.iter().take(NAMES).fold(text, |text, subscription| {
                let takes = match subscription.stages.as_slice() {
                    [] => on(subscription),
                    _ => format!("{} of {}", on(subscription), stages(subscription)),
                };
                let began = self.at(subscription.created_at);
                let until = subscription.until.map(|until| match until <= self.now {
                    true => format!(" Its time was over {}.", self.at(until)),
                    false => format!(" It ends {}.", self.at(until)),
                });
                let muted = subscription.muted_at(self.now).map(|muted| {
                    format!(" Muted until {}: only what somebody must act on is posted.", self.at(muted.until))
                });
                text.line().plain(format!(
                    "Here since {began}: {}, for {takes}.{}{}",
                    self.label(subscription),
                    until.unwrap_or_default(),
                    muted.unwrap_or_default()
                ))
            }),
        };
        let is_owed = |(row, _): &(DeliveryRow, Vec<Attempt>)| row.delivery.to == self.to && row.next_at.is_some();
        if self.told.iter().flat_map(|told| &told.deliveries).any(is_owed) {
            text.0.extend(self.trouble().0);
        }
        if !over {
            text = text.line();
            text.0.extend(
                words::age(&self.context.tracker.freshness(&self.workspace.key(), Some(&snapshot.id)), self.now).0,
            );
        }
        text
    }

    /// What holds this room up, and what helps.
    fn trouble(&self) -> Text {
        let condition = fate::condition(&self.to, self.places, &self.context.configuration, self.now);
        let Some(said) = condition.words("this room", &|at| self.at(at)) else { return Text::default() };
        let mut letters = said.chars();
        let first = letters.next().map(|first| first.to_ascii_uppercase()).into_iter();
        let said: String = first.chain(letters).collect();
        let text = Text::default().line().plain(text::stopped(&said));
        match condition.remedy(&self.to) {
            Some(command) => {
                text.plain(" Once that is mended, whoever runs me sends what waits with ").code(command).plain(".")
            }
            None => text,
        }
    }

    fn unwatched(&self, text: Text, over: bool, elsewhere: usize, id: &str) -> Text {
        let was_here = self.was_here();
        let others = match elsewhere {
            0 => String::new(),
            1 => " 1 other place does.".to_owned(),
            more => format!(" {more} other places do."),
        };
        if let Some(stopped) = self.stopped.iter().filter(|_| !over).find_map(|one| one.stopped) {
            let said = format!("This room's watch was stopped {}.{others} Take it up again: ", self.at(stopped));
            return text.plain(said).code(format!("/unwatch undo {id}"));
        }
        match (over, was_here) {
            (true, true) => text.plain("The watch of this room ended with the run."),
            (true, false) => text.plain("This room did not watch it, and it is over: nothing more comes."),
            (false, _) => {
                let said = match (was_here, elsewhere) {
                    (true, _) => "This room does not watch it any more.",
                    (false, 0) => "Nobody watches it.",
                    (false, _) => "This room does not watch it.",
                };
                text.plain(format!("{said}{others} Begin: ")).code(format!("/watch {id}"))
            }
        }
    }

    /// Something of the run was owed to this room.
    fn was_here(&self) -> bool {
        self.told.iter().flat_map(|told| &told.deliveries).any(|(row, _)| row.delivery.to == self.to)
    }

    // ------------------------------------------------------------------------------------------------------ words

    /// `the watch of this run`
    fn label(&self, subscription: &Subscription) -> String {
        match subscription.scope {
            Scope::Run { .. } => "the watch of this run".to_owned(),
            Scope::Workspace { .. } => format!("the subscription to every run in {}", self.workspace.name),
            Scope::Next { .. } => format!("the watch of the next run in {}", self.workspace.name),
        }
    }

    /// What a delivery of this answer tells.
    fn name(&self, delivery: Uuid) -> String {
        let found = self.told.iter().find(|told| told.deliveries.iter().any(|(row, _)| row.delivery.id == delivery));
        found.map_or_else(|| "another change".to_owned(), |told| headline(&told.change))
    }

    /// The time of day in UTC, with the date where it is not today's.
    fn at(&self, at: Timestamp) -> String {
        let day = |at: Timestamp| at.strftime("%Y-%m-%d").to_string();
        let format = if day(at) == day(self.now) { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" };
        at.strftime(format).to_string()
    }
}

/// `PROD failed`
fn headline(change: &Change) -> String {
    let stage = |code: &str| words::cut(&words::one_line(code), 60);
    match &change.kind {
        ChangeKind::Started => "Run started".to_owned(),
        ChangeKind::StageChanged { stage: code, to, .. } => format!("{} {}", stage(code), became(to, "passed")),
        ChangeKind::Waiting { stage: code, .. } => format!("{} waits for someone to start it", stage(code)),
        ChangeKind::Finished { to, .. } => format!("Run {}", became(to, "succeeded")),
        ChangeKind::Lost { .. } => "Run no longer found".to_owned(),
    }
}

fn became(status: &Status, success: &str) -> String {
    match status {
        Status::Init => "back to Init".to_owned(),
        Status::Running => "running".to_owned(),
        Status::Success => success.to_owned(),
        Status::Fail => "failed".to_owned(),
        Status::Termination => "terminated".to_owned(),
        Status::Cancel => "cancelled".to_owned(),
        Status::Unknown(raw) => words::cut(&words::one_line(raw), 40),
    }
}

/// `stage, waiting and finished`
fn on(subscription: &Subscription) -> String {
    list(&subscription.on.iter().map(|selector: &Selector| selector.as_str().to_owned()).collect::<Vec<_>>())
}

fn stages(subscription: &Subscription) -> String {
    format!("{} {}", if subscription.stages.len() == 1 { "stage" } else { "stages" }, list(&subscription.stages))
}

/// `a, b and c`; of many the first ones.
fn list(names: &[String]) -> String {
    let mut shown: Vec<String> = names.iter().take(NAMES).map(|name| text::clean_line_cut(name, 60)).collect();
    if names.len() > NAMES {
        shown.push(format!("{} more", names.len() - NAMES));
    }
    match shown.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => shown.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_changes_have_the_room_and_the_foot_always_stands() {
        let change = |number: usize| Text::default().line().plain(format!("{number} {}", "x".repeat(400)));
        let (head, foot) = (Text::default().plain("head"), Text::default().line().plain("foot"));
        let fit = |count| fitted(head.clone(), (0..count).map(change).collect(), foot.clone()).to_string();
        let long = fit(CHANGES);
        let firsts: Vec<&str> = long.lines().filter_map(|line| line.split(' ').next()).collect();
        assert!(long.chars().count() < words::LENGTH + 50, "{}", long.chars().count());
        assert_eq!(firsts, ["head", "The", "6", "7", "8", "9", "foot"]);
        assert!(long.contains("The newest 4 changes:"), "{long}");
        assert!(!fit(2).contains("newest"), "nothing was left out");
    }

    #[test]
    fn a_list_reads_like_a_sentence_and_has_an_end() {
        let names = |count: usize| (1..=count).map(|name| name.to_string()).collect::<Vec<_>>();
        assert_eq!(list(&names(1)), "1");
        assert_eq!(list(&names(3)), "1, 2 and 3");
        assert_eq!(list(&names(9)), "1, 2, 3, 4 and 5 more");
    }
}
