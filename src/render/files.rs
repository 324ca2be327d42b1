//! Template files: the built-in ones, those of the operator's folder, and what their names mean.

use std::io::Read;
use std::path::Path;

use super::FOOTER;
use super::topic::KINDS;
use crate::settings::{LOCALES, Problem};
use crate::text::nearest;

/// A template's source, at most.
pub(super) const SOURCE_AT_MOST: usize = 64 * 1024;
/// Files in the operator's folder, at most.
const FILES_AT_MOST: usize = 500;

/// Every built-in template by its path under `templates/`.
pub(super) const BUILT_IN: &[(&str, &str)] = &[
    ("started.hbs", include_str!("../../templates/started.hbs")),
    ("started.zh-CN.hbs", include_str!("../../templates/started.zh-CN.hbs")),
    ("stage.hbs", include_str!("../../templates/stage.hbs")),
    ("stage.zh-CN.hbs", include_str!("../../templates/stage.zh-CN.hbs")),
    ("waiting.hbs", include_str!("../../templates/waiting.hbs")),
    ("waiting.zh-CN.hbs", include_str!("../../templates/waiting.zh-CN.hbs")),
    ("finished.hbs", include_str!("../../templates/finished.hbs")),
    ("finished.zh-CN.hbs", include_str!("../../templates/finished.zh-CN.hbs")),
    ("lost.hbs", include_str!("../../templates/lost.hbs")),
    ("lost.zh-CN.hbs", include_str!("../../templates/lost.zh-CN.hbs")),
    ("digest.hbs", include_str!("../../templates/digest.hbs")),
    ("digest.zh-CN.hbs", include_str!("../../templates/digest.zh-CN.hbs")),
    ("notice.hbs", include_str!("../../templates/notice.hbs")),
    ("notice.zh-CN.hbs", include_str!("../../templates/notice.zh-CN.hbs")),
    ("footer.hbs", include_str!("../../templates/footer.hbs")),
    ("footer.zh-CN.hbs", include_str!("../../templates/footer.zh-CN.hbs")),
    ("release/finished.hbs", include_str!("../../templates/release/finished.hbs")),
    ("release/finished.zh-CN.hbs", include_str!("../../templates/release/finished.zh-CN.hbs")),
];

/// What the name of a template file says: `[set/]name[.channel kind][.locale].hbs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) set: Option<String>,
    /// A kind of message, or `footer`.
    pub(super) what: &'static str,
    pub(super) channel: Option<&'static str>,
    pub(super) locale: Option<&'static str>,
}

/// One template file.
#[derive(Debug)]
pub(super) struct File {
    /// As people write it: `release/finished.zh-CN.hbs`.
    pub(super) path: String,
    pub(super) name: Name,
    pub(super) text: String,
    pub(super) built_in: bool,
}

/// The names a template can have before its first dot.
pub(super) fn whats() -> impl Iterator<Item = &'static str> + Clone {
    KINDS.into_iter().chain([FOOTER])
}

