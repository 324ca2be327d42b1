//! What people read: every message in every dialect and language, hostile data, and operators' own templates.

#![allow(clippy::unwrap_used, clippy::expect_used)] // clippy counts helpers of tests as no tests

use std::path::Path;

use callboard::channels;
use callboard::model::{
    Change, ChangeKind, Content, Dialect, Draft, Folding, MOST_FOLDED, Message, Notice, NoticeKind, Status, Timestamp,
    Tone,
};
use callboard::render::{Reader, Rendered, Renderer, Sample, Settings};
use callboard::settings::{LOCALES, Problem};
use proptest::prelude::*;
use uuid::Uuid;

// Dialects with the escapes the channels promise, written anew so that these tests stand by themselves.

fn backslashed(text: &str, special: &str) -> String {
    text.chars().flat_map(|c| special.contains(c).then_some('\\').into_iter().chain([c])).collect()
}

fn discord(text: &str) -> String {
    backslashed(text, r"\*_~`|>#-[]()<:@").replace('@', "@\u{200B}")
}

fn slack(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.chars().flat_map(|c| [Some(c), "*_~`".contains(c).then_some('\u{200B}')]).flatten().collect()
}

fn dingtalk(text: &str) -> String {
    backslashed(text, r"\`*_{}[]()#+-.!>").replace('<', "&lt;")
}

fn same(text: &str) -> String {
    text.to_owned()
}

const DISCORD: Dialect = Dialect {
    kind: "discord-webhook",
    escape: discord,
    escape_title: discord,
    bold: |text| format!("**{text}**"),
    link: |label, url| format!("[{label}]({url})"),
    limit: 4096,
    measure: char::len_utf16,
};
const SLACK: Dialect = Dialect {
    kind: "slack-webhook",
    escape: slack,
    escape_title: same,
    bold: |text| format!("*{text}*"),
    link: |label, url| format!("<{url}|{label}>"),
    limit: 3000,
    measure: char::len_utf16,
};
const DINGTALK: Dialect = Dialect {
    kind: "dingtalk",
    escape: dingtalk,
    escape_title: dingtalk,
    bold: |text| format!("**{text}**"),
    link: |label, url| format!("[{label}]({url})"),
    limit: 10_000,
    measure: char::len_utf8,
};
const CONSOLE: Dialect = Dialect {
    kind: "console",
    escape: same,
    escape_title: same,
    bold: same,
    link: |label, url| format!("{label} ({url})"),
    limit: usize::MAX,
    measure: |_| 1,
};
const DIALECTS: [Dialect; 4] = [DISCORD, SLACK, DINGTALK, CONSOLE];

fn built_in() -> &'static Renderer {
    static RENDERER: std::sync::OnceLock<Renderer> = std::sync::OnceLock::new();
    RENDERER.get_or_init(|| {
        let (renderer, problems) = Renderer::load(&Settings::default(), &DIALECTS);
        assert_eq!(problems, [], "the built-in templates are in order");
        renderer
    })
}

fn reader<'a>(kind: &'a str, locale: &'a str) -> Reader<'a> {
    Reader { kind, locale, timezone: "Asia/Shanghai", template: None }
}

fn rendered(renderer: &Renderer, change: &Change, reader: &Reader<'_>) -> Rendered {
    renderer.render(&draft(change), reader, Renderer::samples_at())
}

fn draft(change: &Change) -> Draft {
    Draft::of(Uuid::nil(), Content::Change(change.clone()))
}

fn message(renderer: &Renderer, change: &Change, reader: &Reader<'_>) -> Message {
    let rendered = rendered(renderer, change, reader);
    assert!(!rendered.fell_back, "{} renders for {reader:?}", change.kind.name());
    rendered.message
}

fn sample(wanted: impl Fn(&ChangeKind) -> bool) -> Change {
    Renderer::samples().into_iter().find(|change| wanted(&change.kind)).expect("there is such a sample")
}

fn stage_sample(to: &Status) -> Change {
    sample(|kind| matches!(kind, ChangeKind::StageChanged { to: now, .. } if now == to))
}

fn later(minutes: i64) -> Timestamp {
    Renderer::samples_at() + jiff::SignedDuration::from_mins(minutes)
}

#[test]
fn every_message_as_it_is_read() {
    for dialect in DIALECTS {
        for locale in LOCALES {
            let mut page = String::new();
            for Sample { name, draft, now } in Renderer::named_samples() {
                let rendered = built_in().render(&draft, &reader(dialect.kind, locale), now);
                assert!(!rendered.fell_back, "{name} renders for {} {locale}", dialect.kind);
                let message = rendered.message;
                assert!(message.body.len() < 1500, "{name} is read on a phone: {}", message.body);
                page.push_str(&format!("{}\n{}\n\n", message.title, message.body));
            }
            insta::assert_snapshot!(format!("{}.{locale}", dialect.kind), page);
        }
    }
}

