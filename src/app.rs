//! The only place that constructs. Starts the loops; when one ends or the stop comes, all end.

mod outages;
mod reload;
mod slack;
mod starting;
mod tending;
mod ways;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use url::Url;

pub use self::outages::Outages;
pub use self::reload::Reload;
pub use self::slack::slack_bot;
pub use self::starting::{listen, start};
pub use self::tending::Tending;
pub use self::ways::dingtalk_bot;
use crate::access::Access;
use crate::audit::Audit;
use crate::channels::{self, Channel, discord};
use crate::commands::{self, Context};
use crate::config::{Config, nearest};
use crate::dispatcher::{Dispatcher, Outlet, Outlets, Wording};
use crate::fate::{Configuration, Configured};
use crate::http::{self, Automation, Pages};
use crate::meter::Meter;
use crate::metrics::{AttemptLabels, Metrics};
use crate::model::{Clock, Destination, Outcome, RunId, Timestamp, Workspace, elapsed};
use crate::net::{Net, NetError, Refused};
use crate::poller::Poller;
use crate::render::{self, Renderer};
use crate::schedule::{Intervals, Limits};
use crate::settings::{Problem, SecretError, quoted};
use crate::sources::Source;
use crate::sources::dataworks::DataWorks;
use crate::store::{self, PlaceRow, Role, Store, StoreError};
use crate::surfaces::{self, Ask, Hook, Inbox, Surface};
use crate::tracker::{Spans, Tracker};

/// Between two looks whether another process wrote to the store.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// Others that write all the time are not listened to all the time.
const DEAF: Duration = Duration::from_millis(100);
/// Between two prunings of what ended long ago.
const PRUNING: Duration = Duration::from_secs(3600);
/// Ended deliveries are kept this long, to be asked about.
const KEPT: Duration = Duration::from_secs(30 * 86_400);
/// Looks further apart than this miss what happens in between, unless so they are configured.
const BLIND_AFTER: Duration = Duration::from_secs(600);
/// Sends under way may take this long when the process ends: longer than a send's deadline.
const GRACE: Duration = Duration::from_secs(12);
/// A loop sleeps no longer than this, whatever the clock says.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

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

/// A way in and out that is no part of the configuration: the demo's terminal.
pub struct Terminal {
    pub surface: Arc<dyn Surface>,
    pub channel: Arc<dyn Channel>,
}

