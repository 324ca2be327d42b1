//! Writes a reply as Discord markdown, data inert, cut to what one message may hold.

use crate::model::{Span, Text};
use crate::text::{self, ELLIPSIS, clean, clean_line, clusters, utf16};

/// UTF-16 units in one message. Discord documents 2000 characters and its own libraries count UTF-16 units, which is
/// the stricter reading: <https://discord.com/developers/docs/resources/message#create-message>
pub(super) const MESSAGE_LIMIT: usize = 2000;

/// Discord refuses an empty message (error 50006).
const NOTHING: &str = "Nothing to show.";

/// Keeps two marks of the same kind from running together into another mark.
const GAP: char = '\u{200B}';

/// One reply, at most [`MESSAGE_LIMIT`] units; what does not fit ends in `…`, never inside a mark or a character.
pub(super) fn write(text: &Text) -> String {
    let (whole, complete) = fit(text, MESSAGE_LIMIT);
    if complete {
        return if whole.trim().is_empty() { NOTHING.to_owned() } else { whole };
    }
    let (mut cut, _) = fit(text, MESSAGE_LIMIT - utf16(ELLIPSIS));
    cut.truncate(cut.trim_end().len());
    cut.push(ELLIPSIS);
    cut
}

/// `text` cut to `limit` UTF-16 units without marks: names and values of choices.
pub(super) fn cut_plain(text: &str, limit: usize) -> String {
    text::cut(&clean_line(text), limit, utf16)
}

pub(super) fn units(text: &str) -> usize {
    text::length(text, utf16)
}

fn fit(text: &Text, limit: usize) -> (String, bool) {
    let mut out = String::new();
    for span in &text.0 {
        let left = limit.saturating_sub(units(&out));
        let (piece, complete) = write_span(span, &out, left);
        out.push_str(&piece);
        if !complete {
            return (out, false);
        }
    }
    (out, true)
}

fn write_span(span: &Span, before: &str, left: usize) -> (String, bool) {
    match span {
        Span::Plain(data) => fill(escape(data), left),
        Span::Bold(data) if data.trim().is_empty() => fill(escape(data), left),
        Span::Bold(data) => marked("**", escape(data), before, left),
        Span::Code(data) => {
            let data = clean_line(data).replace('`', "\u{02CB}");
            if data.is_empty() {
                (String::new(), true)
            } else {
                marked("`", clusters(&data).map(str::to_owned).collect(), before, left)
            }
        }
        Span::Link { label, url } => match link(label, url) {
            Some(link) if units(&link) <= left => (link, true),
            Some(_) => (fill(escape(label), left).0, false),
            None => fill(escape(label), left),
        },
    }
}

/// Data between two marks. Nothing at all when not even one character fits.
fn marked(mark: &str, data: Vec<String>, before: &str, left: usize) -> (String, bool) {
    let gap = if before.ends_with(mark) { String::from(GAP) } else { String::new() };
    let Some(room) = left.checked_sub(units(&gap) + 2 * units(mark)) else {
        return (String::new(), false);
    };
    let (inside, complete) = fill(data, room);
    if inside.is_empty() { (String::new(), complete) } else { (format!("{gap}{mark}{inside}{mark}"), complete) }
}

fn fill(pieces: Vec<String>, limit: usize) -> (String, bool) {
    let mut out = String::new();
    let mut used = 0;
    for piece in pieces {
        used += units(&piece);
        if used > limit {
            return (out, false);
        }
        out.push_str(&piece);
    }
    (out, true)
}

/// A masked link that does not unfold into a preview. None where `url` is not http(s): then only the label is written.
fn link(label: &str, url: &str) -> Option<String> {
    let url = url::Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    let label = clean_line(label);
    let target = url.as_str().replace('<', "%3C").replace('>', "%3E");
    let label = if label.is_empty() { escape(&target) } else { escape(&label) };
    Some(format!("[{}](<{target}>)", label.concat()))
}

