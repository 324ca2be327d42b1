//! What every store promises, whichever engine is behind it. Each case runs on SQLite, on PostgreSQL and on the store in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use callboard::model::{
    ChangeKind, Claimed, Decision, DeliveryState, Destination, Entry, Folding, MOST_FOLDED, Misfit, News, Outcome,
    Place, Plan, RunState, Scope, Selector, Status, Subscription,
};
use callboard::store::{
    AuditFilter, Audited, Claims, DeliveryFilter, Loaded, Moves, NewDelivery, Next, Poll, Recorded, Room, Settlement,
    StoreError, Subscribed, WorkspaceState,
};
use uuid::Uuid;

use crate::store_scene::{
    Ground, Scene, at, change, folded, line, moved, nothing, notice, owed, room, run_id, settled, state, told,
    warehouse, watch,
};

macro_rules! on_every_store {
    ($($case:ident,)*) => {
        mod sqlite {
            use super::{Ground, Scene};
            $(#[tokio::test] async fn $case() { super::$case(Scene::on(Ground::file()).await).await; })*
        }
        mod postgres {
            use super::{Ground, Scene};
            $(#[tokio::test] async fn $case() { super::$case(Scene::on(Ground::postgres().await).await).await; })*
        }
        mod memory {
            use super::{Ground, Scene};
            $(#[tokio::test] async fn $case() { super::$case(Scene::on(Ground::memory()).await).await; })*
        }
    };
}

on_every_store! {
    what_was_recorded_is_there_after_a_restart,
    a_poll_computed_from_an_old_state_writes_nothing,
    the_same_subscription_twice_is_one,
    a_poll_that_did_not_know_of_a_new_subscription_is_refused,
    a_subscription_is_amended_where_it_is_still_about_the_same,
    what_was_stopped_or_is_over_makes_room_for_a_new_one,
    who_waits_for_the_next_run_gets_it_once_and_with_its_start,
    a_start_that_does_not_know_who_waits_for_it_writes_nothing,
    the_last_change_of_a_run_ends_its_watches_and_keeps_its_deliveries,
    a_change_is_owed_once_to_each_destination_and_template,
    one_destination_hears_of_one_run_in_order_and_one_at_a_time,
    claims_take_what_waited_longest_up_to_the_room_and_leave_the_closed,
    a_dead_message_holds_nothing_up_and_can_be_brought_back,
    discarding_what_waits_lets_the_next_one_go,
    a_late_answer_changes_nothing,
    a_delivery_tells_its_whole_story,
    lists_and_figures,
    waiting_for_a_destination_costs_a_message_no_try,
    what_ended_long_ago_is_pruned_and_nothing_else,
    what_a_dead_process_was_sending_is_unknown_and_sent_again,
    what_must_happen_once_is_remembered_over_restarts_until_its_time,
    the_audit_log_is_one_chain_over_restarts_and_forgets_only_its_old_end,
    a_guest_writes_beside_the_owner_who_hears_of_it,
    many_tasks_write_at_once_and_each_hears_its_own_answer,
    what_is_urgent_goes_first_and_takes_what_stands_before_it_along,
    trouble_goes_before_what_ended_well,
    without_what_was_urgent_a_queue_is_as_urgent_as_any_other,
    what_a_clock_that_was_ahead_put_off_is_due,
    destinations_that_failed_take_no_more_room_than_they_may,
    a_plan_may_hold_a_message_or_give_it_up,
    a_digest_tells_what_waits_and_what_it_told_is_told,
    a_digest_holds_no_more_than_it_may_and_takes_urgent_runs_first,
    what_one_template_writes_is_not_folded_into_anothers_message,
    nothing_overtakes_what_may_have_arrived,
    a_message_that_is_tried_again_tells_the_same_under_the_same_id,
    other_words_leave_under_another_id,
    one_late_change_is_told_as_late_and_gathers_more_until_it_may_have_arrived,
    a_digest_that_is_refused_falls_apart_and_is_folded_no_more,
    what_comes_apart_from_a_message_that_may_have_arrived_knows_it,
    what_comes_apart_from_a_message_that_did_not_arrive_is_repeated_under_its_own_id,
    a_digest_that_dies_takes_what_it_told_along_and_each_can_be_brought_back,
    what_a_discarded_message_was_to_tell_waits_for_itself,
    what_is_under_way_cannot_be_taken_back,
    what_was_claimed_and_nobody_heard_of_it_is_claimed_again,
    what_is_discarded_out_of_a_digest_is_told_no_more,
    a_trouble_is_told_once_and_so_is_its_end,
    what_an_end_brings_with_it_is_written_with_it,
    the_rooms_of_a_bot_share_what_is_remembered_of_it,
    what_was_sent_is_remembered_after_a_restart_and_a_person_makes_failures_forgotten,
    after_an_outage_nothing_waits_for_the_retry_it_had_planned,
    several_subscriptions_make_one_message_and_count_as_several,
    a_run_tells_its_history,
    a_destination_that_is_remembered_for_nothing_is_forgotten,
    when_a_workspace_was_seen_is_remembered,
    what_is_bound_to_a_message_goes_when_that_goes,
}

// -------------------------------------------------------------------------------------------- runs and subscriptions

async fn what_was_recorded_is_there_after_a_restart(scene: Scene) {
    let store = &scene.store;
    assert_eq!(store.load().await.unwrap(), Loaded::default());
    let standing = Subscription {
        id: "config:1".to_owned(),
        scope: Scope::Workspace { workspace: warehouse().key() },
        on: BTreeSet::from(Selector::ALL),
        template: Some("release".to_owned()),
        created_at: at(1),
        ..watch("", "r1", "ops")
    };
    store.subscribe(&watch("w1", "r1", "discord:1"), None).await.unwrap();
    store.subscribe(&standing, None).await.unwrap();
    let horizon = WorkspaceState { horizon: Some(at(-9)), seen_at: Some(at(60)), ..nothing().workspace.unwrap() };
    scene.record(&Poll { workspace: Some(horizon.clone()), ..moved("r1", 1, &["ops"]) }).await;
    let before = store.load().await.unwrap();
    let scene = scene.reopen().await;

    let after = scene.store.load().await.unwrap();
    assert_eq!(after, before);
    assert_eq!(after.subscriptions, [watch("w1", "r1", "discord:1"), standing]);
    assert_eq!(after.runs, [(warehouse().key(), state("r1", 1))]);
    assert_eq!(after.workspaces, [horizon]);
}

async fn what_must_happen_once_is_remembered_over_restarts_until_its_time(scene: Scene) {
    let first = scene.store.once("slack:1", at(0), at(300)).await.unwrap();
    assert!(first, "nothing of it is remembered");
    let scene = scene.reopen().await;
    let again = scene.store.once("slack:1", at(300), at(900)).await.unwrap();
    let other = scene.store.once("slack:2", at(300), at(600)).await.unwrap();
    assert_eq!((again, other), (false, true), "until its time, and nobody else's");
    let later = scene.store.once("slack:1", at(301), at(601)).await.unwrap();
    assert!(later, "its time has passed, and asking again has not made it longer");
}

async fn the_audit_log_is_one_chain_over_restarts_and_forgets_only_its_old_end(scene: Scene) {
    let days = |days: i64| at(days * 86_400);
    let entry = |person: &str, decision, when| Entry {
        at: when,
        person: person.to_owned(),
        room: "discord:1".to_owned(),
        action: "watch 7b1e04c2 in warehouse".to_owned(),
        decision,
        reason: "Grund \u{1f511}".to_owned(),
        count: 3,
    };
    let written = [
        entry("discord:7", Decision::Allowed, days(0)),
        entry("discord:8", Decision::Denied, days(1)),
        entry("discord:7", Decision::Withheld, days(2)),
    ];
    let verify = |log: &Audited| -> Result<(), Misfit> {
        let end = log.rows.iter().try_fold(log.anchor.clone(), |link, row| link.follow(row))?;
        end.ends_at(&log.head)
    };
    let all = AuditFilter { after: Some(0), limit: 100, ..AuditFilter::default() };
    assert_eq!(verify(&scene.store.audited(&all).await.unwrap()), Ok(()), "an empty log is one too");
    scene.store.audit(&written[..2]).await.unwrap();
    let scene = scene.reopen().await;
    scene.store.audit(&written[2..]).await.unwrap();
    let log = scene.store.audited(&all).await.unwrap();
    assert_eq!(log.rows.iter().map(|row| row.entry.clone()).collect::<Vec<_>>(), written);
    assert_eq!(verify(&log), Ok(()));
    let numbers = |filter: AuditFilter| {
        let store = Arc::clone(&scene.store);
        async move { store.audited(&filter).await.unwrap().rows.iter().map(|row| row.number).collect::<Vec<_>>() }
    };
    assert_eq!(numbers(AuditFilter { limit: 2, ..AuditFilter::default() }).await, [3, 2], "newest first");
    assert_eq!(numbers(AuditFilter { after: Some(1), limit: 1, ..AuditFilter::default() }).await, [2]);
    assert_eq!(numbers(AuditFilter { denied: true, limit: 9, ..AuditFilter::default() }).await, [3, 2]);
    let of_one = AuditFilter { person: Some("discord:7".to_owned()), limit: 9, ..AuditFilter::default() };
    assert_eq!(numbers(of_one.clone()).await, [3, 1]);
    assert_eq!(numbers(AuditFilter { denied: true, ..of_one }).await, [3]);

    scene.store.prune(days(370)).await.unwrap();
    assert_eq!(numbers(all.clone()).await, [1, 2, 3], "they are kept for 400 days");
    scene.store.prune(days(372)).await.unwrap();
    let log = scene.store.audited(&all).await.unwrap();
    assert_eq!((log.rows.len(), log.anchor.number, verify(&log)), (1, 2, Ok(())));
    scene.store.prune(days(9_000)).await.unwrap();
    let scene = scene.reopen().await;
    scene.store.audit(&written[..1]).await.unwrap();
    let log = scene.store.audited(&all).await.unwrap();
    assert_eq!((log.rows.len(), log.head.number, verify(&log)), (1, 4, Ok(())), "the chain goes on");
}

async fn a_poll_computed_from_an_old_state_writes_nothing(scene: Scene) {
    let store = &scene.store;
    scene.record(&moved("r1", 1, &[])).await;
    scene.record(&moved("r1", 2, &[])).await;
    let before = store.load().await.unwrap();
    for stale in [1, 2, 4] {
        let mut poll = moved("r1", stale, &["ops"]);
        // A good run ahead of the stale one must not slip through.
        poll.runs.insert(0, state("r0", 1));
        poll.changes.push(change("r0", 1));
        poll.deliveries.push(owed("r0", 1, "ops"));
        assert_eq!(store.record(&poll).await.unwrap(), Recorded::Stale, "version {stale} after version 2");
    }
    assert_eq!(store.record(&moved("new", 2, &[])).await.unwrap(), Recorded::Stale, "a new run begins with version 1");
    assert_eq!(store.load().await.unwrap(), before);
    assert_eq!(scene.states().await, []);
    assert_eq!(store.overview().await.unwrap().changes, 2);
}

async fn the_same_subscription_twice_is_one(scene: Scene) {
    let store = &scene.store;
    let state = state("r1", 1);
    let new = store.subscribe(&watch("w1", "r1", "ops"), Some(&state)).await.unwrap();
    assert_eq!(new, Subscribed::New { run: Some(Box::new(state.clone())) });
    let again = store.subscribe(&watch("w2", "r1", "ops"), Some(&state)).await.unwrap();
    assert_eq!(again, Subscribed::Already { id: "w1".to_owned() });
    assert_eq!(store.load().await.unwrap().runs[0].1.version, 1, "what changed nothing must not refuse a poll");

    let other_template = Subscription { template: Some("release".to_owned()), ..watch("w3", "r1", "ops") };
    assert_eq!(store.subscribe(&other_template, None).await.unwrap(), Subscribed::New { run: None });
    assert_eq!(store.subscribe(&watch("w4", "r2", "ops"), None).await.unwrap(), Subscribed::New { run: None });
    assert_eq!(store.subscribe(&watch("w5", "r1", "discord:1"), None).await.unwrap(), Subscribed::New { run: None });

    assert!(store.unsubscribe("w1").await.unwrap());
    assert!(!store.unsubscribe("w1").await.unwrap());
    assert_eq!(store.subscribe(&watch("w2", "r1", "ops"), None).await.unwrap(), Subscribed::New { run: None });
}

async fn a_poll_that_did_not_know_of_a_new_subscription_is_refused(scene: Scene) {
    let store = &scene.store;
    scene.record(&moved("r1", 1, &[])).await;
    store.subscribe(&watch("w1", "r1", "ops"), Some(&state("r1", 1))).await.unwrap();
    assert_eq!(store.record(&moved("r1", 2, &[])).await.unwrap(), Recorded::Stale);
    let loaded = store.load().await.unwrap();
    assert_eq!(loaded.runs[0].1, RunState { version: 2, ..state("r1", 1) }, "only the version moved");
    scene.record(&moved("r1", 3, &["ops"])).await;
    assert_eq!(told(&scene.claim(at(99), 9).await), [line("ops", "r1", 3)]);
}

async fn a_subscription_is_amended_where_it_is_still_about_the_same(scene: Scene) {
    let store = &scene.store;
    scene.record(&moved("r1", 1, &[])).await;
    store.subscribe(&watch("w1", "r1", "discord:1"), Some(&state("r1", 1))).await.unwrap();
    let stopped = Subscription { stopped: Some(at(9)), ..watch("w1", "r1", "discord:1") };
    let elsewhere = watch("w1", "r1", "discord:2");
    let gone = watch("w9", "r1", "discord:1");
    assert_eq!(store.amend(&[elsewhere, gone]).await.unwrap(), Vec::<String>::new());
    assert_eq!(store.load().await.unwrap().subscriptions, [watch("w1", "r1", "discord:1")]);

    assert_eq!(store.amend(std::slice::from_ref(&stopped)).await.unwrap(), ["w1"]);
    let old = store.record(&moved("r1", 3, &["discord:1"])).await.unwrap();
    assert_eq!(old, Recorded::Stale, "a poll that did not know of it");
    scene.record(&moved("r1", 4, &[])).await;
    let scene = scene.reopen().await;
    assert_eq!(scene.store.load().await.unwrap().subscriptions, [stopped]);
}

async fn what_was_stopped_or_is_over_makes_room_for_a_new_one(scene: Scene) {
    let store = &scene.store;
    let new = |id: &str, seconds| Subscription { created_at: at(seconds), ..watch(id, "r1", "discord:1") };
    let first = Subscription { until: Some(at(60)), ..new("w1", 0) };
    store.subscribe(&first, None).await.unwrap();
    let already = Subscribed::Already { id: "w1".to_owned() };
    assert_eq!(store.subscribe(&new("w2", 59), None).await.unwrap(), already, "its time is not over");
    assert_eq!(store.subscribe(&new("w2", 60), None).await.unwrap(), Subscribed::New { run: None });
    assert_eq!(store.load().await.unwrap().subscriptions, [new("w2", 60)]);

    store.amend(&[Subscription { stopped: Some(at(70)), ..new("w2", 60) }]).await.unwrap();
    assert_eq!(store.subscribe(&new("w3", 71), None).await.unwrap(), Subscribed::New { run: None });
    assert_eq!(store.load().await.unwrap().subscriptions, [new("w3", 71)]);
}

fn waiting(id: &str, to: &str) -> Subscription {
    Subscription { scope: Scope::Next { workspace: warehouse().key() }, ..watch(id, "r1", to) }
}

/// The poll that sees a run start.
fn starting(run: &str, begun: &[Subscription]) -> Poll {
    let poll = moved(run, 1, &[]);
    let start =
        poll.changes.iter().cloned().map(|change| callboard::model::Change { kind: ChangeKind::Started, ..change });
    Poll { changes: start.collect(), begun: begun.to_vec(), ..poll }
}

async fn who_waits_for_the_next_run_gets_it_once_and_with_its_start(scene: Scene) {
    let store = &scene.store;
    let over = Subscription { until: Some(at(-100)), ..waiting("w3", "discord:3") };
    let stopped = Subscription { stopped: Some(at(0)), ..waiting("w4", "discord:4") };
    for one in [&waiting("w2", "discord:2"), &waiting("w1", "discord:1"), &over, &stopped] {
        assert_eq!(store.subscribe(one, None).await.unwrap(), Subscribed::New { run: None });
    }
    let already = Subscribed::Already { id: "w1".to_owned() };
    assert_eq!(store.subscribe(&waiting("w9", "discord:1"), None).await.unwrap(), already, "one waits for one run");
    scene.record(&moved("r0", 1, &[])).await;
    let begun = [watch("w1", "r1", "discord:1"), watch("w2", "r1", "discord:2")];
    scene.record(&starting("r1", &begun)).await;
    scene.record(&starting("r2", &[])).await;
    let scene = scene.reopen().await;
    let mut left = scene.store.load().await.unwrap().subscriptions;
    left.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(left, [begun[0].clone(), begun[1].clone(), over, stopped]);
    let again = scene.store.subscribe(&watch("w8", "r1", "discord:1"), None).await.unwrap();
    assert_eq!(again, Subscribed::Already { id: "w1".to_owned() }, "it is on the run now");
    // The place is free for the run after that.
    assert_eq!(scene.store.subscribe(&waiting("w9", "discord:1"), None).await.unwrap(), Subscribed::New { run: None });
}

async fn a_start_that_does_not_know_who_waits_for_it_writes_nothing(scene: Scene) {
    let store = &scene.store;
    store.subscribe(&waiting("w1", "discord:1"), None).await.unwrap();
    let before = store.load().await.unwrap();
    let changed = Subscription { stages: vec!["PROD".to_owned()], ..watch("w1", "r1", "discord:1") };
    let more = watch("w2", "r1", "discord:2");
    for begun in [vec![], vec![changed], vec![watch("w1", "r1", "discord:1"), more]] {
        assert_eq!(store.record(&starting("r1", &begun)).await.unwrap(), Recorded::Stale, "{begun:?}");
        assert_eq!(store.load().await.unwrap(), before);
    }
    assert_eq!(scene.all().await, []);
}

async fn the_last_change_of_a_run_ends_its_watches_and_keeps_its_deliveries(scene: Scene) {
    let store = &scene.store;
    store.subscribe(&watch("w1", "r1", "ops"), Some(&state("r1", 1))).await.unwrap();
    store.subscribe(&watch("w2", "r2", "ops"), None).await.unwrap();
    let last = Poll { ended: vec!["w1".to_owned()], ..moved("r1", 2, &["ops"]) };
    scene.record(&last).await;
    assert_eq!(store.load().await.unwrap().subscriptions, [watch("w2", "r2", "ops")]);
    scene.record(&Poll { forgotten: vec![run_id("r1")], ..nothing() }).await;
    let known = store.load().await.unwrap().runs.len();
    assert_eq!(known, 1, "its sequence must not begin anew while its changes are kept");
    assert_eq!(told(&scene.claim(at(99), 9).await), [line("ops", "r1", 2)]);
}

// --------------------------------------------------------------------------------------------------------- deliveries

async fn a_change_is_owed_once_to_each_destination_and_template(scene: Scene) {
    let mut poll = moved("r1", 1, &["ops", "ops", "discord:1"]);
    poll.deliveries.push(NewDelivery { template: Some("release".to_owned()), ..owed("r1", 1, "ops") });
    scene.record(&poll).await;
    scene.record(&Poll { deliveries: vec![owed("r1", 1, "ops")], ..nothing() }).await;
    assert_eq!(scene.rows(DeliveryFilter::default()).await.len(), 3);
}

async fn one_destination_hears_of_one_run_in_order_and_one_at_a_time(scene: Scene) {
    for version in 1..=3 {
        scene.record(&moved("r1", version, &["ops"])).await;
    }
    scene.record(&moved("r2", 1, &["ops", "discord:1"])).await;

    let first = scene.claim(at(99), 9).await;
    assert_eq!(told(&first), [line("discord:1", "r2", 1), line("ops", "r1", 1)], "one for each destination");
    let more = scene.claims(at(99), Room { messages: 9, probes: 9 }).await;
    assert_eq!(more, Claims::default(), "what waits, waits for attempts under way");

    scene.settle(&first[1], Next::Pending { at: at(500) }).await;
    let r2 = scene.only(at(499)).await;
    assert_eq!(told(std::slice::from_ref(&r2)), [line("ops", "r2", 1)], "another run may pass");
    scene.settle(&r2, Next::Delivered).await;
    assert_eq!(scene.next_at(at(499)).await, Some(at(500)), "what follows must not overtake a retry");

    let again = scene.claim(at(500), 9).await;
    assert_eq!(told(&again), [line("ops", "r1", 1)]);
    assert_eq!((again[0].lead.id, again[0].lead.attempt), (first[1].lead.id, 2));
    scene.settle(&again[0], Next::Delivered).await;
    assert_eq!(told(&scene.claim(at(500), 9).await), [line("ops", "r1", 2)]);
}

async fn claims_take_what_waited_longest_up_to_the_room_and_leave_the_closed(scene: Scene) {
    for (n, to) in ["a", "b", "c", "a", "b", "c"].iter().enumerate() {
        let run = format!("r{n}");
        let at = at(i64::try_from(n).unwrap());
        let delivery = NewDelivery { at, ..owed(&run, 1, to) };
        scene.record(&Poll { deliveries: vec![delivery], ..moved(&run, 1, &[]) }).await;
    }
    assert_eq!(scene.next_at(at(-1)).await, Some(at(0)), "nothing is due yet");
    assert_eq!(scene.claims(at(99), Room { messages: 0, probes: 0 }).await, Claims::default());
    scene.rules.close("b", Some(at(150)));
    let two = scene.claims(at(99), Room { messages: 2, probes: 0 }).await;
    assert_eq!(told(&two.claimed), [line("a", "r0", 1), line("c", "r2", 1)]);
    assert_eq!(two.next_at, Some(at(150)), "when the closed one opens");
    scene.rules.close("b", None);
    assert_eq!(scene.next_at(at(99)).await, None, "it waits for a person");
    for message in &two.claimed {
        scene.settle(message, Next::Delivered).await;
    }
    assert_eq!(told(&scene.claim(at(4), 9).await), [line("a", "r3", 1)]);
    assert_eq!(scene.next_at(at(4)).await, Some(at(5)), "what is closed is nobody's alarm");
    scene.rules.close("b", Some(at(0)));
    assert_eq!(told(&scene.claim(at(99), 9).await), [line("b", "r1", 1), line("c", "r5", 1)]);
}

async fn a_dead_message_holds_nothing_up_and_can_be_brought_back(scene: Scene) {
    let store = &scene.store;
    scene.record(&moved("r1", 1, &["ops"])).await;
    scene.record(&moved("r1", 2, &["ops"])).await;
    let first = scene.claim(at(99), 9).await.remove(0);
    assert!(!store.retry(first.lead.id, at(99)).await.unwrap(), "only a dead one can be retried");
    scene.settle(&first, Next::Dead).await;
    assert_eq!(scene.states().await, [(1, DeliveryState::Dead), (2, DeliveryState::Pending)]);

    assert!(store.retry(first.lead.id, at(200)).await.unwrap());
    assert_eq!(scene.claim(at(199), 9).await, [], "the one brought back goes first again");
    let back = scene.claim(at(200), 9).await;
    assert_eq!((told(&back), back[0].lead.attempt), (vec![line("ops", "r1", 1)], 2));
    scene.settle(&back[0], Next::Dead).await;

    assert!(store.discard(first.lead.id, at(300)).await.unwrap());
    assert!(!store.discard(first.lead.id, at(300)).await.unwrap(), "it had ended already");
    assert!(!store.retry(first.lead.id, at(300)).await.unwrap());
    let second = scene.claim(at(300), 9).await;
    assert_eq!(told(&second), [line("ops", "r1", 2)]);
    scene.settle(&second[0], Next::Delivered).await;
    assert!(!store.discard(second[0].lead.id, at(300)).await.unwrap(), "what was delivered stays delivered");
    assert!(!store.discard(Uuid::now_v7(), at(300)).await.unwrap());
}

async fn discarding_what_waits_lets_the_next_one_go(scene: Scene) {
    let store = &scene.store;
    scene.record(&moved("r1", 1, &["ops"])).await;
    scene.record(&moved("r1", 2, &["ops"])).await;
    let first = scene.rows(DeliveryFilter::default()).await.pop().unwrap().delivery.id;
    assert!(store.discard(first, at(50)).await.unwrap());
    assert_eq!(told(&scene.claim(at(99), 9).await), [line("ops", "r1", 2)]);
}

async fn a_late_answer_changes_nothing(scene: Scene) {
    let store = &scene.store;
    scene.record(&moved("r1", 1, &["ops"])).await;
    let first = scene.claim(at(10), 1).await.remove(0);
    scene.settle(&first, Next::Pending { at: at(20) }).await;
    scene.settle(&first, Next::Delivered).await;
    assert_eq!(scene.states().await, [(1, DeliveryState::Pending)], "that attempt had ended");
    let second = scene.claim(at(20), 1).await.remove(0);
    scene.settle(&first, Next::Dead).await;
    assert_eq!(scene.states().await, [(1, DeliveryState::InFlight)], "that was an older attempt");
    scene.settle(&second, Next::Delivered).await;
    let unheard_of = Settlement { id: Uuid::now_v7(), ..settled(&second, Next::Dead) };
    store.settle(&unheard_of, &scene.policy).await.unwrap();
    assert_eq!(scene.states().await, [(1, DeliveryState::Delivered)]);
}

async fn a_delivery_tells_its_whole_story(scene: Scene) {
    let store = &scene.store;
    scene.record(&moved("r1", 1, &["discord:1"])).await;
    for next in [Next::Unknown { at: at(20) }, Next::Pending { at: at(30) }, Next::Delivered] {
        let claimed = scene.claim(at(50), 1).await.remove(0);
        scene.settle(&claimed, next).await;
    }
    let id = scene.rows(DeliveryFilter::default()).await[0].delivery.id.to_string();
    let (row, attempts) = store.delivery(&id[..20].to_uppercase()).await.unwrap().expect("found by its beginning");
    let (by_ending, _) = store.delivery(&id[28..]).await.unwrap().expect("found by its ending");
    assert_eq!(by_ending.delivery.id, row.delivery.id);
    assert_eq!(row.delivery.unknown_since, Some(at(100)), "when it may first have arrived");
    assert_eq!(
        (row.state, row.next_at, row.settled_at, row.reason),
        (DeliveryState::Delivered, None, Some(at(101)), None)
    );
    assert_eq!((row.delivery.to, row.delivery.attempt), (room("discord:1"), 3));
    assert_eq!(row.delivery.news, News::Change(change("r1", 1)));
    let story: Vec<_> = attempts.iter().map(|a| (a.attempt, a.outcome.as_deref().unwrap())).collect();
    assert_eq!(story, [(1, "unknown"), (2, "retry"), (3, "delivered")]);
    assert_eq!((attempts[0].started_at, attempts[0].ended_at), (at(100), Some(at(101))));
    assert_eq!(attempts[0].reason.as_deref(), Some("the platform said unknown"));

    assert_eq!(store.delivery("").await.unwrap(), None);
    assert_eq!(store.delivery("%").await.unwrap(), None);
    assert_eq!(store.delivery(&Uuid::new_v4().to_string()).await.unwrap(), None);
    scene.record(&moved("r1", 2, &["discord:1"])).await;
    assert_eq!(store.delivery("0").await.unwrap(), None, "two begin like that");
}

async fn lists_and_figures(scene: Scene) {
    let store = &scene.store;
    store.subscribe(&watch("w1", "r1", "a"), Some(&state("r1", 1))).await.unwrap();
    scene.record(&moved("r1", 2, &["a", "b"])).await;
    scene.record(&moved("r2", 1, &["a"])).await;
    let first = scene.claim(at(99), 1).await.remove(0);
    scene.settle(&first, Next::Delivered).await;

    let newest = scene.rows(DeliveryFilter { limit: 1, ..DeliveryFilter::default() }).await;
    assert_eq!(newest[0].delivery.news.change().unwrap().run.id, run_id("r2"));
    let to_a = scene.rows(DeliveryFilter { to: Some(room("a")), ..DeliveryFilter::default() }).await;
    assert_eq!(to_a.len(), 2);
    let of_r1 = DeliveryFilter { run: Some(run_id("r1")), ..DeliveryFilter::default() };
    assert_eq!(scene.rows(of_r1.clone()).await.len(), 2);
    let waiting = DeliveryFilter { state: Some(DeliveryState::Pending), to: Some(room("b")), ..of_r1 };
    assert_eq!(scene.rows(waiting).await.len(), 1);

    let overview = store.overview().await.unwrap();
    let counts: HashMap<_, _> = overview.deliveries.into_iter().collect();
    assert_eq!(counts, HashMap::from([(DeliveryState::Pending, 2), (DeliveryState::Delivered, 1)]));
    assert_eq!((overview.changes, overview.subscriptions), (2, 1));
    assert_eq!(overview.oldest_open, Some(at(2)));
    assert_eq!(overview.recovered, []);
}

/// A night of 429s, then one failure: the message has all its other tries left.
async fn waiting_for_a_destination_costs_a_message_no_try(scene: Scene) {
    scene.record(&moved("r1", 1, &["a"])).await;
    let limited = |message: &Claimed| Settlement {
        outcome: Outcome::Limited { after: None, account: false, reason: "429".to_owned() },
        ..settled(message, Next::Pending { at: at(200) })
    };
    for round in 0..20 {
        let message = scene.claim(at(200), 1).await.remove(0);
        assert_eq!((message.lead.attempt, message.lead.tries), (round + 1, 0));
        scene.store.settle(&limited(&message), &scene.policy).await.unwrap();
    }
    let message = scene.claim(at(200), 1).await.remove(0);
    scene.store.settle(&settled(&message, Next::Pending { at: at(200) }), &scene.policy).await.unwrap();
    let message = scene.claim(at(200), 1).await.remove(0);
    assert_eq!((message.lead.attempt, message.lead.tries), (22, 1));
    scene.store.settle(&settled(&message, Next::Dead), &scene.policy).await.unwrap();
    assert_eq!(scene.store.retry(message.lead.id, at(300)).await, Ok(true));
    assert_eq!(scene.claim(at(300), 1).await.remove(0).lead.tries, 0, "a person gave it all its tries back");
}

async fn what_ended_long_ago_is_pruned_and_nothing_else(scene: Scene) {
    let store = &scene.store;
    for to in ["a", "b", "c"] {
        scene.record(&moved(&format!("of-{to}"), 1, &[to])).await;
    }
    scene.record(&moved("silent", 1, &[])).await;
    let claimed = scene.claim(at(50), 2).await;
    let old = Settlement { ended_at: at(60), ..settled(&claimed[0], Next::Delivered) };
    let recent = Settlement { ended_at: at(90), ..settled(&claimed[1], Next::Dead) };
    store.settle(&old, &scene.policy).await.unwrap();
    store.settle(&recent, &scene.policy).await.unwrap();

    assert_eq!(store.prune(at(-5)).await.unwrap(), 0);
    let third = scene.rows(DeliveryFilter { state: Some(DeliveryState::Pending), ..DeliveryFilter::default() }).await;
    assert_eq!(third.len(), 1, "what is owed stays owed");
    assert_eq!(store.prune(at(70)).await.unwrap(), 1);
    let left: BTreeSet<_> =
        scene.rows(DeliveryFilter::default()).await.into_iter().map(|row| row.state.as_str()).collect();
    assert_eq!(left, BTreeSet::from(["dead"]), "what nobody needs any more is dead and visible");
    assert_eq!(store.overview().await.unwrap().changes, 2, "a change goes with its last delivery");
    assert_eq!(store.delivery(&claimed[0].lead.id.to_string()).await.unwrap(), None);
    assert_eq!(store.prune(at(70)).await.unwrap(), 0);
    let ledger = scene.balance().await;
    assert_eq!(
        (ledger.owed, ledger.delivered, ledger.dead, ledger.open),
        (3, 1, 2, 0),
        "what is deleted stays counted"
    );
}

// --------------------------------------------------------------------------------------------- processes and restarts

async fn what_a_dead_process_was_sending_is_unknown_and_sent_again(scene: Scene) {
    scene.record(&moved("r1", 1, &["discord:1", "ops"])).await;
    scene.record(&moved("r1", 2, &["ops"])).await;
    let taken = scene.claim(at(10), 9).await;
    assert_eq!(taken.len(), 2);

    let scene = scene.reopen().await;
    let store = &scene.store;
    let recovered = store.overview().await.unwrap().recovered;
    assert_eq!(recovered, [(room("discord:1"), 1), (room("ops"), 1)]);
    let (row, attempts) = store.delivery(&taken[0].lead.id.to_string()).await.unwrap().unwrap();
    assert_eq!((row.state, row.reason.as_deref()), (DeliveryState::Unknown, Some("the process ended while sending")));
    assert_eq!((attempts.len(), attempts[0].outcome.as_deref()), (1, Some("unknown")));
    assert_eq!((attempts[0].started_at, attempts[0].ended_at), (at(10), None), "nobody saw it end");

    // Whoever was taken for dead may live: that one arrived, and the other one did not.
    scene.settle(&taken[0], Next::Delivered).await;
    scene.settle(&taken[1], Next::Pending { at: at(10) }).await;
    let again = scene.claim(at(10), 9).await;
    assert_eq!(told(&again), [line("ops", "r1", 1)]);
    for delivery in &again {
        assert_eq!((delivery.lead.attempt, delivery.lead.unknown_since), (2, Some(at(10))));
        scene.settle(delivery, Next::Delivered).await;
    }
    let scene = scene.reopen().await;
    assert_eq!(scene.store.overview().await.unwrap().recovered, [], "they are counted once");
}

async fn a_guest_writes_beside_the_owner_who_hears_of_it(scene: Scene) {
    let owner = &scene.store;
    let mut mark = owner.moved(None).await.unwrap().mark;
    let mut hears = async || {
        let moved = owner.moved(Some(mark)).await.unwrap();
        mark = moved.mark;
        moved.moves != Moves::None
    };
    scene.record(&moved("r1", 1, &["ops"])).await;
    let message = scene.only(at(10)).await;
    assert!(!hears().await, "the owner's own writes are no news");

    let guest = scene.ground.guest().await;
    let seen = guest.deliveries(&DeliveryFilter { limit: 9, ..DeliveryFilter::default() }).await.unwrap();
    assert_eq!(seen[0].state, DeliveryState::InFlight, "a guest leaves what is under way alone");
    assert!(!hears().await, "nobody wrote yet");
    guest.subscribe(&watch("w1", "r1", "ops"), None).await.unwrap();
    assert!(hears().await);
    assert!(!hears().await, "told once");
    assert_eq!(owner.load().await.unwrap().subscriptions, [watch("w1", "r1", "ops")]);
    scene.settle(&message, Next::Pending { at: at(9_000) }).await;
    assert!(!hears().await);
    assert!(guest.revive(&room("ops"), at(20)).await.unwrap());
    assert!(hears().await, "a destination brought back is news");
    assert!(guest.unsubscribe("w1").await.unwrap());
    drop(guest);
    assert!(hears().await);
}

async fn many_tasks_write_at_once_and_each_hears_its_own_answer(scene: Scene) {
    let tasks: Vec<_> = (0..32)
        .map(|n| {
            let store = Arc::clone(&scene.store);
            tokio::spawn(async move {
                let run = format!("r{n}");
                for version in 1..=20 {
                    assert_eq!(store.record(&moved(&run, version, &["ops"])).await.unwrap(), Recorded::Done);
                    let stale = store.record(&moved(&run, version, &["ops"])).await.unwrap();
                    assert_eq!(stale, Recorded::Stale, "a neighbour's success is not mine");
                    let unknown_change = Poll { deliveries: vec![owed(&run, 9_999, "ops")], ..nothing() };
                    let failed = store.record(&unknown_change).await;
                    assert!(matches!(failed, Err(StoreError::Failed(_))), "{failed:?}");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let counts = scene.store.overview().await.unwrap();
    assert_eq!((counts.changes, counts.deliveries), (640, vec![(DeliveryState::Pending, 640)]));
}

// ------------------------------------------------------------------------------------------------ lanes and turns

/// Runs of which each owes one message to `ops`, recorded one second after another.
async fn backlog(scene: &Scene, runs: &[&str]) {
    for (seconds, run) in (0..).zip(runs) {
        let delivery = NewDelivery { at: at(seconds), ..owed(run, 1, "ops") };
        scene.record(&Poll { deliveries: vec![delivery], ..moved(run, 1, &[]) }).await;
    }
}

async fn what_is_urgent_goes_first_and_takes_what_stands_before_it_along(scene: Scene) {
    backlog(&scene, &["r1", "r2"]).await;
    let mut failed = moved("r2", 2, &["ops"]);
    failed.deliveries[0].urgent = true;
    scene.record(&failed).await;
    scene.record(&moved("elsewhere", 1, &["zz"])).await;
    let first = scene.claim(at(99), 1).await;
    assert_eq!(told(&first), [line("ops", "r2", 1)], "what stands before the failure");
    scene.settle(&first[0], Next::Delivered).await;
    let second = scene.claim(at(99), 1).await;
    assert_eq!(told(&second), [line("ops", "r2", 2)], "over all destinations too");
    scene.settle(&second[0], Next::Delivered).await;
    assert_eq!(told(&scene.claim(at(99), 9).await), [line("ops", "r1", 1), line("zz", "elsewhere", 1)]);
}

async fn trouble_goes_before_what_ended_well(scene: Scene) {
    backlog(&scene, &["r1", "r2", "r3"]).await;
    for (run, to) in [("r2", Status::Success), ("r3", Status::Fail)] {
        let mut ended = moved(run, 2, &["ops"]);
        ended.deliveries[0].urgent = true;
        ended.changes[0].kind = ChangeKind::Finished { from: Status::Running, to, took_ms: None };
        scene.record(&ended).await;
    }
    let mut order = Vec::new();
    for _ in 0..5 {
        let message = scene.only(at(99)).await;
        order.extend(told(std::slice::from_ref(&message)));
        scene.settle(&message, Next::Delivered).await;
    }
    let expected = [("r3", 1), ("r3", 2), ("r2", 1), ("r2", 2), ("r1", 1)];
    assert_eq!(order, expected.map(|(run, sequence)| line("ops", run, sequence)));
}

async fn without_what_was_urgent_a_queue_is_as_urgent_as_any_other(scene: Scene) {
    backlog(&scene, &["r1", "r2"]).await;
    let mut failed = moved("r2", 2, &["ops"]);
    failed.deliveries[0].urgent = true;
    scene.record(&failed).await;
    assert!(scene.store.discard(failed.deliveries[0].id, at(50)).await.unwrap());
    assert_eq!(told(&scene.claim(at(99), 9).await), [line("ops", "r1", 1)]);
}

async fn what_a_clock_that_was_ahead_put_off_is_due(scene: Scene) {
    backlog(&scene, &["r1"]).await;
    let message = scene.only(at(99)).await;
    let far = at(99) + Duration::from_secs(29 * 3600);
    scene.settle(&message, Next::Pending { at: far }).await;
    assert_eq!(scene.next_at(at(99)).await, Some(far), "no longer than any wait");
    scene.only(at(98)).await;
}

async fn destinations_that_failed_take_no_more_room_than_they_may(scene: Scene) {
    for to in ["a", "b", "c"] {
        scene.record(&moved(&format!("of-{to}"), 1, &[to])).await;
    }
    for message in scene.claim(at(10), 9).await {
        assert!(!message.probe);
        let next = if message.lead.to == room("c") { Next::Delivered } else { Next::Pending { at: at(20) } };
        scene.settle(&message, next).await;
    }
    scene.record(&moved("of-c", 2, &["c"])).await;
    let claims = scene.claims(at(30), Room { messages: 9, probes: 1 }).await;
    assert_eq!(told(&claims.claimed), [line("c", "of-c", 2), line("a", "of-a", 1)]);
    assert_eq!(claims.claimed.iter().map(|message| message.probe).collect::<Vec<_>>(), [false, true]);
    assert_eq!(claims.next_at, None, "it waits for room, which attempts under way have");
}

async fn a_plan_may_hold_a_message_or_give_it_up(scene: Scene) {
    backlog(&scene, &["r1", "r2"]).await;
    scene.rules.plan_for("ops", Plan::Hold(at(77)));
    assert_eq!(scene.next_at(at(50)).await, Some(at(77)));
    scene.rules.plan_for("ops", Plan::GiveUp { reason: "nobody wants it" });
    let claims = scene.claims(at(50), Room { messages: 9, probes: 9 }).await;
    assert_eq!((claims.claimed, claims.next_at), (vec![], Some(at(50))), "there may be more at once");
    let row = scene.all().await.remove(0);
    assert_eq!(
        (row.state, row.reason.as_deref(), row.settled_at),
        (DeliveryState::Dead, Some("nobody wants it"), Some(at(50)))
    );
    assert_eq!(scene.balance().await.dead, 1);
}

// --------------------------------------------------------------------------------------------------------- folding

/// A backlog of three runs, one of them urgent, folded into the message of `r1 1`.
async fn digest(scene: &Scene) -> Claimed {
    backlog(scene, &["r1", "r2", "r3"]).await;
    scene.record(&moved("r1", 2, &["ops"])).await;
    let mut failed = moved("r3", 2, &["ops"]);
    (failed.deliveries[0].urgent, failed.deliveries[0].at) = (true, at(30));
    scene.record(&failed).await;
    // An urgent head leads.
    scene.rules.plan_for("ops", Plan::Digest { rows: MOST_FOLDED });
    let digest = scene.only(at(60)).await;
    scene.rules.plan_for("ops", Plan::Single);
    digest
}

async fn a_digest_tells_what_waits_and_what_it_told_is_told(scene: Scene) {
    let digest = digest(&scene).await;
    assert_eq!(*scene.rules.asked.lock().unwrap(), [(2, 5)], "two of the run, five in all");
    assert_eq!(
        (told(std::slice::from_ref(&digest)), digest.folding),
        (vec![line("ops", "r3", 1)], Some(Folding::Rate))
    );
    assert_eq!(folded(&digest), ["r1 1", "r2 1", "r1 2", "r3 2"], "in order of recording");
    assert_eq!(digest.message_id, digest.lead.id);
    let bound = scene.all().await.remove(0);
    assert_eq!((bound.state, bound.folded_into, bound.next_at), (DeliveryState::Pending, Some(digest.lead.id), None));

    scene.settle(&digest, Next::Delivered).await;
    let rows = scene.all().await;
    let states: BTreeSet<_> = rows.iter().map(|row| (row.state.as_str(), row.folded_into.is_some())).collect();
    assert_eq!(states, BTreeSet::from([("delivered", false), ("superseded", true)]));
    assert!(rows.iter().all(|row| row.settled_at == Some(at(101))));
    let ledger = scene.balance().await;
    assert_eq!((ledger.owed, ledger.delivered, ledger.folded, ledger.open), (5, 1, 4, 0));
    assert_eq!(scene.store.prune(at(500)).await.unwrap(), 5);
    assert_eq!(scene.balance().await, ledger, "what is deleted stays counted");
}

async fn a_digest_holds_no_more_than_it_may_and_takes_urgent_runs_first(scene: Scene) {
    backlog(&scene, &["r1", "r2", "r3"]).await;
    let mut failed = moved("r3", 2, &["ops"]);
    failed.deliveries[0].urgent = true;
    scene.record(&failed).await;
    scene.record(&moved("r1", 2, &["ops"])).await;
    // The head is r3 1; without it, r1 1 would be.
    scene.rules.plan_for("ops", Plan::Digest { rows: 4 });
    let message = scene.only(at(60)).await;
    assert_eq!(folded(&message), ["r1 1", "r3 2", "r1 2"], "its own run, then the oldest, whole runs before parts");
}

async fn what_one_template_writes_is_not_folded_into_anothers_message(scene: Scene) {
    backlog(&scene, &["r1"]).await;
    let release = |run: &str| NewDelivery { template: Some("release".to_owned()), ..owed(run, 1, "ops") };
    scene.record(&Poll { deliveries: vec![release("r2")], ..moved("r2", 1, &[]) }).await;
    scene.record(&moved("r1", 2, &["ops"])).await;
    scene.rules.plan_for("ops", Plan::Digest { rows: 9 });
    let message = scene.only(at(60)).await;
    assert_eq!(folded(&message), ["r1 2"]);
    scene.settle(&message, Next::Delivered).await;
    let other = scene.only(at(60)).await;
    assert_eq!((folded(&other), other.folding), (vec![], None), "a digest of one is none");
    assert_eq!(*scene.rules.asked.lock().unwrap(), [(2, 3), (1, 1)]);
}

async fn nothing_overtakes_what_may_have_arrived(scene: Scene) {
    backlog(&scene, &["r1", "r2"]).await;
    scene.record(&moved("r2", 2, &["ops"])).await;
    let first = scene.only(at(0)).await;
    scene.settle(&first, Next::Delivered).await;
    let second = scene.only(at(1)).await;
    scene.settle(&second, Next::Unknown { at: at(500) }).await;
    backlog(&scene, &["r3"]).await;
    scene.rules.plan_for("ops", Plan::Digest { rows: 9 });
    let third = scene.only(at(60)).await;
    assert_eq!((told(std::slice::from_ref(&third)), folded(&third)), (vec![line("ops", "r3", 1)], vec![]));
    scene.settle(&third, Next::Delivered).await;
    let again = scene.only(at(500)).await;
    assert_eq!((again.lead.id, folded(&again), again.message_id), (second.lead.id, vec![], second.lead.id));
    assert_eq!(again.lead.unknown_since, Some(at(100)));
}

async fn a_message_that_is_tried_again_tells_the_same_under_the_same_id(scene: Scene) {
    let first = digest(&scene).await;
    for next in [Next::Pending { at: at(70) }, Next::Unknown { at: at(70) }, Next::Pending { at: at(70) }] {
        scene.settle(&first_attempt(&scene, &first).await, next).await;
        scene.record(&moved("late", scene.store.overview().await.unwrap().changes as i64 - 4, &["ops"])).await;
        scene.rules.plan_for("ops", Plan::Digest { rows: 20 });
        let again = scene.only(at(80)).await;
        assert_eq!((again.message_id, again.folding), (first.message_id, first.folding));
        assert_eq!(folded(&again), folded(&first));
        assert_eq!(again.lead.attempt, first_attempt(&scene, &first).await.lead.attempt);
    }
    let scene = scene.reopen().await;
    let again = scene.only(at(80)).await;
    assert_eq!((again.message_id, folded(&again)), (first.message_id, folded(&first)), "after a death too");
}

/// The same message as its last attempt had it.
async fn first_attempt(scene: &Scene, message: &Claimed) -> Claimed {
    let (row, _) = scene.store.delivery(&message.lead.id.to_string()).await.unwrap().unwrap();
    Claimed { lead: row.delivery, ..message.clone() }
}

async fn other_words_leave_under_another_id(scene: Scene) {
    backlog(&scene, &["r1"]).await;
    let first = scene.only(at(10)).await;
    assert_eq!(first.message_id, first.lead.id);
    scene.settle(&first, Next::Pending { at: at(20) }).await;
    scene.record(&moved("r1", 2, &["ops"])).await;
    scene.rules.plan_for("ops", Plan::CatchUp { rows: 2 });
    let second = scene.only(at(20)).await;
    assert_eq!((folded(&second), second.folding), (vec!["r1 2".to_owned()], Some(Folding::Late)));
    assert_ne!(second.message_id, first.message_id);
    scene.settle(&second, Next::Pending { at: at(30) }).await;
    assert_eq!(scene.only(at(30)).await.message_id, second.message_id, "constant over retries");
}

async fn one_late_change_is_told_as_late_and_gathers_more_until_it_may_have_arrived(scene: Scene) {
    backlog(&scene, &["r1"]).await;
    scene.rules.plan_for("ops", Plan::CatchUp { rows: 9 });
    let first = scene.only(at(10)).await;
    assert_eq!((folded(&first), first.folding), (vec![], Some(Folding::Late)));
    scene.settle(&first, Next::Pending { at: at(20) }).await;
    scene.record(&moved("r1", 2, &["ops"])).await;
    let second = scene.only(at(20)).await;
    assert_eq!(folded(&second), ["r1 2"]);
    scene.settle(&second, Next::Unknown { at: at(30) }).await;
    scene.record(&moved("r1", 3, &["ops"])).await;
    assert_eq!(folded(&scene.only(at(30)).await), ["r1 2"]);
}

async fn a_digest_that_is_refused_falls_apart_and_is_folded_no_more(scene: Scene) {
    let digest = digest(&scene).await;
    scene.settle(&digest, Next::Rejected).await;
    let rows = scene.all().await;
    assert!(rows.iter().all(|row| row.state == DeliveryState::Pending && row.folded_into.is_none()));
    assert!(rows.iter().all(|row| row.next_at == Some(at(101)) && row.folding.is_none()), "{rows:#?}");
    scene.rules.plan_for("ops", Plan::Digest { rows: 9 });
    let mut seen = Vec::new();
    for _ in 0..5 {
        let message = scene.only(at(200)).await;
        assert_eq!((folded(&message), message.folding), (vec![], None));
        if message.lead.id == digest.lead.id {
            assert_ne!(message.message_id, digest.message_id, "other words, another id");
        }
        seen.extend(told(std::slice::from_ref(&message)));
        scene.settle(&message, Next::Rejected).await;
    }
    let of_r3: Vec<_> = seen.iter().filter(|(_, run, _)| run == "r3").map(|(_, _, sequence)| *sequence).collect();
    assert_eq!((seen.len(), of_r3), (5, vec![1, 2]));
    assert_eq!(scene.balance().await.dead, 5, "refused by itself, it is dead");
}

async fn what_comes_apart_from_a_message_that_may_have_arrived_knows_it(scene: Scene) {
    let digest = digest(&scene).await;
    assert!(!digest.lead.told_elsewhere);
    scene.settle(&digest, Next::Unknown { at: at(110) }).await;
    let again = scene.only(at(110)).await;
    assert!(!again.lead.told_elsewhere, "under its own id");
    scene.settle(&again, Next::Rejected).await;
    let scene = scene.reopen().await;
    for _ in 0..5 {
        let message = scene.only(at(200)).await;
        assert_eq!((message.lead.unknown_since, message.lead.told_elsewhere), (Some(at(100)), true));
        assert_ne!(message.message_id, digest.message_id);
        scene.settle(&message, Next::Delivered).await;
    }
    assert_eq!(scene.balance().await.delivered, 5);
}

async fn what_comes_apart_from_a_message_that_did_not_arrive_is_repeated_under_its_own_id(scene: Scene) {
    let digest = digest(&scene).await;
    scene.settle(&digest, Next::Rejected).await;
    let message = scene.only(at(200)).await;
    assert_eq!((message.lead.unknown_since, message.lead.told_elsewhere), (None, false));
    scene.settle(&message, Next::Unknown { at: at(100) }).await;
    let again = scene.only(at(200)).await;
    assert_eq!((again.lead.unknown_since, again.lead.told_elsewhere), (Some(at(100)), false));
    assert_eq!(again.message_id, message.message_id);
}

async fn a_digest_that_dies_takes_what_it_told_along_and_each_can_be_brought_back(scene: Scene) {
    let digest = digest(&scene).await;
    scene.settle(&digest, Next::Unknown { at: at(110) }).await;
    scene.settle(&scene.only(at(110)).await, Next::Dead).await;
    assert_eq!(scene.balance().await.dead, 5);
    assert!(scene.all().await.iter().all(|row| row.reason.as_deref() == Some("the platform said dead")));
    let told_too = &digest.folded[0];
    assert!(scene.store.retry(told_too.id, at(200)).await.unwrap());
    let back = scene.only(at(200)).await;
    assert_eq!((back.lead.id, folded(&back), back.folding), (told_too.id, vec![], None), "it alone");
    assert_eq!(back.lead.unknown_since, Some(at(100)), "the digest may have told it");
    assert!(scene.store.retry(digest.lead.id, at(200)).await.unwrap());
    scene.settle(&back, Next::Delivered).await;
    let lead = scene.only(at(200)).await;
    assert_eq!((lead.lead.id, folded(&lead)), (digest.lead.id, vec![]));
    assert_ne!(lead.message_id, digest.message_id);
    scene.balance().await;
}

async fn what_a_discarded_message_was_to_tell_waits_for_itself(scene: Scene) {
    let digest = digest(&scene).await;
    scene.settle(&digest, Next::Unknown { at: at(110) }).await;
    assert!(scene.store.discard(digest.lead.id, at(105)).await.unwrap());
    let rows = scene.all().await;
    let freed: Vec<_> = rows.iter().filter(|row| row.state == DeliveryState::Pending).collect();
    assert_eq!(freed.len(), 4);
    assert!(freed.iter().all(|row| row.folded_into.is_none() && row.delivery.unknown_since == Some(at(100))));
    let ledger = scene.balance().await;
    assert_eq!((ledger.suppressed, ledger.open, ledger.folded), (1, 4, 0));
}

async fn what_is_under_way_cannot_be_taken_back(scene: Scene) {
    let digest = digest(&scene).await;
    for delivery in std::iter::once(&digest.lead).chain(&digest.folded) {
        assert!(!scene.store.discard(delivery.id, at(65)).await.unwrap());
    }
    scene.settle(&digest, Next::Delivered).await;
    assert_eq!(scene.balance().await.suppressed, 0);
}

async fn what_was_claimed_and_nobody_heard_of_it_is_claimed_again(scene: Scene) {
    let digest = digest(&scene).await;
    scene.record(&moved("r9", 1, &["dev", "discord:1"])).await;
    let heard = scene.claim(at(60), 1).await;
    let unheard = scene.claim(at(60), 9).await;
    scene.store.release(&[(heard[0].lead.id, 1)]).await.unwrap();
    let again = scene.claim(at(70), 9).await;
    assert_eq!(told(&again), [line("ops", "r3", 1), line("discord:1", "r9", 1)]);
    assert_eq!((folded(&again[0]), again[0].message_id), (folded(&digest), digest.message_id), "the same words");
    assert_eq!((again[1].lead.id, again[1].lead.attempt), (unheard[0].lead.id, 2));
    assert!(again.iter().all(|message| message.lead.unknown_since.is_none()), "nothing of it left");
    let (_, attempts) = scene.store.delivery(&unheard[0].lead.id.to_string()).await.unwrap().unwrap();
    assert_eq!((attempts[0].outcome.as_deref(), attempts[0].ended_at), (Some("retry"), Some(at(60))));
    scene.balance().await;
}

async fn what_is_discarded_out_of_a_digest_is_told_no_more(scene: Scene) {
    let digest = digest(&scene).await;
    scene.settle(&digest, Next::Pending { at: at(110) }).await;
    assert!(scene.store.discard(digest.folded[0].id, at(105)).await.unwrap());
    let again = scene.only(at(110)).await;
    assert_eq!(folded(&again), ["r2 1", "r1 2", "r3 2"]);
    assert_ne!(again.message_id, digest.message_id, "other words, and nobody can have got the first ones");
    scene.settle(&again, Next::Unknown { at: at(120) }).await;
    assert!(!scene.store.discard(digest.folded[1].id, at(115)).await.unwrap(), "it may have been told");
    let third = scene.only(at(120)).await;
    assert_eq!((folded(&third), third.message_id), (folded(&again), again.message_id), "the same words");
    assert!(!scene.store.discard(digest.folded[1].id, at(121)).await.unwrap(), "it is being told");
    scene.settle(&third, Next::Delivered).await;
    let ledger = scene.balance().await;
    assert_eq!((ledger.delivered, ledger.folded, ledger.suppressed), (1, 3, 1));
}

// ---------------------------------------------------------------------------------- notices, places and the ledger

async fn a_trouble_is_told_once_and_so_is_its_end(scene: Scene) {
    let store = &scene.store;
    assert!(!store.announce(&notice("hr", true, 1, &["ops"])).await.unwrap(), "an end of nothing");
    assert!(store.announce(&notice("hr", false, 2, &["ops", "dev", "ops"])).await.unwrap());
    assert!(!store.announce(&notice("hr", false, 3, &["ops"])).await.unwrap(), "told already");
    assert!(store.announce(&notice("it", false, 3, &[])).await.unwrap(), "another subject");
    assert_eq!(store.prune(at(2)).await.unwrap(), 0);
    assert!(!store.announce(&notice("it", false, 9, &["ops"])).await.unwrap(), "remembered over the years");
    backlog(&scene, &["r1"]).await;
    scene.rules.plan_for("ops", Plan::Digest { rows: 9 });
    let messages = scene.claim(at(60), 9).await;
    let is_notice = |message: &Claimed| matches!(message.lead.news, News::Notice(_)) && message.folded.is_empty();
    assert_eq!(messages.iter().filter(|message| is_notice(message)).count(), 2, "urgent, and never folded");
    assert!(store.announce(&notice("hr", true, 70, &["ops"])).await.unwrap());
    for message in &messages {
        scene.settle(message, Next::Delivered).await;
    }
    let after = scene.only(at(200)).await;
    assert!(is_notice(&after), "in order of its subject, before progress");
    assert_eq!(scene.all().await[0].subscriptions, Vec::<String>::new());
    let ledger = scene.balance().await;
    assert_eq!((ledger.owed, ledger.delivered, ledger.open), (4, 2, 2));
}

async fn what_an_end_brings_with_it_is_written_with_it(scene: Scene) {
    backlog(&scene, &["r1"]).await;
    let message = scene.only(at(10)).await;
    scene.rules.notices.lock().unwrap().push(notice("ops", false, 101, &["dev"]));
    scene.settle(&message, Next::Dead).await;
    let places = scene.store.places().await.unwrap();
    let open: BTreeMap<String, (u64, u32)> =
        places.into_iter().map(|row| (row.to.to_string(), (row.open, row.place.failures))).collect();
    assert_eq!(open, BTreeMap::from([("dev".to_owned(), (1, 0)), ("ops".to_owned(), (0, 1))]));
    assert!(matches!(scene.only(at(101)).await.lead.news, News::Notice(_)));
}

async fn the_rooms_of_a_bot_share_what_is_remembered_of_it(scene: Scene) {
    scene.record(&moved("r1", 1, &["discord:1", "discord:2", "ops"])).await;
    let bot = Destination::from("discord:".to_owned());
    for message in scene.claim(at(10), 9).await {
        let settlement = Settlement {
            outcome: Outcome::Denied { reason: "401".to_owned() },
            ..settled(&message, Next::Pending { at: at(7_000) })
        };
        scene.store.settle(&settlement, &scene.policy).await.unwrap();
    }
    let places = scene.store.places().await.unwrap();
    let failures: Vec<_> = places.iter().map(|row| (row.to.to_string(), row.place.failures)).collect();
    let expected = [("discord:", 2), ("discord:1", 0), ("discord:2", 0), ("ops", 1)];
    assert_eq!(failures, expected.map(|(to, failures)| (to.to_owned(), failures)));
    assert_eq!(scene.next_at(at(200)).await, Some(at(7_000)));
    assert!(scene.store.revive(&bot, at(200)).await.unwrap());
    assert_eq!(told(&scene.claim(at(200), 9).await), [line("discord:1", "r1", 1), line("discord:2", "r1", 1)]);
    assert!(scene.store.places().await.unwrap().iter().all(|row| row.to != bot), "nothing is left to remember");
    assert!(!scene.store.revive(&bot_of("slack"), at(200)).await.unwrap());
}

fn bot_of(surface: &str) -> Destination {
    Destination::Room { surface: surface.to_owned(), room: String::new() }
}

async fn what_was_sent_is_remembered_after_a_restart_and_a_person_makes_failures_forgotten(scene: Scene) {
    backlog(&scene, &["r1", "r2"]).await;
    let message = scene.only(at(10)).await;
    scene.settle(&message, Next::Pending { at: at(9_000) }).await;
    let scene = scene.reopen().await;
    let place = scene.store.places().await.unwrap().remove(0);
    assert_eq!((place.place.failures, place.place.sent, place.open), (1, vec![at(10)], 2));
    assert!(scene.store.revive(&room("ops"), at(200)).await.unwrap());
    let place = scene.store.places().await.unwrap().remove(0).place;
    assert_eq!(place, Place { sent: vec![at(10)], ..Place::default() }, "its pace still counts");
    let due: Vec<_> = scene.all().await.into_iter().map(|row| row.next_at.unwrap()).collect();
    assert_eq!(due, [at(200), at(1)], "due, and no later than before");
    assert!(!scene.store.revive(&room("nowhere"), at(200)).await.unwrap());
}

async fn after_an_outage_nothing_waits_for_the_retry_it_had_planned(scene: Scene) {
    backlog(&scene, &["r1", "r2", "r3"]).await;
    for wait in [9_000, 9_001] {
        let message = scene.only(at(10)).await;
        scene.settle(&message, Next::Pending { at: at(wait) }).await;
    }
    let message = scene.only(at(10)).await;
    assert!(message.probe);
    scene.settle(&message, Next::Delivered).await;
    let due: Vec<_> = scene.all().await.into_iter().filter_map(|row| row.next_at).collect();
    assert_eq!(due, [at(101), at(101)]);
}

async fn several_subscriptions_make_one_message_and_count_as_several(scene: Scene) {
    let subscriptions = vec!["w1".to_owned(), "config:00ff".to_owned(), "w3".to_owned()];
    let delivery = NewDelivery { subscriptions: subscriptions.clone(), ..owed("r1", 1, "ops") };
    scene.record(&Poll { deliveries: vec![delivery, owed("r1", 1, "dev")], ..moved("r1", 1, &[]) }).await;
    assert_eq!(scene.all().await[0].subscriptions, subscriptions);
    let ledger = scene.balance().await;
    assert_eq!((ledger.owed, ledger.open, ledger.suppressed), (4, 2, 2));
}

async fn a_run_tells_its_history(scene: Scene) {
    for version in 1..=3 {
        scene.record(&moved("r1", version, if version == 2 { &[] } else { &["ops", "dev"] })).await;
    }
    let message = scene.claim(at(10), 9).await.remove(1);
    scene.settle(&message, Next::Unknown { at: at(20) }).await;
    let history = scene.store.history(&warehouse().key(), &run_id("r1"), 2).await.unwrap();
    let sequences: Vec<_> = history.iter().map(|told| (told.change.sequence, told.deliveries.len())).collect();
    assert_eq!(sequences, [(2, 0), (3, 2)], "the newest, oldest first");
    let whole = scene.store.history(&warehouse().key(), &run_id("r1"), 9).await.unwrap();
    let (row, attempts) = &whole[0].deliveries[0];
    assert_eq!((row.delivery.to.clone(), row.state, attempts.len()), (room("ops"), DeliveryState::Unknown, 1));
    assert_eq!(scene.store.history(&warehouse().key(), &run_id("r2"), 9).await.unwrap(), []);
}

async fn a_destination_that_is_remembered_for_nothing_is_forgotten(scene: Scene) {
    scene.record(&moved("r1", 1, &["quiet", "busy"])).await;
    let messages = scene.claim(at(20), 2).await;
    let quiet = messages.iter().find(|message| message.lead.to == room("quiet")).unwrap();
    scene.settle(quiet, Next::Delivered).await;
    let remembered = async || -> Vec<String> {
        let places = scene.store.places().await.unwrap();
        places.into_iter().filter(|row| !row.place.sent.is_empty()).map(|row| row.to.to_string()).collect()
    };
    scene.store.prune(at(20)).await.unwrap();
    assert_eq!(remembered().await, ["busy", "quiet"], "used at that very moment");
    scene.store.prune(at(21)).await.unwrap();
    assert_eq!(remembered().await, ["busy"], "a message is under way there");
}

async fn when_a_workspace_was_seen_is_remembered(scene: Scene) {
    scene.record(&nothing()).await;
    scene.store.saw(&[(warehouse().key(), at(120))]).await.unwrap();
    scene.record(&nothing()).await;
    let scene = scene.reopen().await;
    assert_eq!(scene.store.load().await.unwrap().workspaces[0].seen_at, Some(at(120)));
}

async fn what_is_bound_to_a_message_goes_when_that_goes(scene: Scene) {
    let digest = digest(&scene).await;
    scene.settle(&digest, Next::Unknown { at: at(9_000) }).await;
    assert_eq!(scene.store.prune(at(2)).await.unwrap(), 0);
    let open = scene.all().await.into_iter().filter(|row| row.state == DeliveryState::Pending).count();
    assert_eq!(open, 4, "the lead is younger than that");
    assert_eq!(scene.store.prune(at(3)).await.unwrap(), 0);
    let rows = scene.all().await;
    let lead = rows.iter().find(|row| row.delivery.id == digest.lead.id).unwrap();
    assert_eq!(lead.state, DeliveryState::Dead);
    let left: Vec<_> = rows.iter().filter(|row| row.state == DeliveryState::Pending).collect();
    assert_eq!((left.len(), left[0].delivery.created_at), (1, at(30)), "what is old goes along, what is young waits");
    assert_eq!(left[0].folded_into, None);
    scene.balance().await;
}
