//! The only place that constructs.

mod outages;
mod reload;
mod running;
mod starting;
mod tending;
mod ways;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use url::Url;

pub use self::outages::Outages;
pub use self::reload::Reload;
pub use self::running::take_over;
pub use self::starting::{listen, start};
pub use self::tending::Tending;
use self::ways::Ways;
pub use self::ways::{NamedSurface, Terminal, dingtalk_bot, discord_bot, once, outlet, slack_bot};
use crate::access::Access;
use crate::audit::Audit;
use crate::channels;
use crate::commands::Context;
use crate::config::{Config, nearest};
use crate::dispatcher::{Dispatcher, Outlets, Wording};
use crate::fate::{Configuration, Configured};
use crate::http::{self, Automation, Pages};
use crate::meter::Meter;
use crate::metrics::{AttemptLabels, Metrics};
use crate::model::{Clock, Destination, Outcome, RunId, Timestamp, Workspace};
use crate::net::{Net, NetError};
use crate::poller::Poller;
use crate::render::{self, Renderer};
use crate::schedule::{Intervals, Limits};
use crate::settings::{Problem, quoted};
use crate::sources::Source;
use crate::sources::dataworks::DataWorks;
use crate::store::{self, PlaceRow, Role, Store, StoreError};
use crate::surfaces::{self, Ask, Inbox};
use crate::tracker::{Spans, Tracker};

/// Looks further apart than this miss what happens in between, unless so they are configured.
const BLIND_AFTER: Duration = Duration::from_secs(600);
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Net(#[from] NetError),
    #[error("{}: {}", .0.key, .0.message)]
    Settings(Problem),
    #[error("can't listen on {address}: {said}; choose another server.listen")]
    Listen { address: String, said: String },
    #[error("{0} ended unexpectedly; the log says why")]
    Ended(&'static str),
}

impl From<Problem> for AppError {
    fn from(problem: Problem) -> AppError {
        AppError::Settings(problem)
    }
}

/// What nearly every part is made with.
#[derive(Clone, Copy)]
struct Shared<'a> {
    config: &'a Config,
    net: &'a Net,
    store: &'a Arc<dyn Store>,
    metrics: &'a Arc<Metrics>,
    access: &'a Arc<Access>,
    inbox: &'a Inbox,
    clock: &'a Clock,
}

/// Everything, built and not yet running. Tests step its parts by hand.
pub struct App {
    pub workspaces: Vec<Workspace>,
    pub store: Arc<dyn Store>,
    pub tracker: Arc<Tracker>,
    pub poller: Arc<Poller>,
    pub dispatcher: Arc<Dispatcher>,
    pub outages: Arc<Outages>,
    pub commands: Arc<Context>,
    pub pages: Arc<Pages>,
    pub metrics: Arc<Metrics>,
    pub inbox: Inbox,
    pub asked: mpsc::Receiver<Ask>,
    pub surfaces: Vec<NamedSurface>,
    /// Takes over what may change while the service runs.
    pub reload: Arc<Reload>,
    tending: Arc<Tending>,
    clock: Clock,
}

impl App {
    pub async fn build(config: &Config, terminal: Option<Terminal>, clock: Clock) -> Result<App, AppError> {
        let metrics = Arc::new(Metrics::new());
        let net = Net::new(&config.network)?;
        let source: Arc<dyn Source> = Arc::new(dataworks(config, &net)?);
        let store = store::open(&config.store, Role::Owner).await?;
        let clock = store.clock().unwrap_or(clock);
        let (now, renderer) = (clock(), renderer(&config.templates));
        let (inbox, asked) = Inbox::new();
        let access = Arc::new(Access::new(config.access.clone()));
        let shared = Shared {
            config,
            net: &net,
            store: &store,
            metrics: &metrics,
            access: &access,
            inbox: &inbox,
            clock: &clock,
        };
        let Ways { outlets, surfaces, hooks } = Ways::new(&shared, terminal)?;
        outlets.kinds().for_each(|channel_kind| metrics.begin_at_zero(channel_kind, &Outcome::LABELS));
        warn_of_unconfigured(store.as_ref(), &outlets).await?;
        let workspaces = config.workspaces();
        let audit = Arc::new(Audit::new(Arc::clone(&store), inbox.denials()));
        let tracker = track(&shared, &source, now).await?;
        let (meter, poller) = polling(&shared, &tracker, source, now);
        let tending = tend(&shared, &tracker, &poller, &surfaces, &outlets).await?;
        let outages = Outages::new(Arc::clone(&store), Arc::clone(&tracker), outlets.clone(), workspaces.clone(), now);
        let templates = renderer.sets().map(str::to_owned).collect();
        let dispatcher = dispatching(&shared, &tracker, &audit, &outlets, renderer);
        let reload = Reload::new(config, &access, &audit, &dispatcher, &clock);
        let commands = commanding(&shared, (&tracker, &meter, &poller), &audit, &outlets);
        let pages = Pages {
            tracker: Arc::clone(&tracker),
            meter,
            store: Arc::clone(&store),
            metrics: Arc::clone(&metrics),
            workspaces: workspaces.clone(),
            surfaces: surfaces.iter().map(|(name, _)| *name).filter(|name| *name != surfaces::console::NAME).collect(),
            started_at: now,
            clock: Arc::clone(&clock),
            draining: false.into(),
            configuration: configuration(outlets.clone()),
            automation: automation(config, templates, (&dispatcher, &audit))?,
            hooks,
        };
        Ok(App {
            workspaces,
            store,
            tracker,
            poller,
            dispatcher,
            outages: Arc::new(outages),
            commands: Arc::new(commands),
            pages: Arc::new(pages),
            metrics,
            inbox,
            asked,
            surfaces,
            reload: Arc::new(reload),
            tending,
            clock,
        })
    }
}

