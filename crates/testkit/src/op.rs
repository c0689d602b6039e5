//! An operation on an allocator, and what playing one does.
//!
//! Operations name *slots*, not addresses, so that one sequence can be played into any allocator,
//! into a model of one, or into several at once. Every sequence is legal, which lets a fuzzer
//! write any and a property test drop any of its operations:
//!
//! | operation | the slot is empty | the slot holds a block |
//! | --- | --- | --- |
//! | `Malloc`, `Calloc` | the slot gets a block | its block is freed first |
//! | `Realloc` | null is reallocated | its block is |
//! | `Free` | null is freed | its block is |

/// One operation on the block in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Allocates `size` bytes into `slot`.
    Malloc {
        /// The slot that gets the block.
        slot: usize,
        /// Bytes asked for.
        size: usize,
    },
    /// Allocates `count * size` zeroed bytes into `slot`.
    Calloc {
        /// The slot that gets the block.
        slot: usize,
        /// Items asked for.
        count: usize,
        /// Bytes of one item.
        size: usize,
    },
    /// Makes the block in `slot` hold `size` bytes.
    Realloc {
        /// The slot of the block.
        slot: usize,
        /// Bytes asked for.
        size: usize,
    },
    /// Frees the block in `slot`.
    Free {
        /// The slot of the block.
        slot: usize,
    },
}

impl Op {
    /// The slot that the operation is about.
    pub fn slot(self) -> usize {
        match self {
            Self::Malloc { slot, .. }
            | Self::Calloc { slot, .. }
            | Self::Realloc { slot, .. }
            | Self::Free { slot } => slot,
        }
    }

    /// Whether the operation wants the slot empty, and so frees what it holds.
    fn starts_afresh(self) -> bool {
        matches!(self, Self::Malloc { .. } | Self::Calloc { .. })
    }
}

/// What operations are played into: an allocator, or a model of one.
pub trait Subject {
    /// How the subject names a live block.
    type Block: Copy;

    /// Allocates `size` bytes.
    fn malloc(&mut self, size: usize) -> Option<Self::Block>;

    /// Allocates `count * size` zeroed bytes.
    fn calloc(&mut self, count: usize, size: usize) -> Option<Self::Block>;

    /// Makes `old` hold `size` bytes; on `None` it stays live.
    fn realloc(&mut self, old: Option<Self::Block>, size: usize) -> Option<Self::Block>;

    /// Frees `old`.
    fn free(&mut self, old: Option<Self::Block>);
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<B> {
    /// The slot now holds this block.
    Given(B),
    /// There was no memory. The slot holds what a failed request leaves: nothing, or for a
    /// reallocation the old block.
    Refused,
    /// The slot is empty, as asked.
    Freed,
}

impl<B> Outcome<B> {
    /// The block that was given, if one was.
    pub fn given(self) -> Option<B> {
        match self {
            Self::Given(block) => Some(block),
            Self::Refused | Self::Freed => None,
        }
    }

    /// The same outcome, with the block under another name.
    pub fn map<C>(self, name: impl FnOnce(B) -> C) -> Outcome<C> {
        match self {
            Self::Given(block) => Outcome::Given(name(block)),
            Self::Refused => Outcome::Refused,
            Self::Freed => Outcome::Freed,
        }
    }
}

/// The live blocks of one subject, by slot.
#[derive(Clone, Debug)]
pub struct Slots<B>(Vec<Option<B>>);

impl<B> Default for Slots<B> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<B: Copy> Slots<B> {
    /// Plays `op` into `subject`.
    pub fn play<S: Subject<Block = B>>(&mut self, subject: &mut S, op: Op) -> Outcome<B> {
        let held = self.slot(op.slot());
        if op.starts_afresh()
            && let Some(old) = held.take()
        {
            subject.free(Some(old));
        }
        let given = match op {
            Op::Malloc { size, .. } => subject.malloc(size),
            Op::Calloc { count, size, .. } => subject.calloc(count, size),
            Op::Realloc { size, .. } => subject.realloc(*held, size),
            Op::Free { .. } => {
                subject.free(held.take());
                return Outcome::Freed;
            }
        };
        match given {
            Some(block) => Outcome::Given(*held.insert(block)),
            None => Outcome::Refused,
        }
    }

    /// Frees every live block, in the order of the slots.
    pub fn free_all<S: Subject<Block = B>>(&mut self, subject: &mut S) {
        for block in self.0.iter_mut().filter_map(Option::take) {
            subject.free(Some(block));
        }
    }

    /// How many slots were ever used: those that hold a block are below this.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The slots that hold a block.
    pub fn live(&self) -> impl Iterator<Item = usize> {
        self.0.iter().enumerate().filter(|(_, held)| held.is_some()).map(|(slot, _)| slot)
    }

    fn slot(&mut self, slot: usize) -> &mut Option<B> {
        if slot >= self.0.len() {
            self.0.resize(slot + 1, None);
        }
        &mut self.0[slot]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes down what it is asked, and hands out numbers for blocks.
    #[derive(Default)]
    struct Scribe {
        calls: Vec<String>,
        blocks: usize,
        refuses: bool,
    }

    impl Scribe {
        fn answer(&mut self, call: String) -> Option<usize> {
            self.calls.push(call);
            self.blocks += 1;
            (!self.refuses).then_some(self.blocks)
        }
    }

    impl Subject for Scribe {
        type Block = usize;

        fn malloc(&mut self, size: usize) -> Option<usize> {
            self.answer(format!("malloc {size}"))
        }

        fn calloc(&mut self, count: usize, size: usize) -> Option<usize> {
            self.answer(format!("calloc {count} {size}"))
        }

        fn realloc(&mut self, old: Option<usize>, size: usize) -> Option<usize> {
            self.answer(format!("realloc {old:?} {size}"))
        }

        fn free(&mut self, old: Option<usize>) {
            self.calls.push(format!("free {old:?}"));
        }
    }

    #[test]
    fn a_slot_that_is_allocated_into_frees_its_block_first() {
        let (mut scribe, mut slots) = (Scribe::default(), Slots::default());
        slots.play(&mut scribe, Op::Malloc { slot: 3, size: 8 });
        slots.play(&mut scribe, Op::Calloc { slot: 3, count: 2, size: 4 });
        assert_eq!(scribe.calls, ["malloc 8", "free Some(1)", "calloc 2 4"]);
        assert_eq!(slots.live().collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn an_empty_slot_stands_for_null() {
        let (mut scribe, mut slots) = (Scribe::default(), Slots::default());
        slots.play(&mut scribe, Op::Free { slot: 0 });
        slots.play(&mut scribe, Op::Realloc { slot: 0, size: 8 });
        assert_eq!(scribe.calls, ["free None", "realloc None 8"]);
    }

    #[test]
    fn a_refused_reallocation_leaves_the_old_block_in_its_slot() {
        let (mut scribe, mut slots) = (Scribe::default(), Slots::default());
        slots.play(&mut scribe, Op::Malloc { slot: 0, size: 8 });
        scribe.refuses = true;
        assert_eq!(slots.play(&mut scribe, Op::Realloc { slot: 0, size: 9 }), Outcome::Refused);
        slots.free_all(&mut scribe);
        assert_eq!(scribe.calls.last().unwrap(), "free Some(1)");
        assert_eq!(slots.live().count(), 0);
    }
}
