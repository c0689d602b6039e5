//! Checks that `docs/settings.md` lists the environment variables that the libraries and the command read.

use std::collections::BTreeSet;

use super::tree::Tree;

const PAGE: &str = "docs/settings.md";
const CRATES: &[&str] = &["cli", "cpython", "host", "malloc", "status"];
const PREFIX: &str = "OBMALLOC";

pub(super) fn check(tree: &Tree) -> Vec<String> {
    let sources = CRATES.iter().flat_map(|name| tree.sources(name));
    let read: BTreeSet<_> = sources.flat_map(|(_, text)| literals(text)).collect();
    let page = tree.files.get(PAGE).map_or("", |text| text);
    let listed: BTreeSet<_> = page.lines().flat_map(names_of_row).collect();
    let missing = read.difference(&listed).map(|name| format!("{PAGE} does not list {name}"));
    let unread =
        listed.difference(&read).map(|name| format!("{PAGE} lists {name}, which nobody reads"));
    missing.chain(unread).collect()
}

/// Returns the string literals in front of the tests of a file that are names of variables.
fn literals(text: &str) -> impl Iterator<Item = &str> {
    let code = text.split("#[cfg(test)]").next().unwrap_or(text);
    code.split('"').skip(1).filter(|literal| is_name(literal))
}

fn is_name(text: &str) -> bool {
    let part = |character: char| character.is_ascii_uppercase() || character == '_';
    let tail = text.strip_prefix(PREFIX);
    tail.is_some_and(|tail| tail.is_empty() || tail.starts_with('_'))
        && !text.ends_with('_')
        && text.chars().all(part)
}

/// Returns the names in the first cell of a row of a table.
fn names_of_row(line: &str) -> impl Iterator<Item = &str> {
    let cell = line.strip_prefix('|').and_then(|row| row.split('|').next()).unwrap_or_default();
    cell.split('`').filter(|quoted| is_name(quoted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violations(source: &str, page: &str) -> Vec<String> {
        check(&Tree::with(&[("crates/host/src/a.rs", source), (PAGE, page)]))
    }

    #[test]
    fn a_variable_that_is_read_and_listed_passes() {
        let source = "read(c\"OBMALLOC\"); read(b\"OBMALLOC_X\"); say(\"OBMALLOC_X is wrong\");\n\
            #[cfg(test)] mod tests { \"OBMALLOC_Z\" }";
        let page = "| variable | effect |\n| --- | --- |\n| `OBMALLOC` and `OBMALLOC_X` | `OBMALLOC_Y` |\n";
        assert!(violations(source, page).is_empty());
    }

    #[test]
    fn a_variable_that_is_not_listed_is_a_violation() {
        let found = violations("read(\"OBMALLOC_X\")", "");
        assert_eq!(found, ["docs/settings.md does not list OBMALLOC_X"]);
    }

    #[test]
    fn a_variable_that_nobody_reads_is_a_violation() {
        let found = violations("", "| `OBMALLOC_X` | on | off |");
        assert_eq!(found, ["docs/settings.md lists OBMALLOC_X, which nobody reads"]);
    }
}
