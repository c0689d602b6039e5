//! A copy of the project, to which mutants are applied.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::mutant::Mutant;
use crate::workspace;

/// A copy of every file that git tracks or would add.
pub(super) struct Tree {
    root: PathBuf,
}

impl Tree {
    /// Copies the project to `root`, without touching files that are already the same.
    pub(super) fn copy(root: PathBuf) -> Result<Self> {
        let files = workspace::files()?;
        let files: HashSet<_> = files.iter().map(Path::new).collect();
        fs::create_dir_all(&root)?;
        remove_others(&root, Path::new(""), &files)?;
        let tree = Self { root };
        for file in files {
            let from = workspace::root().join(file);
            if from.is_file() {
                tree.write(file, &fs::read(&from)?)?;
            }
        }
        Ok(tree)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn write(&self, file: &Path, contents: &[u8]) -> Result<()> {
        let to = self.root.join(file);
        if fs::read(&to).is_ok_and(|present| present == contents) {
            return Ok(());
        }
        let folder = to.parent().context("a file is in a folder")?;
        fs::create_dir_all(folder)?;
        fs::write(&to, contents).with_context(|| format!("cannot write {}", to.display()))
    }

    pub(super) fn with<T>(&self, mutant: &Mutant, during: impl FnOnce() -> Result<T>) -> Result<T> {
        let file = Path::new(&mutant.source.path);
        self.write(file, mutant.mutated().as_bytes())?;
        let outcome = during();
        self.write(file, mutant.source.text.as_bytes())?;
        outcome
    }
}

fn remove_others(root: &Path, folder: &Path, files: &HashSet<&Path>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let path = folder.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            remove_others(root, &path, files)?;
        } else if !files.contains(&*path) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
