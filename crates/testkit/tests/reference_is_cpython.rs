//! The reference is held against real CPythons: the same operations into both, and after each the
//! block must lie in the same place; at intervals every header, free list and pool list, and the
//! figures that CPython prints, must be the same too.
//!
//! All that the tests of the heap take from the reference rests on this.

use testkit::{
    cpython::{Interpreter, Vtable, in_each},
    drive::Driver,
    failing::{Faults, Plan},
    op::{Op, Outcome, Slots},
    place::Spot,
    property::{depth, samples},
    reference::{Block, Reference},
    workload::{self, Order, Phase, Player, Sizes},
};

/// Operations between two looks at the whole state.
const STRIDE: usize = 5_000;

/// A CPython and the reference, asked the same. They go on from workload to workload: emptied
/// pools and given-back arenas are a part of the state.
struct Pair {
    python: Interpreter,
    pymalloc: Driver<Vtable>,
    reference: Reference,
    slots: Slots<Block>,
    faults: Faults,
    steps: usize,
}

impl Pair {
    fn new(python: Interpreter) -> Self {
        let (rules, faults) = (python.rules(), Faults::default());
        Self {
            pymalloc: Driver::new(python.pymalloc(), rules.alignment),
            reference: Reference::new(rules, faults.clone()),
            slots: Slots::default(),
            python,
            faults,
            steps: 0,
        }
    }

    fn run(&mut self, ops: &[Op]) {
        for &op in ops {
            self.step(op);
            if self.steps.is_multiple_of(STRIDE) {
                self.compare_states();
            }
        }
        self.compare_states();
    }

    fn step(&mut self, op: Op) {
        self.steps += 1;
        let given = self.pymalloc.step(op).map(|block| self.spot(block.addr().get()));
        let expected = self.slots.play(&mut self.reference, op).map(Block::spot);
        assert_eq!(given, expected, "step {}: {op:?}", self.steps);
        assert_eq!(self.python.arenas().mapped(), self.reference.mapped(), "step {}", self.steps);
    }

    fn spot(&self, address: usize) -> Option<Spot> {
        let rules = self.reference.rules();
        self.python.arenas().spot(address, rules.arena_size, rules.pool_size)
    }

    fn compare_states(&self) {
        self.pymalloc.shadow().check();
        assert_eq!(self.python.state(), self.reference.state(), "after step {}", self.steps);
        assert_eq!(self.python.figures(), self.reference.figures(), "after step {}", self.steps);
    }

    fn fail_arenas(&self, plan: Plan) {
        self.python.faults().restart(plan);
        self.faults.restart(plan);
    }

    fn free_all(&mut self) {
        let live: Vec<_> = self.slots.live().collect();
        for slot in live {
            self.step(Op::Free { slot });
        }
        self.compare_states();
    }

    fn report(&self) {
        let figures = self.python.figures();
        println!(
            "{}: {} steps, {} arenas had, {} at most at once",
            self.python.version(),
            self.steps,
            figures.arenas_ever,
            figures.arenas_highwater
        );
    }
}

#[test]
fn random_sequences_take_the_same_shape() {
    in_each("random_sequences_take_the_same_shape", |python| {
        let rules = python.rules();
        let mut pair = Pair::new(python);
        for ops in samples(200, workload::random(&rules)) {
            pair.run(&ops);
        }
        pair.free_all();
        pair.report();
    });
}

#[test]
fn arenas_that_fill_and_drain_take_the_same_shape() {
    in_each("arenas_that_fill_and_drain_take_the_same_shape", |python| {
        let rules = python.rules();
        let mut pair = Pair::new(python);
        let arenas = (6 << 20) / rules.arena_size;
        for script in samples(8, workload::phases(&rules, arenas)) {
            pair.run(&script.ops());
            pair.free_all();
        }
        assert_eq!(pair.python.arenas().mapped(), usize::from(rules.keep_last));
        pair.report();
    });
}

#[test]
fn a_table_of_many_arenas_takes_the_same_shape() {
    in_each("a_table_of_many_arenas_takes_the_same_shape", |python| {
        let rules = python.rules();
        let arenas = (20 << 20) / rules.arena_size;
        let blocks = arenas * rules.pools() * rules.capacity(rules.classes() - 1);
        let fill = Phase::Fill { sizes: Sizes::of([rules.threshold]), blocks };
        let (mut pair, mut player) = (Pair::new(python), Player::new(u64::from(depth())));
        for (order, keep_one_in) in [
            (Order::Shuffled, 100),
            (Order::Forward, 3),
            (Order::Backward, 1000),
            (Order::Shuffled, 0),
        ] {
            pair.run(&player.play(&fill));
            pair.run(&player.play(&Phase::Drain { order, keep_one_in }));
        }
        assert!(pair.python.figures().arenas_highwater > 16, "the table has grown");
        pair.report();
    });
}

#[test]
fn heaps_without_arenas_to_be_had_take_the_same_shape() {
    in_each("heaps_without_arenas_to_be_had_take_the_same_shape", |python| {
        let rules = python.rules();
        let mut pair = Pair::new(python);
        let plans = [Plan::Every(2), Plan::Nth(1), Plan::From(3), Plan::Every(7)];
        for (at, script) in samples(8, workload::phases(&rules, 3)).enumerate() {
            pair.fail_arenas(plans[at % plans.len()]);
            pair.run(&script.ops());
        }
        pair.free_all();
        pair.report();
    });
}

#[test]
fn every_reallocation_from_size_to_size_keeps_or_moves_alike() {
    in_each("every_reallocation_from_size_to_size_keeps_or_moves_alike", |python| {
        let rules = python.rules();
        let mut pair = Pair::new(python);
        // A live block keeps the arena.
        pair.step(Op::Malloc { slot: 1, size: 1 });
        let stride = if depth() > 1 { 1 } else { 3 };
        for from in (0..=rules.threshold + 1).step_by(stride) {
            for to in 0..=rules.threshold + 1 {
                pair.step(Op::Malloc { slot: 0, size: from });
                pair.step(Op::Realloc { slot: 0, size: to });
            }
        }
        pair.compare_states();
        assert_eq!(pair.pymalloc.step(Op::Free { slot: 0 }), Outcome::Freed);
        pair.report();
    });
}
