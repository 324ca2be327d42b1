//! What went wrong, in the terms of whoever must react. Pure.
//!
//! HTTP status and code are not trusted alone: throttling comes as 400, 403, 429 or, with a numeric code and its name
//! in the message, as something nobody recorded.
//! <https://www.alibabacloud.com/help/en/dataworks/developer-reference/api-dataworks-public-2020-05-18-errorcodes>

use std::time::Duration;

use super::loose::Loose;
use crate::sources::{SourceError, SourceErrorKind};
use crate::text;

/// Characters of the vendor's words that are passed on.
const EXCERPT: usize = 200;
/// The longest wait an answer can ask for.
pub const LONGEST_WAIT: Duration = Duration::from_secs(120);

/// An answer that is not what was asked for.
#[derive(Debug, Clone, Default)]
pub struct Refusal<'a> {
    pub status: u16,
    pub body: &'a [u8],
    /// `x-acs-retry-after`, in milliseconds.
    pub retry_after_ms: Option<&'a str>,
    /// `Retry-After`, in seconds.
    pub retry_after: Option<&'a str>,
    /// `x-acs-request-id`, for bodies without one.
    pub request_id: Option<&'a str>,
    /// The call concerned one run: what is wrong with it and with nothing else means that there is no such run.
    pub of_one_run: bool,
}

/// Total: every refusal is one of the kinds, and none is good news.
pub fn classify(refusal: &Refusal<'_>) -> SourceError {
    let said = Said::read(refusal);
    let kind = throttled(refusal, &said)
        .or_else(|| credentials(refusal, &said))
        .or_else(|| permission(refusal, &said))
        .or_else(|| server(refusal, &said))
        .or_else(|| no_such_run(refusal, &said))
        .unwrap_or_else(|| SourceErrorKind::Broken { said: said.words(refusal) });
    SourceError { kind, request_id: said.request_id }
}

/// The error envelope: JSON as documented, XML as the gateway may send it, or nothing of the kind.
struct Said {
    code: String,
    message: String,
    request_id: Option<String>,
    denied_detail: bool,
}

impl Said {
    fn read(refusal: &Refusal<'_>) -> Said {
        let json = Loose::parse(refusal.body).unwrap_or(Loose::Nothing);
        let text = String::from_utf8_lossy(refusal.body);
        let field = |name: &str| json.get(name).text().or_else(|| xml(&text, name));
        let request_id = field("RequestId").or_else(|| refusal.request_id.map(str::to_owned));
        Said {
            code: field("Code").unwrap_or_default().trim().to_owned(),
            message: field("Message").unwrap_or_default().trim().to_owned(),
            request_id: request_id.map(|id| excerpt_of(&id, 64)).filter(|id| !id.is_empty()),
            denied_detail: !json.get("AccessDeniedDetail").is_nothing(),
        }
    }

    /// The code, or where that is a number the message, begins with this name.
    fn is(&self, name: &str) -> bool {
        let begins = |text: &str| text.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
        begins(&self.code) || (self.code.bytes().all(|b| b.is_ascii_digit()) && begins(&self.message))
    }

    fn is_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.is(name))
    }

    /// Never more than an excerpt. What the gateway says of a wrong signature repeats the signed headers, the
    /// security token among them, and stays here.
    fn words(&self, refusal: &Refusal<'_>) -> String {
        let Refusal { status, body, .. } = refusal;
        let about_signature = self.is_any(&["SignatureDoesNotMatch", "IncompleteSignature", "InvalidSecurityToken"]);
        // A hint may follow in the same sentence.
        let message = self.message.trim_end_matches(['.', '。']);
        match (self.code.is_empty(), self.message.is_empty() || about_signature) {
            (false, true) => excerpt(&self.code),
            (false, false) => excerpt(&format!("{}: {message}", self.code)),
            (true, false) => excerpt(&format!("HTTP {status}: {message}")),
            (true, true) if body.is_empty() => format!("HTTP {status} with an empty body"),
            (true, true) => format!("HTTP {status}: {}", excerpt(&String::from_utf8_lossy(body))),
        }
    }
}

/// Between two calls while the allowance may be used up.
const ALLOWANCE_PAUSE: Duration = Duration::from_secs(600);

