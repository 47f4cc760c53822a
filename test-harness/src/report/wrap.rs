//! Text in lines of bounded length.

/// Breaks text at its spaces into lines of at most `width` letters, each after `indent`. A longer word has a line of its own.
pub fn wrap(text: &str, width: usize, indent: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!("{indent}{word}")),
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::wrap;

    #[test]
    fn lines_break_at_spaces_and_keep_to_the_width() {
        assert_eq!(wrap("one two three four", 10, "  "), "  one two\n  three\n  four");
        assert_eq!(wrap("unbreakable  word", 5, ""), "unbreakable\nword");
    }
}
