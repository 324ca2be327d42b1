//! Messages as they happen, to check templates with and to show what they look like.

use jiff::SignedDuration;
use uuid::Uuid;

use super::Sample;
use crate::model::{
    Change, ChangeKind, Content, Destination, Draft, Folding, Notice, NoticeKind, RunId, Snapshot, Stage, Status,
    Timestamp, Workspace,
};

/// 2026-11-24 16:05 in Shanghai.
const AT_SECOND: i64 = 1_795_507_500;
const NO_TABLE: &str = "table ods_orders_di does not exist";

/// Every message worth seeing.
pub(super) fn all() -> Vec<Sample> {
    let changes = full().into_iter().map(|change| (name(&change), Draft::of(ID, Content::Change(change))));
    let notices = notices().into_iter().map(|kind| {
        let name = format!("notice-{}", kind.name().replace('.', "-"));
        (name, Draft::of(ID, Content::Notice(Notice { at: at(), kind })))
    });
    let samples = changes.chain(digests()).chain(notices);
    samples.map(|(name, draft)| Sample { name, draft, now: at() }).collect()
}

/// The least each message can hold: everything that may be missing is missing.
pub(super) fn least() -> Vec<Sample> {
    let changes = minimal().into_iter().map(Content::Change);
    let digests = [Folding::Rate, Folding::Late].map(|why| Content::Digest { changes: minimal(), why });
    let alone = minimal().into_iter().map(|change| Content::Digest { changes: vec![change], why: Folding::Late });
    let notices = notices().into_iter().map(|mut kind| {
        match &mut kind {
            NoticeKind::DestinationDead { reason, .. }
            | NoticeKind::DestinationRefusing { reason, .. }
            | NoticeKind::BotDenied { reason, .. } => reason.clear(),
            NoticeKind::SourceDenied { workspaces, reason } => (workspaces.clear(), reason.clear()).1,
            NoticeKind::SourceBack { workspaces, .. } => workspaces.clear(),
            NoticeKind::DestinationBack { .. }
            | NoticeKind::DestinationAccepting { .. }
            | NoticeKind::BotBack { .. } => {}
        }
        Content::Notice(Notice { at: second(AT_SECOND - 36_000), kind })
    });
    let contents = changes.chain(digests).chain(alone).chain(notices);
    contents.map(|content| Sample { name: String::new(), draft: Draft::of(ID, content), now: at() }).collect()
}

/// Shown where a message has to name itself.
const ID: Uuid = Uuid::from_u128(0x0193_5d2c_7a10_7000_8000_0000_0000_0001);

/// `stage-fail`, `finished-success`, `waiting`
fn name(change: &Change) -> String {
    let status = match &change.kind {
        ChangeKind::StageChanged { to, .. } | ChangeKind::Finished { to, .. } => Some(to.as_str().to_ascii_lowercase()),
        _ => None,
    };
    std::iter::once(change.kind.name().to_owned()).chain(status).collect::<Vec<_>>().join("-")
}

/// Several changes as one message, and one that may have come before.
fn digests() -> Vec<(String, Draft)> {
    let hours = |hours: i64| SignedDuration::from_hours(hours);
    let orders = || orders().map(|change| Change { at: earlier(change.at, hours(6)), ..change });
    let late = |changes: Vec<Change>| Content::Digest { changes, why: Folding::Late };
    let present = orders().last().map(|change| change.run.clone());
    let unseen = orders().map(|change| Change { at: at(), unseen_since: Some(earlier(at(), hours(6))), ..change });
    let of_three: Vec<Change> = [users(), clicks(), self::orders().to_vec()].concat();
    let lately = of_three.iter().map(|change| Change { at: earlier(change.at, hours(17)), ..change.clone() });
    let fail = change(
        4,
        &[Status::Success, Status::Success, Status::Fail],
        Status::Running,
        NO_TABLE,
        stage("PROD", Status::Running, Status::Fail, Some(190_000)),
    );
    [
        ("digest", Draft::of(ID, Content::Digest { changes: of_three.clone(), why: Folding::Rate })),
        ("catch-up", Draft { present, ..Draft::of(ID, late(orders().to_vec())) }),
        ("catch-up-unseen", Draft::of(ID, late(unseen.to_vec()))),
        ("catch-up-one", Draft::of(ID, late(users().into_iter().skip(1).map(hour_ago).collect()))),
        ("catch-up-runs", Draft::of(ID, late(lately.collect()))),
        ("repeated", Draft { repeated: true, ..Draft::of(ID, Content::Change(fail)) }),
    ]
    .map(|(name, draft)| (name.to_owned(), draft))
    .to_vec()
}

