//! Text from outside, cleaned and never longer than its place in a message allows. Escaping for a platform comes after
//! this.

use crate::text::{characters, clean_line_cut, cut};

/// Lines of a failure text that are worth a reader's screen.
const LINES_AT_MOST: usize = 12;

/// One line of at most `most` characters: runs of white space, line ends included, become one space.
pub(super) fn line(text: &str, most: usize) -> String {
    clean_line_cut(text, most)
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
    cut(&lines.join("\n"), most, characters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_text_keeps_its_lines_but_not_too_many() {
        assert_eq!(block("\nfirst\r\n\r\n  second \r", 700), "first\nsecond");
        let long = block(&"row\n".repeat(100), 700);
        assert_eq!(long.lines().count(), LINES_AT_MOST + 1);
        assert!(long.ends_with("\n…"));
    }
}