fn throttled(refusal: &Refusal<'_>, said: &Said) -> Option<SourceErrorKind> {
    let names = |name: &str| said.code.contains(name) || said.message.contains(name);
    if names("Throttling.Api.Risk") {
        return Some(SourceErrorKind::QuotaGone { said: said.words(refusal) });
    }
    if names("Throttling.Resource") {
        // One page says that the edition's allowance is used up, another tells to try again: ask now and then.
        let said = format!("{}; if it goes on, the edition's call allowance is used up", said.words(refusal));
        return Some(SourceErrorKind::Throttled { after: Some(ALLOWANCE_PAUSE), said });
    }
    let slow_down = refusal.status == 429
        || matches!(said.code.as_str(), "9990020002" | "9990040003")
        || said.is("Throttling")
        || said.message.starts_with("Throttling");
    slow_down.then(|| SourceErrorKind::Throttled { after: wait(refusal), said: said.words(refusal) })
}

fn wait(refusal: &Refusal<'_>) -> Option<Duration> {
    let positive = |text: Option<&str>| text?.trim().parse::<u64>().ok().filter(|n| *n > 0);
    let asked = positive(refusal.retry_after_ms)
        .map(Duration::from_millis)
        .or_else(|| positive(refusal.retry_after).map(Duration::from_secs));
    asked.map(|wait| wait.min(LONGEST_WAIT))
}

fn credentials(refusal: &Refusal<'_>, said: &Said) -> Option<SourceErrorKind> {
    const HINTS: [(&str, &str); 8] = [
        ("InvalidAccessKeyId.Inactive", "enable this access key in the RAM console, or configure another"),
        ("InvalidAccessKeyId", "check dataworks.credentials.access_key_id: no such access key exists"),
        (
            "SignatureDoesNotMatch",
            "check dataworks.credentials.access_key_secret: it does not belong to the access key",
        ),
        ("InvalidTimeStamp", "set this machine's clock: it is more than 15 minutes off"),
        ("InvalidSecurityToken.Expired", "get new temporary credentials from STS: the security token has expired"),
        ("InvalidSecurityToken", "check dataworks.credentials.security_token: it does not belong to the access key"),
        ("MissingSecurityToken", "set dataworks.credentials.security_token: this access key is a temporary one"),
        ("InvalidCredentials", "check dataworks.credentials"),
    ];
    let hint = HINTS.iter().find(|(code, _)| said.is(code)).map(|(_, hint)| *hint);
    let hint = hint.or((refusal.status == 401).then_some("check dataworks.credentials"))?;
    Some(SourceErrorKind::Credentials { said: said.words(refusal), hint: hint.to_owned() })
}

fn permission(refusal: &Refusal<'_>, said: &Said) -> Option<SourceErrorKind> {
    const NOT_ALLOWED: &str = "allow this key the RAM action dataworks:* (read), and make it a member of the workspace, \
                               as Visitor at least";
    const HINTS: [(&str, &str); 7] = [
        ("NoPermission", NOT_ALLOWED),
        ("Forbidden.RAM", NOT_ALLOWED),
        ("Forbidden.Access", "ask whether the DataWorks edition in this region includes OpenAPI, then try later"),
        ("Forbidden.Not.Server", "check the workspace's region: DataWorks is not open there"),
        ("ResourceNotAuthorized", NOT_ALLOWED),
        ("Forbidden", NOT_ALLOWED),
        ("9990010001", "activate DataWorks in this region, or check the workspace's region"),
    ];
    let hint = HINTS.iter().find(|(code, _)| said.is(code)).map(|(_, hint)| *hint);
    let hint = hint.or((refusal.status == 403 || said.denied_detail).then_some(NOT_ALLOWED))?;
    Some(SourceErrorKind::Permission { said: said.words(refusal), hint: hint.to_owned() })
}

/// Nothing is wrong with the call: the next one may work. A nonce used before comes from a proxy that sends twice,
/// and the next call has a new one.
fn server(refusal: &Refusal<'_>, said: &Said) -> Option<SourceErrorKind> {
    let passing = refusal.status >= 500
        || refusal.status == 408
        || said.is_any(&["InternalError", "ServiceUnavailable", "SignatureNonceUsed"]);
    passing.then(|| SourceErrorKind::Transient { said: said.words(refusal) })
}