fn hour_ago(change: Change) -> Change {
    Change { at: earlier(change.at, SignedDuration::from_hours(1)), ..change }
}

fn earlier(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.saturating_sub(by).unwrap_or(at)
}

/// A run that failed within two minutes.
fn orders() -> [Change; 3] {
    use Status::{Fail, Init, Running, Success};
    let finished = ChangeKind::Finished { from: Running, to: Fail, took_ms: Some(853_000) };
    [
        (110, change(3, &[Success, Success, Init], Running, "", stage("PROD_CHECK", Running, Success, Some(48_000)))),
        (12, change(4, &[Success, Success, Fail], Running, NO_TABLE, stage("PROD", Running, Fail, Some(190_000)))),
        (12, change(5, &[Success, Success, Fail], Fail, NO_TABLE, finished)),
    ]
    .map(|(ago, change)| Change { at: second(AT_SECOND - ago), ..change })
}

/// A run that waits for somebody.
fn users() -> Vec<Change> {
    use Status::{Init, Running, Success};
    let waiting = ChangeKind::Waiting { stage: "PROD".to_owned(), since: second(AT_SECOND - 200) };
    vec![
        change(3, &[Success, Success, Init], Running, "", stage("PROD_CHECK", Running, Success, Some(31_000))),
        change(4, &[Success, Success, Init], Running, "", waiting),
    ]
    .into_iter()
    .map(|change| of_run(change, "91c0aa17-20ec-4a7c-a214-54020f910001", "users_hourly v3", 80))
    .collect()
}

/// A run that goes on.
fn clicks() -> Vec<Change> {
    use Status::{Init, Running};
    let change = change(1, &[Running, Init, Init], Running, "", ChangeKind::Started);
    vec![of_run(change, "03ffab10-20ec-4a7c-a214-54020f910002", "clicks_rt v7", 60)]
}

fn of_run(change: Change, id: &str, description: &str, ago: i64) -> Change {
    let id = id.parse().unwrap_or_else(|_| sample_id());
    let run = Snapshot { id, description: description.to_owned(), ..change.run };
    Change { run, at: second(AT_SECOND - ago), ..change }
}

/// One of every kind.
fn notices() -> Vec<NoticeKind> {
    let since = second(AT_SECOND - 24_900);
    let destination = || Destination::Channel("ops".to_owned());
    let surface = || "discord".to_owned();
    let workspaces = || vec!["warehouse".to_owned(), "marketing".to_owned()];
    let text = str::to_owned;
    vec![
        NoticeKind::DestinationDead {
            destination: destination(),
            reason: text(
                "the Discord webhook no longer exists; make a new one and configure its URL (Discord's code 10015)",
            ),
        },
        NoticeKind::DestinationBack { destination: destination(), since },
        NoticeKind::DestinationRefusing {
            destination: destination(),
            reason: text("the webhook answered with status 400"),
        },
        NoticeKind::DestinationAccepting { destination: destination(), since },
        NoticeKind::BotDenied { surface: surface(), reason: text("Discord refuses the bot's token (status 401)") },
        NoticeKind::BotBack { surface: surface(), since },
        NoticeKind::SourceDenied {
            workspaces: workspaces(),
            reason: text("the access key does not exist (InvalidAccessKeyId.NotFound)"),
        },
        NoticeKind::SourceBack { workspaces: workspaces(), since },
    ]
}

