//! Makes text from outside fit to be shown: no control characters, nothing invisible, nothing that changes the
//! direction of reading, and never longer than its place allows. Escaping for a platform comes after this.

/// Accents and the like that may pile up on one letter; more is how text is made to overflow its line.
const MARKS_AT_MOST: usize = 8;
/// Lines of a failure text that are worth a reader's screen.
const LINES_AT_MOST: usize = 12;

/// One line of at most `most` characters: runs of white space, line ends included, become one space.
pub(super) fn line(text: &str, most: usize) -> String {
    let mut line = String::new();
    for word in visible(text, most).split_whitespace() {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    cut(line, most)
}

/// Lines of a longer text, at most `most` characters in all, empty lines left out.
pub(super) fn block(text: &str, most: usize) -> String {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut lines: Vec<String> = text
        .split('\n')
        .take(most)
        .map(|each| line(each, most))
        .filter(|each| !each.is_empty())
        .take(LINES_AT_MOST + 1)
        .collect();
    if lines.len() > LINES_AT_MOST {
        lines.truncate(LINES_AT_MOST);
        lines.push("…".to_owned());
    }
    cut(lines.join("\n"), most)
}

/// At most `most` characters, the last one `…` where something was left out.
fn cut(text: String, most: usize) -> String {
    if text.chars().count() <= most {
        return text;
    }
    let kept: String = text.chars().take(most.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

/// Without escape sequences, control characters (white space becomes a space), invisible and direction-changing
/// characters and floods of combining marks.
///
/// Stops after enough for a line of `most` characters, so that a huge text costs no more than a long one.
fn visible(text: &str, most: usize) -> String {
    let mut out = String::new();
    let mut kept = 0;
    let mut marks = 0;
    let mut rest = text.trim_start().chars();
    while let Some(c) = rest.next() {
        if kept > most.saturating_mul(4) {
            break;
        }
        if c == '\u{1B}' || c == '\u{9B}' {
            rest = after_escape(c, rest);
            continue;
        }
        if c.is_whitespace() {
            out.push(' ');
            kept += 1;
            continue;
        }
        if c.is_control() || is_invisible(c) {
            continue;
        }
        marks = if is_combining(c) { marks + 1 } else { 0 };
        if marks <= MARKS_AT_MOST {
            out.push(c);
            kept += 1;
        }
    }
    out
}

/// What follows a terminal's escape sequence: `ESC [ parameters letter`, or `ESC` and one character.
fn after_escape(first: char, rest: std::str::Chars<'_>) -> std::str::Chars<'_> {
    let mut ahead = rest.clone();
    let is_csi = first == '\u{9B}' || ahead.next() == Some('[');
    if !is_csi {
        return rest;
    }
    let mut last_good = ahead.clone();
    // A real sequence is short; a longer one is text, and only its opening goes.
    for _ in 0..32 {
        match ahead.next() {
            Some('\u{40}'..='\u{7E}') => return ahead,
            Some('\u{20}'..='\u{3F}') => last_good = ahead.clone(),
            _ => return last_good,
        }
    }
    last_good
}

fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}' | '\u{180B}'..='\u{180F}'
        | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{3164}' | '\u{FEFF}'
        | '\u{FFA0}' | '\u{FFF9}'..='\u{FFFB}' | '\u{1BCA0}'..='\u{1BCA3}' | '\u{1D173}'..='\u{1D17A}'
        | '\u{E0000}'..='\u{E0FFF}')
}

fn is_combining(c: char) -> bool {
    matches!(c,
        '\u{300}'..='\u{36F}' | '\u{483}'..='\u{489}' | '\u{591}'..='\u{5BD}' | '\u{610}'..='\u{61A}'
        | '\u{64B}'..='\u{65F}' | '\u{E31}' | '\u{E34}'..='\u{E3A}' | '\u{E47}'..='\u{E4E}'
        | '\u{1AB0}'..='\u{1AFF}' | '\u{1DC0}'..='\u{1DFF}' | '\u{20D0}'..='\u{20FF}' | '\u{FE00}'..='\u{FE0F}'
        | '\u{FE20}'..='\u{FE2F}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_stays_one_line() {
        assert_eq!(line("  a\r\n\tb\u{2028}c\u{0}d  ", 80), "a b cd");
        assert_eq!(line("\u{1B}[31mred\u{1B}[0m \u{9B}1mbold", 80), "red bold");
        assert_eq!(line("\u{1B}[no end", 80), "o end", "n ends the sequence");
        assert_eq!(line("\u{1B}]0;title\u{7}x", 80), "]0;titlex");
    }

    #[test]
    fn nothing_invisible_and_nothing_that_turns_the_text_around() {
        let text = "a\u{202E}b\u{200B}c\u{2066}d\u{FEFF}e\u{E0041}f\u{200D}g";
        assert_eq!(line(text, 80), "abcdefg");
        let flood = format!("e{}", "\u{301}".repeat(500));
        assert_eq!(line(&flood, 80).chars().count(), 1 + MARKS_AT_MOST);
    }

    #[test]
    fn too_long_is_cut_between_characters_and_says_so() {
        assert_eq!(line("数据开发", 4), "数据开发");
        assert_eq!(line("数据开发工程", 4), "数据开…");
        assert_eq!(line("ab cd", 4), "ab…");
    }

    #[test]
    fn a_failure_text_keeps_its_lines_but_not_too_many() {
        assert_eq!(block("\nfirst\r\n\r\n  second \r", 700), "first\nsecond");
        let long = block(&"row\n".repeat(100), 700);
        assert_eq!(long.lines().count(), LINES_AT_MOST + 1);
        assert!(long.ends_with("\n…"));
    }
}
