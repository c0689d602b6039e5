//! Checks that the paths, links and commands in documents exist.

use std::path::{Component, Path, PathBuf};

use super::tree::Tree;

/// Folders of the repository, at which the checked paths begin.
const FOLDERS: &[&str] =
    &[".cargo/", ".ci/", "benches/", "crates/", "docs/", "examples/", "xtask/"];

pub(super) fn check(tree: &Tree) -> Vec<String> {
    let mut violations = Vec::new();
    for (path, text) in tree.files.iter().filter(|(path, _)| path.ends_with(".md")) {
        for (number, line) in (1..).zip(text.lines()) {
            let paths = quoted(line).filter(|quoted| is_path(quoted) && !exists(tree, quoted));
            for missing in paths {
                violations.push(format!("{path}:{number}: there is no {missing}"));
            }
            for link in links(line).filter(|link| !exists(tree, &resolved(path, link))) {
                violations.push(format!("{path}:{number}: a link to {link}, which does not exist"));
            }
            for problem in commands(line).filter_map(|command| problem(tree, command)) {
                violations.push(format!("{path}:{number}: {problem}"));
            }
        }
    }
    violations
}

fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

fn is_path(text: &str) -> bool {
    let plain = |character: char| character.is_alphanumeric() || "./_-".contains(character);
    FOLDERS.iter().any(|folder| text.starts_with(folder)) && text.chars().all(plain)
}

fn exists(tree: &Tree, path: &str) -> bool {
    let path = path.trim_end_matches('/');
    let inside = |file: &String| file.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
    tree.files.contains_key(path) || tree.files.keys().any(inside)
}

fn links(line: &str) -> impl Iterator<Item = &str> {
    let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let local = targets.filter(|target| !target.contains("://") && !target.starts_with('#'));
    local.map(|target| target.split('#').next().unwrap_or_default())
}

fn resolved(path: &str, link: &str) -> String {
    let mut target = PathBuf::from(path);
    target.pop();
    for component in Path::new(link).components() {
        match component {
            Component::ParentDir => _ = target.pop(),
            component => target.push(component),
        }
    }
    target.to_string_lossy().into_owned()
}

fn commands(line: &str) -> impl Iterator<Item = &str> {
    line.split("cargo xtask ")
        .skip(1)
        .map(|rest| rest.split(['`', '|', '#']).next().unwrap_or(rest))
}

/// Describes what is wrong with the `cargo xtask` command at the start of `text`, if anything.
fn problem(tree: &Tree, text: &str) -> Option<String> {
    let mut words = text.split_whitespace();
    let name: String = words.next()?.trim_end_matches([',', '.', ':', ';', ')']).to_owned();
    if !name.chars().all(|character| character.is_ascii_lowercase() || character == '-') {
        return None;
    }
    if name == "help" {
        return None;
    }
    let Some(options) = tree.commands.get(&name) else {
        return Some(format!("there is no command cargo xtask {name}"));
    };
    let used = words.take_while(|word| *word != "--").filter_map(|word| word.strip_prefix("--"));
    let mut used = used.map(|word| word.split(['=', ',', '.', ')', ']']).next().unwrap_or(word));
    let unknown = used.find(|option| *option != "help" && !options.contains(*option))?;
    Some(format!("cargo xtask {name} has no option --{unknown}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violations(line: &str) -> Vec<String> {
        let mut tree = Tree::with(&[("docs/a.md", line), ("docs/b/c.md", ""), ("README.md", "")]);
        tree.commands.insert("bench".to_owned(), ["only".to_owned()].into());
        check(&tree)
    }

    #[test]
    fn what_exists_passes() {
        for line in [
            "See `docs/b/c.md` and `docs/b/`, [here](b/c.md#part), [there](../README.md).",
            "`cargo xtask bench --only x -- --other`, [far](https://example.org/x), [up](#up).",
            "`docs/*.md`, `a/b.rs`, `cargo xtask help`, `cargo xtask <command>`.",
        ] {
            assert!(violations(line).is_empty(), "{line}");
        }
    }

    #[test]
    fn a_path_that_does_not_exist_is_a_violation() {
        assert_eq!(violations("`docs/missing.md` and `docs/b/c.md`").len(), 1);
    }

    #[test]
    fn a_link_that_leads_nowhere_is_a_violation() {
        assert_eq!(violations("[here](c.md) [there](b/c.md)").len(), 1);
    }

    #[test]
    fn a_command_or_an_option_that_does_not_exist_is_a_violation() {
        assert_eq!(violations("Run `cargo xtask benhc`.").len(), 1);
        assert_eq!(violations("Run `cargo xtask bench --olny x`.").len(), 1);
    }
}
