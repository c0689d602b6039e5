//! Tries a mutant: builds the tests, runs them stage by stage, and stops at the first failure.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
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

/// Features that the tests of global-alloc need beyond the default ones.
const FEATURES: &str = "global-alloc/allocator-api2-02,global-alloc/allocator-api2-04";

/// Some tests that may notice a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Unit(&'static str),
    Integration(&'static str),
    Loom(&'static str),
    Above(&'static [&'static str]),
}

/// A copy of the project, and the time that each stage takes there without a mutant.
pub(super) struct Lab {
    tree: Tree,
    build: PathBuf,
    usual: BTreeMap<Stage, Duration>,
}

impl Lab {
    /// Copies the project into `folder`, and checks that the stages that `sample` may need pass.
    pub(super) fn new(folder: &Path, crates: &[&Crate], sample: &[Mutant]) -> Result<Self> {
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

    /// Applies `mutant`, and runs the tests that may notice it.
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
                return Ok(match stage {
                    Stage::Above(_) => Outcome::CaughtAbove,
                    _ => Outcome::Caught { by: stage.name() },
                });
            }
        }
        Ok(Outcome::Survived)
    }

    /// Returns a command that runs `stage`, or only builds it.
    fn command(&self, stage: Stage, only_build: bool) -> Command {
        let mut command = Command::new(env!("CARGO"));
        command.current_dir(self.tree.root()).env("CARGO_TARGET_DIR", &self.build);
        command.env("RUST_BACKTRACE", "0").env("CARGO_PROFILE_DEV_DEBUG", "false");
        command.env("OBMALLOC_CHURN_THREADS", "200");
        command.args(["test", "--quiet"]);
        let packages: &[_] = match stage {
            Stage::Unit(ref package) => {
                command.arg("--lib");
                std::slice::from_ref(package)
            }
            Stage::Integration(ref package) => {
                command.args(["--test", "*"]);
                std::slice::from_ref(package)
            }
            Stage::Loom(ref package) => {
                command.args(["--release", "--lib"]);
                loom::configure(&mut command, Some(loom::BOUND));
                std::slice::from_ref(package)
            }
            Stage::Above(packages) => {
                command.args(["--lib", "--tests"]);
                packages
            }
        };
        for package in packages {
            command.args(["--package", package]);
            if *package == "global-alloc" {
                command.args(["--features", FEATURES]);
            }
        }
        if only_build {
            command.arg("--no-run");
        }
        command
    }
}

impl Stage {
    fn name(self) -> String {
        match self {
            Self::Unit(package) => format!("unit tests of {package}"),
            Self::Integration(package) => format!("integration tests of {package}"),
            Self::Loom(package) => format!("loom models of {package}"),
            Self::Above(packages) => format!("tests of {}", packages.join(", ")),
        }
    }
}

/// Returns the stages for `mutant`, the quickest first.
fn stages(krate: &Crate, mutant: &Mutant) -> Vec<Stage> {
    let text = &mutant.source.text;
    let is_concurrent = text.contains("atomic") || text.contains("Mutex");
    let loom = (krate.loom && is_concurrent).then_some(Stage::Loom(krate.package));
    if mutant.kind == Kind::Ordering && loom.is_some() {
        // This machine may order memory more strictly than the ordering asks for.
        return loom.into_iter().collect();
    }
    let mut stages = vec![Stage::Unit(krate.package)];
    if krate.has_integration_tests() {
        stages.push(Stage::Integration(krate.package));
    }
    stages.extend(loom);
    if !krate.above.is_empty() {
        stages.push(Stage::Above(krate.above));
    }
    stages
}
