//! Mutants that behave like the original, as `equivalent.txt` lists them.

use anyhow::{Context, Result, ensure};

/// A line that is not indented names a mutant as the report does, without the line number. The
/// indented lines below it give the reason.
const LIST: &str = include_str!("equivalent.txt");

/// A mutant that no test can tell from the original.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) reason: String,
}

pub(super) fn listed() -> Result<Vec<Listed>> {
    parse(LIST)
}

fn parse(text: &str) -> Result<Vec<Listed>> {
    let mut all = Vec::<Listed>::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if line.starts_with(' ') {
            let last = all.last_mut().context("equivalent.txt begins with a reason")?;
            last.reason = format!("{} {}", last.reason, line.trim()).trim().to_owned();
        } else {
            all.push(Listed { name: line.trim().to_owned(), reason: String::new() });
        }
    }
    for listed in &all {
        ensure!(!listed.reason.is_empty(), "equivalent.txt gives no reason for {}", listed.name);
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
        let reason = "The first line and the second.".to_owned();
        let expected = Listed { name: "a.rs: f: `x` → `y`".to_owned(), reason };
        assert_eq!(parse(text).unwrap(), [expected]);
        assert!(parse("a.rs: f: `x` → `y`\n").is_err());
    }
}
