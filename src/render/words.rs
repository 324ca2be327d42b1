//! The words of each locale that templates can't hold: status, kinds of stage, durations, moments.
//! One struct for each locale, so that a word missing in one of them does not compile.

use jiff::tz::TimeZone;
use uuid::Uuid;

use crate::model::{Status, Timestamp, Tone};

/// The words of one locale.
#[derive(Debug)]
pub(super) struct Words {
    pub(super) locale: &'static str,
    /// Label of the link to the run.
    pub(super) open: &'static str,
    /// Labels of the buttons by which a reader hears no more of a run, or less for a while.
    pub(super) stop: &'static str,
    pub(super) mute: &'static str,
    init: &'static str,
    running: &'static str,
    /// Success of a stage, and of a run.
    success: (&'static str, &'static str),
    fail: &'static str,
    termination: &'static str,
    cancel: &'static str,
    /// What a change is called in a list: a run that began, a stage that waits for a person.
    pub(super) started: &'static str,
    pub(super) waits: &'static str,
    /// Before the status of a run, to tell it from a stage's.
    run: &'static str,
    /// What a run is in a digest, where its status does not say it.
    pub(super) waiting: &'static str,
    pub(super) lost: &'static str,
    pub(super) unclear: &'static str,
    /// The same for runs that are counted together: those that stopped, those that go on.
    stopped: &'static str,
    in_progress: &'static str,
    /// Before a duration that is the longest of several.
    up_to: &'static str,
    /// Between names, and what counts the names left out.
    comma: &'static str,
    more: (&'static str, &'static str),
    repeated: &'static str,
    /// What DataWorks calls the type of a stage, and our word for it; types not listed are shown as they came.
    types: &'static [(&'static str, &'static str)],
    /// Units from days to seconds, with what stands before them.
    units: [&'static str; 4],
    no_time: &'static str,
}

const EN: Words = Words {
    locale: "en",
    open: "Open in DataWorks",
    stop: "Stop",
    mute: "Mute 1 h",
    init: "not started",
    running: "running",
    success: ("passed", "succeeded"),
    fail: "failed",
    termination: "terminated",
    cancel: "cancelled",
    started: "started",
    waits: "waits for someone",
    run: "run ",
    waiting: "waiting",
    lost: "no longer found",
    unclear: "unclear",
    stopped: "stopped",
    in_progress: "in progress",
    up_to: "up to ",
    comma: ", ",
    more: (" and ", " more"),
    repeated: "may be a repetition",
    types: &[],
    units: [" d", " h", " min", " s"],
    no_time: "less than 1 s",
};

const ZH_CN: Words = Words {
    locale: "zh-CN",
    open: "在 DataWorks 中打开",
    stop: "停止",
    mute: "静音 1 小时",
    init: "未开始",
    running: "运行中",
    success: ("成功", "成功"),
    fail: "失败",
    termination: "终止",
    cancel: "取消",
    started: "已开始",
    waits: "等待人工执行",
    run: "发布",
    waiting: "等待人工执行",
    lost: "已查不到",
    unclear: "状态不明",
    stopped: "已停止",
    in_progress: "进行中",
    up_to: "最多 ",
    comma: "、",
    more: ("，另有 ", " 个"),
    repeated: "可能重复",
    types: &[("Deploy", "部署"), ("Check", "检查"), ("Offline", "下线"), ("Build", "构建"), ("Delete", "删除")],
    units: [" 天", " 小时", " 分钟", " 秒"],
    no_time: "不到 1 秒",
};

impl Words {
    pub(super) const ALL: [&'static Words; 2] = [&EN, &ZH_CN];

    /// The words of this locale, else the English ones.
    pub(super) fn of(locale: &str) -> &'static Words {
        Self::ALL.into_iter().find(|words| words.locale == locale).unwrap_or(&EN)
    }

    pub(super) fn stage_status<'a>(&self, status: &'a Status) -> &'a str {
        self.status(status, self.success.0)
    }

    pub(super) fn run_status<'a>(&self, status: &'a Status) -> &'a str {
        self.status(status, self.success.1)
    }

    /// A status that nobody documented is shown as it came.
    fn status<'a>(&self, status: &'a Status, success: &'static str) -> &'a str {
        match status {
            Status::Init => self.init,
            Status::Running => self.running,
            Status::Success => success,
            Status::Fail => self.fail,
            Status::Termination => self.termination,
            Status::Cancel => self.cancel,
            Status::Unknown(raw) => raw,
        }
    }

    /// The end of a run, in a list beside changes of its stages: `run failed`.
    pub(super) fn run_ended(&self, status: &str) -> String {
        format!("{}{status}", self.run)
    }

    /// What runs that feel alike have in common, to count them by.
    pub(super) fn tone(&self, tone: Tone) -> &'static str {
        match tone {
            Tone::Bad => self.fail,
            Tone::Waiting => self.waiting,
            Tone::Stopped => self.stopped,
            Tone::Unknown => self.unclear,
            Tone::Good => self.success.1,
            Tone::Progress => self.in_progress,
        }
    }

    pub(super) fn up_to(&self, duration: &str) -> String {
        format!("{}{duration}", self.up_to)
    }

    /// The first `most` of these names, and how many more there are.
    pub(super) fn names(&self, names: &[String], most: usize) -> String {
        let shown: Vec<&str> = names.iter().take(most).map(String::as_str).collect();
        let shown = shown.join(self.comma);
        match names.len().saturating_sub(most) {
            0 => shown,
            left => format!("{shown}{}{left}{}", self.more.0, self.more.1),
        }
    }

    /// The last line of a message that may have come before. An id begins with the time, so that only its end tells two
    /// messages of one minute apart.
    pub(super) fn repetition(&self, id: &Uuid) -> String {
        let id = id.simple().to_string();
        let id = id.get(id.len() - 8..).unwrap_or(&id);
        format!("↻ {} · #{id}", self.repeated)
    }

    pub(super) fn stage_type<'a>(&self, raw: &'a str) -> &'a str {
        self.types.iter().find(|(name, _)| name.eq_ignore_ascii_case(raw)).map_or(raw, |(_, word)| word)
    }

    /// The two largest units of a duration: `48 s`, `3 min 10 s`, `2 h 5 min`, `3 d 4 h`. `None` when negative: the
    /// clocks that measured it disagree.
    pub(super) fn duration(&self, milliseconds: i64) -> Option<String> {
        let seconds = u64::try_from(milliseconds).ok()? / 1000;
        let counts = [seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60];
        let Some(first) = counts.iter().position(|&count| count > 0) else {
            return Some(self.no_time.to_owned());
        };
        let parts: Vec<String> = counts
            .iter()
            .zip(self.units)
            .skip(first)
            .take(2)
            .filter(|&(&count, _)| count > 0)
            .map(|(count, unit)| format!("{count}{unit}"))
            .collect();
        Some(parts.join(" "))
    }
}

