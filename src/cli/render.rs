//! `callboard render`

use clap::Args;
use serde_json::json;
use uuid::Uuid;

use super::{Exit, Globals, fail, print, print_json};
use crate::app;
use crate::channels;
use crate::model::{Change, ChangeKind};
use crate::render::{Reader, Renderer};

/// Show a message as it would look
///
/// CHANGE is the name of a sample, such as `stage-fail` (a wrong one lists them all), or a file with a recorded change as
/// `callboard deliveries show --json` prints it.
#[derive(Debug, Args)]
pub struct Render {
    /// A sample's name, or a file with a recorded change
    change: String,
    /// The channel kind whose markup is shown
    #[arg(long, value_name = "KIND", default_value = "console")]
    channel: String,
    /// The language
    #[arg(long, value_name = "LOCALE", default_value = "en")]
    locale: String,
    /// The time zone
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    timezone: String,
    /// The template set
    #[arg(long, value_name = "SET")]
    template: Option<String>,
    /// Print title, body and plain text as JSON
    #[arg(long)]
    json: bool,
}

impl Render {
    pub async fn run(self, globals: &Globals) -> Exit {
        // Samples need no configuration; one that exists may name a folder of templates.
        let settings = match globals.config_file().exists() || globals.config.is_some() {
            true => match globals.load_without_secrets() {
                Ok(config) => config.templates,
                Err(exit) => return exit,
            },
            false => crate::render::Settings::default(),
        };
        let renderer = app::renderer(&settings);
        let kinds: Vec<&str> = channels::DIALECTS.iter().map(|dialect| dialect.kind).collect();
        if !kinds.contains(&self.channel.as_str()) {
            return fail(Exit::Misused, &format!("--channel {:?} is none of {}", self.channel, kinds.join(", ")));
        }
        if !crate::settings::LOCALES.contains(&self.locale.as_str()) {
            let known = crate::settings::LOCALES.join(", ");
            return fail(Exit::Misused, &format!("--locale {:?} is none of {known}", self.locale));
        }
        if let Some(set) = self.template.as_deref().filter(|set| renderer.sets().all(|known| known != *set)) {
            let known = renderer.sets().collect::<Vec<_>>().join(", ");
            return fail(Exit::Misused, &format!("--template {set:?} is none of {known}"));
        }
        let change = match find(&self.change) {
            Ok(change) => change,
            Err(said) => return fail(Exit::Misused, &said),
        };
        let reader = Reader {
            kind: &self.channel,
            locale: &self.locale,
            timezone: &self.timezone,
            template: self.template.as_deref(),
        };
        let message = renderer.render(Uuid::nil(), &change, &reader, change.at).message;
        if self.json {
            return print_json(&json!({
                "title": message.title, "body": message.body, "plain": message.plain, "url": message.url,
            }));
        }
        if self.channel == "console" {
            return print(&channels::console::lines(&message));
        }
        print(&format!("{}\n\n{}\n", message.title, message.body))
    }
}

/// A sample by its name, else a file.
fn find(given: &str) -> Result<Change, String> {
    let samples = Renderer::samples();
    if let Some(sample) = samples.iter().find(|sample| name(sample) == given) {
        return Ok(sample.clone());
    }
    let names = samples.iter().map(name).collect::<Vec<_>>().join(", ");
    let text = std::fs::read_to_string(given)
        .map_err(|_| format!("{given:?} is neither a file nor one of the samples: {names}"))?;
    let value: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| format!("{given} is not JSON: {error}"))?;
    // What `deliveries show --json` prints holds the change inside.
    let change = value.get("change").cloned().unwrap_or(value);
    serde_json::from_value(change).map_err(|error| format!("{given} holds no recorded change: {error}"))
}

/// `stage-fail`, `finished-success`, `waiting`
pub fn name(change: &Change) -> String {
    let status = match &change.kind {
        ChangeKind::StageChanged { to, .. } | ChangeKind::Finished { to, .. } => Some(to.as_str().to_ascii_lowercase()),
        _ => None,
    };
    std::iter::once(change.kind.name().to_owned()).chain(status).collect::<Vec<_>>().join("-")
}