pub type NamedSurface = (&'static str, Arc<dyn Surface>);

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
        let ways = ways(config, &net, &metrics, &clock, &store)?.with(terminal);
        let access = Arc::new(Access::new(config.access.clone()));
        let shared = (&net, &metrics, &clock);
        let Ways { outlets, surfaces, hooks } = slack::add(ways, config, shared, (&store, &inbox, &access))?;
        outlets.kinds().for_each(|channel_kind| metrics.begin_at_zero(channel_kind, &Outcome::LABELS));
        warn_of_unconfigured(store.as_ref(), &outlets).await?;
        let workspaces = config.workspaces();
        let audit = Arc::new(Audit::new(Arc::clone(&store), inbox.denials()));
        let tracker = track(config, &store, &source, (&metrics, &access), now).await?;
        let (meter, poller) = polling(config, &tracker, &store, source, &metrics, now);
        let tending = tend(config, &store, &tracker, &poller, &surfaces, (&outlets, &metrics)).await?;
        let templates = renderer.sets().map(str::to_owned).collect();
        let wording: Wording = Box::new(move |draft, reader, now| renderer.render(draft, reader, now));
        let outages = Outages::new(Arc::clone(&store), Arc::clone(&tracker), outlets.clone(), workspaces.clone(), now);
        let dispatcher = Dispatcher::new(
            Arc::clone(&store),
            wording,
            outlets.clone(),
            Arc::clone(&tracker),
            Arc::clone(&metrics),
            Arc::clone(&clock),
        );
        let dispatcher = Arc::new(dispatcher.minding(Arc::clone(&access), Arc::clone(&audit)));
        let reload = Reload::new(config, &access, &audit, &dispatcher, &clock);
        let (hurried, rooms) = (Arc::clone(&poller), Arc::new(outlets.clone()));
        let commands = Context {
            tracker: Arc::clone(&tracker),
            meter: Arc::clone(&meter),
            metrics: Arc::clone(&metrics),
            workspaces: workspaces.clone(),
            hurry: Box::new(move |workspace, now| hurried.hurry(workspace, now)),
            store: Arc::clone(&store),
            configuration: configuration(outlets.clone()),
            access,
            admits: Box::new(move |to| Box::pin(Arc::clone(&rooms).admits(to))),
            audit: Arc::clone(&audit),
        };
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
            automation: automation(config, templates, &dispatcher)?,
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

    /// Runs until `stop`, then lets what is under way end. `Err` when a part of it ended by itself.
    pub async fn run(self, listener: TcpListener, stop: CancellationToken) -> Result<(), AppError> {
        let App { tracker, poller, dispatcher, outages, commands, pages, store, clock, .. } = self;
        let retiring = Arc::clone(&store);
        let audit = Arc::clone(&commands.audit);
        let mut loops: JoinSet<&'static str> = JoinSet::new();
        // Serves to the end, so that whoever asks meanwhile hears that this process is ending.
        let serving = CancellationToken::new();
        let mut server = tokio::spawn(http::serve(listener, Arc::clone(&pages), serving.clone()));
        let polling = poll(Arc::clone(&poller), Arc::clone(&clock), stop.clone());
        loops.spawn(named("polling", polling));
        let delivering = deliver(Arc::clone(&dispatcher), Arc::clone(&tracker), Arc::clone(&clock), stop.clone());
        loops.spawn(named("delivery", delivering));
        loops.spawn(named("the store", verify(Arc::clone(&store), stop.clone())));
        let (tending, ending) = (Arc::clone(&self.tending), stop.clone());
        loops.spawn(named("tending", async move { tending.run(ending).await }));
        let keeping = keep_house(
            store,
            tracker,
            Arc::clone(&poller),
            Arc::clone(&dispatcher),
            (outages, Arc::clone(&audit)),
            Arc::clone(&clock),
            stop.clone(),
        );
        loops.spawn(named("housekeeping", keeping));
        let asked = self.asked;
        let ended = stop.clone();
        loops.spawn(named("commands", async move {
            tokio::select! {
                () = commands::serve(commands, asked) => {}
                () = ended.cancelled() => {}
            }
        }));
        for (name, surface) in self.surfaces {
            let inbox = self.inbox.clone();
            let stop = stop.clone();
            let tending = Arc::clone(&self.tending);
            loops.spawn(named(name, async move { tending.serve((name, surface), inbox, stop).await }));
        }
        let first = tokio::select! {
            first = loops.join_next() => first,
            served = &mut server => {
                tracing::error!(?served, "the HTTP server ended");
                Some(Ok("the HTTP server"))
            }
        };
        let by_itself = !stop.is_cancelled();
        pages.drain();
        stop.cancel();
        let rest = async {
            while loops.join_next().await.is_some() {}
            poller.idle().await;
            dispatcher.idle().await;
        };
        if tokio::time::timeout(GRACE, rest).await.is_err() {
            tracing::warn!("something was still under way after {} s and is left behind", GRACE.as_secs());
        }
        if let Err(error) = audit.flush(clock()).await {
            tracing::warn!(%error, "the last denials are not in the audit log");
        }
        if let Err(error) = retiring.retire().await {
            tracing::debug!(%error, "others have to find out that this process ended");
        }
        serving.cancel();
        if !server.is_finished() {
            // It cuts what lingers by itself.
            drop(server.await);
        }
        match first {
            Some(Ok(name)) if by_itself => Err(AppError::Ended(name)),
            Some(Err(error)) if by_itself => {
                tracing::error!(%error, "a part of the service broke");
                Err(AppError::Ended("a part of the service"))
            }
            _ => Ok(()),
        }
    }
}

/// What is known, rebuilt from the store.
async fn track(
    config: &Config,
    store: &Arc<dyn Store>,
    source: &Arc<dyn Source>,
    (metrics, access): (&Arc<Metrics>, &Arc<Access>),
    now: Timestamp,
) -> Result<Arc<Tracker>, StoreError> {
    let poll = &config.dataworks.poll;
    let spans = Spans { waiting_after: poll.waiting_after.0, blind_after: BLIND_AFTER.max(poll.slowest.0 * 3) };
    let link = Arc::clone(source);
    let link = Box::new(move |workspace: &Workspace, run: &RunId| link.url(workspace, run));
    let tracker = Tracker::start(Arc::clone(store), config.standing(now), link, spans, Arc::clone(metrics));
    Ok(Arc::new(tracker.await?.allowing(Arc::clone(access))))
}

