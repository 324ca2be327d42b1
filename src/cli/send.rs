//! `callboard send`

use clap::Args;
use uuid::Uuid;

use super::{Exit, Globals, fail, print};
use crate::app;
use crate::model::{Change, ChangeKind, Content, Draft, Outcome, Timestamp, Workspace};
use crate::net::Net;
use crate::render::{Reader, Renderer};

/// Send a test message through a channel, the way real ones go
#[derive(Debug, Args)]
pub struct Send {
    /// The channel's name in the configuration
    channel: String,
}

impl Send {
    pub async fn run(self, globals: &Globals) -> Exit {
        let config = match globals.load_in_part() {
            Ok(config) => config,
            Err(exit) => return exit,
        };
        let Some(settings) = config.channels.get(&self.channel) else {
            let known: Vec<&str> = config.channels.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return fail(Exit::Misused, &format!("there is no channel {:?}; configured: {known}", self.channel));
        };
        let outlet = Net::new(&config.network)
            .map_err(|error| error.to_string())
            .and_then(|net| app::outlet(&self.channel, settings, &config, &net).map_err(|error| error.to_string()));
        let outlet = match outlet {
            Ok(outlet) => outlet,
            Err(said) => return fail(Exit::Misused, &said),
        };
        let now = Timestamp::now();
        let kind = outlet.channel.dialect().kind;
        let reader = Reader { kind, locale: &outlet.locale, timezone: &outlet.timezone, template: None };
        let Some(change) = test(now) else { return fail(Exit::Failed, "there is no sample of a run that begins") };
        let draft = Draft::of(Uuid::now_v7(), Content::Change(change));
        let message = app::renderer(&config.templates).render(&draft, &reader, now).message;
        match outlet.channel.send("", &message, now).await {
            Outcome::Delivered { .. } => print(&format!("{} took the test message\n", self.channel)),
            Outcome::Retry { reason, after } | Outcome::Limited { reason, after, .. } => {
                let wait = after.map(|after| format!("; it asks to wait {} s", after.as_secs())).unwrap_or_default();
                fail(Exit::Failed, &format!("{} did not take the message: {reason}{wait}", self.channel))
            }
            Outcome::Unknown { reason, .. } => {
                fail(Exit::Failed, &format!("{} may or may not have got the message: {reason}", self.channel))
            }
            Outcome::Reject { reason }
            | Outcome::Dead { reason }
            | Outcome::Denied { reason }
            | Outcome::Withheld { reason } => {
                fail(Exit::Failed, &format!("{} refuses the message: {reason}", self.channel))
            }
        }
    }
}

/// A run that begins in a workspace that can't exist: nothing that reads messages by machine may act on it.
fn test(now: Timestamp) -> Option<Change> {
    let mut change = Renderer::samples().into_iter().find(|change| change.kind == ChangeKind::Started)?;
    change.workspace = Workspace { name: "callboard-test".to_owned(), region: "none".to_owned(), project_id: 0 };
    change.run.id = uuid::Uuid::nil().to_string().parse().ok()?;
    change.run.description = "Callboard test message, nothing is released".to_owned();
    change.run.creator = "callboard".to_owned();
    change.url = "https://dataworks.data.aliyun.com/".to_owned();
    change.sequence = 1;
    change.at = now;
    Some(change)
}
