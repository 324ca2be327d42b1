//! Ways in and out, as configured: the channels, and the chats with their bots, a file each.

mod dingtalk;
mod discord;
mod slack;

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::FutureExt;

pub use self::dingtalk::dingtalk_bot;
pub use self::discord::discord_bot;
pub use self::slack::slack_bot;
use super::{AppError, Shared};
use crate::channels::{self, Channel};
use crate::config::Config;
use crate::dispatcher::{Outlet, Outlets};
use crate::net::Net;
use crate::store::Store;
use crate::surfaces::{self, Hook, NoAnswer, Once, Surface};

pub type NamedSurface = (&'static str, Arc<dyn Surface>);

/// A way in and out that is no part of the configuration: the demo's terminal.
pub struct Terminal {
    pub surface: Arc<dyn Surface>,
    pub channel: Arc<dyn Channel>,
}

pub struct Ways {
    pub outlets: Outlets,
    pub surfaces: Vec<NamedSurface>,
    pub hooks: HashMap<&'static str, Arc<dyn Hook>>,
}

impl Ways {
    /// Every configured one, and the terminal.
    pub fn new(shared: &Shared<'_>, terminal: Option<Terminal>) -> Result<Ways, AppError> {
        let config = shared.config;
        let mut channels = HashMap::new();
        for (name, settings) in &config.channels {
            channels.insert(name.clone(), outlet(name, settings, config, shared.net)?);
        }
        let siblings = config.subscriptions.iter().map(|standing| standing.channels.iter().cloned().collect());
        let outlets = Outlets {
            channels,
            operators: config.notices.channels.iter().cloned().collect(),
            siblings: siblings.collect(),
            ..Outlets::default()
        };
        let mut ways = Ways { outlets, surfaces: Vec::new(), hooks: HashMap::new() };
        discord::add(&mut ways, shared)?;
        slack::add(&mut ways, shared)?;
        dingtalk::add(&mut ways, shared)?;
        if let Some(Terminal { surface, channel }) = terminal {
            ways.outlets.rooms.insert(surfaces::console::NAME.to_owned(), Outlet::of(channel));
            ways.surfaces.push((surfaces::console::NAME, surface));
        }
        Ok(ways)
    }
}

/// A configured channel, ready to send.
pub fn outlet(name: &str, settings: &channels::Settings, config: &Config, net: &Net) -> Result<Outlet, AppError> {
    let bot = match settings {
        channels::Settings::Slack(_) => slack_bot(config)?,
        _ => None,
    };
    let channel =
        channels::build(settings, bot.as_ref(), net).map_err(|problem| problem.under(&format!("channels.{name}")))?;
    Ok(Outlet {
        channel,
        locale: settings.locale().to_owned(),
        timezone: settings.timezone().to_owned(),
        prefer: settings.prefer(),
        identity: channels::identity(settings, bot.as_ref()),
    })
}

/// What must happen once is remembered in the store.
pub fn once(store: &Arc<dyn Store>) -> Once {
    let store = Arc::clone(store);
    Arc::new(move |key, now, until| {
        let store = Arc::clone(&store);
        let asked = async move {
            store.once(&key, now, until).await.map_err(|error| {
                tracing::warn!(%error, "whether a request came before is not known, so it is not answered");
                NoAnswer::Forgetful
            })
        };
        asked.boxed()
    })
}
