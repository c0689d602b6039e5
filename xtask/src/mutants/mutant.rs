//! A mutant: a range of bytes in one file, and the text that replaces these bytes.

use std::{ops::Range, sync::Arc};

#[derive(Debug)]
pub(super) struct Source {
    /// The path of the file, relative to the project's root.
    pub(super) path: String,
    pub(super) text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// A change that cargo-mutants proposes. The other kinds are our own.
    Listed,
    /// The condition of an `if` is negated.
    Condition,
    Number,
    /// A memory ordering is replaced by `Relaxed`.
    Ordering,
    Statement,
}

#[derive(Clone, Debug)]
pub(super) struct Mutant {
    pub(super) krate: &'static str,
    pub(super) source: Arc<Source>,
    /// The name of the changed function, or empty for a constant.
    pub(super) function: String,
    pub(super) kind: Kind,
    pub(super) range: Range<usize>,
    pub(super) replacement: String,
}

impl Mutant {
    pub(super) fn mutated(&self) -> String {
        let text = &self.source.text;
        [&text[..self.range.start], &self.replacement, &text[self.range.end..]].concat()
    }

    pub(super) fn line(&self) -> usize {
        self.source.text[..self.range.start].matches('\n').count() + 1
    }

    /// Returns the lines that the change affects, before and after it.
    fn lines(&self) -> (&str, String) {
        let text = &self.source.text;
        let start = text[..self.range.start].rfind('\n').map_or(0, |at| at + 1);
        let end = text[self.range.end..].find('\n').map_or(text.len(), |at| self.range.end + at);
        let after = [&text[start..self.range.start], &self.replacement, &text[self.range.end..end]];
        (&text[start..end], after.concat())
    }

    /// Returns the mutant's name. It contains no line number, so it does not change with edits
    /// elsewhere.
    pub(super) fn name(&self) -> String {
        let (before, after) = self.lines();
        let changed = match before.contains('\n') {
            false => format!("`{}` → `{}`", before.trim(), after.trim()),
            true => {
                let first = before.lines().next().unwrap_or_default().trim();
                format!("`{first} …` → `{}`", self.replacement)
            }
        };
        let function = if self.function.is_empty() { "(constant)" } else { &self.function };
        format!("{}: {function}: {changed}", self.source.path)
    }

    pub(super) fn place(&self) -> String {
        self.name().replacen(": ", &format!(":{}: ", self.line()), 1)
    }

    pub(super) fn diff(&self) -> String {
        let (before, after) = self.lines();
        let mark = |mark, text: &str| {
            text.lines()
                .filter(|line| !line.trim().is_empty())
                .map(move |line| format!("{mark} {line}\n"))
                .collect::<String>()
        };
        mark('-', before) + &mark('+', &after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mutant(text: &str, old: &str, new: &str) -> Mutant {
        let start = text.find(old).unwrap();
        Mutant {
            krate: "a",
            source: Arc::new(Source { path: "a.rs".to_owned(), text: text.to_owned() }),
            function: "f".to_owned(),
            kind: Kind::Listed,
            range: start..start + old.len(),
            replacement: new.to_owned(),
        }
    }

    #[test]
    fn a_change_within_a_line_shows_that_line_twice() {
        let mutant = mutant("fn f() {\n    a < b;\n}\n", "<", ">");
        assert_eq!(mutant.mutated(), "fn f() {\n    a > b;\n}\n");
        assert_eq!(mutant.name(), "a.rs: f: `a < b;` → `a > b;`");
        assert_eq!(mutant.place(), "a.rs:2: f: `a < b;` → `a > b;`");
        assert_eq!(mutant.diff(), "-     a < b;\n+     a > b;\n");
    }

    #[test]
    fn a_change_of_several_lines_is_named_after_the_first() {
        let mutant = mutant("fn f() {\n    a();\n    b()\n}\n", "a();\n    b()", "()");
        assert_eq!(mutant.name(), "a.rs: f: `a(); …` → `()`");
        assert_eq!(mutant.diff(), "-     a();\n-     b()\n+     ()\n");
    }
}
