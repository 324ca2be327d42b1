//! Alibaba Cloud DataWorks, API version 2024-05-18.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

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
    pub edition: Edition,
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

impl Settings {
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut problem = |key: &str, message: String| problems.push(Problem::new(key, message));
        let endpoint = self.endpoint.replace("{region}", "cn-shanghai");
        if let Some(message) = check_base_url(&endpoint) {
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
