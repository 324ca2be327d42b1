//! Answers of DataWorks into nouns of the model. Pure; survives whatever the documentation, the SDKs and captured
//! answers disagree on.
//!
//! <https://www.alibabacloud.com/help/en/dataworks/developer-reference/api-dataworks-public-2024-05-18-getpipelinerun>

use std::collections::HashSet;

use super::errors;
use super::loose::Loose;
use crate::model::{RunId, Snapshot, Stage, Status, Timestamp};
use crate::sources::{Item, Listing, PAGE_SIZE, SourceErrorKind};

/// Bytes of a failure text that are kept.
const MESSAGE_BYTES: usize = 4 * 1024;
/// Bytes of a name or description that are kept.
const NAME_BYTES: usize = 1024;
/// Bytes of a status, a code, a type or a user id that are kept.
const WORD_BYTES: usize = 128;
/// Stages of one run that are kept; five is the most ever seen.
const STAGES: usize = 256;
/// Millisecond times outside 2010 to 2100 are nonsense.
const PLAUSIBLE_MS: std::ops::Range<i64> = 1_262_304_000_000..4_102_444_800_000;

/// The runs of a ListPipelineRuns answer, in the order given. A run that can't be told apart, or that belongs to
/// another workspace, is left out with a warning: one odd run must not blind the poller to all others.
pub fn runs(body: &Loose, project_id: i64) -> Result<Listing, SourceErrorKind> {
    let page = page(body)?;
    let listed = [page.get("PipelineRuns"), page.get("Deployments")].into_iter().find(|l| !l.is_nothing());
    let mut seen = HashSet::new();
    let listed = listed.unwrap_or(&Loose::Nothing).list();
    let runs = listed
        .iter()
        .filter_map(|run| match snapshot(run) {
            Err(said) => {
                tracing::warn!(project_id, said, "left a run out of the list");
                None
            }
            Ok(_) if run.get("ProjectId").integer().is_some_and(|id| id != project_id) => {
                tracing::warn!(project_id, "left a run of another workspace out of the list");
                None
            }
            Ok(snapshot) => seen.insert(snapshot.id.clone()).then_some(snapshot),
        })
        .collect();
    Ok(Listing { runs, full: listed.len() >= PAGE_SIZE })
}

/// The run of a GetPipelineRun answer. No run in it means that there is none, or none this key may see; another run
/// than the one asked for is an answer that makes no sense.
pub fn run(body: &Loose, project_id: i64, asked: &RunId) -> Result<Snapshot, SourceErrorKind> {
    let run = [body.get("Pipeline"), body.get("Deployment")].into_iter().find(|r| !r.is_nothing());
    let run = run.ok_or(SourceErrorKind::NoSuchRun)?;
    let snapshot = snapshot(run).map_err(|said| SourceErrorKind::Broken { said: said.to_owned() })?;
    if !snapshot.id.as_str().eq_ignore_ascii_case(asked.as_str()) {
        let said = format!("asked for run {asked}, it answered with run {}", snapshot.id);
        return Err(SourceErrorKind::Broken { said });
    }
    if let Some(other) = run.get("ProjectId").integer().filter(|id| *id != project_id) {
        let said = format!("asked for a run of workspace {project_id}, it answered with one of workspace {other}");
        return Err(SourceErrorKind::Broken { said });
    }
    Ok(snapshot)
}

/// What a ListPipelineRunItems answer names; an item without a name is told by its id.
pub fn items(body: &Loose) -> Result<Vec<Item>, SourceErrorKind> {
    let items = page(body)?.get("PipelineRunItems").list().iter();
    Ok(items
        .filter_map(|item| {
            let name = [word(item, "Name", NAME_BYTES), word(item, "Id", WORD_BYTES)];
            let name = name.into_iter().find(|name| !name.is_empty())?;
            Some(Item { name, kind: word(item, "Type", WORD_BYTES) })
        })
        .collect())
}