#[test]
fn the_release_set_announces() {
    let mut page = String::new();
    for locale in LOCALES {
        for change in Renderer::samples() {
            if let ChangeKind::Finished { .. } = change.kind {
                let reader = Reader { template: Some("release"), ..reader("console", locale) };
                let message = message(built_in(), &change, &reader);
                page.push_str(&format!("{}\n{}\n\n", message.title, message.body));
            }
        }
    }
    insta::assert_snapshot!("release", page);
    assert_eq!(built_in().sets().collect::<Vec<_>>(), ["release"]);
    // What the set does not word, the default set does.
    let waiting = sample(|kind| matches!(kind, ChangeKind::Waiting { .. }));
    let of_set = Reader { template: Some("release"), ..reader("console", "en") };
    assert_eq!(message(built_in(), &waiting, &of_set), message(built_in(), &waiting, &reader("console", "en")));
}

#[test]
fn a_message_names_run_stage_status_and_reason() {
    for change in Renderer::samples() {
        for locale in LOCALES {
            let message = message(built_in(), &change, &reader("console", locale));
            let text = format!("{}\n{}", message.title, message.body);
            assert_eq!(message.plain, text, "plain is the same text where there is no markup");
            for fact in ["warehouse", "7b1e04c2", "orders_daily v12", "137946317766XXXX"] {
                assert!(text.contains(fact), "{fact} is missing from: {text}");
            }
            if let Some(stage) = change.stage() {
                assert!(text.contains(&stage.code) && text.contains(&stage.name), "which stage? {text}");
            }
            match &change.kind {
                ChangeKind::StageChanged { from, to, .. } | ChangeKind::Finished { from, to, .. } => {
                    assert!(text.contains(&format!("{from} → {to}")), "from where to where? {text}");
                    if *to == Status::Fail {
                        assert!(text.contains("table ods_orders_di does not exist"), "why? {text}");
                    }
                }
                _ => {}
            }
            assert_eq!(message.url, change.url);
            assert!(!message.url_label.is_empty() && !message.title.contains('!') && !message.body.contains('!'));
        }
    }
}

#[test]
fn a_late_message_says_so_and_names_the_day() {
    let change = stage_sample(&Status::Success);
    let at = |now, locale| built_in().render(&draft(&change), &reader("console", locale), now).message.body;
    assert!(at(later(2), "en").ends_with("· 16:05 CST"), "two minutes are nothing to speak of");
    assert!(at(later(12), "en").ends_with("· 16:05 CST · sent 12 min late"));
    assert!(at(later(60 * 24), "zh-CN").ends_with("· 2026-11-24 16:05 CST · 延迟 1 天送达"));
}

#[test]
fn unknown_reader_settings_still_give_a_message() {
    let change = stage_sample(&Status::Success);
    let odd = Reader { kind: "console", locale: "fr", timezone: "Mars/Olympus", template: Some("no-such-set") };
    let text = message(built_in(), &change, &odd).plain;
    assert!(text.contains("PROD_CHECK passed") && text.contains("08:05 UTC"), "{text}");
    let nowhere = Reader { kind: "pigeon", ..odd };
    let rendered = rendered(built_in(), &change, &nowhere);
    assert!(rendered.fell_back, "a channel kind without dialect gets the plain line");
    assert!(rendered.message.title.contains("Running → Success"), "{}", rendered.message.title);
    assert!(!rendered.message.title.contains('_'), "nothing a platform could read as markup");
}

#[test]
fn links_and_bold_follow_the_dialect() {
    let folder = folder(&[(
        "lost.hbs",
        "{{bold run.title}} {{link run.title url}}\n\n{{bold run.title}} {{link url_label url}}\n{{link \"x\" run.title}}",
    )]);
    let (renderer, problems) = load(folder.path());
    assert_eq!(problems, []);
    let mut lost = sample(|kind| matches!(kind, ChangeKind::Lost { .. }));
    lost.url = "https://example.com/a?b=(1)|<2>".to_owned();
    lost.run.description = "a*b".to_owned();
    let text = |kind| {
        let message = message(&renderer, &lost, &reader(kind, "en"));
        format!("{} / {}", message.title, message.body)
    };
    let url = "https://example.com/a?b=%281%29%7C%3C2%3E";
    assert_eq!(text("discord-webhook"), format!("a\\*b a\\*b / **a\\*b** [Open in DataWorks]({url})\nx"));
    assert_eq!(text("slack-webhook"), format!("a*b a*b / *a*\u{200B}b* <{url}|Open in DataWorks>\nx"));
    let plain = message(&renderer, &lost, &reader("slack-webhook", "en")).plain;
    assert_eq!(plain, format!("a*b a*b ({url})\na*b Open in DataWorks ({url})\nx"));
}

// ------------------------------------------------------------------------------------------------- hostile data

fn hostile() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "@everyone <@123456789012345678> <!channel> <@U1>",
        "[click](https://evil.example) ![x](https://evil.example/p.png) <https://evil.example|here>",
        "\u{202E}gnp.exe\u{2066}\u{200B}\u{FEFF}\u{E0041}",
        "{{7*7}} {{run.id}} {{{url}}} {{> footer}} ${7*7} {% x %}",
        "\u{1B}[31mred\u{1B}[0m\u{7}\u{0}",
        "line\nbreak\r\nand # heading\n> quote\n- list\n```code",
        "\\*_~`|<>&\"'#+-.!",
        "<font color=red>x</font> <at id=all></at>",
    ])
    .prop_map(str::to_owned);
    prop_oneof![
        known,
        Just("\u{6570}\u{636E}".repeat(5000)),
        Just(format!("Z{}", "\u{301}".repeat(2000))),
        any::<String>(),
        prop::collection::vec(any::<char>(), 0..300).prop_map(|chars| chars.into_iter().collect()),
    ]
}

