//! The statistics of `sys._debugmallocstats`, parsed from CPython's output or counted in a model.

use std::collections::BTreeMap;

use super::{
    arena::Arenas,
    rules::{HEADER, Rules},
};

/// The statistics of a heap, as CPython prints them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figures {
    /// One row for each used size class: class, block size in bytes, pools, live blocks, other
    /// blocks.
    ///
    /// Empty pools are not counted.
    pub classes: Vec<[usize; 5]>,
    /// The other statistics up to the first total, by CPython's label.
    figures: BTreeMap<String, usize>,
}

impl Figures {
    pub(super) fn of(rules: &Rules, arenas: &Arenas) -> Self {
        let mut classes = BTreeMap::new();
        let mut unused_pools = 0;
        for arena in arenas.mapped.values() {
            unused_pools += arena.available(rules);
            for pool in arena.pools.iter().filter(|pool| !pool.is_empty()) {
                let class = pool.class;
                let [.., pools, live, others] =
                    classes.entry(class).or_insert([class, rules.block_size(class), 0, 0, 0]);
                *pools += 1;
                *live += pool.live;
                *others += rules.capacity(class) - pool.live;
            }
        }
        let classes: Vec<[usize; 5]> = classes.into_values().collect();
        let Rules { arena_size, pool_size, .. } = *rules;
        let (mut in_blocks, mut in_others, mut in_headers, mut in_tails) = (0, 0, 0, 0);
        for [_, size, pools, live, others] in &classes {
            in_blocks += live * size;
            in_others += others * size;
            in_headers += pools * HEADER;
            in_tails += pools * ((pool_size - HEADER) % size);
        }
        let in_unused = unused_pools * pool_size;
        let mapped = arenas.mapped.len();
        let figures = [
            ("# arenas allocated total", arenas.mapped_ever),
            ("# arenas reclaimed", arenas.mapped_ever - mapped),
            ("# arenas highwater mark", arenas.highwater),
            ("# arenas allocated current", mapped),
            (&format!("{mapped} arenas * {arena_size} bytes/arena"), mapped * arena_size),
            ("# bytes in allocated blocks", in_blocks),
            ("# bytes in available blocks", in_others),
            (&format!("{unused_pools} unused pools * {pool_size} bytes"), in_unused),
            ("# bytes lost to pool headers", in_headers),
            ("# bytes lost to quantization", in_tails),
            ("# bytes lost to arena alignment", 0),
            ("Total", in_blocks + in_others + in_unused + in_headers + in_tails),
        ];
        let figures =
            figures.into_iter().map(|(label, figure)| (label.to_owned(), figure)).collect();
        Self { classes, figures }
    }

    /// Parses the output of `_PyObject_DebugMallocStats`.
    pub fn parse(text: &str) -> Self {
        let classes = text.lines().filter_map(class_line).collect();
        let mut figures = BTreeMap::new();
        for (label, figure) in text.lines().filter_map(figure_line) {
            figures.insert(label.to_owned(), figure);
            // The figures after the first total describe CPython's arena map, not the heap.
            if label == "Total" {
                break;
            }
        }
        Self { classes, figures }
    }

    /// Returns the figure that CPython prints after this `label`.
    ///
    /// # Panics
    ///
    /// Panics if there is no figure with this label.
    pub fn get(&self, label: &str) -> usize {
        *self.figures.get(label).unwrap_or_else(|| panic!("no figure \"{label}\" in {self:?}"))
    }
}

fn class_line(line: &str) -> Option<[usize; 5]> {
    let numbers: Vec<usize> =
        line.split_whitespace().map(|word| word.parse().ok()).collect::<Option<_>>()?;
    numbers.try_into().ok()
}

/// Parses a line such as `label = 1,234`.
fn figure_line(line: &str) -> Option<(&str, usize)> {
    let (label, number) = line.split_once('=')?;
    Some((label.trim(), number.trim().replace(',', "").parse().ok()?))
}
