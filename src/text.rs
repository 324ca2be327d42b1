//! Text of strangers: cleaned, cut, compared. Pure; whoever shows such text takes it through here, and escapes it for
//! its platform afterwards.

// ------------------------------------------------------------------------------------------------------- cleaned

/// Accents and the like that may pile up on one letter; more is how text is made to overflow its line.
const MARKS_AT_MOST: usize = 8;

/// Without what would act on a reader's screen unseen: escape sequences, control characters, characters that reorder
/// text or hide in it, floods of combining marks. Lines stay lines; other white space becomes a space.
pub fn clean(data: &str) -> String {
    visible(data).collect()
}

/// As [`clean`], on one line: every run of white space, line ends included, is one space, and none is at the ends.
pub fn clean_line(data: &str) -> String {
    one_line(&clean(data))
}

/// As [`clean_line`], at most `most` characters, the last one `…` where something was left out. A huge text that can be
/// seen costs no more than a long one.
pub fn clean_line_cut(data: &str, most: usize) -> String {
    let enough: String = visible(data.trim_start()).take(most.saturating_mul(4)).collect();
    cut(&one_line(&enough), most, characters)
}

fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    line
}

/// What [`clean`] leaves, one by one.
fn visible(data: &str) -> impl Iterator<Item = char> {
    let mut rest = data.chars();
    let mut before = None;
    let mut marks = 0;
    std::iter::from_fn(move || {
        loop {
            let c = rest.next()?;
            let next = rest.as_str().chars().next();
            let shown = match c {
                '\u{1b}' | '\u{9b}' => {
                    rest = after_escape(c, rest.clone());
                    None
                }
                '\r' if next == Some('\n') => None,
                '\r' | '\n' => Some('\n'),
                c if c.is_whitespace() => Some(' '),
                JOINER => (before.is_some_and(is_emoji) && next.is_some_and(is_emoji)).then_some(c),
                c if is_hidden(c) => None,
                c => Some(c),
            };
            let Some(shown) = shown else { continue };
            marks = if is_mark(shown) { marks + 1 } else { 0 };
            if marks <= MARKS_AT_MOST {
                before = Some(shown);
                return Some(shown);
            }
        }
    })
}

/// What follows a terminal's escape sequence: `ESC [ parameters letter`, or `ESC` and one character.
fn after_escape(first: char, rest: std::str::Chars<'_>) -> std::str::Chars<'_> {
    let mut ahead = rest.clone();
    let is_csi = first == '\u{9b}' || ahead.next() == Some('[');
    if !is_csi {
        return rest;
    }
    let mut last_good = ahead.clone();
    // A real sequence is short; a longer one is text, and only its opening goes.
    for _ in 0..32 {
        match ahead.next() {
            Some('\u{40}'..='\u{7e}') => return ahead,
            Some('\u{20}'..='\u{3f}') => last_good = ahead.clone(),
            _ => return last_good,
        }
    }
    last_good
}

/// Controls (line ends and tabs among them), marks and overrides of writing direction, fillers and operators that
/// show nothing, byte order marks, separators that are not line feeds, and the tag block.
///
/// The joiner U+200D is hidden by itself; [`clean`] leaves it between two emoji, which it makes one.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}')
        || matches!(c, '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}')
        || matches!(c, '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// With a full stop at its end, unless it ends a sentence already, as what strangers say may.
pub fn stopped(said: &str) -> String {
    let closing = |c: char| matches!(c, '"' | '\'' | '”' | '’' | '»');
    let ends = said.trim_end_matches(closing).ends_with(['.', '!', '?', '…', '。', '！', '？']);
    if ends { said.to_owned() } else { format!("{said}.") }
}

// ------------------------------------------------------------------------------------------------------------ cut

/// How long a character is in the unit a place counts in.
pub type Measure = fn(char) -> usize;

pub fn characters(_: char) -> usize {
    1
}

pub fn utf16(c: char) -> usize {
    c.len_utf16()
}

/// Bytes inside a JSON string as serde_json writes it.
pub fn json_bytes(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        c if (c as u32) < 0x20 => 6,
        c => c.len_utf8(),
    }
}

pub fn length(text: &str, measure: Measure) -> usize {
    text.chars().map(measure).sum()
}

/// Shows that something is missing.
pub const ELLIPSIS: char = '…';

/// At most `limit` units. A longer text ends with `…`, inside the limit, after the last character that fits whole.
pub fn cut(text: &str, limit: usize, measure: Measure) -> String {
    if length(text, measure) <= limit {
        return text.to_owned();
    }
    match limit.checked_sub(measure(ELLIPSIS)) {
        Some(room) => format!("{}{ELLIPSIS}", fitting(text, room, measure).trim_end()),
        None => String::new(),
    }
}

/// The longest beginning of `text` that has at most `room` units and tears no character.
pub fn fitting(text: &str, room: usize, measure: Measure) -> &str {
    let mut used = 0;
    let mut end = 0;
    for cluster in clusters(text) {
        used += length(cluster, measure);
        if used > room {
            break;
        }
        end += cluster.len();
    }
    text.get(..end).unwrap_or_default()
}

/// Bytes of one character as people see it; a run of joiners without end is torn after so many.
const CLUSTER_AT_MOST: usize = 64;

/// Characters as people see them: each with what belongs to it, such as accents, the parts of an emoji and the other
/// half of a flag. Together they are `text`.
pub fn clusters(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (cluster, after) = rest.split_at_checked(first_cluster(rest))?;
        rest = after;
        (!cluster.is_empty()).then_some(cluster)
    })
}

