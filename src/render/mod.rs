//! Draft + channel kind + locale -> message. Loads and checks every template at start, so that rendering can't
//! fail later for a reason that could have been known. `docs/templates.md` is the manual.

mod check;
mod clean;
mod digest;
mod engine;
mod facts;
mod files;
mod notice;
mod samples;
mod topic;
mod words;

use std::path::PathBuf;

use handlebars::Context;
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use self::check::Parsed;
use self::engine::{Engine, Failure, Written};
use self::facts::View;
use self::files::File;
use self::topic::{KINDS, Topic};
use self::words::Words;
use crate::model::{Button, Change, ChangeKind, Content, Dialect, Draft, Message, RunId, Timestamp};
use crate::settings::{LOCALES, Problem};

/// The name of the one template that others include.
const FOOTER: &str = "footer";

/// `[templates]`
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// A folder whose templates take the place of the built-in ones of the same name.
    pub folder: Option<PathBuf>,
}

/// For whom a message is written.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    /// The channel kind, as in its [`Dialect`].
    pub kind: &'a str,
    /// `en` or `zh-CN`; another one reads English.
    pub locale: &'a str,
    /// An IANA name; another one reads UTC.
    pub timezone: &'a str,
    /// The template set; `None`, or one that does not exist: the default one.
    pub template: Option<&'a str>,
}

/// A message, and whether its template failed so that plain compiled-in lines stand for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    pub message: Message,
    pub fell_back: bool,
}

/// What a message may be about, to show what it looks like.
#[derive(Debug, Clone)]
pub struct Sample {
    /// `stage-fail`, `digest`, `catch-up`
    pub name: String,
    pub draft: Draft,
    /// When it is sent.
    pub now: Timestamp,
}

/// Every template, checked.
pub struct Renderer {
    dialects: Vec<Dialect>,
    shelves: Vec<Shelf>,
    /// Names of the template sets besides the default one.
    sets: Vec<String>,
}

/// The templates for one channel kind, locale and set.
struct Shelf {
    kind: &'static str,
    locale: &'static str,
    set: Option<String>,
    engine: Engine,
}

/// A file with what came of it; `None`: it is broken and was reported.
struct Candidate {
    file: File,
    parsed: Option<Parsed>,
}

impl Renderer {
    /// Loads the built-in templates and those of the operator's folder, and renders each with every sample, in every
    /// dialect and locale it serves. What is wrong is reported with the file as the key and line and column in the
    /// message (a broken folder as `folder`); the next less specific template, in the end the built-in one, serves.
    pub fn load(settings: &Settings, dialects: &[Dialect]) -> (Renderer, Vec<Problem>) {
        let kinds: Vec<&'static str> = dialects.iter().map(|dialect| dialect.kind).collect();
        let (operators, mut problems) = match &settings.folder {
            Some(folder) => files::of_folder(folder, &kinds),
            None => (Vec::new(), Vec::new()),
        };
        let files: Vec<File> = operators.into_iter().chain(files::built_in(&kinds)).collect();
        let mut sets: Vec<String> = files.iter().filter_map(|file| file.name.set.clone()).collect();
        sets.sort_unstable();
        sets.dedup();
        let shape = shape();
        let candidates = files.into_iter().map(|file| candidate(file, &shape, &mut problems)).collect();
        let mut loading = Loading { candidates, problems };
        let mut shelves = Vec::new();
        for words in Words::ALL {
            let contexts = contexts(words);
            for dialect in dialects {
                for set in std::iter::once(None).chain(sets.iter().cloned().map(Some)) {
                    let engine = loading.fill(dialect, words.locale, set.as_deref(), &contexts);
                    shelves.push(Shelf { kind: dialect.kind, locale: words.locale, set, engine });
                }
            }
        }
        (Renderer { dialects: dialects.to_vec(), shelves, sets }, loading.problems)
    }

    /// The message for a draft. Can't fail: where a template does, that is logged, `fell_back` says so, and plain lines
    /// with the facts take its place. `now` dates what is late.
    pub fn render(&self, draft: &Draft, reader: &Reader<'_>, now: Timestamp) -> Rendered {
        let words = Words::of(reader.locale);
        // Zones come from a database that keeps what was looked up, so nothing is kept here.
        let zone = TimeZone::get(reader.timezone).unwrap_or(TimeZone::UTC);
        let view = View { words, zone: &zone, now };
        let topic = Topic::of(draft);
        let tail = draft.repeated.then(|| words.repetition(&draft.id));
        let written = self.write(&topic, &view, reader, tail.as_deref());
        let fell_back = written.is_err();
        let written = written.unwrap_or_else(|said| {
            let (kind, template) = (reader.kind, reader.template.unwrap_or_default());
            let run = draft.content.run().map(RunId::as_str).unwrap_or_default();
            tracing::error!(
                run,
                message = topic.what(),
                kind,
                locale = words.locale,
                template,
                said,
                "a template failed; plain lines were sent instead"
            );
            self.without_template(&topic, &view, reader.kind, tail.as_deref())
        });
        let url = facts::url(topic.url());
        let message = Message {
            id: draft.id,
            title: written.title,
            body: written.body,
            plain: written.plain,
            tone: topic.tone(),
            url_label: if url.is_empty() { String::new() } else { words.open.to_owned() },
            buttons: buttons(&draft.content, words),
            url,
            content: draft.content.clone(),
        };
        Rendered { message, fell_back }
    }