/// A change whose every text comes from outside.
fn poisoned(mut change: Change, texts: &[String; 6]) -> Change {
    let [description, creator, name, message, code, status] = texts.clone();
    let old_code = change.stage().map(|stage| stage.code.clone());
    change.run.description = description;
    change.run.creator = creator;
    change.run.message.clone_from(&message);
    change.workspace.name.clone_from(&name);
    for stage in &mut change.run.stages {
        if Some(&stage.code) == old_code.as_ref() {
            stage.code.clone_from(&code);
        }
        stage.name.clone_from(&name);
        stage.kind.clone_from(&name);
        stage.message.clone_from(&message);
    }
    match &mut change.kind {
        ChangeKind::StageChanged { stage, from, to, .. } => {
            *stage = code;
            *from = Status::from(status.as_str());
            if let Status::Unknown(raw) = to {
                *raw = status;
            }
        }
        ChangeKind::Waiting { stage, .. } => *stage = code,
        _ => {}
    }
    change
}

#[test]
fn chinese_readers_read_chinese() {
    for Sample { name, mut draft, now } in Renderer::named_samples() {
        // Why something is refused is said by whoever refuses it.
        if let Content::Notice(Notice {
            kind:
                NoticeKind::DestinationDead { reason, .. }
                | NoticeKind::DestinationRefusing { reason, .. }
                | NoticeKind::BotDenied { reason, .. }
                | NoticeKind::SourceDenied { reason, .. },
            ..
        }) = &mut draft.content
        {
            reason.clear();
        }
        let text = built_in().render(&draft, &reader("console", "zh-CN"), now).message.plain;
        for english in [
            "stage ",
            "after",
            "Next",
            "by ",
            "waiting",
            "waits",
            "passed",
            "failed",
            " min",
            "Run ",
            "late",
            "issed",
            "up to",
            "repetition",
            "since",
            "times",
            " is ",
            "the ",
        ] {
            assert!(!text.contains(english), "{english:?} was left untranslated in {name}: {text}");
        }
    }
}

// ------------------------------------------------------------------------------------- digests, notices, repetitions

fn named(name: &str) -> Draft {
    Renderer::named_samples().into_iter().find(|sample| sample.name == name).expect("there is such a sample").draft
}

fn read(draft: &Draft, locale: &str, now: Timestamp) -> Message {
    let rendered = built_in().render(draft, &reader("console", locale), now);
    assert!(!rendered.fell_back);
    rendered.message
}

/// The changes of a sample, for another reason or of fewer runs.
fn changes(name: &str) -> Vec<Change> {
    match named(name).content {
        Content::Digest { changes, .. } => changes,
        other => panic!("{name} is no digest: {other:?}"),
    }
}

#[test]
fn a_digest_begins_with_who_needs_somebody_and_names_everything() {
    let message = read(&named("digest"), "en", later(0));
    assert_eq!(message.tone, Tone::Bad, "as bad as the worst run");
    let order: Vec<usize> =
        ["7b1e04c2", "91c0aa17", "03ffab10"].iter().map(|id| message.body.find(id).unwrap()).collect();
    assert!(order.is_sorted(), "failed, waiting, the others: {}", message.body);
    let waiting: Vec<Change> =
        changes("digest").into_iter().filter(|change| change.run.status != Status::Fail).collect();
    let waiting: Vec<Change> = waiting.into_iter().filter(|change| change.run.id.short() != "7b1e04c2").collect();
    let draft = Draft::of(Uuid::nil(), Content::Digest { changes: waiting, why: Folding::Rate });
    let message = read(&draft, "en", later(0));
    assert_eq!(
        (message.tone, message.title.as_str()),
        (Tone::Waiting, "⏸️ 2 runs: 1 waiting, 1 in progress · 3 changes")
    );
}

#[test]
fn what_is_late_never_reads_like_news() {
    for (name, locale, present, late) in [
        ("catch-up", "en", "Now: failed", "sent up to 6 h 1 min late"),
        ("catch-up", "zh-CN", "当前：失败", "延迟 最多 6 小时 1 分钟送达"),
        ("catch-up-one", "en", "Last seen: waiting", "sent 1 h 1 min late"),
        ("catch-up-runs", "en", "Caught up", "sent up to 17 h 1 min late"),
        ("catch-up-runs", "zh-CN", "补发", "延迟 最多 17 小时 1 分钟送达"),
    ] {
        let message = read(&named(name), locale, later(0));
        assert!(message.title.contains(present), "{name} {locale}: {}", message.title);
        assert!(message.body.contains(late), "{name} {locale}: {}", message.body);
    }
    let unseen = read(&named("catch-up-unseen"), "en", later(0)).body;
    assert!(unseen.contains("between 10:05 and 16:05 CST"), "nobody knows when: {unseen}");
    let runs = read(&named("catch-up-runs"), "en", later(0)).body;
    assert!(runs.contains("last seen running: started 11-23 23:04"), "it may have gone on: {runs}");
}