/// What answers commands.
fn commanding(
    shared: &Shared<'_>,
    (tracker, meter, poller): (&Arc<Tracker>, &Arc<Meter>, &Arc<Poller>),
    audit: &Arc<Audit>,
    outlets: &Outlets,
) -> Context {
    let (hurried, rooms) = (Arc::clone(poller), Arc::new(outlets.clone()));
    Context {
        tracker: Arc::clone(tracker),
        meter: Arc::clone(meter),
        metrics: Arc::clone(shared.metrics),
        workspaces: shared.config.workspaces(),
        hurry: Box::new(move |workspace, now| hurried.hurry(workspace, now)),
        store: Arc::clone(shared.store),
        configuration: configuration(outlets.clone()),
        access: Arc::clone(shared.access),
        admits: Box::new(move |to| Box::pin(Arc::clone(&rooms).admits(to))),
        audit: Arc::clone(audit),
    }
}

/// What claims, words and sends.
fn dispatching(
    shared: &Shared<'_>,
    tracker: &Arc<Tracker>,
    audit: &Arc<Audit>,
    outlets: &Outlets,
    renderer: Renderer,
) -> Arc<Dispatcher> {
    let wording: Wording = Box::new(move |draft, reader, now| renderer.render(draft, reader, now));
    let dispatcher = Dispatcher::new(
        Arc::clone(shared.store),
        wording,
        outlets.clone(),
        Arc::clone(tracker),
        Arc::clone(shared.metrics),
        Arc::clone(shared.clock),
    );
    Arc::new(dispatcher.minding(Arc::clone(shared.access), Arc::clone(audit)))
}

/// What is known, rebuilt from the store.
async fn track(shared: &Shared<'_>, source: &Arc<dyn Source>, now: Timestamp) -> Result<Arc<Tracker>, StoreError> {
    let Shared { config, store, metrics, access, .. } = *shared;
    let poll = &config.dataworks.poll;
    let spans = Spans { waiting_after: poll.waiting_after.0, blind_after: BLIND_AFTER.max(poll.slowest.0 * 3) };
    let link = Arc::clone(source);
    let link = Box::new(move |workspace: &Workspace, run: &RunId| link.url(workspace, run));
    let tracker = Tracker::start(Arc::clone(store), config.standing(now), link, spans, Arc::clone(metrics));
    Ok(Arc::new(tracker.await?.allowing(Arc::clone(access))))
}

/// Who asks the source, within its budget.
fn polling(
    shared: &Shared<'_>,
    tracker: &Arc<Tracker>,
    source: Arc<dyn Source>,
    now: Timestamp,
) -> (Arc<Meter>, Arc<Poller>) {
    let Shared { config, store, metrics, .. } = *shared;
    let (poll, budget) = (&config.dataworks.poll, &config.dataworks.budget);
    let limits = Limits { calls_per_second: budget.per_second(), calls_per_day: budget.per_day() };
    let meter = Arc::new(Meter::new(source, limits, store.clock().map(|_| Arc::clone(store)), Arc::clone(metrics)));
    let intervals = Intervals { fastest: poll.fastest.0, slowest: poll.slowest.0 };
    let poller = Poller::new(Arc::clone(tracker), Arc::clone(&meter), &config.workspaces(), intervals, now);
    (meter, Arc::new(poller))
}

/// What of the shared this process tends. Known before anything begins: what others tend is not to be touched.
async fn tend(
    shared: &Shared<'_>,
    tracker: &Arc<Tracker>,
    poller: &Arc<Poller>,
    surfaces: &[NamedSurface],
    outlets: &Outlets,
) -> Result<Arc<Tending>, StoreError> {
    let Shared { config, store, .. } = *shared;
    let (outlets, metrics) = (outlets.clone(), Arc::clone(shared.metrics));
    let count: tending::Recovered = Box::new(move |recovered| count_recovered(recovered, &outlets, &metrics));
    count(&store.overview().await?.recovered);
    let (tracker, poller) = (Arc::clone(tracker), Arc::clone(poller));
    let tending = Tending::new(Arc::clone(store), tracker, poller, config.workspaces(), surfaces, count);
    tending.look().await?;
    Ok(Arc::new(tending))
}

/// The templates; what is wrong with the operator's is logged, and the built-in ones serve.
pub fn renderer(settings: &render::Settings) -> Renderer {
    let (renderer, problems) = Renderer::load(settings, &channels::DIALECTS);
    for Problem { key, message } in problems {
        tracing::error!(template = key, "{message}; the next less specific template serves");
    }
    renderer
}

