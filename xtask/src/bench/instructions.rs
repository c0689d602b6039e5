//! How many instructions each operation is, counted by valgrind.
//!
//! ```text
//!   every entrant ─► counts ─► docs/instructions.md          cargo xtask bench --instructions
//!   ours          ─► counts ─► not above those of the table  a step of the tests
//! ```
//!
//! Instructions are not time, but they are the same on a busy machine and on a quiet one: a change
//! that costs some is seen.

use std::{fmt::Write, fs, process::Command};

use anyhow::{Context, Result, ensure};
use benches::counted::{LOOPS, OPERATIONS};
use comfy_table::{Table, presets};

use super::{
    build::{self, Programs},
    entrant::{self, Entrant, Role},
    machine::Machine,
    worker::Worker,
};
use crate::{process, tally::Tally, workspace};

/// Where the table is kept.
const TABLE: &str = "docs/instructions.md";

/// The most that a count may be where the table says `before`: where a loop is placed moves it a
/// little, and how two threads meet some more.
fn most(before: f64) -> f64 {
    before * 1.05 + 0.5
}

/// Counts for everybody, and writes the table.
pub(super) fn write(chosen: &[Entrant]) -> Result<()> {
    ensure!(has_valgrind(), "there is no valgrind");
    let folder = tempfile::tempdir()?;
    let workers = build::all(chosen, Programs::Left, folder.path())?;
    let mut rows = Vec::new();
    for worker in &workers {
        let counts = LOOPS.map(|(name, function)| {
            let counted = count(worker, name, function);
            counted.inspect_err(|error| eprintln!("{name}: {}", first_line(error))).ok()
        });
        rows.push((worker.entrant.name.to_owned(), counts));
    }
    let text = page(&workers, &rows)?;
    println!("{text}");
    let path = workspace::root().join(TABLE);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Counts for ours, and compares with the table: a step of the tests.
pub(crate) fn check() -> Result<Tally> {
    let text = fs::read_to_string(workspace::root().join(TABLE))?;
    if !has_valgrind() {
        println!("      SKIPPED: valgrind is not installed");
        return Ok(Tally::default());
    }
    let compiler = Machine::new().compiler;
    if !text.contains(&compiler) {
        println!("      SKIPPED: {TABLE} was made by another compiler than {compiler}");
        return Ok(Tally::default());
    }
    let ours: Vec<_> = entrant::ALL.iter().filter(|one| one.role == Role::Ours).copied().collect();
    let mut tally = Tally::default();
    let folder = tempfile::tempdir()?;
    for worker in build::all(&ours, Programs::Left, folder.path())? {
        let name = worker.entrant.name;
        let before = row(&text, name).with_context(|| format!("{name} is not in {TABLE}"))?;
        for ((loop_name, function), before) in LOOPS.into_iter().zip(before) {
            let Some(before) = before else { continue };
            let now = count(&worker, loop_name, function)?;
            let holds = now <= most(before);
            if !holds {
                println!("      {name}: {loop_name} was {before:.1} instructions, and is {now:.1}");
                println!("      (if that is worth it: cargo xtask bench --instructions)");
            }
            tally = tally + Tally::one(holds);
        }
    }
    Ok(tally)
}

fn has_valgrind() -> bool {
    let mut probe = Command::new("valgrind");
    probe.arg("--version");
    process::run(probe, |_| ()).is_ok_and(|finished| finished.success)
}

/// Instructions of an operation of the loop `name`, all of which are in `function`.
fn count(worker: &Worker, name: &str, function: &str) -> Result<f64> {
    let toggle = format!("--toggle-collect={function}");
    let options = ["--tool=callgrind", "--callgrind-out-file=/dev/null", &toggle];
    let command = worker.watched("valgrind", &options, name);
    let finished = process::run(command, |_| ())?;
    ensure!(finished.success, "{}: {name}\n{}", worker.entrant.name, finished.output);
    let collected = collected(&finished.output).context("valgrind counted nothing")?;
    ensure!(collected > 0, "{}: {function} was never called", worker.entrant.name);
    Ok(collected as f64 / OPERATIONS as f64)
}

/// What a contender that cannot do it says; valgrind tells pages more.
fn first_line(error: &anyhow::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// The number that valgrind prints at its end: `==123== Collected : 456`.
fn collected(output: &str) -> Option<u64> {
    let line = output.lines().find(|line| line.contains("Collected :"))?;
    line.rsplit(' ').next()?.parse().ok()
}

type Counts = [Option<f64>; LOOPS.len()];

fn page(workers: &[Worker], rows: &[(String, Counts)]) -> Result<String> {
    let mut text = format!(
        "# Instructions of an operation\n\n\
         Counted by callgrind in loops over blocks of 64 bytes, with the loop and a write to each \
         new block; see `benches/src/counted.rs`. Made by `cargo xtask bench --instructions`, \
         with {}; `cargo xtask test-all` fails where ours need more than \
         here. Without a figure: the contender serves one thread, or does not run under valgrind (snmalloc \
         reserves more addresses than valgrind has).\n\n",
        Machine::new().compiler
    );
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["allocator"].into_iter().chain(LOOPS.map(|(name, _)| name)));
    for (name, counts) in rows {
        let counts =
            counts.map(|count| count.map_or("–".to_owned(), |count| format!("{count:.1}")));
        table.add_row([name.clone()].into_iter().chain(counts));
    }
    writeln!(text, "{table}\n")?;
    for worker in workers.iter().filter(|worker| !worker.version.is_empty()) {
        writeln!(text, "- {}: {}", worker.entrant.name, worker.version.trim())?;
    }
    Ok(text)
}

/// The counts of `name` in the table.
fn row(text: &str, name: &str) -> Option<Counts> {
    let mut cells = text.lines().filter_map(|line| {
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        (cells.next()? == name).then_some(cells)
    });
    let mut cells = cells.next()?;
    Some(LOOPS.map(|_| cells.next().and_then(|cell| cell.parse().ok())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_the_table_is_read_back() {
        let rows = [("ObMalloc".to_owned(), [Some(30.0), Some(14.5), None, Some(2.0), None])];
        let text = page(&[], &rows).unwrap();
        assert_eq!(row(&text, "ObMalloc"), Some(rows[0].1));
        assert_eq!(row(&text, "Heap"), None);
    }

    #[test]
    fn what_valgrind_collected_is_read() {
        let output = "==7== Events    : Ir\n==7== Collected : 1400093\n==7== \n";
        assert_eq!(collected(output), Some(1_400_093));
        assert_eq!(collected("==7== Events    : Ir\n"), None);
    }
}
