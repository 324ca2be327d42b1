//! The templates of one channel kind, locale and set, ready to render.

use std::io;

use handlebars::{
    Context, Handlebars, Helper, HelperDef, HelperResult, Output, RenderContext, RenderError, RenderErrorReason,
    no_escape,
};
use url::Url;

use super::check::{Complaint, Parsed};
use crate::model::Dialect;
use crate::text::length;

/// What a template writes, at most; platforms take far less, this keeps a mistake from taking the memory.
const OUTPUT_AT_MOST: usize = 64 * 1024;

/// The three renderings of a message.
#[derive(Default)]
pub(super) struct Written {
    pub(super) title: String,
    pub(super) body: String,
    /// Title and body without markup.
    pub(super) plain: String,
}

impl Written {
    /// One more line; not escaped yet.
    pub(super) fn end_with(&mut self, line: &str, dialect: &Dialect) {
        self.body.push('\n');
        self.body.push_str(&(dialect.escape)(line));
        self.plain.push('\n');
        self.plain.push_str(line);
    }

    /// The platform takes the whole body.
    pub(super) fn fits(&self, dialect: &Dialect) -> bool {
        length(&self.body, dialect.measure) <= dialect.limit
    }
}

/// One registry for each way of escaping: handlebars has one escape function a registry.
pub(super) struct Engine {
    title: Handlebars<'static>,
    body: Handlebars<'static>,
    plain: Handlebars<'static>,
}

const PLAIN_TITLE: &str = "title";

impl Engine {
    pub(super) fn new(dialect: &Dialect) -> Engine {
        let same = |escaped: &str| escaped.to_owned();
        let label = |label: &str, _: &str| label.to_owned();
        let label_and_url = |label: &str, url: &str| format!("{label} ({url})");
        Engine {
            title: registry(dialect.escape_title, same, label),
            body: registry(dialect.escape, dialect.bold, dialect.link),
            plain: registry(no_escape, same, label_and_url),
        }
    }

    /// Registers a template under the name of its kind; a former one of that name is gone.
    pub(super) fn put(&mut self, what: &str, parsed: &Parsed) {
        self.title.register_template(what, parsed.title.clone());
        self.body.register_template(what, parsed.body.clone());
        self.plain.register_template(what, parsed.body.clone());
        self.plain.register_template(&plain_title(what), parsed.title.clone());
    }

    pub(super) fn write(&self, what: &str, context: &Context) -> Result<Written, Failure> {
        let title = one_line(&render(&self.title, what, context, Part::Title)?);
        if title.is_empty() {
            return Err(Failure { part: Part::Title, line: 1, column: 1, said: "the title is empty".to_owned() });
        }
        let body = lines(&render(&self.body, what, context, Part::Body)?);
        let plain_title = one_line(&render(&self.plain, &plain_title(what), context, Part::Title)?);
        let plain = lines(&render(&self.plain, what, context, Part::Body)?);
        Ok(Written { title, body, plain: format!("{plain_title}\n{plain}").trim_end().to_owned() })
    }

    /// Whether the footer renders by itself.
    pub(super) fn try_footer(&self, context: &Context) -> Result<(), Failure> {
        render(&self.body, super::FOOTER, context, Part::Body).map(|_| ())
    }
}

fn plain_title(what: &str) -> String {
    format!("{what}.{PLAIN_TITLE}")
}

/// Which text a failure's line counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Title,
    Body,
}

/// Why a template did not render.
#[derive(Debug)]
pub(super) struct Failure {
    part: Part,
    line: usize,
    column: usize,
    pub(super) said: String,
}

impl Failure {
    /// The place in the file, whose body starts after `body_line` lines.
    pub(super) fn in_file(&self, body_line: usize) -> Complaint {
        let before = if self.part == Part::Body { body_line } else { 0 };
        Complaint { line: self.line + before, column: self.column, said: self.said.clone() }
    }
}