#[test]
fn a_catch_up_says_where_the_run_stands_now_not_where_its_last_change_left_it() {
    let missed: Vec<Change> = changes("catch-up").into_iter().take(1).collect();
    let mut present = missed[0].run.clone();
    let draft = |present| Draft {
        present,
        ..Draft::of(Uuid::nil(), Content::Digest { changes: missed.clone(), why: Folding::Late })
    };
    let title = |present| read(&draft(present), "en", later(0)).title;
    assert_eq!(title(None), "▶️ Last seen: running at PROD · orders_daily v12");
    assert_eq!(title(Some(present.clone())), "▶️ Now: running at PROD · orders_daily v12");
    present.status = Status::Success;
    assert_eq!(title(Some(present.clone())), "✅ Now: succeeded · orders_daily v12");
    present.status = Status::Cancel;
    assert_eq!(title(Some(present)), "⏹️ Now: cancelled at PROD · orders_daily v12");
}

#[test]
fn changes_in_two_hours_that_the_clock_shows_twice_are_told_apart() {
    let mut changes = changes("catch-up");
    for (change, at) in changes.iter_mut().zip(["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-24T09:00:00Z"])
    {
        change.at = at.parse().unwrap();
    }
    let draft = Draft::of(Uuid::nil(), Content::Digest { changes, why: Folding::Late });
    let reader = Reader { timezone: "Europe/Berlin", ..reader("console", "en") };
    let body = built_in().render(&draft, &reader, "2026-10-25T08:00:00Z".parse().unwrap()).message.body;
    for line in ["\n02:30 CEST PROD_CHECK passed\n", "\n02:30 PROD failed\n", "\n10-24 11:00 CEST run failed\n"] {
        assert!(body.contains(line), "{line:?} is not in {body}");
    }
}

#[test]
fn what_may_be_a_repetition_says_so_at_its_end_whoever_wrote_the_template() {
    let folder = folder(&[("stage.hbs", "mine\n\nmy words"), ("digest.hbs", "mine\n\n{{len runs}}")]);
    let (renderer, problems) = load(folder.path());
    assert_eq!(problems, []);
    for (locale, said) in [("en", "↻ may be a repetition · #00000001"), ("zh-CN", "↻ 可能重复 · #00000001")] {
        for Sample { name, draft, now } in Renderer::named_samples() {
            let draft = Draft { repeated: true, ..draft };
            for renderer in [built_in(), &renderer] {
                let message = renderer.render(&draft, &reader("discord-webhook", locale), now).message;
                assert!(message.body.ends_with(&format!("\n{}", discord(said))), "{name}: {}", message.body);
                assert!(message.plain.ends_with(&format!("\n{said}")), "{name}: {}", message.plain);
            }
        }
    }
}

#[test]
fn a_notice_says_what_to_do_and_has_nothing_to_open() {
    for locale in LOCALES {
        let message = read(&named("notice-destination-dead"), locale, later(0));
        assert!(message.plain.contains("callboard deliveries retry --to ops"), "{}", message.plain);
        assert_eq!((message.tone, message.url.as_str(), message.url_label.as_str()), (Tone::Bad, "", ""));
        let message = read(&named("notice-source-back"), locale, later(0));
        assert!(message.plain.contains("warehouse") && message.plain.contains("09:10 CST"), "{}", message.plain);
        assert_eq!(message.tone, Tone::Good);
    }
}

#[test]
fn the_release_set_says_the_rest_like_everybody() {
    let of_set = Reader { template: Some("release"), ..reader("console", "en") };
    for name in ["digest", "catch-up", "notice-bot-denied"] {
        let ours = built_in().render(&named(name), &of_set, later(0));
        assert_eq!(ours, built_in().render(&named(name), &reader("console", "en"), later(0)), "{name}");
    }
}

/// As many changes as one message tells, of runs that everybody in the world may name.
fn crowd(samples: &[Change], texts: &[String; 6], runs: usize, why: Folding, unseen: bool) -> Draft {
    let mut changes = Vec::new();
    for (n, sample) in samples.iter().cycle().take(MOST_FOLDED).enumerate() {
        let mut texts = texts.clone();
        // Codes of a run differ.
        texts[4] = format!("C{n:02}{}", texts[4]);
        let mut change = poisoned(sample.clone(), &texts);
        let run = n % runs;
        change.run.id = format!("__{run:02}****-20ec-4a7c").parse().unwrap();
        change.workspace.project_id = i64::try_from(run).unwrap();
        change.at = later(-60 * 24 * 400 - i64::try_from(n).unwrap());
        change.unseen_since = unseen.then(|| later(-60 * 24 * 800));
        changes.push(change);
    }
    changes.sort_by_key(|change| change.run.id.clone());
    Draft { repeated: true, ..Draft::of(Uuid::nil(), Content::Digest { changes, why }) }
}

