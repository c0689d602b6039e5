//! Compares the position of every block, and the statistics, with those in each libpython.

mod common;

use common::{Rig, arenas_in, rules};
use obmalloc::{Classes8To512, Geometry, GiveBackAll, Pools4K, Pools16K};
use testkit::{
    cpython::{Interpreter, Vtable, in_each},
    drive::{Driver, Shadowed},
    failing::Plan,
    op::Op,
    property::samples,
    reference::Rules,
    workload::{self, Generator, Order, Phase, Sizes},
};

const STRIDE: usize = 5_000;

struct Pair<G: Geometry> {
    python: Interpreter,
    pymalloc: Driver<Shadowed<Vtable>>,
    rig: Rig<G>,
    steps: usize,
}

impl<G: Geometry> Pair<G> {
    fn new(python: Interpreter) -> Self {
        assert_eq!(python.rules(), rules::<G>());
        let pymalloc = Driver::new(Shadowed::new(python.pymalloc(), G::SIZES.alignment));
        Self { pymalloc, rig: Rig::new(), python, steps: 0 }
    }

    fn run(&mut self, ops: &[Op]) {
        for &op in ops {
            self.step(op);
            if self.steps.is_multiple_of(STRIDE) {
                self.compare_statistics();
            }
        }
        self.compare_statistics();
        self.rig.check();
    }

    fn step(&mut self, op: Op) {
        self.steps += 1;
        let theirs = self.pymalloc.step(op).map(|block| {
            self.python.arenas().spot(block.addr().get(), G::SIZES.arena_size, G::SIZES.pool_size)
        });
        let ours = self.rig.step(op).map(|block| self.rig.spot(block));
        assert_eq!(ours, theirs, "step {}: {op:?}", self.steps);
        assert_eq!(self.rig.arenas.mapped(), self.python.arenas().mapped(), "step {}", self.steps);
    }

    fn compare_statistics(&self) {
        let (ours, theirs) = (self.rig.stats().to_string(), self.python.stats_text());
        assert_eq!(without_map(&ours), without_map(&theirs), "after step {}", self.steps);
    }

    fn fail_arenas(&self, plan: Plan) {
        self.python.faults().restart(plan);
        self.rig.source.restart(plan);
    }

    fn finish(mut self) {
        for slot in self.pymalloc.live() {
            self.step(Op::Free { slot });
        }
        self.compare_statistics();
        assert_eq!(self.rig.arenas.mapped(), self.rig.retained());
        println!("{} steps, {} arenas mapped", self.steps, self.rig.arenas.ever());
    }
}

/// Removes the figures of the arena map, which depend on the addresses of arenas.
fn without_map(text: &str) -> &str {
    text.split("\narena map counts").next().unwrap_or(text).trim_end()
}

trait Scenario {
    fn play<G: Geometry>(pair: &mut Pair<G>);
}

/// Runs `S` in a child process for each CPython, with the geometry of its version.
fn in_each_profile<S: Scenario>(test: &str) {
    fn play<S: Scenario, G: Geometry>(python: Interpreter) {
        let mut pair = Pair::<G>::new(python);
        S::play(&mut pair);
        pair.finish();
    }
    in_each(test, |python| match python.rules() {
        Rules::CLASSES_8_TO_512 => play::<S, Classes8To512>(python),
        Rules::POOLS_4K_GIVE_BACK_ALL => play::<S, GiveBackAll<Pools4K>>(python),
        Rules::POOLS_4K => play::<S, Pools4K>(python),
        Rules::POOLS_16K => play::<S, Pools16K>(python),
        other => panic!("no profile has these rules: {other:?}"),
    });
}

struct Random;

impl Scenario for Random {
    fn play<G: Geometry>(pair: &mut Pair<G>) {
        for ops in samples(200, workload::random(&rules::<G>())) {
            pair.run(&ops);
        }
    }
}

#[test]
fn random_sequences_take_the_same_shape() {
    in_each_profile::<Random>("random_sequences_take_the_same_shape");
}

struct FillAndDrain;

impl Scenario for FillAndDrain {
    fn play<G: Geometry>(pair: &mut Pair<G>) {
        for script in samples(20, workload::phases(&rules::<G>(), arenas_in::<G>(6 << 20))) {
            pair.run(&script.ops());
        }
    }
}

#[test]
fn arenas_that_fill_and_drain_take_the_same_shape() {
    in_each_profile::<FillAndDrain>("arenas_that_fill_and_drain_take_the_same_shape");
}

struct ManyArenas;

impl Scenario for ManyArenas {
    fn play<G: Geometry>(pair: &mut Pair<G>) {
        let blocks = (20 << 20) / G::SIZES.small_threshold;
        let fill = Phase::Fill { sizes: Sizes::of([G::SIZES.small_threshold]), blocks };
        let mut generator = Generator::new(3);
        for (order, keep_one_in) in [(Order::Shuffled, 100), (Order::Forward, 3)] {
            pair.run(&generator.ops(&fill));
            pair.run(&generator.ops(&Phase::Drain { order, keep_one_in }));
        }
        assert!(pair.rig.arenas.ever() > 16, "the table of arenas must grow");
    }
}

#[test]
fn tables_of_many_arenas_take_the_same_shape() {
    in_each_profile::<ManyArenas>("tables_of_many_arenas_take_the_same_shape");
}

struct Reallocations;

impl Scenario for Reallocations {
    fn play<G: Geometry>(pair: &mut Pair<G>) {
        let sizes = Sizes::many(&rules::<G>());
        let mut generator = Generator::new(4);
        pair.run(&generator.ops(&Phase::Fill { sizes: sizes.clone(), blocks: 500 }));
        pair.run(&generator.ops(&Phase::Resize { sizes, ops: 50_000 }));
        for size in 0..=G::SIZES.small_threshold + 1 {
            pair.step(Op::Malloc { slot: 0, size });
            for to in (0..=G::SIZES.small_threshold + 1).step_by(7) {
                pair.step(Op::Realloc { slot: 0, size: to });
            }
        }
    }
}

#[test]
fn reallocations_take_the_same_shape() {
    in_each_profile::<Reallocations>("reallocations_take_the_same_shape");
}

struct ScarceArenas;

impl Scenario for ScarceArenas {
    fn play<G: Geometry>(pair: &mut Pair<G>) {
        let plans = [Plan::Every(2), Plan::Nth(1), Plan::From(3), Plan::Every(7)];
        let scripts = samples(12, workload::phases(&rules::<G>(), arenas_in::<G>(3 << 20)));
        for (script, plan) in scripts.zip(plans.into_iter().cycle()) {
            pair.fail_arenas(plan);
            pair.run(&script.ops());
        }
    }
}

#[test]
fn heaps_that_cannot_map_arenas_take_the_same_shape() {
    in_each_profile::<ScarceArenas>("heaps_that_cannot_map_arenas_take_the_same_shape");
}
