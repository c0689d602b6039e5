//! Completions for shells, and manual pages.

#![forbid(unsafe_code)]

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::{
    failure::{Attempt, Result},
    output::print,
};

/// Prints a script that makes a shell complete the command line of obmalloc.
///
/// For bash: obmalloc completions bash > ~/.local/share/bash-completion/completions/obmalloc
#[derive(Clone, Debug, clap::Args)]
pub struct CompletionsArgs {
    /// The shell.
    shell: Shell,
}

/// Writes the manual pages.
#[derive(Clone, Debug, clap::Args)]
pub struct ManArgs {
    /// The folder in which to write a page for each command [default: prints the first page]
    folder: Option<PathBuf>,
}

/// Prints the completions of `command`.
///
/// # Errors
///
/// Fails if stdout is closed.
pub fn completions(args: &CompletionsArgs, mut command: Command) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "obmalloc", &mut script);
    print(script)
}

/// Prints the manual page of `command`, or writes a page for it and for each of its subcommands.
///
/// # Errors
///
/// Fails if a page cannot be written.
pub fn man(args: &ManArgs, command: Command) -> Result<()> {
    let Some(folder) = &args.folder else {
        let mut page = Vec::new();
        Man::new(command).render(&mut page).attempt(|| "cannot make the manual page")?;
        return print(page);
    };
    write_pages(folder, command).attempt(|| format!("cannot write to {}", folder.display()))
}

/// Writes a manual page for `command` and for each of its subcommands to `folder`.
///
/// # Errors
///
/// Fails if a page cannot be written.
pub fn write_pages(folder: &Path, command: Command) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    clap_mangen::generate_to(command, folder)
}

/// Writes the completions of `command` to the folders below `share` in which shells look for them.
///
/// # Errors
///
/// Fails if a file cannot be written.
pub fn write_completions(share: &Path, mut command: Command) -> io::Result<()> {
    for (shell, file) in [
        (Shell::Bash, "bash-completion/completions/obmalloc"),
        (Shell::Zsh, "zsh/site-functions/_obmalloc"),
        (Shell::Fish, "fish/vendor_completions.d/obmalloc.fish"),
    ] {
        let file = share.join(file);
        fs::create_dir_all(file.parent().unwrap_or(share))?;
        clap_complete::generate(shell, &mut command, "obmalloc", &mut fs::File::create(file)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command_line;

    #[test]
    fn there_is_a_page_for_each_command() {
        let folder = tempfile::tempdir().unwrap();
        write_pages(folder.path(), command_line::command()).unwrap();
        let page = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(page("obmalloc.1").contains("obmalloc\\-run(1)"));
        assert!(page("obmalloc-run.1").contains("\\-\\-stats"));
        assert!(page("obmalloc-doctor.1").contains("obmalloc"));
        assert!(!folder.path().join("obmalloc-man.1").exists());
    }
}
