//! `[dataworks]`

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

use crate::settings::{Problem, Secret, Span, check_base_url};

/// `[dataworks]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `{region}` is replaced; a fixed URL serves tests and VPCs.
    pub endpoint: String,
    /// Absent: the official default chain (environment, OIDC, CLI profile, shared file, instance role, URI).
    pub credentials: Option<Credentials>,
    /// Link into the console; `{region}`, `{project_id}` and `{run_id}` are replaced.
    pub console: String,
    pub poll: Poll,
    pub budget: Budget,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    pub access_key_id: Secret,
    pub access_key_secret: Secret,
    /// With temporary credentials of STS.
    pub security_token: Option<Secret>,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Poll {
    /// Between two lists of a workspace where something moves.
    pub fastest: Span,
    /// Between two lists of a workspace where everything waits or has ended.
    pub slowest: Span,
    /// How long a stage stands still before it is said to wait for a person.
    pub waiting_after: Span,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// What was bought. Absent: standard, unless the figures say what is allowed.
    pub edition: Option<Edition>,
    /// Instead of the edition's.
    pub calls_per_second: Option<f64>,
    /// Instead of the edition's.
    pub calls_per_day: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Edition {
    Basic,
    Standard,
    Professional,
    Enterprise,
}

impl Edition {
    /// Calls a second of one account in one region; all of its users and tools together.
    /// <https://www.alibabacloud.com/help/en/dataworks/developer-reference/use-dataworks-openapi>
    fn per_second(self) -> f64 {
        match self {
            Edition::Basic | Edition::Standard | Edition::Professional => 5.0,
            Edition::Enterprise => 50.0,
        }
    }

    /// Calls a day. Where the vendor's pages disagree, the stricter one; for Enterprise a day's share of the calls that
    /// are free in a month.
    fn per_day(self) -> u64 {
        match self {
            Edition::Basic => 100,
            Edition::Standard => 1_000,
            Edition::Professional => 10_000,
            Edition::Enterprise => 33_333,
        }
    }
}

impl Budget {
    pub fn per_second(&self) -> f64 {
        self.calls_per_second.unwrap_or_else(|| self.edition.unwrap_or(Edition::Standard).per_second())
    }

    /// `None`: no cap. Whoever names the calls a second and no edition, names all there is to keep to.
    #[expect(clippy::cast_precision_loss, reason = "nobody makes 2^53 calls a day")]
    pub fn per_day(&self) -> Option<f64> {
        let of_edition = match (self.edition, self.calls_per_second) {
            (None, Some(_)) => None,
            (edition, _) => Some(edition.unwrap_or(Edition::Standard).per_day()),
        };
        self.calls_per_day.or(of_edition).map(|calls| calls as f64)
    }
}

impl Settings {
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut problem = |key: &str, message: String| problems.push(Problem::new(key, message));
        let endpoint = self.endpoint.replace("{region}", "cn-shanghai");
        let not_bare = || origin(&self.endpoint, "cn-shanghai").err().map(str::to_owned);
        if let Some(message) = check_base_url(&endpoint).or_else(not_bare) {
            problem("endpoint", message);
        }
        let filled =
            self.console.replace("{region}", "cn-shanghai").replace("{project_id}", "1").replace("{run_id}", "a");
        if !url::Url::parse(&filled).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) {
            problem("console", "is not an http or https URL".to_owned());
        }
        for (key, text) in [("endpoint", &endpoint), ("console", &filled)] {
            if text.contains(['{', '}']) {
                let known = if key == "endpoint" { "{region}" } else { "{region}, {project_id} and {run_id}" };
                problem(key, format!("only {known} can be filled in"));
            }
        }
        for (key, message) in self.poll.check(is_loopback(&endpoint)) {
            problem(key, message);
        }
        if self.budget.calls_per_second.is_some_and(|calls| !(calls > 0.0 && calls.is_finite())) {
            problem("budget.calls_per_second", "must be above 0".to_owned());
        }
        if self.budget.calls_per_day == Some(0) {
            problem("budget.calls_per_day", "must be above 0".to_owned());
        }
        problems
    }
}