fn first_cluster(text: &str) -> usize {
    let is_flag_half = |c: char| matches!(c, '\u{1f1e6}'..='\u{1f1ff}');
    let mut end = 0;
    let mut last = None;
    let mut halves = 0;
    for c in text.chars() {
        let flag = is_flag_half(c) && halves == 1 && last.is_some_and(is_flag_half);
        let joins = last.is_none() || continues(c) || last == Some(JOINER) || flag;
        if !joins || end >= CLUSTER_AT_MOST {
            break;
        }
        halves += usize::from(is_flag_half(c));
        last = Some(c);
        end += c.len_utf8();
    }
    end
}

/// Belongs to the character before it. So does U+200B, which escapes put after a mark.
pub fn continues(c: char) -> bool {
    is_mark(c) || matches!(c, '\u{200b}' | JOINER | '\u{1f3fb}'..='\u{1f3ff}' | '\u{e0020}'..='\u{e007f}')
}

/// Makes one emoji of two.
const JOINER: char = '\u{200d}';

/// Accents, vowel signs and the like, which stand on the letter before them.
fn is_mark(c: char) -> bool {
    matches!(c,
        '\u{300}'..='\u{36f}' | '\u{483}'..='\u{489}' | '\u{591}'..='\u{5bd}' | '\u{610}'..='\u{61a}'
        | '\u{64b}'..='\u{65f}' | '\u{e31}' | '\u{e34}'..='\u{e3a}' | '\u{e47}'..='\u{e4e}'
        | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}' | '\u{20d0}'..='\u{20ff}' | '\u{fe00}'..='\u{fe0f}'
        | '\u{fe20}'..='\u{fe2f}')
}

/// What joiners join: signs and pictures, and the variation selector that makes one coloured.
fn is_emoji(c: char) -> bool {
    matches!(c, '\u{2190}'..='\u{2bff}' | '\u{fe0f}' | '\u{1f000}'..='\u{1faff}')
}

// ------------------------------------------------------------------------------------------------------- compared

