//! Tests a mutant stage by stage, up to the first stage that fails.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    slice,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use super::{
    crates::{self, Crate},
    mutant::{Kind, Mutant},
    report::Outcome,
    tree::Tree,
};
use crate::{loom, process};

/// The additional features that the tests of a package need.
const FEATURES: [(&str, &str); 2] = [
    ("obmalloc", "obmalloc/serde"),
    (
        "obmalloc-global-alloc",
        "obmalloc-global-alloc/allocator-api2-02,obmalloc-global-alloc/allocator-api2-04",
    ),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Stage {
    tests: Tests,
    packages: &'static [&'static str],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Tests {
    Unit,
    Integration,
    Loom,
    Above,
}

pub(super) struct Lab {
    tree: Tree,
    build: PathBuf,
    usual: BTreeMap<Stage, Duration>,
}

impl Lab {
    /// Copies the project into `folder`, and runs every needed stage once without a mutant.
    pub(super) fn new(folder: &Path, crates: &[&'static Crate], sample: &[Mutant]) -> Result<Self> {
        let tree = Tree::copy(folder.join("tree"))?;
        let mut lab = Self { tree, build: folder.join("build"), usual: BTreeMap::new() };
        for krate in crates {
            let mutants = || sample.iter().filter(|mutant| mutant.krate == krate.folder);
            for stage in mutants().flat_map(|mutant| stages(krate, mutant)) {
                if lab.usual.contains_key(&stage) {
                    continue;
                }
                let built = process::run(lab.command(stage, true), |_| ())?;
                ensure!(built.success, "the tests do not build:\n{}", built.output);
                let started = Instant::now();
                let passed = process::run(lab.command(stage, false), |_| ())?;
                ensure!(passed.success, "the tests fail without a mutant:\n{}", passed.output);
                let usual = started.elapsed();
                println!("without a mutant: {} in {:.0} s", stage.name(), usual.as_secs_f64());
                lab.usual.insert(stage, usual);
            }
        }
        Ok(lab)
    }

    pub(super) fn try_out(&self, mutant: &Mutant) -> Result<Outcome> {
        self.tree.with(mutant, || self.outcome(mutant))
    }

    fn outcome(&self, mutant: &Mutant) -> Result<Outcome> {
        let krate = crates::ALL.iter().find(|krate| krate.folder == mutant.krate);
        let krate = krate.expect("a mutant is of one of the crates");
        for (place, stage) in stages(krate, mutant).into_iter().enumerate() {
            if !process::run(self.command(stage, true), |_| ())?.success && place == 0 {
                return Ok(Outcome::Unviable);
            }
            let most_silence = self.usual[&stage] * 3 + Duration::from_secs(20);
            if !process::run_within(self.command(stage, false), most_silence, |_| ())?.success {
                return Ok(match stage.tests {
                    Tests::Above => Outcome::CaughtAbove,
                    _ => Outcome::Caught { by: stage.name() },
                });
            }
        }
        Ok(Outcome::Survived)
    }

    /// Returns a command that runs or only builds the tests of `stage`.
    fn command(&self, stage: Stage, only_build: bool) -> Command {
        let mut command = Command::new(env!("CARGO"));
        command.current_dir(self.tree.root()).env("CARGO_TARGET_DIR", &self.build);
        // Some tests check reports that name lines of source code, which needs this debug
        // information.
        command.env("RUST_BACKTRACE", "0").env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only");
        command.env("OBMALLOC_CHURN_THREADS", "200");
        command.args(["test", "--quiet"]);
        match stage.tests {
            Tests::Unit => command.arg("--lib"),
            Tests::Integration => command.args(["--test", "*"]),
            Tests::Above => command.args(["--lib", "--tests"]),
            Tests::Loom => {
                loom::configure(&mut command, Some(loom::BOUND));
                command.args(["--release", "--lib"])
            }
        };
        for package in stage.packages {
            command.args(["--package", package]);
            let features = FEATURES.iter().filter(|(of, _)| of == package);
            features.for_each(|(_, features)| _ = command.args(["--features", features]));
        }
        if only_build {
            command.arg("--no-run");
        }
        command
    }
}

impl Stage {
    fn name(self) -> String {
        let tests = match self.tests {
            Tests::Unit => "unit tests",
            Tests::Integration => "integration tests",
            Tests::Loom => "loom models",
            Tests::Above => "tests",
        };
        format!("{tests} of {}", self.packages.join(", "))
    }
}

/// Returns the stages for `mutant`, the quickest first.
fn stages(krate: &'static Crate, mutant: &Mutant) -> Vec<Stage> {
    let text = &mutant.source.text;
    let is_concurrent = text.contains("atomic") || text.contains("Mutex");
    let loom = krate.loom && is_concurrent;
    if mutant.kind == Kind::Ordering && loom {
        // Only loom explores weaker orderings than this machine's processor has.
        return vec![Stage { tests: Tests::Loom, packages: slice::from_ref(&krate.package) }];
    }
    let of_crate = [
        (Tests::Unit, true),
        (Tests::Integration, krate.has_integration_tests()),
        (Tests::Loom, loom),
    ];
    let of_crate = of_crate.into_iter().filter(|(_, exist)| *exist);
    let mut stages: Vec<_> = of_crate
        .map(|(tests, _)| Stage { tests, packages: slice::from_ref(&krate.package) })
        .collect();
    if !krate.above.is_empty() {
        stages.push(Stage { tests: Tests::Above, packages: krate.above });
    }
    stages
}