/// Every platform shows all of a digest: each run, each change, each time, and the last line.
fn arrives_whole(draft: &Draft, timezone: &str, locale: &str) {
    let Content::Digest { changes, .. } = &draft.content else { unreachable!() };
    for dialect in channels::DIALECTS.into_iter().filter(|dialect| dialect.limit < usize::MAX) {
        let reader = Reader { timezone, ..reader(dialect.kind, locale) };
        let Rendered { message, fell_back } = real().render(draft, &reader, later(0));
        assert!(!fell_back, "{} {locale} has no template for it", dialect.kind);
        let shown = posted(dialect.kind, &message);
        let label = format!("{} {locale}: {shown}", dialect.kind);
        let last = (dialect.escape)("#00000000");
        assert!(shown.trim_end_matches("callboard").trim_end().ends_with(&last), "it is cut: {label}");
        for change in changes {
            let id = (dialect.escape)(change.run.id.short());
            assert!(shown.contains(&id), "{id} is not named: {label}");
            if let ChangeKind::StageChanged { stage, .. } | ChangeKind::Waiting { stage, .. } = &change.kind {
                let code = &stage[..3];
                assert!(shown.contains(code), "{code} is not named: {label}");
            }
        }
        assert!(shown.matches("10-20").count() >= changes.len(), "each has its time: {label}");
    }
}

#[test]
fn a_digest_of_the_longest_texts_in_their_longest_escapes_arrives_whole() {
    // The status is one that nobody documented, so it is as long as they like.
    let paused = stage_sample(&Status::Unknown("Suspended".to_owned()));
    for text in [">", "&", "\\", "_", "\"", "😀", "数"] {
        let texts = std::array::from_fn(|_| text.repeat(10_000));
        for runs in [1, 2, MOST_FOLDED / 2, MOST_FOLDED] {
            for (why, timezone) in [(Folding::Rate, "America/New_York"), (Folding::Late, "Asia/Shanghai")] {
                let draft = crowd(std::slice::from_ref(&paused), &texts, runs, why, true);
                LOCALES.iter().for_each(|locale| arrives_whole(&draft, timezone, locale));
            }
        }
    }
}

/// What a platform gets to show of the body.
fn posted(kind: &str, message: &Message) -> String {
    let shown = match kind {
        "discord" => channels::discord::bot_payload(message)["embeds"][0]["description"].clone(),
        "discord-webhook" => channels::discord::payload(message)["embeds"][0]["description"].clone(),
        "slack" | "slack-webhook" => channels::slack::payload(message)["blocks"][1]["text"]["text"].clone(),
        "dingtalk" => {
            let payload = channels::dingtalk::payload(message, Some("callboard"));
            payload[payload["msgtype"].as_str().expect("there is a type")]["text"].clone()
        }
        "dingtalk-bot" => {
            let payload = channels::dingtalk::bot::payload(message);
            let param: serde_json::Value =
                serde_json::from_str(payload["msgParam"].as_str().expect("JSON")).expect("JSON");
            param["text"].clone()
        }
        _ => message.body.clone().into(),
    };
    shown.as_str().expect("there is a text").to_owned()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_platform_takes_a_digest_whole_whatever_its_texts_are(
        texts in prop::array::uniform6(prop_oneof![hostile(), Just(">".repeat(10_000)), Just("&😀\\".repeat(3_000))]),
        runs in 1..=MOST_FOLDED,
        late in any::<bool>(),
        unseen in any::<bool>(),
        other_summer_time in any::<bool>(),
        locale in prop::sample::select(LOCALES.to_vec()),
    ) {
        let draft = crowd(&Renderer::samples(), &texts, runs, if late { Folding::Late } else { Folding::Rate }, unseen);
        let timezone = if other_summer_time { "America/New_York" } else { "Asia/Shanghai" };
        arrives_whole(&draft, timezone, locale);
    }

    #[test]
    fn a_digest_that_an_operators_template_makes_too_long_is_told_without_it(
        texts in prop::array::uniform6(hostile()),
        runs in 1..=MOST_FOLDED,
    ) {
        let long = format!("mine\n\n{}{{{{#each runs}}}}{{{{title}}}}{{{{/each}}}}", "x".repeat(11_000));
        let folder = folder(&[("digest.hbs", &long)]);
        let (renderer, _) = Renderer::load(&Settings { folder: Some(folder.path().to_owned()) }, &channels::DIALECTS);
        let draft = crowd(&Renderer::samples(), &texts, runs, Folding::Rate, true);
        for kind in ["discord", "slack-webhook", "dingtalk"] {
            let Rendered { message, fell_back } = renderer.render(&draft, &reader(kind, "en"), later(0));
            prop_assert!(fell_back);
            let shown = posted(kind, &message);
            prop_assert!(shown.contains("#00000000"), "{kind} cuts it: {shown}");
            prop_assert!(shown.matches("10-20").count() >= MOST_FOLDED, "each has its time: {shown}");
        }
    }
}

/// With the dialects that the channels really have.
fn real() -> &'static Renderer {
    static RENDERER: std::sync::OnceLock<Renderer> = std::sync::OnceLock::new();
    RENDERER.get_or_init(|| Renderer::load(&Settings::default(), &channels::DIALECTS).0)
}

