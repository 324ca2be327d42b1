//! What may go wrong on DataWorks' side, and how it may write its answers.

/// An answer other than the one asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The error envelope with this HTTP status, code, message and further headers.
    Refusal { status: u16, code: String, message: String, headers: Vec<(String, String)> },
    /// Any bytes.
    Body { status: u16, content_type: String, body: Vec<u8> },
    /// The request is taken and never answered.
    Hang,
    /// The answer begins and breaks off.
    BreakOff,
}

impl Fault {
    pub fn refusal(status: u16, code: &str, message: &str) -> Fault {
        Fault::Refusal { status, code: code.to_owned(), message: message.to_owned(), headers: Vec::new() }
    }

    pub fn body(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Fault {
        Fault::Body { status, content_type: content_type.to_owned(), body: body.into() }
    }

    /// As the documentation has it.
    pub fn throttled() -> Fault {
        Fault::refusal(429, "Throttling.User", "Request was denied due to user flow control.")
    }

    /// As it was seen in practice: a number for a code, its name in the message.
    pub fn throttled_by_number() -> Fault {
        Fault::refusal(400, "9990020002", "Throttling.User")
    }

    /// With the gateway's header that asks for a wait.
    pub fn throttled_for(milliseconds: u64) -> Fault {
        Fault::throttled().with_header("x-acs-retry-after", &milliseconds.to_string())
    }

    /// The day's calls are used up.
    pub fn quota_gone() -> Fault {
        Fault::refusal(429, "Throttling.Api.Risk", "The daily limit of calls is reached.")
    }

    /// Somebody disabled the access key.
    pub fn key_disabled() -> Fault {
        Fault::refusal(403, "InvalidAccessKeyId.Inactive", "Specified access key is disabled.")
    }

    pub fn internal_error() -> Fault {
        Fault::refusal(500, "InternalError.System", "An internal error occurred.")
    }

    /// A gateway's page in place of JSON.
    pub fn garbage() -> Fault {
        Fault::body(200, "text/html", "<html><body><h1>It works</h1></body></html>")
    }

    /// One more header on a refusal.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Fault {
        if let Fault::Refusal { headers, .. } = &mut self {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }
}

/// Ways of writing answers that the documentation, old SDKs and captured answers show. None by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quirks {
    pub numbers_as_text: bool,
    /// `TotalCount` is the text `"0"`, whatever is on the page.
    pub total_count_zero: bool,
    /// Ids end in a line feed.
    pub trailing_line_feed: bool,
    pub upper_case_statuses: bool,
    /// `Deployments` in place of `PipelineRuns`.
    pub deployments_key: bool,
    /// `Stages` is null and `Description` absent where there is nothing to say, `Detail` is text.
    pub sparse: bool,
    /// An unknown run is a good answer with `"Pipeline": null` in place of a refusal.
    pub null_for_unknown_run: bool,
}

impl Quirks {
    /// Everything at once.
    pub fn all() -> Quirks {
        Quirks {
            numbers_as_text: true,
            total_count_zero: true,
            trailing_line_feed: true,
            upper_case_statuses: true,
            deployments_key: true,
            sparse: true,
            null_for_unknown_run: true,
        }
    }
}
