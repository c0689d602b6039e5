//! Compares the dependency table of ARCHITECTURE.md with the manifests of the crates.

use std::collections::BTreeSet;

use super::tree::Tree;

pub(super) fn check(tree: &Tree) -> Vec<String> {
    let rows = tree.table("crate");
    let mut violations = Vec::new();
    for (path, manifest) in &tree.files {
        let Some(name) =
            path.strip_prefix("crates/").and_then(|path| path.strip_suffix("/Cargo.toml"))
        else {
            continue;
        };
        if name.contains('/') {
            continue;
        }
        let Some(row) = rows.iter().find(|row| row[0] == name) else {
            violations.push(format!("ARCHITECTURE.md: the dependency table has no row for {name}"));
            continue;
        };
        let listed: BTreeSet<_> = row[1].split(", ").filter(|name| *name != "–").collect();
        let used = dependencies(manifest);
        for unlisted in used.difference(&listed) {
            violations.push(format!("{path}: {unlisted} is not in the table of ARCHITECTURE.md"));
        }
        for unused in listed.difference(&used) {
            violations.push(format!("ARCHITECTURE.md: {name} does not depend on {unused}"));
        }
    }
    violations
}

/// Returns the dependencies in a manifest, except those of tests and build scripts.
fn dependencies(manifest: &str) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    let mut inside = false;
    for line in manifest.lines() {
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            inside = section == "dependencies"
                || (section.starts_with("target.") && section.ends_with(".dependencies"));
        } else if inside && !line.starts_with('#') {
            let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
            names.insert(name);
        }
    }
    names.remove("");
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "| crate | may use |\n| --- | --- |\n| `a` | `b`, libc |\n| `b` | – |\n";

    fn violations(manifest: &str) -> Vec<String> {
        let b = ("crates/b/Cargo.toml", "[dev-dependencies]\nproptest = \"1\"\n");
        check(&Tree::with(&[("ARCHITECTURE.md", TABLE), ("crates/a/Cargo.toml", manifest), b]))
    }

    #[test]
    fn a_manifest_that_equals_the_table_passes() {
        let manifest = "[dependencies]\nb.workspace = true\n\n[target.'cfg(unix)'.dependencies]\n\
            libc = { workspace = true }\n[dev-dependencies]\nc = \"1\"\n";
        assert!(violations(manifest).is_empty());
    }

    #[test]
    fn a_dependency_that_is_not_listed_and_one_that_is_not_used_are_violations() {
        let found = violations("[dependencies]\nb.workspace = true\nserde = \"1\"\n");
        assert_eq!(found.len(), 2);
        assert!(found[0].contains("serde") && found[1].contains("libc"));
    }

    #[test]
    fn a_crate_without_a_row_is_a_violation() {
        let tree = Tree::with(&[("ARCHITECTURE.md", TABLE), ("crates/c/Cargo.toml", "")]);
        assert_eq!(check(&tree).len(), 1);
    }
}