/// What only the parts themselves know: template sets that don't exist, channels that can't be made. A broken template
/// is not among them, because the built-in one serves in its place.
pub fn beyond_the_shape(config: &Config) -> Vec<Problem> {
    let mut problems = template_sets(config);
    let net = match Net::new(&config.network) {
        Ok(net) => net,
        Err(error) => {
            problems.push(Problem::new("network", error.to_string()));
            return problems;
        }
    };
    let bot = match slack_bot(config) {
        Ok(bot) => bot,
        Err(problem) => {
            problems.push(problem);
            return problems;
        }
    };
    let refused = config.channels.iter().filter_map(|(name, settings)| {
        let built = channels::build(settings, bot.as_ref(), &net);
        built.err().map(|problem| problem.under(&format!("channels.{name}")))
    });
    problems.extend(refused);
    problems
}

fn template_sets(config: &Config) -> Vec<Problem> {
    let (renderer, _) = Renderer::load(&config.templates, &channels::DIALECTS);
    let unknown = config.subscriptions.iter().zip(0..).filter_map(|(standing, index): (_, usize)| {
        let said = unknown_set(&renderer, standing.template.as_deref()?)?;
        Some(Problem::new(format!("subscriptions[{index}].template"), said))
    });
    unknown.collect()
}

/// What to say of a template set that does not exist.
pub fn unknown_set(renderer: &Renderer, set: &str) -> Option<String> {
    let known: Vec<&str> = renderer.sets().collect();
    let shown = quoted(set);
    match nearest(set, known.iter().copied()) {
        _ if known.contains(&set) => None,
        Some(close) => Some(format!("there is no template set {shown}; did you mean {close:?}?")),
        None => Some(format!("there is no template set {shown}; there are {}", known.join(", "))),
    }
}

/// The client of the pipeline API.
pub fn dataworks(config: &Config, net: &Net) -> Result<DataWorks, AppError> {
    let settings = &config.dataworks;
    let wrong = |said: String| Problem::new("dataworks.endpoint", said);
    // The region is part of the host's name; the client is the same for all of them.
    let endpoint = settings.endpoint.replace("{region}", "cn-shanghai");
    let endpoint = endpoint.parse().map_err(|error: url::ParseError| wrong(error.to_string()))?;
    let client = net.client_for(&endpoint).map_err(|refused| wrong(refused.to_string()))?;
    // Where the default credential chain asks is public, wherever the API is.
    let sts = Url::parse("https://sts.aliyuncs.com").map_err(|error| wrong(error.to_string()))?;
    let chain = net.client_for(&sts).map_err(|refused| wrong(refused.to_string()))?;
    Ok(DataWorks::new(settings, client.clone(), chain.clone()).map_err(|problem| problem.under("dataworks"))?)
}

/// What the API may do, and for whom.
fn automation(
    config: &Config,
    templates: Vec<String>,
    (dispatcher, audit): (&Arc<Dispatcher>, &Arc<Audit>),
) -> Result<Automation, AppError> {
    let token = |(index, settings): (usize, _)| {
        http::Token::new(settings).map_err(|problem| problem.under(&format!("server.tokens[{index}]")))
    };
    let tokens = config.server.tokens.iter().enumerate().map(token).collect::<Result<_, _>>()?;
    let woken = Arc::clone(dispatcher);
    Ok(Automation { tokens, templates, audit: Arc::clone(audit), wake: Box::new(move || woken.wake()) })
}

/// What a process that died was sending may have arrived: an unknown outcome like any other.
fn count_recovered(recovered: &[(Destination, u64)], outlets: &Outlets, metrics: &Metrics) {
    for (to, count) in recovered {
        let labels = AttemptLabels { channel_kind: outlets.kind(to), outcome: "unknown" };
        metrics.attempts.get_or_create(&labels).inc_by(*count);
        tracing::info!(%to, count, "a process ended while sending; what may have arrived is sent again, or given up where a copy is worse");
    }
}

/// Destinations named in the log at the start.
const NAMED: usize = 20;

/// What is owed to a channel that was renamed or taken out waits until somebody decides.
async fn warn_of_unconfigured(store: &dyn Store, outlets: &Outlets) -> Result<(), StoreError> {
    let places = store.places().await?;
    let waiting = places.iter().filter(|row| row.open > 0 && outlets.find(&row.to).is_none());
    for PlaceRow { to, open, .. } in waiting.take(NAMED) {
        tracing::warn!(
            %to, open,
            "messages wait for a destination that is not in the configuration; put it back, or give them up: \
             `callboard deliveries list --to {to}`, then `callboard deliveries discard`"
        );
    }
    Ok(())
}

/// What answers and pages ask of the configuration.
fn configuration(outlets: Outlets) -> Configuration {
    Box::new(move |to, dead| match (outlets.find(to), dead) {
        (None, _) => Configured::No,
        (Some((outlet, _)), Some(dead)) if dead.identity != outlet.identity => Configured::Anew,
        (Some(_), _) => Configured::Yes,
    })
}
