//! Finds all mutants of some crates.

use std::{collections::HashMap, path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::{
    crates::Crate,
    mutant::{Kind, Mutant},
    own::{self, Scan},
    tree::Tree,
};
use crate::{process, workspace};

/// Returns every mutant of `crates` in a fixed order. May change the files of `tree`.
pub(super) fn all(tree: &Tree, crates: &[&'static Crate]) -> Result<Vec<Mutant>> {
    let mut scans = HashMap::new();
    for krate in crates {
        for scan in own::scan(krate)? {
            let visible = show_unsafe_functions(&scan.source.text);
            tree.write(scan.source.path.as_ref(), visible.as_bytes())?;
            scans.insert(scan.source.path.clone(), scan);
        }
    }
    let listed = list(tree, crates)?;
    let mut all: Vec<_> = listed.iter().filter_map(|listed| listed.mutant(&scans)).collect();
    all.extend(scans.values().flat_map(Scan::mutants));
    let key = |one: &Mutant| {
        (one.source.path.clone(), one.range.start, one.range.end, one.replacement.clone())
    };
    all.sort_by_cached_key(key);
    all.dedup_by_key(|one| key(one));
    Ok(all)
}

/// Replaces the word `unsafe` of functions by spaces, because cargo-mutants skips unsafe functions.
fn show_unsafe_functions(text: &str) -> String {
    text.replace("unsafe fn ", "       fn ").replace("unsafe extern ", "       extern ")
}

#[derive(Deserialize)]
struct Listed {
    file: String,
    span: Span,
    replacement: String,
}

#[derive(Deserialize)]
struct Span {
    start: Place,
    end: Place,
}

/// A line and a column in characters, both counted from 1.
#[derive(Deserialize)]
struct Place {
    line: usize,
    column: usize,
}

impl Listed {
    /// Converts the listed mutant, or returns `None` if its code is not measured or cannot compile.
    fn mutant(&self, scans: &HashMap<String, Scan>) -> Option<Mutant> {
        let scan = scans.get(&self.file)?;
        if self.replacement.contains("NonNull::") {
            return None;
        }
        let text = &scan.source.text;
        let range = self.span.start.offset(text)?..self.span.end.offset(text)?;
        scan.mutant(Kind::Listed, range, self.replacement.clone())
    }
}

impl Place {
    fn offset(&self, text: &str) -> Option<usize> {
        let start: usize = text.split_inclusive('\n').take(self.line - 1).map(str::len).sum();
        let line = text.get(start..)?;
        let column = self.column - 1;
        let within = line.char_indices().map(|(at, _)| at).chain([line.len()]).nth(column)?;
        Some(start + within)
    }
}

fn list(tree: &Tree, crates: &[&Crate]) -> Result<Vec<Listed>> {
    let mut command = Command::new(installed()?);
    command.current_dir(tree.root()).args(["mutants", "--list", "--json"]);
    for krate in crates {
        command.args(["--package", krate.package]);
    }
    let listed = process::stdout_of(&mut command).context("cannot list the mutants")?;
    serde_json::from_str(&listed).context("cargo-mutants printed an unknown format")
}

fn installed() -> Result<PathBuf> {
    let root = workspace::target_dir().join("tools");
    let tool = root.join("bin/cargo-mutants");
    if !tool.exists() {
        println!("installing cargo-mutants into {}, which takes minutes", root.display());
        let mut install = Command::new("cargo");
        install.args(["install", "--locked", "cargo-mutants", "--root"]).arg(&root);
        ensure!(install.status()?.success(), "cannot install cargo-mutants");
    }
    Ok(tool)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_not_bytes() {
        let text = "// →\nlet a = 1;\n";
        let place = |line, column| Place { line, column }.offset(text);
        assert_eq!(place(1, 4), Some(3));
        assert_eq!(place(1, 5), Some(6));
        assert_eq!(place(2, 1), Some(7));
        assert_eq!(place(9, 9), None);
    }

    #[test]
    fn unsafe_functions_are_shown_without_moving_anything() {
        let text = "pub unsafe fn f() {}\nunsafe extern \"C\" fn g() {}\nunsafe { f() }\n";
        let visible = show_unsafe_functions(text);
        assert_eq!(visible.len(), text.len());
        assert_eq!(visible.matches("unsafe").count(), 1);
        assert!(visible.ends_with("unsafe { f() }\n"));
    }
}
