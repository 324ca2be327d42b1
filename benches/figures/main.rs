//! The figures that the delivery promises, measured on the program as a user starts it:
//! `cargo bench --bench figures`, or only some of them by name: `cargo bench --bench figures -- recovery backlog`.
//!
//! Prints what it finds, says `missed` where a target is missed, and writes it where `CALLBOARD_RESULTS` points, for
//! the table in RELIABILITY.md. The load of the machine stands beside each figure: on a busy one they say little.
//! Around the program: the simulated DataWorks and sinks, in this process, over loopback.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark that fails must stop, and what it finds is printed"
)]

mod backlog;
mod neighbours;
mod place;
#[path = "../../tests/it/postgres.rs"]
#[allow(dead_code, reason = "the tests ask for more")]
mod postgres;
mod recovery;
mod replicas;
#[path = "../../tests/it/results.rs"]
mod results;
mod seed;
mod sinks;
mod soak;

use std::time::Duration;

#[tokio::main(worker_threads = 2)]
async fn main() {
    // cargo says `--bench`.
    let asked: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let is_asked = |name: &str| asked.is_empty() || asked.iter().any(|asked| asked == name);
    if is_asked("recovery") {
        recovery::measure().await;
    }
    if is_asked("backlog") {
        backlog::measure().await;
    }
    if is_asked("neighbours") {
        neighbours::measure().await;
    }
    if is_asked("replicas") {
        replicas::measure().await;
    }
    if is_asked("soak") {
        soak::measure().await;
    }
}

/// The value below which `share` of `sorted` lie.
fn percentile(sorted: &[Duration], share: f64) -> Duration {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a place")]
    let place = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(place.saturating_sub(1).min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Of the last minute, over all processors.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!("load {}", text.split(' ').next().unwrap_or_default())
}

fn verdict(reached: bool) -> &'static str {
    if reached { "" } else { "missed: " }
}