/// Whether a 2xx answer carries what was asked for; else it may carry an error.
pub fn has_payload(body: &Loose) -> bool {
    ["Pipeline", "Deployment", "PagingInfo"].iter().any(|key| matches!(body.get(key), Loose::Object(_)))
}

fn page(body: &Loose) -> Result<&Loose, SourceErrorKind> {
    match body.get("PagingInfo") {
        page @ Loose::Object(_) => Ok(page),
        _ => Err(SourceErrorKind::Broken { said: "the answer has no PagingInfo".to_owned() }),
    }
}

fn snapshot(run: &Loose) -> Result<Snapshot, &'static str> {
    let id = run.get("Id").text().ok_or("the run has no Id")?;
    Ok(Snapshot {
        id: id.parse().map_err(|_| "the run's Id is not one")?,
        description: word(run, "Description", NAME_BYTES),
        creator: word(run, "Creator", WORD_BYTES),
        status: status(run),
        message: word(run, "Message", MESSAGE_BYTES),
        created_at: time(run.get("CreateTime")),
        modified_at: time(run.get("ModifyTime")),
        stages: stages(run.get("Stages")),
    })
}

/// In order of their step; told apart by their code, so a code that comes twice becomes `CODE` and `CODE#2`.
fn stages(list: &Loose) -> Vec<Stage> {
    let objects = list.list().iter().filter(|stage| matches!(stage, Loose::Object(_)));
    let mut stages: Vec<Stage> = (1..)
        .zip(objects.take(STAGES))
        .map(|(place, stage)| Stage {
            code: word(stage, "Code", WORD_BYTES),
            name: word(stage, "Name", NAME_BYTES),
            step: stage.get("Step").integer().unwrap_or(place),
            kind: word(stage, "Type", WORD_BYTES),
            status: status(stage),
            message: word(stage, "Message", MESSAGE_BYTES),
        })
        .collect();
    stages.sort_by_key(|stage| stage.step);
    let mut codes = HashSet::new();
    for stage in &mut stages {
        let code = if stage.code.is_empty() { format!("STAGE_{}", stage.step) } else { stage.code.clone() };
        let numbered = (2_usize..=STAGES + 1).map(|n| format!("{code}#{n}"));
        if let Some(free) = std::iter::once(code.clone()).chain(numbered).find(|code| !codes.contains(code)) {
            codes.insert(free.clone());
            stage.code = free;
        }
    }
    stages
}

fn status(object: &Loose) -> Status {
    let said = word(object, "Status", WORD_BYTES);
    Status::from(if said.is_empty() { "Unknown" } else { said.as_str() })
}

fn time(value: &Loose) -> Option<Timestamp> {
    let ms = value.integer().filter(|ms| PLAUSIBLE_MS.contains(ms))?;
    Timestamp::from_millisecond(ms).ok()
}

