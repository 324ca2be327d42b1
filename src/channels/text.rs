//! Escaping, and cutting of what was escaped, for every channel.

use crate::text::{ELLIPSIS, Measure, fitting, length};

/// Where a character of data stands: markup needs its surroundings.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    before: Option<char>,
    after: Option<char>,
    /// Only digits and spaces stand before it on its line.
    pub begins_line: bool,
}

impl Place {
    /// Between two letters or digits, as the underscore of `PROD_CHECK`: no platform reads that as emphasis, and codes
    /// and names stay as people search for them. ASCII alone, since Discord's word boundaries know no other letters.
    pub fn inside_word(self) -> bool {
        let is_word = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        is_word(self.before) && is_word(self.after)
    }

    /// Before a slash, as the colon of a bare link.
    pub fn before_slash(self) -> bool {
        self.after == Some('/')
    }

    /// Before a letter or a sign, as the first colon of `:emoji:`.
    pub fn before_name(self) -> bool {
        self.after.is_some_and(|c| c.is_ascii_alphabetic() || "+-".contains(c))
    }
}

/// Escapes of a dialect: what stands for one character of data. `None`: the character itself.
pub fn escape_with(data: &str, stand_in: impl Fn(char, Place) -> Option<&'static str>) -> String {
    let mut out = String::with_capacity(data.len() + data.len() / 4);
    let mut place = Place { before: None, after: None, begins_line: true };
    let mut rest = data.chars().peekable();
    while let Some(c) = rest.next() {
        place.after = rest.peek().copied();
        match stand_in(c, place) {
            Some(text) => out.push_str(text),
            None => out.push(c),
        }
        place.begins_line = c == '\n' || place.begins_line && (c.is_ascii_digit() || c == ' ');
        place.before = Some(c);
    }
    out
}

/// At most `limit` units of a text that was escaped already. Whole lines are kept where that leaves something, so
/// that markup, which never spans lines, stays whole; otherwise the first line is cut between characters as people
/// see them, and never inside an escape. An ellipsis, inside the limit, shows that something is missing.
pub fn cut(text: &str, limit: usize, measure: Measure) -> String {
    if length(text, measure) <= limit {
        return text.to_owned();
    }
    let room = limit.saturating_sub(measure(ELLIPSIS));
    let fitting = fitting(text, room, measure);
    // A line is dropped whole only if that doesn't drop most of what fits: one long line of failure text is worth
    // its beginning.
    let kept = match fitting.rfind('\n') {
        Some(end) if end >= fitting.len() / 2 => fitting.get(..end + 1).unwrap_or(fitting),
        _ => whole_escapes(fitting),
    };
    if kept.is_empty() && measure(ELLIPSIS) > limit {
        return String::new();
    }
    format!("{kept}{ELLIPSIS}")
}

/// `prefix`, shortened until it ends neither inside an escape (`\*`, `&lt;`; the U+200B of Slack's belongs to its
/// character) nor inside `<a link|like this>`.
fn whole_escapes(prefix: &str) -> &str {
    let open_backslash = ends_in_open_backslash(prefix).then(|| prefix.strip_suffix('\\')).flatten();
    let kept = open_backslash.unwrap_or(prefix);
    // Where `<` begins links, data holds it only as an entity or behind a backslash.
    let open_link = kept.rfind('<').filter(|at| {
        let (before, tail) = kept.split_at(*at);
        !tail.contains('>') && !ends_in_open_backslash(before)
    });
    let open_entity = kept.rfind('&').filter(|at| {
        let tail = kept.get(*at..).unwrap_or_default();
        tail.len() < "&quot;".len() && !tail.contains(';')
    });
    let whole = [open_link, open_entity].into_iter().flatten().min();
    whole.and_then(|at| kept.get(..at)).unwrap_or(kept)
}

fn ends_in_open_backslash(text: &str) -> bool {
    text.chars().rev().take_while(|c| *c == '\\').count() % 2 == 1
}

/// A link target of ours that no markup can be broken out of; `None` when it is not http(s).
pub fn link_target(url: &str) -> Option<String> {
    let url: url::Url = url.parse().ok()?;
    if !matches!(url.scheme(), "https" | "http") {
        return None;
    }
    Some(escape_with(url.as_str(), |c, _| match c {
        '(' => Some("%28"),
        ')' => Some("%29"),
        '<' => Some("%3C"),
        '>' => Some("%3E"),
        '|' => Some("%7C"),
        '\\' => Some("%5C"),
        _ => None,
    }))
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::text::{json_bytes, utf16};
    use proptest::prelude::*;

    /// A character of escaped text that stands behind no backslash.
    #[derive(Debug)]
    pub struct Bare {
        pub c: char,
        pub before: Option<char>,
        pub after: Option<char>,
        /// What stands before it on its line.
        pub line: String,
    }

    impl Bare {
        pub fn between(&self, test: impl Fn(char) -> bool) -> bool {
            self.before.is_some_and(&test) && self.after.is_some_and(&test)
        }
    }

    pub fn bare(text: &str) -> Vec<Bare> {
        let characters: Vec<char> = text.chars().collect();
        let mut found = Vec::new();
        let mut at = 0;
        while at < characters.len() {
            let c = characters[at];
            if c == '\\' && characters.get(at + 1).is_some_and(|next| next.is_ascii_punctuation()) {
                at += 2;
                continue;
            }
            let begin = characters[..at].iter().rposition(|c| *c == '\n').map_or(0, |line| line + 1);
            found.push(Bare {
                c,
                before: at.checked_sub(1).map(|before| characters[before]),
                after: characters.get(at + 1).copied(),
                line: characters[begin..at].iter().collect(),
            });
            at += 1;
        }
        found
    }

    #[test]
    fn cuts_fall_between_characters_and_escapes() {
        let cases: [(&str, usize, &str); 9] = [
            ("abc", 3, "abc"),
            ("abcd", 3, "ab…"),
            ("a\\*b\\*c", 3, "a…"),
            ("a&lt;bcdef", 5, "a…"),
            ("a👩‍💻b", 6, "a…"),
            ("ae\u{301}xyz", 3, "a…"),
            ("a*\u{200b}bcd", 3, "a…"),
            ("ab <https://x|y> z", 12, "ab …"),
            ("one\ntwo\nthree", 9, "one\ntwo\n…"),
        ];
        for (text, limit, expected) in cases {
            assert_eq!(cut(text, limit, utf16), expected, "{text} at {limit}");
        }
        assert_eq!(cut("abc", 0, utf16), "");
    }

    #[test]
    fn link_targets_stay_links() {
        assert_eq!(link_target("https://x/(a)|b<c>").unwrap(), "https://x/%28a%29%7Cb%3Cc%3E");
        assert_eq!(link_target("javascript:alert(1)"), None);
        assert_eq!(link_target(""), None);
    }

    proptest! {
        #[test]
        fn a_cut_never_exceeds_its_limit(text in "\\PC*|[\\\\*&;<\n]{0,60}", limit in 0_usize..80) {
            for measure in [utf16 as Measure, json_bytes] {
                prop_assert!(length(&cut(&text, limit, measure), measure) <= limit);
            }
        }
    }
}