    /// By the template; of a digest with its texts as short as they have to be for all of it to find its place.
    fn write(
        &self,
        topic: &Topic<'_>,
        view: &View<'_>,
        reader: &Reader<'_>,
        tail: Option<&str>,
    ) -> Result<Written, String> {
        let here = |shelf: &&Shelf| shelf.kind == reader.kind && shelf.locale == view.words.locale;
        let of_set = |set: Option<&str>| self.shelves.iter().filter(here).find(|shelf| shelf.set.as_deref() == set);
        let shelf = of_set(reader.template).or_else(|| of_set(None)).ok_or("no such channel kind")?;
        let dialect = self.dialect(reader.kind).ok_or("no such channel kind")?;
        for size in topic.sizes() {
            let context = Context::wraps(topic.facts(view, *size)).map_err(|error| error.to_string())?;
            let mut written = shelf.engine.write(topic.what(), &context).map_err(|failure| failure.said)?;
            if let Some(tail) = tail {
                written.end_with(tail, dialect);
            }
            if !topic.has_to_fit() || written.fits(dialect) {
                return Ok(written);
            }
        }
        Err("the message is too long for its platform, however short the texts in it".to_owned())
    }

    /// The message when all else fails: the contract's facts.
    fn without_template(&self, topic: &Topic<'_>, view: &View<'_>, kind: &str, tail: Option<&str>) -> Written {
        let dialect = self.dialect(kind);
        let mut written = Written::default();
        for size in topic.sizes() {
            let (title, body) = topic.plain(view, *size);
            written = Written {
                plain: format!("{title}\n{body}"),
                title: dialect.map_or_else(|| inert(&title), |dialect| (dialect.escape_title)(&title)),
                body: dialect.map_or_else(|| inert(&body), |dialect| (dialect.escape)(&body)),
            };
            if let (Some(tail), Some(dialect)) = (tail, dialect) {
                written.end_with(tail, dialect);
            }
            if dialect.is_none_or(|dialect| written.fits(dialect)) {
                break;
            }
        }
        written
    }

    fn dialect(&self, kind: &str) -> Option<&Dialect> {
        self.dialects.iter().find(|dialect| dialect.kind == kind)
    }

    /// Realistic changes, one of every kind and of every status worth seeing; all happen at [`Renderer::samples_at`].
    pub fn samples() -> Vec<Change> {
        samples::full()
    }

    /// Every message worth seeing, by a name: each of [`Renderer::samples`] by itself, digests, notices, a repetition.
    pub fn named_samples() -> Vec<Sample> {
        samples::all()
    }

    /// The name of the template for it.
    pub fn template_of(content: &Content) -> &'static str {
        topic::what(content)
    }

    /// The moment of the samples: `now` for showing them as on time.
    pub fn samples_at() -> Timestamp {
        samples::at()
    }

    /// Template sets a subscription can name.
    pub fn sets(&self) -> impl Iterator<Item = &str> {
        self.sets.iter().map(String::as_str)
    }

    /// Every variable of the templates by its path: `run.title`, `past[].code`.
    pub fn variables() -> Vec<String> {
        let mut paths = Vec::new();
        collect_paths(&shape(), "", &mut paths);
        paths
    }

    /// Every helper of the templates.
    pub fn helpers() -> Vec<&'static str> {
        check::BLOCK.into_iter().chain(check::INLINE).collect()
    }
}

impl std::fmt::Debug for Renderer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Renderer").field("sets", &self.sets).finish_non_exhaustive()
    }
}

/// What a reader may do about a run that goes on: the commands of chat.
fn buttons(content: &Content, words: &Words) -> Vec<Button> {
    let goes_on = match content {
        Content::Change(change) => !change.ends_run(),
        Content::Digest { changes, .. } => !changes.iter().any(Change::ends_run),
        Content::Notice(_) => false,
    };
    let Some(run) = content.run().filter(|_| goes_on) else { return Vec::new() };
    let button = |label: &str, command: String| Button { label: label.to_owned(), command };
    vec![button(words.stop, format!("unwatch {run}")), button(words.mute, format!("mute {run} for:1h"))]
}

