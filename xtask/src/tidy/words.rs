//! Finds words that the project no longer uses.

use super::tree::Tree;

/// Words that must appear neither in code nor in prose.
const DROPPED: &[&str] =
    &["bury", "buried", "carrier", "disband", "elder", "husk", "patience", "settle", "unfit"];

const DROPPED_NAMES: &[&str] = &["remains", "rested", "resting", "worth"];

/// This file contains the words itself.
const LIST: &str = "xtask/src/tidy/words.rs";

pub(super) fn check(tree: &Tree) -> Vec<String> {
    let mut violations = Vec::new();
    for (path, text) in &tree.files {
        let is_rust = path.ends_with(".rs");
        if path == LIST || !(is_rust || path.ends_with(".md")) {
            continue;
        }
        for (number, line) in (1..).zip(text.lines()) {
            let code = if is_rust { line.split("//").next().unwrap_or_default() } else { "" };
            let found = DROPPED.iter().filter(|word| has_part(line, word));
            let named = DROPPED_NAMES.iter().filter(|word| has_part(code, word));
            for word in found.chain(named) {
                violations.push(format!("{path}:{number}: the word {word}"));
            }
        }
    }
    violations
}

fn has_part(text: &str, word: &str) -> bool {
    let mut part = String::new();
    let is_word = |part: &str| part.strip_prefix(word).is_some_and(|end| ["", "s"].contains(&end));
    for character in text.chars().chain([' ']) {
        let starts = character.is_uppercase() || !character.is_alphabetic();
        if starts && is_word(&std::mem::take(&mut part)) {
            return true;
        }
        if character.is_alphabetic() {
            part.extend(character.to_lowercase());
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violations(path: &str, text: &str) -> usize {
        check(&Tree::with(&[(path, text)])).len()
    }

    #[test]
    fn a_dropped_word_is_a_violation_in_prose_and_in_names() {
        for line in
            ["// A carrier.", "struct HuskList;", "fn bury_it() {}", "let with_patience = 1;"]
        {
            assert_eq!(violations("a.rs", line), 1, "{line}");
        }
        assert_eq!(violations("a.md", "The husks of objects."), 1);
    }

    #[test]
    fn a_word_of_prose_is_a_violation_only_in_a_name() {
        assert_eq!(violations("a.rs", "let what_remains = 1; // What remains is worth it."), 1);
        assert_eq!(violations("a.md", "What remains."), 0);
    }

    #[test]
    fn other_words_and_other_files_pass() {
        assert_eq!(violations("a.rs", "fn settlement() {} // impatience"), 0);
        assert_eq!(violations("a.py", "husk = 1"), 0);
        assert_eq!(violations(LIST, "husk"), 0);
    }
}
