//! Counts the instructions of each operation of an allocator with valgrind.
//!
//! Unlike a time, the count shows even one additional instruction. A change that saves instructions
//! must update the table.

use std::{fs, process::Command};

use anyhow::{Context, Result, ensure};
use benches::counted::{LOOPS, OPERATIONS};

use super::{
    build,
    entrant::{self, Entrant, Role},
    machine,
    worker::Worker,
};
use crate::{process, report::Table, tally::Tally, workspace};

const TABLE: &str = "docs/instructions.md";

/// Returns true if two counts agree within half an instruction.
///
/// The loop "remote free" may also differ by 5%, because it depends on the timing of two threads.
fn agrees(loop_name: &str, before: f64, now: f64) -> bool {
    let part = if loop_name == "remote free" { 0.05 } else { 0.0 };
    (now - before).abs() <= before * part + 0.5
}

pub(super) fn write(chosen: &[Entrant]) -> Result<()> {
    let valgrind = valgrind().context("valgrind is not installed")?;
    let folder = tempfile::tempdir()?;
    let mut left_out = Vec::new();
    let workers = build::all(chosen, &[], folder.path(), &mut left_out)?;
    left_out.iter().for_each(|why| eprintln!("LEFT OUT: {why}"));
    let mut rows = Vec::new();
    for worker in &workers {
        let counts = LOOPS.map(|(name, function)| {
            let counted = count(worker, name, function);
            counted.inspect_err(|error| eprintln!("{name}: {}", first_line(error))).ok()
        });
        rows.push((worker.entrant.name.to_owned(), counts));
    }
    let text = page(&valgrind, &workers, &rows);
    println!("{text}");
    let path = workspace::root().join(TABLE);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

pub(crate) fn check() -> Result<Tally> {
    let text = fs::read_to_string(workspace::root().join(TABLE))?;
    if valgrind().is_none() {
        return Ok(Tally::skipped("valgrind is not installed"));
    }
    let compiler = machine::compiler();
    if !text.contains(&compiler) {
        let why = format_args!("{TABLE} was made with another compiler than {compiler}");
        return Ok(Tally::skipped(why));
    }
    let ours: Vec<_> = entrant::ALL.iter().filter(|one| one.role == Role::Ours).copied().collect();
    let mut tally = Tally::default();
    let folder = tempfile::tempdir()?;
    for worker in build::all(&ours, &[], folder.path(), &mut Vec::new())? {
        let name = worker.entrant.name;
        let before = row(&text, name).with_context(|| format!("{name} is not in {TABLE}"))?;
        for ((loop_name, function), before) in LOOPS.into_iter().zip(before) {
            let Some(before) = before else { continue };
            let now = count(&worker, loop_name, function)?;
            let agrees = agrees(loop_name, before, now);
            if !agrees {
                println!("      {name}: {loop_name} took {before:.1} instructions, now {now:.1}");
                println!("      (cargo xtask bench --instructions writes the new counts)");
            }
            tally = tally + Tally::one(agrees);
        }
    }
    Ok(tally)
}

fn valgrind() -> Option<String> {
    let version = process::stdout_of(Command::new("valgrind").arg("--version")).ok()?;
    Some(version.trim().to_owned())
}

fn count(worker: &Worker, name: &str, function: &str) -> Result<f64> {
    let toggle = format!("--toggle-collect={function}");
    let options = ["--tool=callgrind", "--callgrind-out-file=/dev/null", &toggle];
    let finished = process::run(worker.watched("valgrind", &options, name), |_| ())?;
    ensure!(finished.success, "{}: {name}\n{}", worker.entrant.name, finished.output);
    let collected = collected(&finished.output).context("valgrind counted nothing")?;
    ensure!(collected > 0, "{}: {function} was never called", worker.entrant.name);
    Ok(collected as f64 / OPERATIONS as f64)
}

/// Returns the first line of the error, because valgrind prints pages of text after it.
fn first_line(error: &anyhow::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// Returns the number from valgrind's line `==123== Collected : 456`.
fn collected(output: &str) -> Option<u64> {
    let line = output.lines().find(|line| line.contains("Collected :"))?;
    line.rsplit(' ').next()?.parse().ok()
}

type Counts = [Option<f64>; LOOPS.len()];

fn page(valgrind: &str, workers: &[Worker], rows: &[(String, Counts)]) -> String {
    let mut table = Table::new(["allocator"].into_iter().chain(LOOPS.map(|(name, _)| name)));
    for (name, counts) in rows {
        let text =
            |count: Option<f64>| count.map_or("–".to_owned(), |count| format!("{count:.1}"));
        table.add([name.clone()].into_iter().chain(counts.map(text)));
    }
    let mut page = format!(
        "# Instructions of an operation\n\n\
         `cargo xtask bench --instructions` wrote this page with {} and {valgrind}. Callgrind counts \
         in loops over blocks of 64 bytes, and the counts include the loop and a write to each new \
         block (`benches/src/counted.rs`).\n\n\
         `cargo xtask test-all` fails if a count of ours differs from this page by more than half an \
         instruction, or by more than a twentieth for a remote free.\n\n\
         A count is missing if the allocator serves only one thread, has no `realloc` of its own, \
         or does not run under valgrind. Snmalloc does not, because it reserves more addresses than \
         valgrind has.\n\n{}\n\n",
        machine::compiler(),
        table.markdown()
    );
    for worker in workers.iter().filter(|worker| !worker.version.is_empty()) {
        page += &format!("- {}: {}\n", worker.entrant.name, worker.version.trim());
    }
    page
}

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
        let text = page("valgrind-3", &[], &rows);
        assert_eq!(row(&text, "ObMalloc"), Some(rows[0].1));
        assert_eq!(row(&text, "Heap"), None);
    }

    #[test]
    fn counts_agree_within_half_an_instruction_and_those_of_threads_within_a_twentieth() {
        assert!(agrees("alloc", 20.0, 20.4) && agrees("alloc", 20.0, 19.6));
        assert!(!agrees("alloc", 20.0, 21.0) && !agrees("alloc", 20.0, 19.0));
        assert!(agrees("remote free", 60.0, 63.0) && !agrees("remote free", 60.0, 64.0));
    }

    #[test]
    fn the_count_is_read_from_what_valgrind_prints() {
        let output = "==7== Events    : Ir\n==7== Collected : 1400093\n==7== \n";
        assert_eq!(collected(output), Some(1_400_093));
        assert_eq!(collected("==7== Events    : Ir\n"), None);
    }
}
