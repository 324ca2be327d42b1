//! Changes as they happen, to check templates with and to show what messages look like.

use crate::model::{Change, ChangeKind, RunId, Snapshot, Stage, Status, Timestamp, Workspace};

/// 2026-11-24 16:05 in Shanghai.
const AT_SECOND: i64 = 1_795_507_500;

/// One change of every kind and of every status worth seeing.
pub(super) fn full() -> Vec<Change> {
    use Status::{Cancel, Fail, Init, Running, Success, Termination};
    let paused = Status::Unknown("Suspended".to_owned());
    let no_table = "table ods_orders_di does not exist";
    let half = [Success, Running, Init];
    let finished = |to: Status| ChangeKind::Finished { from: Running, to, took_ms: Some(853_000) };
    vec![
        change(1, &[Success, Running, Init], Running, "", ChangeKind::Started),
        change(2, &half, Running, "", stage("PROD_CHECK", Init, Running, None)),
        change(3, &[Success, Success, Init], Running, "", stage("PROD_CHECK", Running, Success, Some(48_000))),
        change(4, &[Success, Success, Fail], Running, no_table, stage("PROD", Running, Fail, Some(190_000))),
        change(3, &[Success, paused.clone(), Init], Running, "", stage("PROD_CHECK", Running, paused, Some(7_500_000))),
        change(
            4,
            &[Success, Success, Init],
            Running,
            "",
            ChangeKind::Waiting { stage: "PROD".to_owned(), since: second(AT_SECOND - 600) },
        ),
        change(6, &[Success, Success, Success], Success, "", finished(Success)),
        change(5, &[Success, Success, Fail], Fail, no_table, finished(Fail)),
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
