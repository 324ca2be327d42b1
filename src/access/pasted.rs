//! Secrets that somebody typed where everybody reads.

/// Parts of URLs that are secrets themselves, in lower case.
const URLS: [(&str, &str); 9] = [
    // https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks
    ("hooks.slack.com/", "the URL of a Slack webhook"),
    // https://docs.discord.com/developers/resources/webhook
    ("/api/webhooks/", "the URL of a Discord webhook"),
    // https://open.dingtalk.com/document/robots/custom-robot-access
    ("oapi.dingtalk.com/robot/", "the URL of a DingTalk robot"),
    ("access_token=", "an access token"),
    ("accesskeysecret=", "an AccessKey of Alibaba Cloud"),
    ("webhook.office.com/", "the URL of a Teams webhook"),
    ("logic.azure.com", "the URL of a Teams webhook"),
    ("/open-apis/bot/", "the URL of a Feishu robot"),
    ("/cgi-bin/webhook/", "the URL of a WeCom robot"),
];

/// Beginnings of tokens, with the least number of characters behind them.
const TOKENS: [(&str, usize, &str); 16] = [
    // https://docs.slack.dev/authentication/tokens
    ("xoxb-", 8, "a Slack token"),
    ("xoxp-", 8, "a Slack token"),
    ("xoxa-", 8, "a Slack token"),
    ("xoxc-", 8, "a Slack token"),
    ("xoxd-", 8, "a Slack token"),
    ("xoxe", 8, "a Slack token"),
    ("xoxr-", 8, "a Slack token"),
    ("xoxs-", 8, "a Slack token"),
    ("xapp-", 8, "a Slack token"),
    // https://docs.github.com/authentication/keeping-your-account-and-data-secure/about-authentication-to-github
    ("ghp_", 16, "a GitHub token"),
    ("gho_", 16, "a GitHub token"),
    ("ghu_", 16, "a GitHub token"),
    ("ghs_", 16, "a GitHub token"),
    ("ghr_", 16, "a GitHub token"),
    ("github_pat_", 16, "a GitHub token"),
    // https://www.standardwebhooks.com
    ("whsec_", 16, "the secret of a webhook"),
];

const ALIBABA: &str = "an AccessKey of Alibaba Cloud";
/// Characters of the secret half of an AccessKey.
const ACCESS_KEY_SECRET: usize = 30;
/// Hexadecimal digits of a DingTalk robot's token and, behind `SEC`, of its secret.
const DINGTALK: usize = 64;

/// What in a text looks like a secret, in words that follow "looks like". Never the secret itself.
pub fn secret_in(text: &str) -> Option<&'static str> {
    let lower = text.to_ascii_lowercase();
    let url = URLS.iter().find(|(part, _)| lower.contains(part)).map(|(_, what)| *what);
    let is_of_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    url.or_else(|| holds_a_password(text).then_some("a URL with a password"))
        .or_else(|| text.split(|c| !is_of_word(c)).find_map(of_word))
}

/// `https://name:password@host/`
fn holds_a_password(text: &str) -> bool {
    text.split("://").skip(1).any(|rest| {
        let authority = rest.split(['/', '?', '#', ' ', '\n']).next().unwrap_or_default();
        authority.split_once('@').is_some_and(|(login, _)| login.contains(':'))
    })
}

fn of_word(word: &str) -> Option<&'static str> {
    let token = TOKENS
        .iter()
        .find(|(beginning, least, _)| word.split_once(beginning).is_some_and(|(_, secret)| secret.len() >= *least));
    if let Some((_, _, what)) = token {
        return Some(*what);
    }
    let is_hex = |text: &str| text.len() == DINGTALK && text.bytes().all(|b| b.is_ascii_hexdigit());
    if is_hex(word) {
        return Some("the access token of a DingTalk robot");
    }
    if word.strip_prefix("SEC").is_some_and(is_hex) {
        return Some("the secret of a DingTalk robot");
    }
    (is_access_key(word)).then_some(ALIBABA).or_else(|| is_discord_token(word).then_some("a Discord token"))
}