fn is_bad(c: char) -> bool {
    (c.is_control() && c != '\n')
        || matches!(c, '\u{200C}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{2069}' | '\u{FEFF}'
            | '\u{E0000}'..='\u{E007F}')
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn hostile_text_is_shown_and_does_nothing(
        texts in prop::array::uniform6(hostile()),
        sample in prop::sample::select(Renderer::samples()),
        set in any::<bool>(),
    ) {
        let change = poisoned(sample, &texts);
        for dialect in DIALECTS {
            for locale in LOCALES {
                let reader = Reader { template: set.then_some("release"), ..reader(dialect.kind, locale) };
                let message = message(built_in(), &change, &reader);
                let label = format!("{} {locale} {:?}", dialect.kind, change.kind);
                for text in [&message.title, &message.body, &message.plain] {
                    prop_assert!(!text.contains(is_bad), "control or invisible characters: {label} {text:?}");
                    prop_assert!(text.chars().count() < 6000, "bounded: {label} {}", text.chars().count());
                }
                prop_assert!(!message.title.contains('\n'), "a title is one line: {label}");
                prop_assert!(!message.title.is_empty() && message.plain.chars().count() < 2500);
                prop_assert!(!message.plain.contains('\u{200B}'), "plain has no tricks in it: {label}");
                prop_assert!(message.plain.contains("7b1e04c2"), "the run is named whatever comes: {label}");
            }
        }
        let body = message(built_in(), &change, &reader("slack-webhook", "en")).body;
        prop_assert!(!body.contains('<') && !body.contains('>'), "nothing live in Slack: {body}");
        let body = message(built_in(), &change, &reader("discord-webhook", "en")).body;
        prop_assert!(!unescaped(&body, "<@`[*_|"), "nothing live in Discord: {body}");
        let body = message(built_in(), &change, &reader("dingtalk", "en")).body;
        prop_assert!(!unescaped(&body, "`*_[]!#") && !body.contains('<'), "nothing live in DingTalk: {body}");
    }
}

/// Whether one of these stands there without an odd number of backslashes before it.
fn unescaped(text: &str, special: &str) -> bool {
    let mut escaped = false;
    for c in text.chars() {
        if special.contains(c) && !escaped {
            return true;
        }
        escaped = c == '\\' && !escaped;
    }
    false
}

#[test]
fn template_syntax_in_data_is_data() {
    let mut change = stage_sample(&Status::Fail);
    change.run.description = "{{7*7}} {{run.id}} {{> footer}} ${7*7}".to_owned();
    let text = message(built_in(), &change, &reader("console", "en")).title;
    assert!(text.ends_with("· {{7*7}} {{run.id}} {{> footer}} ${7*7}"), "{text}");
}

// ------------------------------------------------------------------------------------------- operators' templates

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

fn load(folder: &Path) -> (Renderer, Vec<Problem>) {
    Renderer::load(&Settings { folder: Some(folder.to_owned()) }, &DIALECTS)
}

#[test]
fn the_most_specific_template_serves() {
    let folder = folder(&[
        ("finished.hbs", "any {{to}}\n\nbody"),
        ("finished.dingtalk.hbs", "dingtalk {{to}}\n\nbody"),
        ("finished.dingtalk.zh-CN.hbs", "dingtalk zh {{to}}\n\nbody"),
        ("finished.zh-CN.hbs", "zh {{to}}\n\nbody"),
        ("loud/finished.hbs", "loud {{to}}\r\n\r\nbody\r\n"),
        ("footer.hbs", "{{run.short}} only"),
        ("README.md", "how we word things"),
        (".hidden.hbs", "{{"),
    ]);
    let (renderer, problems) = load(folder.path());
    assert_eq!(problems, []);
    let change = sample(|kind| matches!(kind, ChangeKind::Finished { to: Status::Success, .. }));
    let title =
        |kind, locale, template| message(&renderer, &change, &Reader { template, ..reader(kind, locale) }).title;
    assert_eq!(title("console", "en", None), "any Success");
    assert_eq!(title("console", "zh-CN", None), "zh Success");
    assert_eq!(title("dingtalk", "en", None), "dingtalk Success");
    assert_eq!(title("dingtalk", "zh-CN", None), "dingtalk zh Success");
    assert_eq!(title("dingtalk", "zh-CN", Some("loud")), "loud Success");
    let stage = stage_sample(&Status::Success);
    let body = message(&renderer, &stage, &reader("console", "en")).body;
    assert!(body.ends_with("\n7b1e04c2 only"), "built-in templates take the operator's footer: {body}");
}