fn word(object: &Loose, key: &str, bytes: usize) -> String {
    let text = object.get(key).text().unwrap_or_default();
    errors::cap(text.trim(), bytes).to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn parse(body: &serde_json::Value) -> Loose {
        Loose::parse(body.to_string().as_bytes()).unwrap()
    }

    fn id(text: &str) -> RunId {
        text.parse().unwrap()
    }

    #[test]
    fn the_documented_sample_is_understood() {
        let body = Loose::parse(include_bytes!("../../../tests/data/get-pipeline-run-sample.json")).unwrap();
        let run = run(&body, 56160, &id("a7ef0634-20ec-4a7c-a214-54020f91XXXX")).unwrap();
        let stage = Stage {
            code: "DEV_CHECK".into(),
            name: "Publish package build".into(),
            step: 1,
            kind: "Check".into(),
            status: Status::Running,
            message: "Exception information XXX".into(),
        };
        let created: Timestamp = "2024-08-30T02:14:26Z".parse().unwrap();
        let expected = Snapshot {
            id: id("a7ef0634-20ec-4a7c-a214-54020f91XXXX"),
            description: "Description of the pipeline run".into(),
            creator: "137946317766XXXX".into(),
            status: Status::Running,
            message: "Error message".into(),
            created_at: Some(created),
            modified_at: Some(created),
            stages: vec![stage],
        };
        assert_eq!(run, expected, "the Id's trailing line feed and the odd Detail must not matter");
    }

    #[test]
    fn a_list_in_the_shape_of_captured_answers_is_understood() {
        let body = Loose::parse(include_bytes!("../../../tests/data/list-deployments-old-shape.json")).unwrap();
        let runs = runs(&body, 10000).unwrap().runs;
        assert_eq!(runs.len(), 2, "TotalCount \"0\" must not matter");
        assert_eq!(runs[0].gate().map(|stage| stage.code.as_str()), Some("PROD"), "the third stage waits");
        assert_eq!(runs[0].stages[2].message, "", "a stage that has not begun has no Message");
        assert_eq!(runs[1].status, Status::Success, "in upper case");
        assert_eq!(runs[1].creator, "110755000425", "a number");
        assert_eq!(runs[1].created_at, runs[0].created_at, "as text and as number");
    }

    #[test]
    fn one_odd_run_does_not_hide_the_others() {
        let body = parse(&json!({"PagingInfo": {"PipelineRuns": [
            null, 7, "x", [], {}, {"Id": "not an id!"}, {"Id": "a", "ProjectId": 2}, {"Id": "b"}, {"Id": "b"},
            {"Id": 12, "ProjectId": "1"},
        ]}}));
        let ids: Vec<String> = runs(&body, 1).unwrap().runs.into_iter().map(|run| run.id.into()).collect();
        assert_eq!(ids, ["b", "12"], "told once each, and none of another workspace");
    }

    #[test]
    fn missing_and_null_keys_are_survived() {
        for list in [json!({}), json!({"PipelineRuns": null}), json!({"PipelineRuns": "none"})] {
            assert_eq!(runs(&parse(&json!({ "PagingInfo": list })), 1), Ok(Listing { runs: vec![], full: false }));
        }
        let bare = parse(&json!({"Pipeline": {"Id": "a", "Stages": null, "Message": null, "CreateTime": null}}));
        let bare = run(&bare, 1, &id("a")).unwrap();
        assert_eq!((bare.status.is_terminal(), bare.stages.len(), bare.message.as_str()), (false, 0, ""));
    }

    #[test]
    fn no_run_in_a_good_answer_means_no_such_run() {
        for body in [json!({"RequestId": "r"}), json!({"Pipeline": null})] {
            assert_eq!(run(&parse(&body), 1, &id("a")), Err(SourceErrorKind::NoSuchRun));
        }
    }

    #[test]
    fn another_run_than_the_one_asked_for_is_not_believed() {
        for other in [json!({"Id": "b"}), json!({"Id": "a", "ProjectId": 2}), json!({"Status": "Success"}), json!(1)] {
            let got = run(&parse(&json!({ "Pipeline": other })), 1, &id("a"));
            assert!(matches!(got, Err(SourceErrorKind::Broken { .. })), "{other}: {got:?}");
        }
    }

    #[test]
    fn stages_stand_in_order_and_are_told_apart() {
        let stages = json!([
            {"Code": "PROD", "Step": "3"}, {"Code": "CHECK", "Step": 2, "Name": "first"},
            {"Code": "CHECK", "Step": 2, "Name": "second"}, {"Code": "BUILD", "Step": 1}, {"Step": 9}, null,
        ]);
        let run = run(&parse(&json!({"Pipeline": {"Id": "a", "Stages": stages}})), 1, &id("a")).unwrap();
        let codes: Vec<&str> = run.stages.iter().map(|stage| stage.code.as_str()).collect();
        assert_eq!(codes, ["BUILD", "CHECK", "CHECK#2", "PROD", "STAGE_9"]);
        assert_eq!(run.stages[1].name, "first");
    }

    #[test]
    fn nonsense_times_are_no_times() {
        for nonsense in [json!(0), json!(-5), json!(i64::MAX), json!("soon"), json!({}), json!(1_724_984_066)] {
            assert_eq!(time(&parse(&nonsense)), None, "{nonsense}");
        }
        for ms in [json!(1_724_984_066_000_i64), json!("1724984066000"), json!(1.724984066e12)] {
            assert!(time(&parse(&ms)).is_some(), "{ms}");
        }
    }

    #[test]
    fn endless_texts_are_cut_between_characters() {
        let long = "错".repeat(10_000);
        let run = json!({"Id": "a", "Message": long, "Description": long, "Status": long,
                         "Stages": (0..2_000).map(|_| json!({"Code": "X", "Message": long})).collect::<Vec<_>>()});
        let run = snapshot(&parse(&run)).unwrap();
        assert_eq!((run.message.len(), run.description.len()), (4095, 1023));
        assert_eq!(run.stages.len(), STAGES);
        assert_eq!(run.stages.iter().map(|stage| &stage.code).collect::<HashSet<_>>().len(), STAGES);
    }

    #[test]
    fn items_are_named_by_name_or_id() {
        let body = parse(&json!({"PagingInfo": {"PipelineRunItems": [
            {"Id": 7, "Name": "orders", "Type": "Node", "Spec": "{}"}, {"Id": "8"}, {"Id": 9}, {},
        ]}}));
        let items: Vec<_> =
            items(&body).unwrap().into_iter().map(|item| format!("{} {}", item.name, item.kind)).collect();
        assert_eq!(items, ["orders Node", "8 ", "9 "]);
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let key = prop_oneof![
            prop::sample::select(vec![
                "Pipeline",
                "PagingInfo",
                "PipelineRuns",
                "Deployments",
                "PipelineRunItems",
                "Stages",
                "Id",
                "Code",
                "Step",
                "Status",
                "ProjectId",
                "CreateTime",
                "Name",
                "Message",
                "Detail",
                "Success",
                "stages",
            ])
            .prop_map(str::to_owned),
            ".{0,3}",
        ];
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(serde_json::Value::from),
            any::<i64>().prop_map(serde_json::Value::from),
            any::<f64>().prop_map(serde_json::Value::from),
            ".{0,8}".prop_map(serde_json::Value::from),
            prop::sample::select(vec!["a", "Success", "RUNNING", "1", "0"]).prop_map(serde_json::Value::from),
        ];
        leaf.prop_recursive(6, 64, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(serde_json::Value::from),
                prop::collection::vec((key.clone(), inner), 0..6).prop_map(|m| m.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_json_at_all_makes_the_parser_panic(value in any_json()) {
            for body in [value.clone(), json!({ "Pipeline": value.clone() }), json!({ "PagingInfo": value })] {
                let body = parse(&body);
                let _ = run(&body, 1, &id("a"));
                let _ = items(&body);
                for run in runs(&body, 1).map(|listing| listing.runs).unwrap_or_default() {
                    let codes: HashSet<_> = run.stages.iter().map(|stage| &stage.code).collect();
                    prop_assert_eq!(codes.len(), run.stages.len());
                    prop_assert!(run.stages.is_sorted_by_key(|stage| stage.step));
                }
            }
        }

        #[test]
        fn no_bytes_at_all_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Loose::parse(&bytes);
        }

        #[test]
        fn a_status_nobody_knows_is_kept_and_is_never_an_end(said in "[A-Za-z_ ]{1,12}") {
            let known = ["init", "running", "success", "fail", "termination", "cancel", ""];
            prop_assume!(!known.contains(&said.trim().to_ascii_lowercase().as_str()));
            let got = status(&parse(&json!({ "Status": said })));
            prop_assert_eq!(got.as_str(), said.trim());
            prop_assert!(!got.is_terminal());
        }
    }
}
