//! Loops for counting instructions: exactly the same work in every run.
//!
//! ```text
//!   worker-NAME count LOOP
//!        │ what it needs is set up
//!        ▼
//!   counted_…(contender)      the one function whose instructions are collected
//! ```
//!
//! Blocks are of 64 bytes. All counts have the loop in them, the size that is hidden from the
//! compiler, and the write to the new block. Before the counting each block was in use and freed
//! once, so that the counts are those of a heap in its stride; what it does now and then has its
//! share in them.

use std::{hint::black_box, sync::mpsc::channel, thread};

use crate::{
    contender::{Contender, Held, Realloc},
    contenders::Global,
};

/// Blocks that are live at once, where there are many.
const BLOCKS: usize = 1_000;

/// How often they are allocated and freed.
const TIMES: usize = 100;

/// Operations of each loop.
pub const OPERATIONS: usize = BLOCKS * TIMES;

/// Bytes of a block, and what it is resized to and back.
const SIZES: [usize; 2] = [56, 64];

/// A loop on the contender `C`.
#[derive(Debug)]
pub struct Counted<C> {
    /// What it is called on the command line and in tables.
    pub name: &'static str,
    run: fn(&mut C),
}

impl<C> Counted<C> {
    /// Runs it once.
    pub fn run(&self, contender: &mut C) {
        (self.run)(contender);
    }
}

/// The names of all, and the functions whose instructions are collected.
pub const LOOPS: [(&str, &str); 5] = [
    ("alloc + free", "*counted_pairs*"),
    ("alloc", "*counted_allocs*"),
    ("free", "*counted_frees*"),
    ("realloc in place", "*counted_resizes*"),
    ("remote free", "*counted_frees*"),
];

/// Those that need one thread: all, or all but that of a `realloc` which is lacking.
pub fn loops<C: Contender>(realloc: Realloc) -> Vec<Counted<C>> {
    let mut loops: Vec<Counted<C>> = vec![
        Counted { name: LOOPS[0].0, run: |contender| counted_pairs(contender) },
        Counted { name: LOOPS[1].0, run: many },
        Counted { name: LOOPS[2].0, run: many },
    ];
    if realloc == Realloc::Own {
        loops.push(Counted { name: LOOPS[3].0, run: |contender| counted_resizes(contender) });
    }
    loops
}

/// Those that need a second thread.
pub fn loops_of_threads() -> Vec<Counted<Global>> {
    vec![Counted { name: LOOPS[4].0, run: remote }]
}

#[inline(never)]
fn counted_pairs<C: Contender>(contender: &mut C) {
    for _ in 0..OPERATIONS {
        Held::new(contender, black_box(SIZES[1])).free(contender);
    }
}

fn many<C: Contender>(contender: &mut C) {
    let mut blocks = Vec::with_capacity(BLOCKS);
    blocks.extend((0..BLOCKS).map(|_| Held::new(contender, black_box(SIZES[1]))));
    for _ in 0..TIMES {
        counted_frees(contender, &mut blocks);
        counted_allocs(contender, &mut blocks);
    }
    blocks.into_iter().for_each(|held| held.free(contender));
}

/// The room for the blocks is there.
#[inline(never)]
fn counted_allocs<C: Contender>(contender: &mut C, blocks: &mut Vec<Held>) {
    blocks.extend((0..BLOCKS).map(|_| Held::new(contender, black_box(SIZES[1]))));
}

#[inline(never)]
fn counted_frees<C: Contender>(contender: &mut C, blocks: &mut Vec<Held>) {
    blocks.drain(..).for_each(|held| held.free(contender));
}

#[inline(never)]
fn counted_resizes<C: Contender>(contender: &mut C) {
    let mut held = Held::new(contender, black_box(SIZES[0]));
    for _ in 0..OPERATIONS / 2 {
        held = held.resize(contender, black_box(SIZES[1]));
        held = held.resize(contender, black_box(SIZES[0]));
    }
    held.free(contender);
}

/// Another thread allocates, and lives on while its blocks are freed here.
fn remote(_: &mut Global) {
    let (blocks_to, blocks_from) = channel::<Vec<Held>>();
    let (back_to, back_from) = channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            for mut blocks in back_from {
                blocks = fill(blocks);
                if blocks_to.send(blocks).is_err() {
                    return;
                }
            }
        });
        let mut blocks = Vec::with_capacity(BLOCKS);
        for _ in 0..TIMES {
            if back_to.send(blocks).is_err() {
                return;
            }
            let Ok(filled) = blocks_from.recv() else { return };
            blocks = filled;
            counted_frees(&mut Global, &mut blocks);
        }
        drop(back_to);
    });
}

fn fill(mut blocks: Vec<Held>) -> Vec<Held> {
    blocks.extend((0..BLOCKS).map(|_| Held::new(&mut Global, black_box(SIZES[1]))));
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_realloc_that_is_lacking_is_not_counted() {
        let counts = |realloc| loops::<Global>(realloc).iter().any(|one| one.name == LOOPS[3].0);
        assert!(counts(Realloc::Own) && !counts(Realloc::Lacking));
    }
}
