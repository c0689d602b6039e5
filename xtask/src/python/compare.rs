//! Compares the time and memory of Python programs on three allocators.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use obmalloc_cli::{
    compare::count,
    libraries::Libraries,
    measure::{self, Cost},
    side::Side,
};
use testkit::pythons::Python;

use super::programs::Program;
use crate::{
    report::{self, Figures, Measure, Table},
    workspace,
};

const NAMES: [&str; 3] = ["CPython", "malloc", "obmalloc"];

pub(super) fn run(pythons: &[Python], programs: &[Program], rounds: usize) -> Result<()> {
    for python in pythons {
        ensure!(python.is_supported(), "obmalloc does not support {}", python.name());
    }
    let libraries = workspace::build_libraries()?;
    for python in pythons {
        println!("{}, medians of {rounds} rounds:", python.name());
        compare(python, &libraries, programs, rounds)?;
    }
    Ok(())
}

fn compare(
    python: &Python,
    libraries: &Libraries,
    programs: &[Program],
    rounds: usize,
) -> Result<()> {
    let counted: Result<Vec<_>, _> =
        programs.iter().map(|program| count(&program.invocation(python), libraries)).collect();
    let counted = counted?;
    let mut differing = BTreeSet::new();
    let names: Vec<_> = programs.iter().map(|program| &program.name).collect();
    let costs = report::in_rounds(&names, &NAMES, rounds, |at, side| {
        let program = &programs[at];
        let mut command = Side::ALL[side].command(&program.invocation(python), libraries)?;
        let run = measure::run(&mut command)?;
        if run.stdout != counted[at].stdout {
            let (name, side) = (&program.name, NAMES[side]);
            ensure!(!program.bundled, "{name} does not print the same on {side} as it did on ours");
            differing.insert(name);
        }
        Ok(run.cost)
    })?;
    for figures in figures(&names, &costs) {
        let Measure { name, unit, .. } = figures.measure;
        let table = figures.table("program", &[0, 1, 2], &[(2, 0), (2, 1)]);
        table.into_iter().for_each(|table| println!("\n{name}, {unit}\n{table}"));
    }
    let mut table = Table::new(["program", "served, ≤ 512 B", "served, all"]);
    for (program, counted) in programs.iter().zip(&counted) {
        let share = counted.share;
        let percent = |part: f64| format!("{:.2} %", part * 100.0);
        table.add([program.name.clone(), percent(share.of_small()), percent(share.of_all())]);
    }
    println!("\nrequests that our pools served\n{table}");
    differing.iter().for_each(|name| println!("{name} does not print the same in every run"));
    Ok(())
}

fn figures(names: &[&String], costs: &[Vec<Vec<Cost>>]) -> [Figures; 3] {
    type Of = fn(&Cost) -> f64;
    let measures: [(_, _, Of); 3] = [
        ("wall time", "s", |cost| cost.wall),
        ("processor time", "s", |cost| cost.cpu),
        ("peak of resident memory", "MiB", |cost| cost.peak / f64::from(1 << 20)),
    ];
    measures.map(|(name, unit, of)| {
        Figures::of_runs(Measure { name, unit, decimals: 3 }, &NAMES, names, costs, of)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comparison_has_the_medians_of_every_measure() {
        let costs = |wall| vec![Cost { wall, cpu: 1.0, peak: 1024.0 * 1024.0 }; 3];
        let sides = vec![costs(2.0), costs(4.0), costs(1.0)];
        let [wall, cpu, peak] = figures(&[&"p".to_owned()], &[sides]);
        assert_eq!([(2, 0), (2, 1)].map(|pair| wall.ratio(0, pair)), [Some(0.5), Some(0.25)]);
        assert_eq!([cpu.value(0, 2), peak.value(0, 2)], [Some(1.0), Some(1.0)]);
    }
}
