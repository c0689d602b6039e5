//! Lists the processes that have a status page.

#![forbid(unsafe_code)]

use std::time::Duration;

use serde_json::{Value, json};
use status::StatusFile;

use super::page::{age, figures, places, size};
use crate::{
    failure::{Failure, NO, Result},
    output::print,
    processes::Process,
    system,
    table::Table,
};

/// The time for which the page of an ended process is kept.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// Lists the running processes that `obmalloc run` started, and their children.
///
/// Only CPython processes of the same user are listed. The command finds them by their status
/// pages, which are files. A forked child creates its page only if it still works one to two
/// seconds after the fork. If a process exits normally within a second of its start, it removes its
/// page. The page of any other ended process is kept for a day. If there are more than 128 pages,
/// only the newest 100 pages of ended processes are kept.
#[derive(Clone, Debug, clap::Args)]
pub struct PsArgs {
    /// Prints JSON.
    #[arg(long)]
    json: bool,
    /// Also lists processes that have ended within the last day, except short ones.
    #[arg(long)]
    all: bool,
}

/// Lists the processes of this user that have a status page.
///
/// # Errors
///
/// Fails with the code [`NO`] if no process has a status page.
pub fn ps(args: &PsArgs) -> Result<()> {
    let mut pages = system::status_pages();
    pages.retain(|page| page.is_live() || !remove_if_old(page));
    pages.retain(|page| args.all || page.is_live());
    pages.sort_by_key(|page| page.pid());
    if args.json {
        let processes: Vec<_> = pages.iter().map(described).collect();
        let list = json!({ "schema": 1, "processes": processes });
        print(serde_json::to_string_pretty(&list).unwrap_or_default() + "\n")?;
    } else if !pages.is_empty() {
        print(format!("{}\n", table(&pages)))?;
    }
    if pages.is_empty() {
        return Err(none_found());
    }
    Ok(())
}

fn none_found() -> Failure {
    Failure::new("no process has a status page")
        .because(format!(
            "none was started with `obmalloc run`, or it belongs to another user or has another \
                 XDG_RUNTIME_DIR: there is no page in {}",
            places()
        ))
        .remedy("use the same user and XDG_RUNTIME_DIR as the process")
        .code(NO)
}

/// Removes the page of a process that ended long ago. Returns true if the page was removed.
fn remove_if_old(page: &StatusFile) -> bool {
    page.changed().elapsed().is_ok_and(|age| age > KEPT) && page.remove().is_ok()
}

fn described(page: &StatusFile) -> Value {
    json!({
        "pid": page.pid(),
        "live": page.is_live(),
        "age_seconds": age(page).map(|age| age.as_secs_f64()),
        "report": figures(page),
    })
}

fn table(pages: &[StatusFile]) -> Table {
    let mut table = Table::new(["pid", "Python", "our heap", "in use", "mapped", "command"]);
    for page in pages {
        let report = figures(page).unwrap_or_default();
        let bytes =
            |name: &str| report["heap"]["bytes"][name].as_u64().map_or("?".to_owned(), size);
        let state = match report["in_force"].as_bool() {
            Some(true) => "in force",
            Some(false) => "not in force",
            None => "no figures yet",
        };
        let python = report["python"].as_str().unwrap_or("?").split(' ').next().unwrap_or("?");
        let command = Process::read(page.pid()).filter(|_| page.is_live());
        let command = command.map_or("(ended)".to_owned(), |process| process.command);
        let mut row = vec![page.pid().to_string(), python.to_owned(), state.to_owned()];
        row.extend([bytes("in_use"), bytes("total"), command]);
        table.add(row);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_runtime_folder_is_named_as_a_cause() {
        let text = none_found().to_string();
        assert!(text.contains("another XDG_RUNTIME_DIR") && text.contains("/tmp/obmalloc-"));
    }
}