/// The time of day with its zone, `16:05 CST`; with the date where that is not the day of `now`.
pub(super) fn moment(at: Timestamp, zone: &TimeZone, now: Timestamp) -> String {
    let there = at.to_zoned_datetime(zone.clone());
    let same_day = there.date() == now.to_zoned_datetime(zone.clone()).date();
    let format = if same_day { "%H:%M %Z" } else { "%Y-%m-%d %H:%M %Z" };
    there.strftime(format).to_string()
}

/// The same for lists, which name the zone once: `16:05`, `11-23 16:05`. With its zone all the same where the clocks
/// were set to another one then.
pub(super) fn brief(at: Timestamp, zone: &TimeZone, now: Timestamp) -> String {
    let there = at.to_zoned_datetime(zone.clone());
    let today = now.to_zoned_datetime(zone.clone());
    let day = match (there.date() == today.date(), there.year() == today.year()) {
        (true, _) => "",
        (false, true) => "%m-%d ",
        (false, false) => "%Y-%m-%d ",
    };
    let zone = if there.offset() == today.offset() { "" } else { " %Z" };
    there.strftime(&format!("{day}%H:%M{zone}")).to_string()
}

/// What the zone is called now: `CST`.
pub(super) fn abbreviation(zone: &TimeZone, now: Timestamp) -> String {
    now.to_zoned_datetime(zone.clone()).strftime("%Z").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_configurable_locale_has_words() {
        let known: Vec<&str> = Words::ALL.iter().map(|words| words.locale).collect();
        assert_eq!(known, crate::settings::LOCALES, "a locale that can be configured speaks");
        assert_eq!(Words::of("fr").locale, "en");
    }

    #[test]
    fn durations_read_like_a_person_says_them() {
        let cases = [
            (0, "less than 1 s", "不到 1 秒"),
            (48_900, "48 s", "48 秒"),
            (190_000, "3 min 10 s", "3 分钟 10 秒"),
            (180_000, "3 min", "3 分钟"),
            (7_500_000, "2 h 5 min", "2 小时 5 分钟"),
            (7_205_000, "2 h", "2 小时"),
            (273_600_000, "3 d 4 h", "3 天 4 小时"),
        ];
        for (milliseconds, en, zh) in cases {
            assert_eq!(EN.duration(milliseconds).as_deref(), Some(en));
            assert_eq!(ZH_CN.duration(milliseconds).as_deref(), Some(zh));
        }
        assert_eq!(EN.duration(-1), None);
        assert!(EN.duration(i64::MAX).is_some());
    }

    #[test]
    fn a_moment_names_its_zone_and_its_day_when_it_is_not_today() {
        let zone = TimeZone::get("Asia/Shanghai").unwrap();
        let at: Timestamp = "2026-11-24T08:05:00Z".parse().unwrap();
        assert_eq!(moment(at, &zone, at), "16:05 CST");
        let later: Timestamp = "2026-11-24T16:00:00Z".parse().unwrap();
        assert_eq!(moment(at, &zone, later), "2026-11-24 16:05 CST", "midnight has passed in Shanghai");
        assert_eq!(moment(at, &TimeZone::UTC, later), "08:05 UTC");
    }

    #[test]
    fn a_moment_in_a_list_is_as_short_as_it_can_be() {
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        let now: Timestamp = "2026-10-25T12:00:00Z".parse().unwrap();
        let said = |at: &str| brief(at.parse().unwrap(), &berlin, now);
        assert_eq!(said("2026-10-25T08:05:00Z"), "09:05");
        assert_eq!(said("2026-10-25T00:30:00Z"), "02:30 CEST", "the hour that came twice that night");
        assert_eq!(said("2026-10-25T01:30:00Z"), "02:30");
        assert_eq!(said("2026-11-01T08:05:00Z"), "11-01 09:05");
        assert_eq!(said("2025-12-31T08:05:00Z"), "2025-12-31 09:05");
        assert_eq!(abbreviation(&berlin, now), "CET");
    }

    #[test]
    fn many_names_are_counted() {
        let names: Vec<String> = ["a", "b", "c"].map(str::to_owned).to_vec();
        assert_eq!(EN.names(&names, 3), "a, b, c");
        assert_eq!(EN.names(&names, 1), "a and 2 more");
        assert_eq!(ZH_CN.names(&names, 2), "a、b，另有 1 个");
    }
}