/// The answer for an unknown id is documented nowhere, so any refusal that concerns nothing else counts. Not so one
/// that did not come from DataWorks, such as a proxy's page, or that calls the call itself wrong: a run must not be
/// given up for those.
fn no_such_run(refusal: &Refusal<'_>, said: &Said) -> Option<SourceErrorKind> {
    let ours = said.is_any(&["InvalidAction", "InvalidVersion", "MissingParameter", "IncompleteSignature"]);
    let theirs = !said.code.is_empty() || refusal.status == 404;
    let refused = refusal.status == 200 || (400..500).contains(&refusal.status);
    (refusal.of_one_run && refused && theirs && !ours).then(|| {
        tracing::debug!(status = refusal.status, said = said.words(refusal), "no such run");
        SourceErrorKind::NoSuchRun
    })
}

/// The text of the first XML element of this name.
fn xml(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (value, _) = rest.split_once(&format!("</{name}>"))?;
    Some(value.to_owned())
}

/// A vendor's words on one line: no control characters, no links, at most 200 characters.
pub fn excerpt(text: &str) -> String {
    excerpt_of(text, EXCERPT)
}

fn excerpt_of(text: &str, characters: usize) -> String {
    // More than enough bytes for the characters that stay, so that a huge body is not worked through.
    let text = cap(text, 64 * characters);
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let line = words.map(without_link).collect::<Vec<_>>().join(" ");
    text::cut(&line, characters, text::characters)
}

fn without_link(word: &str) -> String {
    word.split_once("://").map_or_else(
        || word.to_owned(),
        |(before, _)| format!("{}(link)", before.trim_end_matches(|c: char| c.is_ascii_alphanumeric())),
    )
}