impl Poll {
    /// A local DataWorks may be polled as fast as anybody likes.
    fn check(&self, local: bool) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        let Poll { fastest, slowest, waiting_after } = self;
        let least = if local { Duration::from_millis(1) } else { Duration::from_secs(1) };
        if fastest.0 < least {
            problems.push(("poll.fastest", format!("must be at least {least:?}")));
        }
        if slowest < fastest {
            problems.push(("poll.slowest", "must not be shorter than poll.fastest".to_owned()));
        }
        for (key, span) in [("poll.slowest", slowest), ("poll.waiting_after", waiting_after)] {
            if span.0 > LONGEST_WAIT {
                problems.push((key, "must not be longer than 1d".to_owned()));
            }
        }
        problems
    }
}

/// Longer waits between two looks are a typing mistake.
const LONGEST_WAIT: Duration = Duration::from_secs(86_400);

fn is_loopback(endpoint: &str) -> bool {
    match url::Url::parse(endpoint).ok().as_ref().and_then(url::Url::host) {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// The scheme and the host, with the port where it is not the scheme's own, of the endpoint in a region. Err says
/// what is wrong, without repeating the URL.
pub(super) fn origin(endpoint: &str, region: &str) -> Result<(String, String), &'static str> {
    let plain = !region.is_empty() && region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if endpoint.contains("{region}") && !plain {
        return Err("needs a region of letters, digits and dashes, such as cn-shanghai, in its place {region}");
    }
    let url = Url::parse(&endpoint.replace("{region}", region));
    let url = url.map_err(|_| "is not a URL; write it like \"https://dataworks.{region}.aliyuncs.com\"")?;
    let host = url.host_str().filter(|_| matches!(url.scheme(), "http" | "https"));
    let host = host.ok_or("must begin with https://, or for tests http://")?;
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    if !bare || !url.username().is_empty() || url.password().is_some() {
        return Err("must be scheme and host alone, without user, path or query");
    }
    let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    Ok((url.scheme().to_owned(), host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(endpoint: &str) -> Settings {
        Settings {
            endpoint: endpoint.to_owned(),
            credentials: None,
            console: "https://dataworks.data.aliyun.com/{region}/ide?defaultProjectId={project_id}".to_owned(),
            poll: Poll {
                fastest: Span(Duration::from_secs(5)),
                slowest: Span(Duration::from_secs(60)),
                waiting_after: Span(Duration::from_secs(60)),
            },
            budget: Budget { edition: None, calls_per_second: None, calls_per_day: None },
        }
    }

    #[test]
    fn the_host_is_signed_with_its_port_only_where_that_is_not_the_default() {
        let origin = |endpoint| origin(endpoint, "cn-shanghai").map(|(scheme, host)| format!("{scheme} {host}"));
        assert_eq!(
            origin("https://dataworks.{region}.aliyuncs.com").as_deref(),
            Ok("https dataworks.cn-shanghai.aliyuncs.com")
        );
        assert_eq!(origin("http://127.0.0.1:4010/").as_deref(), Ok("http 127.0.0.1:4010"));
        assert_eq!(origin("https://h:443").as_deref(), Ok("https h"));
        assert_eq!(origin("http://[::1]:80").as_deref(), Ok("http [::1]"));
    }

    #[test]
    fn a_wrong_endpoint_is_a_problem_and_a_region_cannot_change_the_host() {
        for endpoint in ["", "dataworks", "ftp://h", "https://u:p@h", "https://h/path", "https://h?q", "https://"] {
            let problems = settings(endpoint).check();
            assert_eq!(problems.first().map(|p| p.key.as_str()), Some("endpoint"), "{endpoint:?}: {problems:?}");
        }
        assert!(origin("https://dataworks.{region}.aliyuncs.com", "x.evil.example/").is_err());
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let mut settings = settings("https://dataworks.{region}.aliyuncs.com");
        assert_eq!(settings.check(), []);
        settings.console = "console".to_owned();
        settings.poll.slowest = Span(Duration::from_secs(1));
        settings.budget.calls_per_second = Some(0.0);
        settings.budget.calls_per_day = Some(0);
        let keys: Vec<String> = settings.check().into_iter().map(|problem| problem.key).collect();
        let expected = ["console", "poll.slowest", "budget.calls_per_second", "budget.calls_per_day"];
        assert_eq!(keys, expected);
    }
}
