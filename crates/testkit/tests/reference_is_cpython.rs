//! Compares the model with real CPythons, because the tests of our heaps rely on the model.
//!
//! Every block must have the same place in both. At intervals, the complete states must be equal,
//! too.

use testkit::{
    cpython::{Interpreter, Vtable, in_each},
    drive::{Driver, Shadowed},
    failing::{Faults, Plan},
    op::{Op, Outcome},
    place::Spot,
    property::{depth, samples},
    reference::{Figures, Reference},
    workload::{self, Generator, Order, Phase, Sizes},
};

const HIGHWATER: &str = "# arenas highwater mark";

const STRIDE: usize = 5_000;

/// Several workloads share a pair, because the arenas and pools of earlier ones remain.
struct Pair {
    python: Interpreter,
    pymalloc: Driver<Shadowed<Vtable>>,
    reference: Driver<Reference>,
    faults: Faults,
    steps: usize,
}

impl Pair {
    fn new(python: Interpreter) -> Self {
        let (rules, faults) = (python.rules(), Faults::default());
        Self {
            pymalloc: Driver::new(Shadowed::new(python.pymalloc(), rules.alignment)),
            reference: Driver::new(Reference::new(rules, faults.clone())),
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
        let outcome = self.pymalloc.step(op).map(|block| self.spot(block.addr().get()));
        assert_eq!(outcome, self.reference.step(op), "step {}: {op:?}", self.steps);
        let mapped = self.reference.subject().mapped();
        assert_eq!(self.python.arenas().mapped(), mapped, "step {}", self.steps);
    }

    fn spot(&self, address: usize) -> Option<Spot> {
        let rules = self.python.rules();
        self.python.arenas().spot(address, rules.arena_size, rules.pool_size)
    }

    fn compare_states(&self) {
        self.pymalloc.subject().shadow().check();
        let reference = self.reference.subject();
        assert_eq!(self.python.state(), reference.state(), "after step {}", self.steps);
        assert_eq!(self.figures(), reference.figures(), "after step {}", self.steps);
    }

    fn figures(&self) -> Figures {
        Figures::parse(&self.python.stats_text())
    }

    fn fail_arenas(&self, plan: Plan) {
        self.python.faults().restart(plan);
        self.faults.restart(plan);
    }

    fn free_all(&mut self) {
        for slot in self.reference.live() {
            self.step(Op::Free { slot });
        }
        self.compare_states();
    }

    fn report(&self) {
        let figures = self.figures();
        println!(
            "{} steps, {} arenas mapped, {} at most at once",
            self.steps,
            figures.get("# arenas allocated total"),
            figures.get(HIGHWATER)
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
        assert_eq!(pair.python.arenas().mapped(), usize::from(rules.retain_last_arena));
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
        let (mut pair, mut generator) = (Pair::new(python), Generator::new(u64::from(depth())));
        for (order, keep_one_in) in [
            (Order::Shuffled, 100),
            (Order::Forward, 3),
            (Order::Backward, 1000),
            (Order::Shuffled, 0),
        ] {
            pair.run(&generator.ops(&fill));
            pair.run(&generator.ops(&Phase::Drain { order, keep_one_in }));
        }
        assert!(pair.figures().get(HIGHWATER) > 16, "the table of arenas must grow");
        pair.report();
    });
}

#[test]
fn heaps_that_cannot_map_arenas_take_the_same_shape() {
    in_each("heaps_that_cannot_map_arenas_take_the_same_shape", |python| {
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
fn every_reallocation_stays_or_moves_as_in_cpython() {
    in_each("every_reallocation_stays_or_moves_as_in_cpython", |python| {
        let rules = python.rules();
        let mut pair = Pair::new(python);
        // One live block keeps the arena mapped.
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
