//! Reads a template's source and says everything wrong with it, with line and column, before it may serve.
//!
//! handlebars itself is lenient where a mistake matters: unknown names inside `{{#if}}` take the else branch, triple
//! braces switch escaping off, partials that include each other overflow the stack.

use handlebars::template::{DecoratorTemplate, HelperTemplate, Parameter, TemplateElement};
use handlebars::{Path, Template};
use serde_json::Value;

use super::FOOTER;
use crate::text::nearest;

/// Helpers that stand alone or in parentheses.
pub(super) const INLINE: [&str; 12] = ["bold", "link", "eq", "ne", "gt", "gte", "lt", "lte", "and", "or", "not", "len"];
/// Helpers that enclose something.
pub(super) const BLOCK: [&str; 4] = ["if", "unless", "each", "with"];

/// Blocks, else branches and parentheses nest in the recursion of the parser and of rendering. handlebars has no limit;
/// three hundred nested blocks fit a stack of 2 MiB without optimisation, four hundred abort the process.
const NESTING_AT_MOST: usize = 100;

/// Something wrong at a place of a file; both count from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Complaint {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) said: String,
}

impl std::fmt::Display for Complaint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.said)
    }
}

/// A template that may be rendered. Lines are counted from the start of the file: the body is compiled from its own
/// text, `body_line` is where that begins.
#[derive(Debug)]
pub(super) struct Parsed {
    /// Empty for a footer.
    pub(super) title: Template,
    pub(super) body: Template,
    /// Lines of the file before the body's first one.
    pub(super) body_line: usize,
}

/// `shape` holds every variable with a value of its type.
pub(super) fn parse(what: &str, text: &str, shape: &Value) -> Result<Parsed, Vec<Complaint>> {
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(text).replace("\r\n", "\n");
    bounded(&text).map_err(|complaint| vec![complaint])?;
    let (title, body, body_line) = if what == FOOTER { ("", text.as_str(), 0) } else { split(&text)? };
    let mut complaints = Vec::new();
    let mut part = |text: &str, place: Place, line: usize| {
        let compiled = compile(what, text).map(|template| {
            let mut walk = Walk { scopes: vec![Scope::of(Some(shape))], place, complaints: Vec::new() };
            walk.template(&template, (1, 1));
            (template, walk.complaints)
        });
        let (template, found) = compiled.unwrap_or_else(|complaint| (Template::new(), vec![complaint]));
        complaints.extend(found.into_iter().map(|each| Complaint { line: each.line + line, ..each }));
        template
    };
    let title = part(title, Place::Title, 0);
    let body = part(body, if what == FOOTER { Place::Footer } else { Place::Body }, body_line);
    if complaints.is_empty() { Ok(Parsed { title, body, body_line }) } else { Err(complaints) }
}

/// Refuses what could exhaust the stack while parsing or rendering.
fn bounded(text: &str) -> Result<(), Complaint> {
    let refuse = |line: usize, said: String| Err(Complaint { line, column: 1, said });
    if let Some(index) = text.lines().position(|line| line.contains('\0')) {
        return refuse(index + 1, "the template holds a NUL character".to_owned());
    }
    // White space and ~ may stand between the braces and what they open.
    let dense: String = text.chars().filter(|c| !c.is_whitespace() && *c != '~').collect();
    let count = |openings: &[&str]| openings.iter().map(|opening| dense.matches(opening).count()).sum::<usize>();
    if count(&["{{#", "{{^", "{{else", "{{{{"]) > NESTING_AT_MOST {
        return refuse(1, format!("the template holds more than {NESTING_AT_MOST} blocks and else branches"));
    }
    if count(&["("]) > NESTING_AT_MOST {
        return refuse(1, format!("the template holds more than {NESTING_AT_MOST} opening parentheses"));
    }
    Ok(())
}

/// Title, body, and the lines before the body.
fn split(text: &str) -> Result<(&str, &str, usize), Vec<Complaint>> {
    let mut offset = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        if index > 0 && line.trim().is_empty() {
            let (title, rest) = text.split_at(offset);
            let body = rest.strip_prefix(line).unwrap_or(rest);
            if !title.trim().is_empty() && !body.trim().is_empty() {
                return Ok((title, body, index + 1));
            }
        }
        offset += line.len();
    }
    let said = "a template is a title line, an empty line and a body".to_owned();
    Err(vec![Complaint { line: 1, column: 1, said }])
}

