//! `/`: the board. Runs of each workspace as last seen, and what is owed to whom. Read only, no script.

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderName, header};
use axum::response::{Html, IntoResponse};

use super::Pages;
use crate::fate;
use crate::model::{RunState, Status, Timestamp, Tone, Workspace};
use crate::text::{clean_line, stopped};

/// Runs shown of each workspace.
const RUNS: usize = 12;
/// Destinations in trouble shown.
const TROUBLED: usize = 20;

/// Nothing is loaded from anywhere, nobody may frame it.
const HEADERS: [(HeaderName, &str); 3] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
];

const STYLE: &str = "
:root{color-scheme:light dark;--line:#8884;--dim:#777}
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}
h1{font-size:1.4rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 .3rem}p{margin:.2rem 0;color:var(--dim)}
table{border-collapse:collapse;width:100%}td{border-top:1px solid var(--line);padding:.45rem .6rem .45rem 0;vertical-align:top}
code{font:13px ui-monospace,monospace}a{color:inherit}
.stage{display:inline-block;border:1px solid var(--line);border-left-width:4px;border-radius:4px;padding:0 .5rem;margin:.1rem .3rem .1rem 0;font-size:13px;white-space:nowrap}
.progress{border-left-color:#3b82f6}.good{border-left-color:#16a34a}.bad{border-left-color:#dc2626}.waiting{border-left-color:#f59e0b}.stopped{border-left-color:#6b7280}.unknown{border-left-color:#a855f7}
.failing{color:#dc2626}";

pub async fn page(State(pages): State<Arc<Pages>>) -> impl IntoResponse {
    let now = (pages.clock)();
    let mut html = String::with_capacity(16 * 1024);
    html.push_str("<!doctype html><html lang=en><meta charset=utf-8><meta http-equiv=refresh content=5>");
    html.push_str("<meta name=viewport content=\"width=device-width\"><title>Callboard</title><style>");
    html.push_str(STYLE);
    html.push_str("</style><h1>Callboard</h1>");
    let summary = match pages.store.overview().await {
        Ok(overview) => {
            let counts = overview.deliveries.iter().map(|(state, count)| format!("{count} {}", state.as_str()));
            let counts = counts.collect::<Vec<_>>().join(", ");
            let counts = if counts.is_empty() { "none yet".to_owned() } else { counts };
            let subscriptions = pages.tracker.count();
            let plural = if subscriptions == 1 { "" } else { "s" };
            format!("{subscriptions} subscription{plural}. Deliveries: {counts}.")
        }
        Err(error) => format!("The store does not answer: {error}"),
    };
    push(&mut html, format_args!("<p>{}", escape(&summary)));
    troubled(&mut html, &pages, now).await;
    for workspace in &pages.workspaces {
        section(&mut html, &pages, workspace, now);
    }
    (HEADERS, Html(html))
}

/// Destinations that fail or take nothing, why, and what helps. Nothing where all is well, or while the store fails,
/// which the line above says.
async fn troubled(html: &mut String, pages: &Pages, now: Timestamp) {
    let Ok(places) = pages.store.places().await else { return };
    let troubled = fate::troubled(&places, &pages.configuration, now);
    if troubled.is_empty() {
        return;
    }
    html.push_str("<h2>Destinations in trouble</h2><table>");
    for (row, condition) in troubled.iter().take(TROUBLED) {
        let said = condition.words("it", &moment).unwrap_or_default();
        let waiting = if row.open == 1 { "1 message waits".to_owned() } else { format!("{} messages wait", row.open) };
        push(
            html,
            format_args!(
                "<tr><td><b>{}</b><br>{waiting}<td class=failing>{}",
                escape(&row.to.to_string()),
                escape(&said)
            ),
        );
        if let Some(command) = condition.remedy(&row.to) {
            push(html, format_args!("<br>once that is mended: <code>{}</code>", escape(&command)));
        }
    }
    html.push_str("</table>");
    if let Some(more @ 1..) = troubled.len().checked_sub(TROUBLED) {
        push(html, format_args!("<p>and {more} more; <code>callboard deliveries list</code> names them"));
    }
}

fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

fn section(html: &mut String, pages: &Pages, workspace: &Workspace, now: Timestamp) {
    let key = workspace.key();
    push(html, format_args!("<h2>{}</h2><p>{} ", escape(&workspace.name), escape(&key.0)));
    let freshness = pages.tracker.freshness(&key, None);
    match freshness.seen_at {
        Some(seen) => push(html, format_args!("· seen {} s ago", now.duration_since(seen).as_secs().max(0))),
        None => html.push_str("· not seen yet"),
    }
    if let Some(failure) = freshness.failure {
        let (what, watches) = match failure.denied {
            true => ("DataWorks refuses access", " Watches stay, what is missed is told later."),
            false => ("Polling fails", ""),
        };
        push(
            html,
            format_args!(
                "<p class=failing>{what} since {}: {}{watches}",
                moment(failure.since),
                escape(&stopped(&failure.said))
            ),
        );
    }
    html.push_str("<table>");
    for run in pages.tracker.recent(&key).iter().take(RUNS) {
        row(html, pages, workspace, run);
    }
    html.push_str("</table>");
}

fn row(html: &mut String, pages: &Pages, workspace: &Workspace, run: &RunState) {
    let snapshot = &run.snapshot;
    let url = pages.meter.url(workspace, &snapshot.id);
    let href = if url.starts_with("https://") { escape(&url) } else { String::new() };
    let watchers = pages.tracker.interested(&workspace.key(), &snapshot.id).len();
    push(
        html,
        format_args!(
            "<tr><td><a href=\"{href}\"><b>{}</b></a><br><code>{}</code> · {} · {watchers} subscribed<td>",
            escape(snapshot.title()),
            escape(snapshot.id.short()),
            escape(snapshot.status.as_str()),
        ),
    );
    let gate = run.gate.as_ref().filter(|gate| gate.told).map(|gate| gate.stage.as_str());
    for stage in &snapshot.stages {
        let (tone, word) = match (&stage.status, gate == Some(stage.code.as_str())) {
            (Status::Init, true) => ("waiting", "waits for someone"),
            (Status::Init, false) => ("", "not started"),
            (status, _) => (class(Tone::of(status)), status.as_str()),
        };
        push(html, format_args!("<span class=\"stage {tone}\" title=\"{}\">", escape(&stage.message)));
        push(html, format_args!("<b>{}</b> {}</span>", escape(&stage.code), escape(word)));
    }
}

fn class(tone: Tone) -> &'static str {
    match tone {
        Tone::Progress => "progress",
        Tone::Good => "good",
        Tone::Bad => "bad",
        Tone::Waiting => "waiting",
        Tone::Stopped => "stopped",
        Tone::Unknown => "unknown",
    }
}

fn push(html: &mut String, text: std::fmt::Arguments<'_>) {
    let _cannot_fail = html.write_fmt(text);
}

/// Text of strangers, on one line and without what acts unseen, as HTML.
fn escape(text: &str) -> String {
    let text = clean_line(text);
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}