/// File, text, and what must be said of it.
const BROKEN: &[(&str, &str, &str)] = &[
    ("stage.hbs", "{{stage.code}}\n\nfine\n{{#if took}}never closed", "line 4"),
    ("stage.hbs", "{{stage.code}}\n\n{{#if took}}x{{/each}}", "line 3, column 1"),
    (
        "stage.hbs",
        "{{stage.kode}}\n\nbody",
        "line 1, column 1: there is no variable stage.kode; did you mean stage.code?",
    ),
    ("stage.hbs", "title\n\n\nx {{runn.id}}", "line 4, column 3: there is no variable runn.id"),
    ("stage.hbs", "title\n\na\n{{#if tok}}x{{/if}}", "line 4, column 1: there is no variable tok; did you mean to"),
    (
        "stage.hbs",
        "title\n\n{{#each pasts}}x{{/each}}",
        "line 3, column 1: there is no variable pasts; did you mean past?",
    ),
    (
        "stage.hbs",
        "title\n\n{{#each past}}\n{{cod}}\n{{/each}}",
        "line 4, column 1: there is no variable cod; did you mean code?",
    ),
    (
        "stage.hbs",
        "title\n\n{{#each past as |p|}}{{p.cod}}{{/each}}",
        "there is no variable p.cod; did you mean p.code?",
    ),
    ("stage.hbs", "title\n\n{{#if took}}a{{else if tok}}b{{/if}}", "line 3, column 1: there is no variable tok"),
    ("stage.hbs", "title\n\n{{#if (eq too \"Fail\")}}b{{/if}}", "there is no variable too; did you mean to?"),
    ("stage.hbs", "title\n\n{{#each took}}x{{/each}}", "{{#each}} needs a list"),
    ("stage.hbs", "title\n\n{{../run.id}}", "climbs out"),
    ("stage.hbs", "title\n\n{{@index}}", "@index does not exist here"),
    ("stage.hbs", "title\n\n{{run}}", "run holds several values"),
    ("stage.hbs", "title\n\n{{took.seconds}}", "there is no variable took.seconds"),
    ("stage.hbs", "title\n\n{{upper to}}", "there is no helper upper"),
    ("stage.hbs", "title\n\n{{bolt to}}", "there is no helper bolt; did you mean bold?"),
    ("stage.hbs", "title\n\n{{lookup run \"id\"}}", "there is no helper lookup"),
    ("stage.hbs", "title\n\n{{#ech past}}x{{/ech}}", "there is no block ech; did you mean each?"),
    ("stage.hbs", "title\n\n{{bold}}", "needs something to work on"),
    ("stage.hbs", "title\n\n{{link url_label}}", "line 3, column 1"),
    ("stage.hbs", "title\n\na {{{run.title}}}", "line 3, column 3: raw output"),
    ("stage.hbs", "title\n\n{{&run.title}}", "raw output"),
    ("stage.hbs", "title\n\n{{> waiting}}", "only {{> footer}} can be included"),
    ("stage.hbs", "title\n\n{{> (eq to from)}}", "line 3, column 1"),
    ("stage.hbs", "title {{> footer}}\n\nbody", "in a body only"),
    ("stage.hbs", "title\n\n{{#each past}}{{> footer}}{{/each}}", "can't stand inside"),
    ("stage.hbs", "title\n\n{{#*inline \"x\"}}y{{/inline}}", "no other partials"),
    ("stage.hbs", "title\n\n{{{{raw}}}} {{x}} {{{{/raw}}}}", "there is no block raw"),
    ("stage.hbs", "only a title", "a title line, an empty line and a body"),
    ("stage.hbs", "", "a title line, an empty line and a body"),
    ("stage.hbs", "{{#if unknown}}x{{/if}}\n\nbody", "line 1, column 1: the title is empty"),
    ("started.hbs", "title\n\nbody\n{{stage.code}}", "line 4, column 1: stage.code has no value"),
    ("started.hbs", "title\n\n{{#with stage}}{{code}}{{/with}}", "line 3, column 1: stage has no value"),
    ("footer.hbs", "a\n{{stage.code}}", "line 2, column 1: stage.code has no value"),
    ("footer.hbs", "{{> footer}}", "not in the footer itself"),
    ("finnished.hbs", "title\n\nbody", "did you mean \"finished\"?"),
    ("stage.slack.hbs", "title\n\nbody", "did you mean \"slack-webhook\"?"),
    ("stage.hbs.bak", "title\n\nbody", "did you mean stage.hbs?"),
    ("loud/deep/stage.hbs", "title\n\nbody", "is a folder in a template set"),
];

#[test]
fn a_broken_template_is_reported_where_it_is_broken_and_the_built_in_one_serves() {
    for (file, text, said) in BROKEN {
        let folder = folder(&[(file, text)]);
        let (renderer, problems) = load(folder.path());
        assert_eq!(problems.len(), 1, "{file} is refused, and that is said once: {text:?} {problems:#?}");
        let key = if file.contains("deep") { "loud/deep" } else { file };
        assert!(problems.iter().all(|problem| problem.key == key), "{problems:?}");
        assert!(problems.iter().any(|problem| problem.message.contains(said)), "{text:?}: {problems:#?} lacks {said}");
        for change in Renderer::samples() {
            let ours = message(&renderer, &change, &reader("discord-webhook", "en"));
            assert_eq!(ours, message(built_in(), &change, &reader("discord-webhook", "en")), "{file} {text:?}");
        }
    }
}