fn compile(what: &str, text: &str) -> Result<Template, Complaint> {
    Template::compile_with_name(text, what.to_owned()).map_err(|error| {
        let (line, column) = error.pos().unwrap_or((1, 1));
        Complaint { line, column, said: super::clean::line(&error.reason().to_string(), 200) }
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Title,
    Body,
    Footer,
}

/// What bare names mean inside a block. `None`: not known, so nothing is said about names below it.
struct Scope<'a> {
    base: Option<&'a Value>,
    /// Names given by `as |name|`.
    names: Vec<(String, Option<&'a Value>)>,
    /// Inside `{{#each}}`, where `@index` and its like exist.
    each: bool,
}

impl<'a> Scope<'a> {
    fn of(base: Option<&'a Value>) -> Scope<'a> {
        Scope { base, names: Vec::new(), each: false }
    }
}

struct Walk<'a> {
    scopes: Vec<Scope<'a>>,
    place: Place,
    complaints: Vec<Complaint>,
}

type At = (usize, usize);

impl<'a> Walk<'a> {
    fn template(&mut self, template: &Template, outer: At) {
        for (index, element) in template.elements.iter().enumerate() {
            // The halves of an else chain carry no places of their own.
            let at = template.mapping.get(index).map_or(outer, |place| (place.0, place.1));
            self.element(element, at);
        }
    }

    fn element(&mut self, element: &TemplateElement, at: At) {
        match element {
            TemplateElement::RawString(_) | TemplateElement::Comment(_) => {}
            TemplateElement::HtmlExpression(_) => {
                self.complain(at, "raw output would let text from outside act as markup; write it with two braces");
            }
            TemplateElement::Expression(call) => self.expression(call, at),
            TemplateElement::HelperBlock(block) => self.block(block, at),
            TemplateElement::PartialExpression(partial) => self.partial(partial, at),
            _ => {
                self.complain(at, "only {{> footer}} can be included; there are no other partials or decorators");
            }
        }
    }

    fn partial(&mut self, partial: &DecoratorTemplate, at: At) {
        let plain = partial.params.is_empty() && partial.hash.is_empty();
        if partial.name.as_name() != Some(FOOTER) || !plain {
            self.complain(at, "only {{> footer}} can be included, without parameters");
        } else if self.place != Place::Body {
            self.complain(at, "{{> footer}} can be included in a body only, and not in the footer itself");
        } else if self.scopes.len() > 1 {
            self.complain(at, "{{> footer}} can't stand inside {{#each}} or {{#with}}");
        }
    }

    fn expression(&mut self, call: &HelperTemplate, at: At) {
        if !call.params.is_empty() || !call.hash.is_empty() {
            return self.call(call, at);
        }
        if call.name.as_name().is_some_and(|name| INLINE.contains(&name)) {
            return self.complain(at, "this helper needs something to work on");
        }
        if let Some(Value::Object(_) | Value::Array(_)) = self.parameter(&call.name, at) {
            let name = call.name.as_name().unwrap_or_default();
            self.complain(at, &format!("{name} holds several values; name one of them, or use {{{{#each}}}}"));
        }
    }

    /// A helper with parameters.
    fn call(&mut self, call: &HelperTemplate, at: At) {
        match call.name.as_name() {
            Some(name) if INLINE.contains(&name) => {}
            Some(name) => self.unknown(at, "helper", name, INLINE),
            None => self.complain(at, "the name of a helper can't be computed"),
        }
        for parameter in call.params.iter().chain(call.hash.values()) {
            self.parameter(parameter, at);
        }
    }

    fn block(&mut self, block: &HelperTemplate, at: At) {
        let name = block.name.as_name().unwrap_or_default();
        if !BLOCK.contains(&name) {
            self.unknown(at, "block", name, BLOCK);
        }
        let value = block.params.first().map(|parameter| self.parameter(parameter, at));
        for parameter in block.params.iter().skip(1).chain(block.hash.values()) {
            self.parameter(parameter, at);
        }
        if value.is_none() && BLOCK.contains(&name) {
            self.complain(at, &format!("{{{{#{name}}}}} needs something to look at"));
        }
        let value = value.flatten();
        let scope = match name {
            "each" => {
                let item = value.and_then(|value| match value {
                    Value::Array(items) => items.first(),
                    Value::Object(fields) => fields.values().next(),
                    _ => None,
                });
                if value.is_some() && item.is_none() {
                    self.complain(at, "{{#each}} needs a list");
                }
                Some(Scope { each: true, ..Scope::of(item) })
            }
            "with" => Some(Scope::of(value)),
            _ => None,
        };
        let scoped = scope.is_some();
        if let Some(mut scope) = scope {
            scope.names = names(block, scope.base);
            self.scopes.push(scope);
        }
        if let Some(inner) = &block.template {
            self.template(inner, at);
        }
        if scoped {
            self.scopes.pop();
        }
        if let Some(inverse) = &block.inverse {
            self.template(inverse, at);
        }
    }

    /// What a parameter stands for, where that is known.
    fn parameter(&mut self, parameter: &Parameter, at: At) -> Option<&'a Value> {
        match parameter {
            Parameter::Literal(_) => None,
            Parameter::Name(name) => self.path(name, at),
            Parameter::Path(Path::Relative((_, raw)) | Path::Local((_, _, raw))) => self.path(raw, at),
            Parameter::Subexpression(inner) => {
                if let TemplateElement::Expression(call) = inner.as_element() {
                    self.expression(call, at);
                }
                None
            }
            _ => None,
        }
    }

    fn path(&mut self, raw: &str, at: At) -> Option<&'a Value> {
        if let Some(local) = raw.strip_prefix('@').filter(|local| !local.starts_with("root")) {
            let name = local.trim_start_matches("../");
            let inside = self.scopes.iter().any(|scope| scope.each);
            if !(inside && ["index", "key", "first", "last"].contains(&name)) {
                self.complain(
                    at,
                    &format!("@{local} does not exist here; {{{{#each}}}} gives @index, @first and @last"),
                );
            }
            return None;
        }
        let (from_root, rest) = match raw.strip_prefix("@root") {
            Some(rest) => (true, rest.trim_start_matches(['.', '/'])),
            None => (false, raw),
        };
        let ups = rest.matches("../").count();
        let rest = rest.trim_start_matches("../");
        let mut segments =
            rest.split(['.', '/']).map(|part| part.trim_matches(['[', ']'])).filter(|part| !part.is_empty()).peekable();
        let Some(depth) = (if from_root { Some(0) } else { self.scopes.len().checked_sub(ups + 1) }) else {
            self.complain(at, &format!("{raw} climbs out of the template"));
            return None;
        };
        if segments.peek() == Some(&"this") {
            segments.next();
        }
        let reachable = self.scopes.get(..=depth).unwrap_or_default();
        let named = segments.peek().and_then(|first| {
            let names = reachable.iter().rev().flat_map(|scope| &scope.names);
            names.into_iter().find(|(name, _)| name == first).map(|(_, value)| *value)
        });
        let mut value = match named {
            Some(value) => {
                segments.next();
                value
            }
            None => reachable.last().and_then(|scope| scope.base),
        };
        for segment in segments {
            value = match value? {
                Value::Object(fields) => match fields.get(segment) {
                    Some(field) => Some(field),
                    None => {
                        let known: Vec<&str> = fields.keys().map(String::as_str).collect();
                        self.unknown(at, "variable", raw, known.iter().copied());
                        return None;
                    }
                },
                Value::Array(items) if segment.parse::<usize>().is_ok() => items.first(),
                _ => {
                    self.complain(
                        at,
                        &format!("there is no variable {raw}: what stands before .{segment} has no parts"),
                    );
                    return None;
                }
            };
        }
        value
    }

    fn unknown<'k>(&mut self, at: At, of_what: &str, name: &str, known: impl IntoIterator<Item = &'k str> + Clone) {
        let last = name.rsplit(['.', '/']).next().unwrap_or(name);
        let hint = match nearest(last, known.clone()) {
            Some(meant) => format!("did you mean {}{meant}?", name.strip_suffix(last).unwrap_or_default()),
            None => format!("there are {}", known.into_iter().collect::<Vec<_>>().join(", ")),
        };
        self.complain(at, &format!("there is no {of_what} {name}; {hint}"));
    }

    fn complain(&mut self, (line, column): At, said: &str) {
        self.complaints.push(Complaint { line, column, said: said.to_owned() });
    }
}

