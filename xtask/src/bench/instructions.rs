//! How many instructions each operation is, counted by valgrind.
//!
//! ```text
//!   every entrant ─► counts ─► docs/instructions.md          cargo xtask bench --instructions
//!   ours          ─► counts ─► those of the table            a step of the tests
//! ```
//!
//! Instructions are not time, but they are the same on a busy machine and on a quiet one: a change
//! that costs one is seen. A change that saves one has to be written down, so that its loss is seen.

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

/// Whether a count is what the table says: a loop's beginning moves it a little. How two threads
/// meet moves it more.
fn holds(loop_name: &str, before: f64, now: f64) -> bool {
    let part = if is_of_threads(loop_name) { 0.05 } else { 0.0 };
    (now - before).abs() <= before * part + 0.5
}

/// The loop is one that not all contenders can run, as it takes two threads.
fn is_of_threads(loop_name: &str) -> bool {
    loop_name == "remote free"
}

/// Counts for everybody, and writes the table.
pub(super) fn write(chosen: &[Entrant]) -> Result<()> {
    ensure!(valgrind().is_some(), "there is no valgrind");
    let folder = tempfile::tempdir()?;
    let mut left_out = Vec::new();
    let workers = build::all(chosen, Programs::Left, folder.path(), &mut left_out)?;
    left_out.iter().for_each(|why| eprintln!("LEFT OUT: {why}"));
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
    if valgrind().is_none() {
        return Ok(Tally::skipped("valgrind is not installed"));
    }
    let compiler = Machine::new().compiler;
    if !text.contains(&compiler) {
        let why = format_args!("{TABLE} was made by another compiler than {compiler}");
        return Ok(Tally::skipped(why));
    }
    let ours: Vec<_> = entrant::ALL.iter().filter(|one| one.role == Role::Ours).copied().collect();
    let mut tally = Tally::default();
    let folder = tempfile::tempdir()?;
    for worker in build::all(&ours, Programs::Left, folder.path(), &mut Vec::new())? {
        let name = worker.entrant.name;
        let before = row(&text, name).with_context(|| format!("{name} is not in {TABLE}"))?;
        for ((loop_name, function), before) in LOOPS.into_iter().zip(before) {
            let Some(before) = before else { continue };
            let now = count(&worker, loop_name, function)?;
            let holds = holds(loop_name, before, now);
            if !holds {
                println!("      {name}: {loop_name} was {before:.1} instructions, and is {now:.1}");
                println!("      (if that is as it should be: cargo xtask bench --instructions)");
            }
            tally = tally + Tally::one(holds);
        }
    }
    Ok(tally)
}

/// The version of valgrind, if it is installed.
fn valgrind() -> Option<String> {
    let mut probe = Command::new("valgrind");
    probe.arg("--version");
    let finished = process::run(probe, |_| ()).ok().filter(|finished| finished.success)?;
    Some(finished.output.trim().to_owned())
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
         with {} and {}; `cargo xtask test-all` fails where ours differ from \
         this by more than half an instruction, a remote free by more than a twentieth. Without a \
         figure: the contender serves one thread, or has no such function of its own, or does not \
         run under valgrind (snmalloc reserves more addresses than valgrind has).\n\n",
        Machine::new().compiler,
        valgrind().unwrap_or_default()
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
    fn a_count_holds_within_half_an_instruction_and_that_of_threads_within_a_twentieth() {
        assert!(holds("alloc", 20.0, 20.4) && holds("alloc", 20.0, 19.6));
        assert!(!holds("alloc", 20.0, 21.0) && !holds("alloc", 20.0, 19.0));
        assert!(holds("remote free", 60.0, 63.0) && !holds("remote free", 60.0, 64.0));
    }

    #[test]
    fn what_valgrind_collected_is_read() {
        let output = "==7== Events    : Ir\n==7== Collected : 1400093\n==7== \n";
        assert_eq!(collected(output), Some(1_400_093));
        assert_eq!(collected("==7== Events    : Ir\n"), None);
    }
}