fn render(registry: &Handlebars<'_>, name: &str, context: &Context, part: Part) -> Result<String, Failure> {
    let mut out = Bounded(Vec::new());
    registry.render_with_context_to_write(name, context, &mut out).map_err(|error| Failure {
        part,
        line: error.line_no.unwrap_or(1),
        column: error.column_no.unwrap_or(1),
        said: said(&error),
    })?;
    Ok(String::from_utf8_lossy(&out.0).into_owned())
}

fn said(error: &RenderError) -> String {
    match error.reason() {
        RenderErrorReason::MissingVariable(Some(name)) => {
            format!("{name} has no value in every such change; put this inside {{{{#if}}}} … {{{{/if}}}}")
        }
        RenderErrorReason::MissingVariable(None) => "a value is missing in some such changes".to_owned(),
        RenderErrorReason::IOError(_) => format!("writes more than {} KiB", OUTPUT_AT_MOST / 1024),
        reason => reason.to_string(),
    }
}

struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > OUTPUT_AT_MOST {
            return Err(io::Error::other("too long"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn registry(
    escape: fn(&str) -> String,
    bold: fn(&str) -> String,
    link: fn(&str, &str) -> String,
) -> Handlebars<'static> {
    let mut registry = Handlebars::new();
    registry.set_strict_mode(true);
    registry.register_escape_fn(escape);
    // Not offered: they name variables in ways that can't be checked, or write to the log.
    for unwanted in ["lookup", "log", "raw"] {
        registry.unregister_helper(unwanted);
    }
    registry.register_helper("bold", Box::new(Bold { escape, bold }));
    registry.register_helper("link", Box::new(Link { escape, link }));
    registry
}

/// `{{bold x}}`
struct Bold {
    escape: fn(&str) -> String,
    bold: fn(&str) -> String,
}

impl HelperDef for Bold {
    fn call<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
        out: &mut dyn Output,
    ) -> HelperResult {
        let text = text_of(helper, 0, "bold")?;
        if !text.is_empty() {
            out.write(&(self.bold)(&(self.escape)(&text)))?;
        }
        Ok(())
    }
}

/// `{{link label url}}`; only the label where the URL is none of http or https.
struct Link {
    escape: fn(&str) -> String,
    link: fn(&str, &str) -> String,
}

impl HelperDef for Link {
    fn call<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
        out: &mut dyn Output,
    ) -> HelperResult {
        let label = (self.escape)(&text_of(helper, 0, "link")?);
        match safe_url(&text_of(helper, 1, "link")?) {
            Some(url) if !label.is_empty() => out.write(&(self.link)(&label, &url))?,
            _ => out.write(&label)?,
        }
        Ok(())
    }
}

fn text_of(helper: &Helper<'_>, index: usize, name: &'static str) -> Result<String, RenderError> {
    let value = helper.param(index).ok_or(RenderErrorReason::ParamNotFoundForIndex(name, index))?;
    if value.is_value_missing() {
        return Err(RenderErrorReason::MissingVariable(value.relative_path().cloned()).into());
    }
    Ok(handlebars::JsonRender::render(value.value()))
}

/// The URL with everything encoded that could end a link in some markup.
fn safe_url(raw: &str) -> Option<String> {
    let url = Url::parse(raw).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    let mut safe = String::new();
    for c in url.as_str().chars() {
        if matches!(c, '(' | ')' | '<' | '>' | '[' | ']' | '|' | '\\' | '"' | '\'' | '`' | '*') {
            safe.push_str(&format!("%{:02X}", u32::from(c)));
        } else {
            safe.push(c);
        }
    }
    Some(safe)
}

fn one_line(text: &str) -> String {
    text.split(char::is_whitespace).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Without white space at line ends and with at most one empty line in a row.
fn lines(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines().map(str::trim_end) {
        if line.is_empty() && (out.is_empty() || out.ends_with("\n\n")) {
            continue;
        }
        out.push_str(line);
        out.push('\n');
    }
    out.trim_end().to_owned()
}