/// A backslash before what Discord reads as markup where it stands; see
/// <https://discord.com/developers/docs/reference#message-formatting>. Mentions are switched off with the message.
fn escape(data: &str) -> Vec<String> {
    let data = clean(data);
    let plain: Vec<&str> = clusters(&data).collect();
    let first_of = |piece: Option<&&str>| piece.and_then(|piece| piece.chars().next());
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let mut pieces: Vec<String> = plain.iter().map(|piece| (*piece).to_owned()).collect();
    for (at, piece) in pieces.iter_mut().enumerate() {
        let before = at.checked_sub(1).and_then(|before| first_of(plain.get(before)));
        let after = first_of(plain.get(at + 1));
        let is_markup = match piece.chars().next() {
            // Inside a word, as in PROD_CHECK, it is no emphasis; a dash there begins no list.
            Some('_') => !(is_word(before) && is_word(after)),
            Some('-') => !is_word(before),
            // A bare link, or the beginning of an :emoji:.
            Some(':') => after.is_some_and(|c| c.is_ascii_alphabetic() || "/+-".contains(c)),
            Some(c) => "\\*~`|>#[]()<".contains(c),
            None => false,
        };
        if is_markup {
            piece.insert(0, '\\');
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_become_markdown() {
        let text = Text::default()
            .plain("Watching ")
            .bold("orders_daily v12")
            .plain(" (")
            .code("7b1e04c2")
            .plain(") ")
            .link("open in DataWorks", "https://dataworks.example/run?id=1&x=(2)");
        assert_eq!(
            write(&text),
            "Watching **orders_daily v12** \\(`7b1e04c2`\\) [open in DataWorks](<https://dataworks.example/run?id=1&x=(2)>)"
        );
    }

    #[test]
    fn markup_in_data_is_inert() {
        let hostile = "# **bold** `code` ||spoiler|| [x](https://evil.example) <@1> <#2> <:smile: <t:1> :smile: > quote\n- list ~~no~~";
        let written = write(&Text::default().plain(hostile));
        assert_eq!(
            written,
            "\\# \\*\\*bold\\*\\* \\`code\\` \\|\\|spoiler\\|\\| \\[x\\]\\(https\\://evil.example\\) \\<@1\\> \\<\\#2\\> \
             \\<\\:smile: \\<t:1\\> \\:smile: \\> quote\n\\- list \\~\\~no\\~\\~"
        );
        let code = write(&Text::default().code("a`b``c\nd"));
        assert_eq!(code.matches('`').count(), 2, "a back-tick in data closes the code span: {code:?}");
        assert!(!code.contains('\n'));
    }

    #[test]
    fn links_that_are_none_stay_words() {
        assert_eq!(write(&Text::default().link("open", "javascript:alert(1)")), "open");
        let written = write(&Text::default().link("a](b", "https://x.example/>y"));
        assert_eq!(written, "[a\\]\\(b](<https://x.example/%3Ey>)");
    }

    #[test]
    fn a_long_reply_is_cut_between_characters() {
        let written = write(&Text::default().plain("😀".repeat(1500)));
        assert!(units(&written) <= MESSAGE_LIMIT, "{}", units(&written));
        assert!(written.ends_with("😀…"));
        let written = write(&Text::default().plain("x".repeat(1990)).bold("_______________"));
        assert!(units(&written) <= MESSAGE_LIMIT);
        assert!(written.ends_with("**…"), "the bold mark is closed before the cut: {written:?}");
        let flags = write(&Text::default().plain("🇨🇳".repeat(900)));
        assert!(flags.ends_with("🇨🇳…"), "a flag is never torn into letters");
        let exact = "y".repeat(MESSAGE_LIMIT);
        assert_eq!(write(&Text::default().plain(&exact)), exact);
    }

    #[test]
    fn empty_replies_say_something() {
        assert_eq!(write(&Text::default()), NOTHING);
        assert_eq!(write(&Text::default().plain(" \n").code("")), NOTHING);
    }

    #[test]
    fn neighbouring_marks_do_not_merge() {
        assert_eq!(write(&Text::default().code("a").code("b")), "`a`\u{200B}`b`");
    }

    proptest::proptest! {
        #[test]
        fn never_longer_than_a_message(plain in "\\PC{0,1500}", bold in "\\PC{0,1500}", code in "\\PC{0,1500}") {
            let written = write(&Text::default().plain(plain).bold(bold).code(code).link("open", "https://x.example"));
            assert!(units(&written) <= MESSAGE_LIMIT);
            assert!(!written.trim().is_empty());
        }
    }
}