/// One change of every kind and of every status worth seeing.
pub(super) fn full() -> Vec<Change> {
    use Status::{Cancel, Fail, Init, Running, Success, Termination};
    let paused = Status::Unknown("Suspended".to_owned());
    let half = [Success, Running, Init];
    let finished = |to: Status| ChangeKind::Finished { from: Running, to, took_ms: Some(853_000) };
    vec![
        change(1, &[Success, Running, Init], Running, "", ChangeKind::Started),
        change(2, &half, Running, "", stage("PROD_CHECK", Init, Running, None)),
        change(3, &[Success, Success, Init], Running, "", stage("PROD_CHECK", Running, Success, Some(48_000))),
        change(4, &[Success, Success, Fail], Running, NO_TABLE, stage("PROD", Running, Fail, Some(190_000))),
        change(3, &[Success, paused.clone(), Init], Running, "", stage("PROD_CHECK", Running, paused, Some(7_500_000))),
        change(
            4,
            &[Success, Success, Init],
            Running,
            "",
            ChangeKind::Waiting { stage: "PROD".to_owned(), since: second(AT_SECOND - 600) },
        ),
        change(6, &[Success, Success, Success], Success, "", finished(Success)),
        change(5, &[Success, Success, Fail], Fail, NO_TABLE, finished(Fail)),
        change(5, &[Success, Success, Termination], Termination, "", finished(Termination)),
        change(4, &[Success, Success, Cancel], Cancel, "", finished(Cancel)),
        change(4, &half, Running, "", ChangeKind::Lost { last_seen: second(AT_SECOND - 900) }),
    ]
}

/// The least a change can hold: everything that may be missing is missing.
pub(super) fn minimal() -> Vec<Change> {
    let odd = || Status::Unknown(String::new());
    let kinds = [
        ChangeKind::Started,
        stage("GONE", odd(), odd(), None),
        stage("GONE", Status::Init, Status::Success, None),
        stage("GONE", Status::Init, Status::Fail, None),
        ChangeKind::Waiting { stage: "GONE".to_owned(), since: second(AT_SECOND) },
        ChangeKind::Finished { from: odd(), to: Status::Fail, took_ms: None },
        ChangeKind::Finished { from: odd(), to: Status::Success, took_ms: None },
        ChangeKind::Lost { last_seen: second(AT_SECOND) },
    ];
    let bare = |kind| Change {
        workspace: Workspace { name: String::new(), region: String::new(), project_id: 0 },
        run: Snapshot {
            description: String::new(),
            creator: String::new(),
            created_at: None,
            modified_at: None,
            stages: Vec::new(),
            ..snapshot(&[], Status::Unknown(String::new()), "")
        },
        url: String::new(),
        sequence: 1,
        at: second(AT_SECOND),
        unseen_since: None,
        kind,
    };
    kinds.into_iter().map(bare).collect()
}

/// When the samples happen.
pub(super) fn at() -> Timestamp {
    second(AT_SECOND)
}

fn second(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn stage(code: &str, from: Status, to: Status, took_ms: Option<i64>) -> ChangeKind {
    ChangeKind::StageChanged { stage: code.to_owned(), from, to, took_ms }
}

fn change(sequence: i64, stages: &[Status; 3], status: Status, message: &str, kind: ChangeKind) -> Change {
    let run = snapshot(stages, status, message);
    Change {
        workspace: Workspace { name: "warehouse".to_owned(), region: "cn-shanghai".to_owned(), project_id: 10000 },
        url: "https://dataworks.data.aliyun.com/cn-shanghai/ide?defaultProjectId=10000".to_owned(),
        run,
        sequence,
        at: second(AT_SECOND),
        unseen_since: None,
        kind,
    }
}

fn snapshot(statuses: &[Status], status: Status, message: &str) -> Snapshot {
    let stages = [
        ("BUILD_PACKAGE", "Build package", "Build"),
        ("PROD_CHECK", "Production check", "Check"),
        ("PROD", "Deploy to production", "Deploy"),
    ];
    let stages = stages.iter().zip(statuses).zip(1..).map(|(((code, name, kind), status), step)| Stage {
        code: (*code).to_owned(),
        name: (*name).to_owned(),
        step,
        kind: (*kind).to_owned(),
        status: status.clone(),
        message: if *status == Status::Fail { message.to_owned() } else { String::new() },
    });
    Snapshot {
        id: sample_id(),
        description: "orders_daily v12".to_owned(),
        creator: "137946317766XXXX".to_owned(),
        message: if status == Status::Fail { message.to_owned() } else { String::new() },
        status,
        created_at: Some(second(AT_SECOND - 853)),
        modified_at: Some(second(AT_SECOND)),
        stages: stages.collect(),
    }
}

fn sample_id() -> RunId {
    "7b1e04c2-20ec-4a7c-a214-54020f910000".parse().unwrap_or_else(|_| unreachable!("the sample id is an id"))
}