/// The id, a temporary one, or the secret: thirty letters and digits, of which a run's id has no such row.
fn is_access_key(word: &str) -> bool {
    let is_plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric());
    let holds = |is: fn(&u8) -> bool| word.as_bytes().iter().any(is);
    let is_id = word.starts_with("LTAI") && (16..=30).contains(&word.len()) && is_plain(word);
    let is_temporary = word.strip_prefix("STS.").is_some_and(|rest| rest.len() >= 16 && is_plain(rest));
    let is_mixed = holds(u8::is_ascii_uppercase) && holds(u8::is_ascii_lowercase) && holds(u8::is_ascii_digit);
    is_id || is_temporary || word.len() == ACCESS_KEY_SECRET && is_plain(word) && is_mixed
}

/// The bot's id, a moment and a signature, between full stops.
fn is_discord_token(word: &str) -> bool {
    let parts: Vec<usize> = word.split('.').map(str::len).collect();
    matches!(parts.as_slice(), [id, moment, signature] if *id >= 23 && (6..=8).contains(moment) && *signature >= 27)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(count: usize) -> String {
        "0a1b2c3d4e5f6789".chars().cycle().take(count).collect()
    }

    fn letters(count: usize) -> String {
        "aB3dE6gH9".chars().cycle().take(count).collect()
    }

    /// Made of parts, so that nobody takes this file for a leak.
    fn secrets() -> Vec<String> {
        let https = "https://";
        vec![
            format!("{https}hooks.{}/services/T0/B0/{}", "slack.com", letters(24)),
            format!("<{https}hooks.{}/triggers/T0/1/{}|here>", "slack.com", letters(32)),
            format!("{https}discord.com/api/{}/123456/{}", "webhooks", letters(68)),
            format!("{https}ptb.discordapp.com/api/v10/../api/{}/1/{}", "WebHooks", letters(68)),
            format!("{https}oapi.dingtalk.com/robot/send?{}={}", "access_token", hex(64)),
            format!("{}={}", "access_token", hex(12)),
            hex(64),
            format!("SEC{}", hex(64)),
            format!("xox{}-{}-{}", "b", "123456789012", letters(24)),
            format!("xox{}.xoxp-1-{}", "e", letters(40)),
            format!("xapp-1-A0-{}", hex(40)),
            format!("token:gh{}_{}", "p", letters(36)),
            format!("github_{}_{}", "pat", letters(60)),
            format!("LTAI{}", letters(20)),
            format!("STS.{}", letters(24)),
            letters(30),
            format!("wh{}_{}", "sec", letters(32)),
            format!("{}.{}.{}", letters(26), letters(6), letters(38)),
            format!("{https}reader:{}@db.example.com/x", letters(9)),
        ]
    }

    #[test]
    fn whatever_gives_power_is_recognised_wherever_it_stands() {
        for secret in secrets() {
            for text in [secret.clone(), format!("watch {secret}"), format!("watch 7b1e04c2 \"{secret}\" for:3d")] {
                assert!(secret_in(&text).is_some(), "{text} is taken for harmless");
            }
        }
    }

    #[test]
    fn what_people_type_every_day_is_no_secret() {
        for text in [
            "watch 7b1e04c2-20ec-4a7c-a214-54020f910000 warehouse for:3d only:failed",
            "watch a7ef0634-20ec-4a7c-a214-54020f91XXXX",
            "watch 0a1b2c3d4e5f67890a1b2c3d4e5f6789",
            "watch https://dataworks.data.aliyun.com/cn-shanghai/ide?defaultProjectId=10000",
            "watch https://dataworks.console.aliyun.com/x/7b1e04c2-20ec-4a7c-a214-54020f910000?projectId=1@2:3",
            "mute orders_daily_v12 for:2h",
            "status Quarterly.report.of_the_warehouse",
            "",
        ] {
            assert_eq!(secret_in(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_said_about_it_never_holds_it() {
        for secret in secrets() {
            let said = secret_in(&secret).unwrap();
            assert!(said.len() < 40 && !secret.contains(said), "{said}");
        }
    }
}
