//! Mistakes of our own: whatever breaks in one delivery, the others go on and nothing is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use callboard::channels::{Channel, DIALECTS};
use callboard::dispatcher::{Dispatcher, Outlet, Outlets, Wording};
use callboard::metrics::Metrics;
use callboard::model::{
    Clock, DeliveryState, Destination, Dialect, Message, Outcome, Repetitions, RunId, Terms, Timestamp, Workspace,
};
use callboard::render::Renderer;
use callboard::store::{self, DeliveryFilter, NewDelivery, Poll, Recorded, Role, Settings, Store};
use callboard::tracker::{Spans, Tracker};
use uuid::Uuid;

/// A channel with a mistake in it: its first send to the room `broken` panics.
struct Mistaken {
    panicked: AtomicBool,
}

#[async_trait]
impl Channel for Mistaken {
    fn dialect(&self) -> Dialect {
        DIALECTS[0]
    }

    async fn send(&self, address: &str, _: &Message, _: Timestamp) -> Outcome {
        if address == "broken" && !self.panicked.swap(true, Ordering::SeqCst) {
            panic!("a mistake of ours");
        }
        Outcome::Delivered { message_id: None, pause: None }
    }

    fn terms(&self) -> Terms {
        Terms { paces: &[], repetitions: Repetitions::Shown }
    }

    async fn probe(&self) -> Result<(), String> {
        Ok(())
    }
}

/// One change, owed to each of these rooms.
async fn owe(store: &dyn Store, rooms: &[&str], at: Timestamp) {
    let change = Renderer::samples().remove(0);
    let state = callboard::diff::baseline(change.run.clone(), at);
    let owed = |room: &&str| NewDelivery {
        id: Uuid::now_v7(),
        run: change.run.id.clone(),
        sequence: change.sequence,
        to: Destination::from(format!("discord:{room}")),
        template: None,
        subscriptions: vec!["s".to_owned()],
        urgent: false,
        missed: false,
        at,
    };
    let poll = Poll {
        key: change.workspace.key(),
        workspace: None,
        runs: vec![state],
        deliveries: rooms.iter().map(owed).collect(),
        changes: vec![change],
        begun: Vec::new(),
        ended: Vec::new(),
        forgotten: Vec::new(),
    };
    assert_eq!(store.record(&poll).await.unwrap(), Recorded::Done);
}

async fn states(store: &dyn Store) -> Vec<(String, DeliveryState)> {
    let rows = store.deliveries(&DeliveryFilter { limit: 10, ..DeliveryFilter::default() }).await.unwrap();
    let mut states: Vec<_> = rows.into_iter().map(|row| (row.delivery.to.to_string(), row.state)).collect();
    states.sort_by(|a, b| a.0.cmp(&b.0));
    states
}

#[tokio::test]
async fn a_panic_in_one_send_is_an_unknown_outcome_and_nobody_elses_trouble() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings::of(format!("sqlite:{}/callboard.db", folder.path().display()));
    let store = store::open(&settings, Role::Owner).await.unwrap();
    let now: Timestamp = "2026-11-24T08:00:00Z".parse().unwrap();
    owe(store.as_ref(), &["broken", "good"], now).await;
    let channel = Arc::new(Mistaken { panicked: AtomicBool::new(false) });
    let mut outlets = Outlets::default();
    outlets.rooms.insert("discord".into(), Outlet::of(channel));
    let (renderer, _) = Renderer::load(&callboard::render::Settings::default(), &DIALECTS);
    let clock: Clock = Arc::new(move || now);
    let metrics = Arc::new(Metrics::new());
    let spans = Spans { waiting_after: Duration::from_secs(20), blind_after: Duration::from_secs(600) };
    let link = Box::new(|_: &Workspace, _: &RunId| String::new());
    let tracker = Tracker::start(Arc::clone(&store), Vec::new(), link, spans, Arc::clone(&metrics)).await.unwrap();
    let wording: Wording = Box::new(move |draft, reader, now| renderer.render(draft, reader, now));
    let (store_too, metrics_too) = (Arc::clone(&store), Arc::clone(&metrics));
    let dispatcher = Dispatcher::new(store_too, wording, outlets, Arc::new(tracker), metrics_too, clock);
    let dispatcher = Arc::new(dispatcher);

    dispatcher.tick(now).await;
    dispatcher.idle().await;
    let expected = [("discord:broken", DeliveryState::Unknown), ("discord:good", DeliveryState::Delivered)];
    assert_eq!(states(store.as_ref()).await, expected.map(|(to, state)| (to.to_owned(), state)));

    // The room is not left busy: the next attempt comes by itself.
    dispatcher.tick(now + Duration::from_secs(10)).await;
    dispatcher.idle().await;
    let expected = ["discord:broken", "discord:good"].map(|to| (to.to_owned(), DeliveryState::Delivered));
    assert_eq!(states(store.as_ref()).await, expected);
    let text = metrics.encode().unwrap();
    let counted = "callboard_delivery_attempts_total{channel_kind=\"discord\",outcome=\"unknown\"} 1\n";
    assert!(text.contains(counted), "{text}");
}
