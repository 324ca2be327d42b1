//! Several changes as one message: grouped by run, those that need somebody first, every one of them named.

use serde::Serialize;
use serde_json::{Value, json};

use super::clean;
use super::facts::{self, Facts, View};
use super::words::{brief, moment};
use crate::model::{Change, ChangeKind, Folding, Snapshot, Stage, Status, Timestamp, Tone};

/// How long texts are, in characters, so that every run and every change still finds its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    /// Titles and failure texts; none: the id alone names a run.
    title: Option<usize>,
    /// Codes of stages, and what else is short where all is well.
    code: usize,
}

/// From roomy to tight. The last one fits every platform whatever the texts are: an escape takes five units at most.
pub(super) const SIZES: [Size; 6] = [
    Size { title: Some(60), code: 60 },
    Size { title: Some(30), code: 30 },
    Size { title: Some(16), code: 16 },
    Size { title: None, code: 16 },
    Size { title: None, code: 8 },
    Size { title: None, code: 4 },
];

/// What needs somebody comes first.
const BY_URGENCY: [Tone; 6] = [Tone::Bad, Tone::Waiting, Tone::Stopped, Tone::Unknown, Tone::Good, Tone::Progress];

/// The changes of a digest by run.
pub(super) struct Digest<'a> {
    runs: Vec<Run<'a>>,
    why: Folding,
}

struct Run<'a> {
    /// In order; never empty.
    changes: Vec<&'a Change>,
    last: &'a Change,
    /// As it is now, where that is known, else as its last change left it.
    snapshot: &'a Snapshot,
    /// The snapshot shows it as it is now.
    present: bool,
    tone: Tone,
}

impl<'a> Digest<'a> {
    /// `present` is where the run stands now; it counts where all changes are of that run.
    pub(super) fn of(changes: &'a [Change], why: Folding, present: Option<&'a Snapshot>) -> Digest<'a> {
        let mut runs: Vec<Run<'a>> = Vec::new();
        for change in changes {
            let same = |run: &&mut Run<'_>| {
                run.last.run.id == change.run.id
                    && run.last.workspace.region == change.workspace.region
                    && run.last.workspace.project_id == change.workspace.project_id
            };
            match runs.iter_mut().find(same) {
                Some(run) => {
                    run.changes.push(change);
                    (run.last, run.snapshot) = (change, &change.run);
                }
                None => {
                    let (snapshot, present, tone) = (&change.run, why == Folding::Rate, Tone::Progress);
                    runs.push(Run { changes: vec![change], last: change, snapshot, present, tone });
                }
            }
        }
        if let ([run], Some(snapshot)) = (runs.as_mut_slice(), present)
            && snapshot.id == run.snapshot.id
        {
            (run.snapshot, run.present) = (snapshot, true);
        }
        for run in &mut runs {
            run.present |= run.snapshot.status.is_terminal() || run.is_lost();
            run.tone = run.tone();
        }
        runs.sort_by_key(|run| BY_URGENCY.iter().position(|tone| *tone == run.tone));
        Digest { runs, why }
    }

    /// That of the run that most needs somebody.
    pub(super) fn tone(&self) -> Tone {
        self.runs.first().map_or(Tone::Unknown, |run| run.tone)
    }

    /// The link that all of it has in common; else empty.
    pub(super) fn url(&self) -> &'a str {
        let mut urls = self.changes().map(|change| change.url.as_str());
        let first = urls.next().unwrap_or_default();
        if urls.all(|url| url == first) { first } else { "" }
    }

    fn changes(&self) -> impl Iterator<Item = &'a Change> {
        self.runs.iter().flat_map(|run| run.changes.iter().copied())
    }

    /// The run it is about, where late changes of one are told: the message says where that stands.
    fn one(&self) -> Option<&Run<'a>> {
        match (self.runs.as_slice(), self.why) {
            ([run], Folding::Late) => Some(run),
            _ => None,
        }
    }

    pub(super) fn facts(&self, view: &View<'_>, size: Size) -> Facts {
        let words = view.words;
        let newest = self.changes().map(|change| change.at).max().unwrap_or(view.now);
        let tally = BY_URGENCY.into_iter().filter_map(|tone| {
            let count = self.runs.iter().filter(|run| run.tone == tone).count();
            (count > 0).then(|| json!({ "count": count, "state": state(tone), "word": words.tone(tone) }))
        });
        let url = facts::url(self.url());
        let several = Facts {
            symbol: self.tone().symbol(),
            workspace: self.workspace(size),
            at: moment(newest, view.zone, view.now),
            zone: super::words::abbreviation(view.zone, view.now),
            unseen_since: self.unseen_since().map(|since| brief(since, view.zone, view.now)),
            delayed: self.delayed(view),
            url_label: if url.is_empty() { String::new() } else { words.open.to_owned() },
            url,
            late: Some(self.why == Folding::Late),
            present: Some(self.runs.iter().all(|run| run.present)),
            state: Some(state(self.tone())),
            state_word: Some(words.tone(self.tone()).to_owned()),
            count: Some(self.changes().count()),
            tally: tally.collect(),
            runs: self.runs.iter().map(|run| run.facts(view, size, self.workspace(size).is_none())).collect(),
            ..Facts::default()
        };
        match self.one() {
            Some(run) => run.whole(several, view, size),
            None => several,
        }
    }

    /// Title and body without a template.
    pub(super) fn plain(&self, view: &View<'_>, size: Size) -> (String, String) {
        let title = format!("{} {} changes of {} runs", self.tone().symbol(), self.changes().count(), self.runs.len());
        let lines = self.runs.iter().map(|run| {
            let told: Vec<String> = run.told(view, size).map(|told| told.to_string()).collect();
            let word = run.state_word(view, size);
            format!("{} {} {word}: {}", run.tone.symbol(), run.snapshot.id.short(), told.join(", "))
        });
        (title, lines.collect::<Vec<_>>().join("\n"))
    }

    /// Where all of it happened, if that is one place.
    fn workspace(&self, size: Size) -> Option<Value> {
        let mut workspaces = self.changes().map(|change| &change.workspace);
        let first = workspaces.next()?;
        let mut workspace = first.clone();
        workspace.name = clean::line(&first.name, size.code);
        workspace.region = clean::line(&first.region, size.code);
        workspaces.all(|other| other.key() == first.key()).then(|| facts::workspace(&workspace))
    }

    /// Since when nobody had looked, where that goes for all of it.
    fn unseen_since(&self) -> Option<Timestamp> {
        let mut times = self.changes().map(|change| (change.unseen_since, change.at));
        let first = times.next()?;
        if times.all(|each| each == first) { first.0 } else { None }
    }

    /// How late the message is: for the oldest part of it.
    fn delayed(&self, view: &View<'_>) -> Option<String> {
        let moments = || self.changes().map(|change| change.unseen_since.unwrap_or(change.at));
        let late = facts::delayed(moments().min()?, view)?;
        let exact = moments().count() == 1 && self.unseen_since().is_none();
        Some(if exact { late } else { view.words.up_to(&late) })
    }
}