/// Who asks the source, within its budget.
fn polling(
    config: &Config,
    tracker: &Arc<Tracker>,
    store: &Arc<dyn Store>,
    source: Arc<dyn Source>,
    metrics: &Arc<Metrics>,
    now: Timestamp,
) -> (Arc<Meter>, Arc<Poller>) {
    let (poll, budget) = (&config.dataworks.poll, &config.dataworks.budget);
    let limits = Limits { calls_per_second: budget.per_second(), calls_per_day: budget.per_day() };
    let meter = Arc::new(Meter::new(source, limits, store.clock().map(|_| Arc::clone(store)), Arc::clone(metrics)));
    let intervals = Intervals { fastest: poll.fastest.0, slowest: poll.slowest.0 };
    let poller = Poller::new(Arc::clone(tracker), Arc::clone(&meter), &config.workspaces(), intervals, now);
    (meter, Arc::new(poller))
}

/// What of the shared this process tends. Known before anything begins: what others tend is not to be touched.
async fn tend(
    config: &Config,
    store: &Arc<dyn Store>,
    tracker: &Arc<Tracker>,
    poller: &Arc<Poller>,
    surfaces: &[NamedSurface],
    (outlets, metrics): (&Outlets, &Arc<Metrics>),
) -> Result<Arc<Tending>, StoreError> {
    let (outlets, metrics) = (outlets.clone(), Arc::clone(metrics));
    let count: tending::Recovered = Box::new(move |recovered| count_recovered(recovered, &outlets, &metrics));
    count(&store.overview().await?.recovered);
    let (tracker, poller) = (Arc::clone(tracker), Arc::clone(poller));
    let tending = Tending::new(Arc::clone(store), tracker, poller, config.workspaces(), surfaces, count);
    tending.look().await?;
    Ok(Arc::new(tending))
}

