//! Loops that do the same work in every run, so that their instructions can be counted.
//!
//! The count includes the loop itself. Before the counting starts, every block is allocated and
//! freed once, so that the heap behaves like one that has been in use for a while.

use std::{hint::black_box, sync::mpsc::channel, thread};

use crate::{
    contender::{Contender, Held, Realloc},
    contenders::Global,
};

const BLOCKS: usize = 1_000;

const TIMES: usize = 100;

/// The number of operations of each loop.
pub const OPERATIONS: usize = BLOCKS * TIMES;

/// The block sizes in bytes: a block before it grows, and every other block.
const SIZES: [usize; 2] = [56, 64];

/// The name of a loop, and a function that runs it once.
pub type Loop<C> = (&'static str, fn(&mut C));

/// The names of all loops, and the patterns of the functions that callgrind counts.
pub const LOOPS: [(&str, &str); 5] = [
    ("alloc + free", "*counted_pairs*"),
    ("alloc", "*counted_allocs*"),
    ("free", "*counted_frees*"),
    ("realloc in place", "*counted_resizes*"),
    ("remote free", "*counted_frees*"),
];

/// Returns the loops for one thread.
pub fn loops<C: Contender>(realloc: Realloc) -> Vec<Loop<C>> {
    let mut loops: Vec<Loop<C>> = vec![
        (LOOPS[0].0, |contender| counted_pairs(contender)),
        (LOOPS[1].0, many),
        (LOOPS[2].0, many),
    ];
    if realloc == Realloc::Own {
        loops.push((LOOPS[3].0, |contender| counted_resizes(contender)));
    }
    loops
}

/// Returns the loops for two threads.
pub fn loops_of_threads() -> Vec<Loop<Global>> {
    vec![(LOOPS[4].0, remote)]
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

/// Frees blocks that another, still running thread allocated.
fn remote(_: &mut Global) {
    let (blocks_to, blocks_from) = channel::<Vec<Held>>();
    let (back_to, back_from) = channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            for blocks in back_from {
                if blocks_to.send(filled(blocks)).is_err() {
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

fn filled(mut blocks: Vec<Held>) -> Vec<Held> {
    blocks.extend((0..BLOCKS).map(|_| Held::new(&mut Global, black_box(SIZES[1]))));
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_realloc_is_not_counted() {
        let counts = |realloc| loops::<Global>(realloc).iter().any(|one| one.0 == LOOPS[3].0);
        assert!(counts(Realloc::Own) && !counts(Realloc::Lacking));
    }
}