impl Run<'_> {
    fn is_lost(&self) -> bool {
        matches!(self.last.kind, ChangeKind::Lost { .. })
    }

    /// How the run should feel as it stands, not how its last change did.
    fn tone(&self) -> Tone {
        let run = self.snapshot;
        let told_to_wait = |code: &str| {
            self.changes.iter().any(|change| matches!(&change.kind, ChangeKind::Waiting { stage, .. } if stage == code))
        };
        let has = |wanted: fn(&Status) -> bool| run.stages.iter().any(|stage| wanted(&stage.status));
        match Tone::of(&run.status) {
            _ if self.is_lost() => Tone::Unknown,
            Tone::Progress if has(|status| *status == Status::Fail) => Tone::Bad,
            Tone::Progress if run.gate().is_some_and(|stage| told_to_wait(&stage.code)) => Tone::Waiting,
            Tone::Progress if has(|status| matches!(status, Status::Unknown(_))) => Tone::Unknown,
            tone => tone,
        }
    }

    /// The stage the run is at; none where it ended well.
    fn stage(&self) -> Option<&Stage> {
        let run = self.snapshot;
        let of_status = |status: &Status| run.stages.iter().find(|stage| stage.status == *status);
        match self.tone {
            Tone::Good => None,
            Tone::Bad => of_status(&Status::Fail).or(run.current()),
            _ => of_status(&run.status).filter(|_| run.status.is_terminal()).or(run.current()),
        }
    }

    fn error(&self) -> Option<String> {
        let status = if self.tone == Tone::Bad { &Status::Fail } else { &self.snapshot.status };
        facts::error(status, self.snapshot, self.stage())
    }

    fn state_word(&self, view: &View<'_>, size: Size) -> String {
        let words = view.words;
        let said = match (&self.snapshot.status, self.tone) {
            _ if self.is_lost() => words.lost,
            (_, Tone::Bad | Tone::Waiting) => words.tone(self.tone),
            (Status::Unknown(raw), _) if size.title.is_some() => raw,
            (_, Tone::Unknown) => words.unclear,
            (status, _) => words.run_status(status),
        };
        match clean::line(said, size.code) {
            said if said.is_empty() => words.unclear.to_owned(),
            said => said,
        }
    }

    fn told(&self, view: &View<'_>, size: Size) -> impl Iterator<Item = Told> {
        self.changes.iter().map(move |change| Told::of(change, view, size))
    }

    /// One of several runs.
    fn facts(&self, view: &View<'_>, size: Size, elsewhere: bool) -> Value {
        let run = self.snapshot;
        let text = |text: &str| size.title.map(|most| clean::line(text, most)).filter(|text| !text.is_empty());
        let error = self.error().filter(|_| size.title.is_some_and(|most| most > 16));
        json!({
            "symbol": self.tone.symbol(),
            "present": self.present,
            "state": state(self.tone),
            "state_word": self.state_word(view, size),
            "id": run.id.as_str(),
            "short": run.id.short(),
            "title": text(&run.description),
            "workspace": text(&self.last.workspace.name).filter(|_| elsewhere),
            "error": error.and_then(|error| text(&error)),
            "changes": self.told(view, size).collect::<Vec<_>>(),
        })
    }

    /// The only run of a message, which has room for where it stands.
    fn whole(&self, several: Facts, view: &View<'_>, size: Size) -> Facts {
        let mut run = self.snapshot.clone();
        let error = self.error().map(|error| clean::block(&error, size.title.map_or(0, |most| most * 8)));
        let mut stage = self.stage().cloned();
        run.description = clean::line(&run.description, size.title.map_or(size.code, |most| most * 2));
        run.creator = clean::line(&run.creator, size.code);
        if let Some(stage) = &mut stage {
            stage.name = clean::line(&stage.name, size.code);
            stage.kind = clean::line(&stage.kind, size.code);
        }
        let stage = stage.map(|stage| {
            let mut facts = facts::stage(&stage, self.snapshot, view.words);
            if let Some(code) = facts.get_mut("code") {
                *code = clean::line(&stage.code, size.code).into();
            }
            facts
        });
        Facts {
            run: Some(facts::run(&run, view)),
            stage: stage.filter(|_| !self.is_lost()),
            error: error.filter(|error| !error.is_empty()),
            state_word: Some(self.state_word(view, size)),
            ..several
        }
    }
}