async fn named(name: &'static str, work: impl Future<Output = ()>) -> &'static str {
    work.await;
    name
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
fn automation(config: &Config, templates: Vec<String>, dispatcher: &Arc<Dispatcher>) -> Result<Automation, AppError> {
    let token = |(index, settings): (usize, _)| {
        http::Token::new(settings).map_err(|problem| problem.under(&format!("server.tokens[{index}]")))
    };
    let tokens = config.server.tokens.iter().enumerate().map(token).collect::<Result<_, _>>()?;
    let woken = Arc::clone(dispatcher);
    Ok(Automation { tokens, templates, wake: Box::new(move || woken.wake()) })
}

struct Ways {
    outlets: Outlets,
    surfaces: Vec<NamedSurface>,
    hooks: HashMap<&'static str, Arc<dyn Hook>>,
}

impl Ways {
    fn with(mut self, terminal: Option<Terminal>) -> Ways {
        if let Some(Terminal { surface, channel }) = terminal {
            self.outlets.rooms.insert(surfaces::console::NAME.to_owned(), Outlet::of(channel));
            self.surfaces.push((surfaces::console::NAME, surface));
        }
        self
    }
}

/// Every configured way out and in.
fn ways(
    config: &Config,
    net: &Net,
    metrics: &Arc<Metrics>,
    clock: &Clock,
    store: &Arc<dyn Store>,
) -> Result<Ways, AppError> {
    let mut channels = HashMap::new();
    for (name, settings) in &config.channels {
        channels.insert(name.clone(), outlet(name, settings, config, net)?);
    }
    let mut outlets = Outlets {
        channels,
        operators: config.notices.channels.iter().cloned().collect(),
        siblings: config.subscriptions.iter().map(|standing| standing.channels.iter().cloned().collect()).collect(),
        ..Outlets::default()
    };
    let mut surfaces: Vec<NamedSurface> = Vec::new();
    if let Some(settings) = &config.discord {
        let (api, token) = discord_access(settings)?;
        let refused = |said: Refused| Problem::new("discord.api", said.to_string());
        let client = net.client_for(&api).map_err(refused)?.clone();
        let bot = discord::Bot::new(api, token.clone(), net.clone());
        let outlet = Outlet {
            identity: bot.identity(),
            locale: settings.locale.clone(),
            timezone: settings.timezone.clone(),
            ..Outlet::of(Arc::new(bot))
        };
        outlets.rooms.insert(surfaces::discord::NAME.to_owned(), outlet);
        let surface = surfaces::discord::Discord::new(settings, token, client, Arc::clone(metrics));
        let surface = surface.with_clock(Arc::clone(clock));
        surfaces.push((surfaces::discord::NAME, Arc::new(surface)));
    }
    if let Some(settings) = &config.dingtalk {
        let (outlet, surface) = ways::dingtalk(settings, net, metrics, clock, ways::once(store))?;
        outlets.rooms.insert(surfaces::dingtalk::NAME.to_owned(), outlet);
        surfaces.push((surfaces::dingtalk::NAME, surface));
    }
    Ok(Ways { outlets, surfaces, hooks: HashMap::new() })
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

/// The rooms that the Discord bot sits in, as a way out.
pub fn discord_bot(settings: &surfaces::discord::Settings, net: &Net) -> Result<discord::Bot, AppError> {
    let (api, token) = discord_access(settings)?;
    Ok(discord::Bot::new(api, token, net.clone()))
}

fn discord_access(settings: &surfaces::discord::Settings) -> Result<(Url, SecretString), AppError> {
    let wrong = |key: &str, said: String| Problem::new(key, said);
    let token = settings.token.read().map_err(|error: SecretError| wrong("discord.token", error.to_string()))?;
    let api = settings.api.parse().map_err(|error: url::ParseError| wrong("discord.api", error.to_string()))?;
    Ok((api, token))
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

async fn poll(poller: Arc<Poller>, clock: Clock, stop: CancellationToken) {
    loop {
        let next = poller.tick(clock());
        tokio::select! {
            () = stop.cancelled() => return,
            () = poller.changed() => {}
            () = sleep_until(next, &clock) => {}
        }
    }
}

async fn deliver(dispatcher: Arc<Dispatcher>, tracker: Arc<Tracker>, clock: Clock, stop: CancellationToken) {
    loop {
        let next = dispatcher.tick(clock()).await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tracker.owed() => {}
            () = dispatcher.freed() => {}
            () = sleep_until(next, &clock) => {}
        }
    }
}

/// Looks through the store once. Returns when it is damaged, or at the stop.
async fn verify(store: Arc<dyn Store>, stop: CancellationToken) {
    match store.verify().await {
        Err(error @ StoreError::Damaged { .. }) => {
            tracing::error!(%error, "the service ends");
            return;
        }
        Err(error) => tracing::warn!(%error, "the store could not be looked through"),
        Ok(()) => {}
    }
    stop.cancelled().await;
}

/// Takes over what another process wrote to the store, tells outages, and forgets what ended long ago.
async fn keep_house(
    store: Arc<dyn Store>,
    tracker: Arc<Tracker>,
    poller: Arc<Poller>,
    dispatcher: Arc<Dispatcher>,
    (outages, audit): (Arc<Outages>, Arc<Audit>),
    clock: Clock,
    stop: CancellationToken,
) {
    let mut looked_at = clock();
    let mut pruned_at = looked_at;
    let mut failing = false;
    while rest(store.as_ref(), &stop).await {
        let now = clock();
        let kept = async {
            take_over(&tracker, &poller, &dispatcher, now).await?;
            tracker.keep_sight().await?;
            tracker.sweep(now).await?;
            if outages.look(now).await? {
                dispatcher.wake();
            }
            audit.flush(now).await?;
            // A clock that jumped says nothing about how long messages have waited.
            if elapsed(looked_at, now) >= PRUNING {
                pruned_at = now;
            }
            looked_at = now;
            if elapsed(pruned_at, now) >= PRUNING {
                pruned_at = now;
                store.prune(now.checked_sub(KEPT).unwrap_or(Timestamp::MIN)).await?;
            }
            Ok::<(), StoreError>(())
        };
        let kept = kept.await;
        if kept == Err(StoreError::Broken) {
            tracing::error!(error = %StoreError::Broken, "the service ends");
            return;
        }
        match &kept {
            // Said once an outage.
            Err(error) if !failing => tracing::warn!(%error, "changes of other processes are not seen for now"),
            Ok(()) if failing => tracing::info!("changes of other processes are seen again"),
            _ => {}
        }
        failing = kept.is_err();
    }
}

/// Until it is time to look, or another process is said to have written. False at the stop.
async fn rest(store: &dyn Store, stop: &CancellationToken) -> bool {
    let told = async {
        tokio::time::sleep(DEAF).await;
        store.stirred().await;
    };
    tokio::select! {
        () = stop.cancelled() => false,
        () = told => true,
        () = tokio::time::sleep(HOUSEKEEPING) => true,
    }
}

/// Takes over what another process wrote to the store since the last look.
pub async fn take_over(
    tracker: &Tracker,
    poller: &Poller,
    dispatcher: &Dispatcher,
    now: Timestamp,
) -> Result<(), StoreError> {
    let watched = tracker.watched();
    if tracker.take_over().await? {
        // Nobody waits for the long interval of a workspace that nobody watched.
        tracker.watched().difference(&watched).for_each(|workspace| poller.hurry(workspace, now));
        dispatcher.wake();
    }
    Ok(())
}

async fn sleep_until(next: Option<Timestamp>, clock: &Clock) {
    let wait = next.map_or(LONGEST_SLEEP, |next| elapsed(clock(), next));
    tokio::time::sleep(wait.clamp(Duration::from_millis(1), LONGEST_SLEEP)).await;
}