impl Name {
    /// `Err` says what the name should have been.
    pub(super) fn parse(set: Option<&str>, file: &str, channels: &[&'static str]) -> Result<Name, String> {
        let Some(stem) = file.strip_suffix(".hbs") else {
            let stem = file.split('.').next().unwrap_or(file);
            let meant = nearest(stem, whats()).map(|what| format!("; did you mean {what}.hbs?")).unwrap_or_default();
            return Err(format!("is not a template; templates end in .hbs{meant}"));
        };
        let mut parts = stem.split('.');
        let first = parts.next().unwrap_or_default();
        let what = whats().find(|what| *what == first).ok_or_else(|| unknown(first, "kind of message", whats()))?;
        let mut name = Name { set: set.map(str::to_owned), what, channel: None, locale: None };
        for part in parts {
            let channel = channels.iter().copied().find(|channel| *channel == part);
            let locale = LOCALES.into_iter().find(|locale| *locale == part);
            match (channel, locale) {
                (Some(_), _) if name.channel.is_none() && name.locale.is_none() => name.channel = channel,
                (_, Some(_)) if name.locale.is_none() => name.locale = locale,
                (None, None) => {
                    let known = channels.iter().copied().chain(LOCALES);
                    return Err(unknown(part, "channel kind or locale", known));
                }
                _ => return Err("has parts in another order than name[.channel kind][.locale].hbs".to_owned()),
            }
        }
        Ok(name)
    }

    /// Whether this template may serve there.
    pub(super) fn serves(&self, set: Option<&str>, channel: &str, locale: &str) -> bool {
        (self.set.is_none() || self.set.as_deref() == set)
            && self.channel.is_none_or(|own| own == channel)
            && self.locale.is_none_or(|own| own == locale)
    }
}

fn unknown(part: &str, of_what: &str, known: impl Iterator<Item = &'static str> + Clone) -> String {
    match nearest(part, known.clone()) {
        Some(meant) => format!("{part:?} is no {of_what}; did you mean {meant:?}?"),
        None => format!("{part:?} is no {of_what}; there are {}", known.collect::<Vec<_>>().join(", ")),
    }
}

/// The built-in templates.
pub(super) fn built_in(channels: &[&'static str]) -> Vec<File> {
    BUILT_IN
        .iter()
        .filter_map(|(path, text)| {
            let (set, file) = path.split_once('/').map_or((None, *path), |(set, file)| (Some(set), file));
            let name = Name::parse(set, file, channels).ok()?;
            Some(File { path: (*path).to_owned(), name, text: (*text).to_owned(), built_in: true })
        })
        .collect()
}

/// The operator's templates, and what is wrong with the folder. Files that start with a dot and `.md` files are none
/// of ours.
pub(super) fn of_folder(folder: &Path, channels: &[&'static str]) -> (Vec<File>, Vec<Problem>) {
    let mut reading = Reading { channels, files: Vec::new(), problems: Vec::new() };
    reading.folder(folder, None);
    (reading.files, reading.problems)
}

struct Reading<'a> {
    channels: &'a [&'static str],
    files: Vec<File>,
    problems: Vec<Problem>,
}

impl Reading<'_> {
    fn folder(&mut self, folder: &Path, set: Option<&str>) {
        let key = set.unwrap_or("folder");
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) => {
                let said = format!("the folder {} can't be read: {}", folder.display(), error.kind());
                return self.problems.push(Problem::new(key, said));
            }
        };
        let mut names = Vec::new();
        for entry in entries {
            match entry.map(|entry| entry.file_name().into_string()) {
                Ok(Ok(name)) => names.push(name),
                Ok(Err(raw)) => self.problem(set, &raw.to_string_lossy(), "has a name that is not UTF-8"),
                Err(error) => {
                    let said = format!("the folder {} can't be read: {}", folder.display(), error.kind());
                    self.problems.push(Problem::new(key, said));
                }
            }
            if names.len() + self.files.len() > FILES_AT_MOST {
                let said = format!("the folder {} holds more than {FILES_AT_MOST} files", folder.display());
                self.problems.push(Problem::new(key, said));
                break;
            }
        }
        names.retain(|name| !name.starts_with('.') && !name.ends_with(".md"));
        names.sort_unstable();
        for name in names {
            self.entry(folder, set, &name);
        }
    }

    fn entry(&mut self, folder: &Path, set: Option<&str>, name: &str) {
        let path = folder.join(name);
        if path.is_dir() {
            match set {
                None => self.folder(&path, Some(name)),
                Some(_) => self.problem(set, name, "is a folder in a template set; sets hold files only"),
            }
            return;
        }
        match Name::parse(set, name, self.channels) {
            Err(said) => self.problem(set, name, &said),
            Ok(parsed) => match read(&path) {
                Err(said) => self.problem(set, name, &said),
                Ok(text) => self.files.push(File { path: shown(set, name), name: parsed, text, built_in: false }),
            },
        }
    }

    fn problem(&mut self, set: Option<&str>, name: &str, said: &str) {
        self.problems.push(Problem::new(shown(set, name), said));
    }
}

fn shown(set: Option<&str>, name: &str) -> String {
    set.map_or_else(|| name.to_owned(), |set| format!("{set}/{name}"))
}

fn read(path: &Path) -> Result<String, String> {
    let unreadable = |error: std::io::Error| format!("can't be read: {}", error.kind());
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err("is not a file".to_owned());
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(SOURCE_AT_MOST as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > SOURCE_AT_MOST {
        return Err(format!("is larger than {} KiB", SOURCE_AT_MOST / 1024));
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8 text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANNELS: [&str; 2] = ["dingtalk", "slack-webhook"];

    #[test]
    fn a_name_says_what_where_and_in_which_language() {
        let name = Name::parse(Some("release"), "finished.slack-webhook.zh-CN.hbs", &CHANNELS).unwrap();
        assert_eq!(name.what, "finished");
        assert_eq!((name.channel, name.locale), (Some("slack-webhook"), Some("zh-CN")));
        assert!(name.serves(Some("release"), "slack-webhook", "zh-CN"));
        assert!(!name.serves(None, "slack-webhook", "zh-CN"), "a set's template serves that set alone");
        assert!(!name.serves(Some("release"), "dingtalk", "zh-CN"));
        let general = Name::parse(None, "stage.hbs", &CHANNELS).unwrap();
        assert!(general.serves(Some("release"), "dingtalk", "en"));
    }

    #[test]
    fn a_wrong_name_is_told_what_was_meant() {
        let said = |file| Name::parse(None, file, &CHANNELS).unwrap_err();
        assert!(said("finnished.hbs").contains("\"finished\""));
        assert!(said("finished.zh-cn.hbs").contains("\"zh-CN\""));
        assert!(said("finished.slack.hbs").contains("slack-webhook"));
        assert!(said("finished.zh-CN.dingtalk.hbs").contains("order"));
        assert!(said("finished.html").contains("finished.hbs"));
        assert!(
            said("completely-else.hbs").contains("started, stage, waiting, finished, lost, digest, notice, footer")
        );
    }

    #[test]
    fn every_built_in_template_has_a_name_and_serves_every_locale() {
        let files = built_in(&CHANNELS);
        assert_eq!(files.len(), BUILT_IN.len());
        for file in &files {
            let others =
                files.iter().filter(|other| other.name.what == file.name.what && other.name.set == file.name.set);
            let locales: Vec<_> = others.map(|other| other.name.locale.unwrap_or("en")).collect();
            for locale in LOCALES {
                assert!(locales.contains(&locale), "{} has no {locale} wording", file.path);
            }
        }
    }
}