fn candidate(file: File, shape: &Value, problems: &mut Vec<Problem>) -> Candidate {
    let parsed = check::parse(file.name.what, &file.text, shape);
    let complaints = parsed.as_ref().err().into_iter().flatten();
    problems.extend(complaints.map(|complaint| Problem::new(file.path.clone(), complaint.to_string())));
    Candidate { parsed: parsed.ok(), file }
}

struct Loading {
    candidates: Vec<Candidate>,
    problems: Vec<Problem>,
}

impl Loading {
    fn fill(
        &mut self,
        dialect: &Dialect,
        locale: &str,
        set: Option<&str>,
        contexts: &[(&'static str, Context)],
    ) -> Engine {
        let mut engine = Engine::new(dialect);
        // The footer first: the others include it.
        for what in std::iter::once(FOOTER).chain(KINDS) {
            let mut broken = Vec::new();
            for candidate in self.ranked(what, set, dialect.kind, locale) {
                let Some(parsed) = &candidate.parsed else { continue };
                engine.put(what, parsed);
                match try_all(&engine, what, contexts) {
                    Ok(()) => break,
                    Err(failure) => {
                        let complaint = failure.in_file(parsed.body_line);
                        broken.push(Problem::new(candidate.file.path.clone(), complaint.to_string()));
                    }
                }
            }
            broken.retain(|problem| !self.problems.contains(problem));
            self.problems.append(&mut broken);
        }
        engine
    }

    /// Templates that may serve there, the most specific first; an operator's stands before the built-in of its name.
    fn ranked(&self, what: &str, set: Option<&str>, channel: &str, locale: &str) -> Vec<&Candidate> {
        let serves = |candidate: &&Candidate| {
            candidate.file.name.what == what && candidate.file.name.serves(set, channel, locale)
        };
        let mut ranked: Vec<&Candidate> = self.candidates.iter().filter(serves).collect();
        ranked.sort_by_key(|candidate| {
            let name = &candidate.file.name;
            (name.set.is_none(), name.channel.is_none(), name.locale.is_none(), candidate.file.built_in)
        });
        ranked
    }
}

fn try_all(engine: &Engine, what: &str, contexts: &[(&'static str, Context)]) -> Result<(), Failure> {
    for (kind, context) in contexts {
        if what == FOOTER && ChangeKind::NAMES.contains(kind) {
            engine.try_footer(context)?;
        } else if *kind == what {
            engine.write(what, context)?;
        }
    }
    Ok(())
}

/// Every sample, full and minimal, as a template sees it.
fn contexts(words: &Words) -> Vec<(&'static str, Context)> {
    let context = |sample: Sample| {
        let view = View { words, zone: &TimeZone::UTC, now: sample.now };
        let topic = Topic::of(&sample.draft);
        let facts = topic.facts(&view, digest::SIZES.first().copied()?);
        Some((topic.what(), Context::wraps(facts).ok()?))
    };
    samples::all().into_iter().chain(samples::least()).filter_map(context).collect()
}

/// Every variable with a value of its type.
fn shape() -> Value {
    let facts = |sample: Sample| {
        // Late, so that this has a value too.
        let late = sample.now.saturating_add(jiff::SignedDuration::from_hours(30)).unwrap_or(sample.now);
        let view = View { words: Words::of(LOCALES[0]), zone: &TimeZone::UTC, now: late };
        let facts = Topic::of(&sample.draft).facts(&view, digest::SIZES.first().copied()?);
        serde_json::to_value(facts).ok()
    };
    samples::all().into_iter().filter_map(facts).fold(Value::Null, united)
}

fn united(one: Value, other: Value) -> Value {
    match (one, other) {
        (Value::Object(mut fields), Value::Object(others)) => {
            for (key, value) in others {
                let before = fields.remove(&key).unwrap_or_default();
                fields.insert(key, united(before, value));
            }
            Value::Object(fields)
        }
        (Value::Null, other) => other,
        (Value::Array(items), other) if items.is_empty() => other,
        (one, _) => one,
    }
}

fn collect_paths(value: &Value, path: &str, paths: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, field) in fields {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                collect_paths(field, &path, paths);
            }
        }
        Value::Array(items) => items.iter().take(1).for_each(|item| collect_paths(item, &format!("{path}[]"), paths)),
        _ => paths.push(path.to_owned()),
    }
}

/// For a channel kind without a dialect: only what no platform reads as markup.
fn inert(text: &str) -> String {
    text.chars().map(|c| if c.is_alphanumeric() || " .-→·".contains(c) { c } else { ' ' }).collect()
}