#[test]
fn sources_that_would_exhaust_us_are_refused() {
    let nested = |open: &str, inner: &str, close: &str, times: usize| {
        format!("t\n\n{}{inner}{}", open.repeat(times), close.repeat(times))
    };
    let refused = [
        (nested("{{#if took}}", "x", "{{/if}}", 3000), "more than 100 blocks"),
        (nested("{{~ #if took}}", "x", "{{/if}}", 2500), "more than 100 blocks"),
        (format!("t\n\n{{{{#if took}}}}{}{{{{/if}}}}", "{{ else if took}}".repeat(3000)), "more than 100 blocks"),
        (format!("t\n\n{{{{#if {}took{}}}}}x{{{{/if}}}}", "(not ".repeat(3000), ")".repeat(3000)), "parentheses"),
        (format!("t\n\n{{{{eq to {}1{}}}}}", "{\"a\":".repeat(3000), "}".repeat(3000)), "stack limit"),
        (format!("t\n\n{{{{eq to {}1{}}}}}", "[".repeat(3000), "]".repeat(3000)), "stack limit"),
        (format!("t\n\n{}", "x".repeat(70_000)), "larger than 64 KiB"),
    ];
    for (text, said) in refused {
        let folder = folder(&[("lost.hbs", &text)]);
        let (_, problems) = load(folder.path());
        assert!(problems.len() == 1 && problems[0].message.contains(said), "{said}: {problems:?}");
    }
    // As deep as the bounds allow still fits the stack of a thread.
    let lost = sample(|kind| matches!(kind, ChangeKind::Lost { .. }));
    let allowed = [
        nested("{{#if (not took)}}", "x", "{{/if}}", 100),
        format!("t\n\n{{{{#if took}}}}y{}{{{{else}}}}x{{{{/if}}}}", "{{else if took}}y".repeat(98)),
        format!("t\n\n{{{{#if {}took{}}}}}y{{{{else}}}}x{{{{/if}}}}", "(not (not ".repeat(50), "))".repeat(50)),
        format!("t\n\n{{{{#if (eq to {}1{})}}}}y{{{{else}}}}x{{{{/if}}}}", "[".repeat(100), "]".repeat(100)),
    ];
    for text in allowed {
        let folder = folder(&[("lost.hbs", &text)]);
        let (renderer, problems) = load(folder.path());
        assert_eq!(problems, [], "refused although within the bounds");
        assert_eq!(message(&renderer, &lost, &reader("console", "en")).body, "x");
    }
}

#[test]
fn text_that_is_no_text_and_folders_that_are_none_are_reported() {
    let folder = folder(&[("stage.hbs", "")]);
    std::fs::write(folder.path().join("stage.hbs"), b"t\xff\n\nb").unwrap();
    let (_, problems) = load(folder.path());
    assert_eq!(problems, [Problem::new("stage.hbs", "is not UTF-8 text")]);
    let (renderer, problems) = load(&folder.path().join("nowhere"));
    assert_eq!(problems.len(), 1);
    assert!(problems[0].key == "folder" && problems[0].message.contains("nowhere can't be read"), "{problems:?}");
    message(&renderer, &stage_sample(&Status::Success), &reader("console", "en"));
}

#[test]
fn a_template_that_fails_only_on_real_data_gives_the_plain_line() {
    // Fits the limit of output with the samples' short description, not with a long one.
    let folder = folder(&[("stage.hbs", &format!("t\n\n{}{}", "x".repeat(64_900), "{{run.title}}".repeat(20)))]);
    let (renderer, problems) = load(folder.path());
    assert_eq!(problems, []);
    let mut change = stage_sample(&Status::Fail);
    change.run.description = "x*".repeat(60);
    let rendered = rendered(&renderer, &change, &reader("discord-webhook", "en"));
    assert!(rendered.fell_back);
    let message = rendered.message;
    assert!(message.title.starts_with("❌ PROD Running → Fail · x\\*x\\*"), "{}", message.title);
    assert_eq!(message.body, "warehouse · 7b1e04c2");
    assert!(message.plain.starts_with("❌ PROD Running → Fail · x*x*"), "{}", message.plain);
}

#[test]
fn the_manual_lists_exactly_what_there_is() {
    let manual = include_str!("../../docs/templates.md");
    let rows = |heading: &str| -> Vec<String> {
        let section = manual.split(&format!("## {heading}\n")).nth(1).expect("the section is there");
        let section = section.split("\n## ").next().unwrap_or_default();
        let first_cells = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        first_cells.map(str::to_owned).collect()
    };
    let sorted = |mut names: Vec<String>| {
        names.sort_unstable();
        names
    };
    assert_eq!(sorted(rows("Variables")), sorted(Renderer::variables()), "variables in docs/templates.md");
    let helpers = Renderer::helpers().into_iter().map(str::to_owned).collect();
    assert_eq!(sorted(rows("Helpers")), sorted(helpers), "helpers in docs/templates.md");
}

#[test]
fn the_manuals_example_works() {
    let manual = include_str!("../../docs/templates.md");
    let example = manual.split("```handlebars\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let folder = folder(&[("finished.dingtalk.zh-CN.hbs", example)]);
    let (renderer, problems) = load(folder.path());
    assert_eq!(problems, []);
    let failed = sample(|kind| matches!(kind, ChangeKind::Finished { to: Status::Fail, .. }));
    insta::assert_snapshot!("example", message(&renderer, &failed, &reader("dingtalk", "zh-CN")).plain);
}
