//! Prints the results as tables or as JSON.

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::{
    contenders::{ALL, Kind},
    measure::Figures,
    pattern::Pattern,
};

/// The maximum time of our free list, relative to the fastest contender of a kind.
const BARS: [(&str, Kind, f64); 3] = [
    ("our Heap", Kind::Heap, 0.5),
    ("mimalloc", Kind::Mimalloc, 0.35),
    ("the fastest pool", Kind::Pool, 1.0),
];

/// The figures of one contender for one pattern, as printed by `--json`.
#[derive(Serialize)]
struct Line {
    contender: &'static str,
    pattern: &'static str,
    nanoseconds: f64,
    instructions: Option<f64>,
}

pub(crate) fn json(times: &Figures, counts: Option<&Figures>) -> Result<()> {
    for (at, entry) in ALL.iter().enumerate() {
        for (place, pattern) in Pattern::ALL.iter().enumerate() {
            let line = Line {
                contender: entry.name,
                pattern: pattern.name(),
                nanoseconds: times[at][place],
                instructions: counts.map(|counts| counts[at][place]),
            };
            println!("{}", serde_json::to_string(&line)?);
        }
    }
    Ok(())
}

pub(crate) fn tables(times: &Figures, counts: Option<&Figures>) -> Result<()> {
    let mut table = new_table("a take and a put, ns");
    for (at, entry) in ALL.iter().enumerate() {
        table.add_row(row(entry.name, |place| {
            let time = format!("{:.2}", times[at][place]);
            counts.map_or(time.clone(), |counts| format!("{time} ({:.1})", counts[at][place]))
        }));
    }
    println!("{table}");
    if counts.is_some() {
        println!("in brackets: instructions, including the loop");
    }
    println!("{}", bars(times));
    Ok(())
}

/// Compares our free list, and in brackets a minimal list, with other contenders.
fn bars(times: &Figures) -> Table {
    let mut table = new_table("time of FreeList (of a bare list) relative to");
    for (name, kind, allowed) in BARS {
        table.add_row(row(&format!("{name} (bar: {allowed})"), |place| {
            let of_kind = ALL.iter().zip(times).filter(|(entry, _)| entry.kind == kind);
            let fastest = of_kind.min_by(|a, b| a.1[place].total_cmp(&b.1[place]));
            let Some((fastest, time)) = fastest else { return String::new() };
            let ratio = |kind| {
                let at = ALL.iter().position(|entry| entry.kind == kind).unwrap_or_default();
                times[at][place] / time[place]
            };
            let (ours, floor) = (ratio(Kind::Cache), ratio(Kind::Floor));
            let verdict = if ours <= allowed { "met" } else { "missed" };
            format!("{ours:.2} ({floor:.2}) {verdict}\n{}", fastest.name)
        }));
    }
    table
}

fn new_table(title: &str) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header([title].into_iter().chain(Pattern::ALL.map(Pattern::name)));
    table.column_iter_mut().skip(1).for_each(|column| {
        column.set_cell_alignment(CellAlignment::Right);
    });
    table
}

fn row(name: &str, cell: impl Fn(usize) -> String) -> Vec<String> {
    [name.to_owned()].into_iter().chain((0..Pattern::ALL.len()).map(cell)).collect()
}