fn names<'a>(block: &HelperTemplate, item: Option<&'a Value>) -> Vec<(String, Option<&'a Value>)> {
    use handlebars::template::BlockParam;
    let name = |parameter: &Parameter| parameter.as_name().unwrap_or_default().to_owned();
    match &block.block_param {
        Some(BlockParam::Single(one)) => vec![(name(one), item)],
        Some(BlockParam::Pair((one, index))) => vec![(name(one), item), (name(index), None)],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::render::engine::Engine;
    use crate::render::{contexts, shape};

    const PIECES: [&str; 44] = [
        "{{#if took}}",
        "{{#unless error}}",
        "{{#each past}}",
        "{{#each past as |p i|}}",
        "{{#with stage as |s|}}",
        "{{else}}",
        "{{else if to}}",
        "{{else each past}}",
        "{{^}}",
        "{{^if to}}",
        "{{/if}}",
        "{{/unless}}",
        "{{/each}}",
        "{{/with}}",
        "{{/}}",
        "{{run.title}}",
        "{{p.code}}",
        "{{../to}}",
        "{{@index}}",
        "{{@root.run.id}}",
        "{{this}}",
        "{{.}}",
        "{{bold to}}",
        "{{link \"a\" url}}",
        "{{link url_label",
        "{{> footer}}",
        "{{> (to)}}",
        "{{#> footer}}",
        "{{*inline}}",
        "{{!-- note",
        "--}}",
        "{{! note }}",
        "{{{{raw}}}}",
        "{{{to}}}",
        "\\{{",
        "{{",
        "}}",
        "~",
        "(eq to from)",
        "[a",
        "{\"a\": 1}",
        "\n",
        "\n\n",
        "text ",
    ];

    fn plain(text: &str) -> String {
        text.to_owned()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_source_makes_loading_panic(pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..14)) {
            let text = format!("title\n\n{}", pieces.concat());
            if let Ok(parsed) = parse("stage", &text, &shape()) {
                let dialect = crate::model::Dialect {
                    kind: "console",
                    escape: plain,
                    escape_title: plain,
                    bold: plain,
                    link: |label, _| label.to_owned(),
                    limit: usize::MAX,
                    measure: crate::text::characters,
                };
                let mut engine = Engine::new(&dialect);
                engine.put("stage", &parsed);
                for (_, context) in contexts(super::super::Words::of("en")) {
                    let _ = engine.write("stage", &context);
                }
            }
        }
    }
}