/// The known word that was most likely meant: at most a third of it differs, capitals aside, or it was cut short.
/// `None` when nothing is close.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let small = |text: &str| text.chars().take(64).flat_map(char::to_lowercase).collect::<String>();
    let word = small(word);
    let letters = word.chars().count();
    let measured = known.into_iter().map(|each| (small(each), each));
    measured
        .map(|(small, each)| (strsim::osa_distance(&word, &small), letters > 2 && small.starts_with(&word), each))
        .filter(|(steps, begins, _)| *steps <= 1 + letters / 3 || *begins)
        .min_by_key(|(steps, _, each)| (*steps, *each))
        .map(|(_, _, each)| each)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn unseen_characters_are_gone() {
        assert_eq!(clean("a\u{1b}[31mb\u{202e}c\u{0}d\u{e0041}e\r\nf\rg"), "abcde\nf\ng");
        assert_eq!(clean("a\u{202E}b\u{200B}c\u{2066}d\u{FEFF}e\u{E0041}f\u{200D}g"), "abcdefg");
        assert_eq!(clean(&format!("e{}", "\u{301}".repeat(500))).chars().count(), 1 + MARKS_AT_MOST);
    }

    #[test]
    fn emoji_stay_whole() {
        for emoji in ["👩‍💻", "❤️‍🔥", "👩🏽‍🚀", "🇨🇳", "👨‍👩‍👧"] {
            assert_eq!(clean(emoji), emoji);
            assert_eq!(clusters(emoji).collect::<Vec<_>>(), [emoji]);
        }
        assert_eq!(clusters("🇨🇳🇩🇪e\u{301}x").collect::<Vec<_>>(), ["🇨🇳", "🇩🇪", "e\u{301}", "x"]);
    }

    #[test]
    fn one_line_stays_one_line() {
        assert_eq!(clean_line("  a\r\n\tb\u{2028}c\u{0}d  "), "a b cd");
        assert_eq!(clean_line("\u{1B}[31mred\u{1B}[0m \u{9B}1mbold"), "red bold");
        assert_eq!(clean_line("\u{1B}[no end"), "o end", "n ends the sequence");
        assert_eq!(clean_line("\u{1B}]0;title\u{7}x"), "]0;titlex");
    }

    #[test]
    fn a_sentence_ends_once() {
        for (said, whole) in [
            ("it no longer exists", "it no longer exists."),
            ("is the key right?", "is the key right?"),
            ("数据源不存在。", "数据源不存在。"),
            ("it said “no.”", "it said “no.”"),
            ("status 429 (limited)", "status 429 (limited)."),
        ] {
            assert_eq!(stopped(said), whole);
        }
    }

    #[test]
    fn too_long_is_cut_between_characters_and_says_so() {
        assert_eq!(clean_line_cut("数据开发", 4), "数据开发");
        assert_eq!(clean_line_cut("数据开发工程", 4), "数据开…");
        assert_eq!(clean_line_cut("ab cd", 4), "ab…");
        assert_eq!(cut("a👩‍💻b", 6, utf16), "a…");
        assert_eq!(cut("ae\u{301}xyz", 3, characters), "a…");
        assert_eq!(cut("abc", 0, characters), "");
    }

    #[test]
    fn nearest_names_a_typo_and_leaves_strangers_alone() {
        let known = ["listen", "locale", "url", "slack-webhook", "zh-CN"];
        for (word, meant) in [
            ("lisen", Some("listen")),
            ("lsiten", Some("listen")),
            ("LISTEN", Some("listen")),
            ("local", Some("locale")),
            ("slack", Some("slack-webhook")),
            ("zh-cn", Some("zh-CN")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), meant, "{word:?}");
        }
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![any::<String>(), "[a\u{301}\u{200b}-\u{200f}\u{202e}\u{1b}\u{9b}\\[m\r\n\t👩💻🇨❤\u{fe0f}]{0,60}"]
    }

    proptest! {
        #[test]
        fn nothing_hidden_comes_through_and_cleaning_twice_changes_nothing(text in text()) {
            let cleaned = clean(&text);
            let joins_emoji = |at: usize| {
                let (before, after) = cleaned.split_at(at);
                before.chars().next_back().is_some_and(is_emoji) && after.chars().nth(1).is_some_and(is_emoji)
            };
            for (at, c) in cleaned.char_indices().filter(|(_, c)| *c != '\n' && is_hidden(*c)) {
                prop_assert!(c == JOINER && joins_emoji(at), "{c:?} in {cleaned:?}");
            }
            prop_assert_eq!(clean(&cleaned), cleaned);
            let line = clean_line(&text);
            prop_assert!(!line.contains('\n') && line.trim() == line && !line.contains("  "), "{line:?}");
        }

        #[test]
        fn a_cut_never_exceeds_its_limit_and_tears_nothing(text in text(), limit in 0_usize..80) {
            for measure in [characters as Measure, utf16, json_bytes] {
                let shown = cut(&text, limit, measure);
                prop_assert!(length(&shown, measure) <= limit);
                if let Some(kept) = shown.strip_suffix(ELLIPSIS).filter(|_| shown != text) {
                    let mut ends = clusters(&text).scan(0, |end, cluster| {
                        *end += cluster.len();
                        Some(*end)
                    });
                    prop_assert!(text.starts_with(kept));
                    let whole = kept.is_empty() || ends.any(|end| text[..end].trim_end() == kept);
                    prop_assert!(whole, "{kept:?} of {text:?}");
                }
            }
        }

        #[test]
        fn clusters_are_the_text(text in text()) {
            prop_assert_eq!(clusters(&text).collect::<String>(), text);
        }

        #[test]
        fn json_bytes_are_what_serde_writes(text in any::<String>()) {
            prop_assert_eq!(length(&text, json_bytes) + 2, serde_json::to_string(&text).unwrap().len());
        }
    }
}