/// One change among others: `PROD`, `failed`, `16:05`.
#[derive(Serialize)]
struct Told {
    code: Option<String>,
    word: String,
    at: String,
    unseen_since: Option<String>,
}

impl Told {
    fn of(change: &Change, view: &View<'_>, size: Size) -> Told {
        let words = view.words;
        // What DataWorks does not document may be long; our own words stay whole.
        let said = |status: &Status, word: &str| match status {
            Status::Unknown(_) => clean::line(word, size.code),
            _ => word.to_owned(),
        };
        let (code, word) = match &change.kind {
            ChangeKind::Started => (None, words.started.to_owned()),
            ChangeKind::StageChanged { stage, to, .. } => (Some(stage), said(to, words.stage_status(to))),
            ChangeKind::Waiting { stage, .. } => (Some(stage), words.waits.to_owned()),
            ChangeKind::Finished { to, .. } => (None, words.run_ended(&said(to, words.run_status(to)))),
            ChangeKind::Lost { .. } => (None, words.lost.to_owned()),
        };
        Told {
            code: code.map(|code| clean::line(code, size.code)),
            word: if word.is_empty() { words.unclear.to_owned() } else { word },
            at: brief(change.at, view.zone, view.now),
            unseen_since: change.unseen_since.map(|since| brief(since, view.zone, view.now)),
        }
    }
}

impl std::fmt::Display for Told {
    /// Without a template: `PROD failed 16:05`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(code) = &self.code {
            write!(f, "{code} ")?;
        }
        write!(f, "{} ", self.word)?;
        if let Some(since) = &self.unseen_since {
            write!(f, "{since} – ")?;
        }
        f.write_str(&self.at)
    }
}

/// The name of a tone, for templates to compare with.
fn state(tone: Tone) -> &'static str {
    match tone {
        Tone::Bad => "failed",
        Tone::Waiting => "waiting",
        Tone::Stopped => "stopped",
        Tone::Unknown => "unknown",
        Tone::Good => "succeeded",
        Tone::Progress => "running",
    }
}
