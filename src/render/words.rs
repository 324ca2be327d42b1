//! The words of each locale that templates can't hold: status, kinds of stage, durations, moments.
//! One struct for each locale, so that a word missing in one of them does not compile.

use jiff::tz::TimeZone;

use crate::model::{Status, Timestamp};

/// The words of one locale.
#[derive(Debug)]
pub(super) struct Words {
    pub(super) locale: &'static str,
    /// Label of the link to the run.
    pub(super) open: &'static str,
    init: &'static str,
    running: &'static str,
    /// Success of a stage, and of a run.
    success: (&'static str, &'static str),
    fail: &'static str,
    termination: &'static str,
    cancel: &'static str,
    /// What DataWorks calls the type of a stage, and our word for it; types not listed are shown as they came.
    types: &'static [(&'static str, &'static str)],
    /// Units from days to seconds, with what stands before them.
    units: [&'static str; 4],
    no_time: &'static str,
}

const EN: Words = Words {
    locale: "en",
    open: "Open in DataWorks",
    init: "not started",
    running: "running",
    success: ("passed", "succeeded"),
    fail: "failed",
    termination: "terminated",
    cancel: "cancelled",
    types: &[],
    units: [" d", " h", " min", " s"],
    no_time: "less than 1 s",
};

const ZH_CN: Words = Words {
    locale: "zh-CN",
    open: "在 DataWorks 中打开",
    init: "未开始",
    running: "运行中",
    success: ("成功", "成功"),
    fail: "失败",
    termination: "终止",
    cancel: "取消",
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
}