/// At most this many bytes, cut between two characters.
pub fn cap(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refuse(status: u16, body: &str, of_one_run: bool) -> SourceError {
        classify(&Refusal { status, body: body.as_bytes(), of_one_run, ..Refusal::default() })
    }

    fn coded(status: u16, code: &str, message: &str) -> SourceErrorKind {
        let body = serde_json::json!({"RequestId": "r", "HostId": "h", "Code": code, "Message": message});
        refuse(status, &body.to_string(), true).kind
    }

    /// Each row: HTTP status, Code, Message, the kind it must be, a word its text must hold.
    const TABLE: [(u16, &str, &str, &str, &str); 33] = [
        (429, "Throttling.User", "too frequent", "throttled", "too frequent"),
        (400, "Throttling.User", "", "throttled", "Throttling.User"),
        (429, "Throttling.Api", "", "throttled", "Throttling.Api"),
        (429, "Throttling.System", "", "throttled", "Throttling.System"),
        (400, "Throttling", "", "throttled", "Throttling"),
        (400, "9990020002", "Throttling.User", "throttled", "9990020002"),
        (200, "9990020002", "Throttling.User", "throttled", "Throttling.User"),
        (403, "9990020002", "", "throttled", "9990020002"),
        (500, "9990040003", "", "throttled", "9990040003"),
        (429, "", "", "throttled", "429"),
        (429, "Throttling.Api.Risk", "", "quota_gone", "Throttling.Api.Risk"),
        (400, "9990020002", "Throttling.Api.Risk", "quota_gone", "Throttling.Api.Risk"),
        (429, "Throttling.Resource", "", "throttled", "edition"),
        (404, "InvalidAccessKeyId.NotFound", "", "credentials", "access_key_id"),
        (403, "InvalidAccessKeyId.Inactive", "", "credentials", "enable"),
        (400, "SignatureDoesNotMatch", "string to sign is: LEAKED", "credentials", "access_key_secret"),
        (400, "InvalidTimeStamp.Expired", "", "credentials", "clock"),
        (400, "InvalidSecurityToken.Expired", "", "credentials", "STS"),
        (400, "MissingSecurityToken", "", "credentials", "security_token"),
        (401, "Whatever", "", "credentials", "credentials"),
        (403, "NoPermission", "", "permission", "dataworks:*"),
        (403, "Forbidden.RAM", "", "permission", "Visitor"),
        (403, "Forbidden.Access", "", "permission", "edition"),
        (403, "ResourceNotAuthorized.Api", "", "permission", "dataworks:*"),
        (500, "Forbidden.Not.Server", "", "permission", "region"),
        (400, "9990010001", "", "permission", "activate"),
        (403, "", "", "permission", "HTTP 403"),
        (500, "InternalError.System", "", "transient", "InternalError"),
        (503, "ServiceUnavailable", "", "transient", "ServiceUnavailable"),
        (400, "SignatureNonceUsed", "", "transient", "SignatureNonceUsed"),
        (400, "5801489541076353033", "publish object not found", "no_such_run", "no such run"),
        (404, "InvalidAction.NotFound", "", "broken", "InvalidAction"),
        (400, "MissingParameter", "ProjectId", "broken", "ProjectId"),
    ];

    #[test]
    fn every_refusal_is_told_to_whoever_must_react() {
        for (status, code, message, label, word) in TABLE {
            let kind = coded(status, code, message);
            assert_eq!(kind.label(), label, "HTTP {status} {code} {message}: {kind:?}");
            assert!(kind.to_string().contains(word), "HTTP {status} {code}: {word:?} is missing in {kind}");
            assert!(!kind.to_string().contains("LEAKED"), "the string to sign must not be repeated: {kind}");
        }
    }

    #[test]
    fn only_a_refusal_by_dataworks_that_concerns_the_run_gives_it_up() {
        let envelope = r#"{"Code": "PipelineNotExist", "Message": "no"}"#;
        assert_eq!(refuse(400, envelope, true).kind.label(), "no_such_run");
        assert_eq!(refuse(400, envelope, false).kind.label(), "broken", "a list is of no run");
        assert_eq!(refuse(404, "", true).kind.label(), "no_such_run");
        assert_eq!(refuse(407, "<html>proxy login</html>", true).kind.label(), "broken", "a proxy knows no runs");
        assert_eq!(refuse(302, "", true).kind.label(), "broken");
        assert_eq!(refuse(500, envelope, true).kind.label(), "transient");
    }

    #[test]
    fn both_headers_ask_for_a_wait_and_no_wait_is_endless() {
        let wait = |ms, seconds| {
            let body = br#"{"Code":"Throttling.User"}"#;
            let refusal = Refusal { status: 429, body, retry_after_ms: ms, retry_after: seconds, ..Refusal::default() };
            match classify(&refusal).kind {
                SourceErrorKind::Throttled { after, .. } => after.map(|wait| wait.as_millis()),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(wait(None, None), None);
        assert_eq!(wait(Some("1500"), Some("9")), Some(1_500));
        assert_eq!(wait(Some("0"), Some("9")), Some(9_000));
        assert_eq!(wait(Some("-1"), Some("Wed, 21 Oct 2026 07:28:00 GMT")), None);
        assert_eq!(wait(Some("99999999"), None), Some(120_000));
        assert_eq!(wait(None, Some("18446744073709551615")), Some(120_000));
    }

    #[test]
    fn bodies_that_are_no_json_are_read_as_far_as_possible() {
        let xml = "<?xml version='1.0'?><Error><RequestId>R-1</RequestId><Code>Throttling.User</Code></Error>";
        let error = refuse(400, xml, false);
        assert_eq!((error.kind.label(), error.request_id.as_deref()), ("throttled", Some("R-1")));
        let html = format!("<html>\n<h1>Bad Gateway</h1>{}", "x".repeat(100_000));
        let said = refuse(502, &html, false).kind.to_string();
        assert!(said.contains("502") && said.len() < 300, "{said}");
        assert!(refuse(502, "", false).kind.to_string().contains("empty body"));
        let header = Refusal { status: 500, request_id: Some("from-header"), ..Refusal::default() };
        assert_eq!(classify(&header).request_id.as_deref(), Some("from-header"));
        let numeric = refuse(400, r#"{"code": 9990020002, "message": "Throttling.User", "requestId": "q"}"#, false);
        assert_eq!((numeric.kind.label(), numeric.request_id.as_deref()), ("throttled", Some("q")));
    }

    #[test]
    fn an_excerpt_is_one_short_line_without_links() {
        assert_eq!(excerpt("a\n\tb\u{7}c  see:https://x.example/?t=1 d"), "a b c see:(link) d");
        assert_eq!(excerpt(&"错".repeat(1_000)).chars().count(), 200);
    }

    proptest! {
        #[test]
        fn any_refusal_at_all_has_a_kind(status in 100_u16..600, body in ".{0,300}", of_one_run: bool) {
            let error = refuse(status, &body, of_one_run);
            prop_assert!(error.to_string().chars().count() < 500);
        }
    }
}
