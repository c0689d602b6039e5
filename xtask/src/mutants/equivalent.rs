//! Reads `equivalent.txt`, which lists the mutants that behave like the original code.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

/// The names of mutants without line numbers, each followed by an indented reason.
const LIST: &str = include_str!("equivalent.txt");

pub(super) fn listed() -> Result<BTreeMap<String, String>> {
    parse(LIST)
}

fn parse(text: &str) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::<String, String>::new();
    let mut last = None;
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if !line.starts_with(' ') {
            all.insert(line.to_owned(), String::new());
            last = Some(line);
            continue;
        }
        let reason = last.and_then(|name| all.get_mut(name));
        let reason = reason.context("equivalent.txt begins with a reason")?;
        *reason = format!("{reason} {}", line.trim()).trim().to_owned();
    }
    for (name, reason) in &all {
        ensure!(!reason.is_empty(), "equivalent.txt gives no reason for {name}");
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_equivalent_mutants_is_well_formed() {
        listed().unwrap();
    }

    #[test]
    fn a_reason_may_take_several_lines_and_must_exist() {
        let text = "# A comment.\na.rs: f: `x` → `y`\n    The first line\n    and the second.\n";
        let parsed = parse(text).unwrap();
        assert_eq!(parsed["a.rs: f: `x` → `y`"], "The first line and the second.");
        assert!(parse("a.rs: f: `x` → `y`\n").is_err());
    }
}
