//! Runs the programs in C with each allocator as a preloaded library.
//!
//! The programs are a single executable that speaks the protocol of a worker. A worker is therefore
//! this executable together with the library that `LD_PRELOAD` names.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use super::{
    entrant::{Entrant, Role},
    worker::{Program, Worker},
};
use crate::{peers::Peer, process, workspace};

/// The allocators that programs in C can use, by the name of the worker of an [`Entrant`].
const LIBRARIES: [(&str, Option<Peer>); 5] = [
    ("libobmalloc", None),
    ("libmimalloc-v2", Some(Peer::MimallocV2)),
    ("libmimalloc-v3", Some(Peer::MimallocV3)),
    ("libjemalloc", Some(Peer::Jemalloc)),
    ("libc", None),
];

/// Compiles the programs into `folder`, and returns a worker for each of `entrants`.
///
/// A library of another project that does not build is added to `left_out`.
///
/// # Errors
///
/// Fails if the programs or our own library do not build.
pub(super) fn workers(
    entrants: &[Entrant],
    folder: &Path,
    left_out: &mut Vec<String>,
) -> Result<Vec<Worker>> {
    let programs = compile(folder)?;
    let mut workers = Vec::new();
    for entrant in entrants {
        match worker(entrant, &programs) {
            Ok(worker) => workers.push(worker),
            Err(error) if entrant.role == Role::Ours => return Err(error),
            Err(error) => left_out.push(format!("{}: {error:#}", entrant.name)),
        }
    }
    Ok(workers)
}

fn worker(entrant: &Entrant, programs: &Path) -> Result<Worker> {
    let peer = LIBRARIES.iter().find(|(name, _)| *name == entrant.worker).and_then(|one| one.1);
    let library = match (entrant.role, peer) {
        (Role::Ours, _) => Some(workspace::build_malloc()?),
        (_, Some(peer)) => Some(peer.library()?),
        (_, None) => None,
    };
    let environment = library.map(|library| ("LD_PRELOAD", library.into())).into_iter().collect();
    let path = programs.to_owned();
    Worker::introduced(*entrant, Program { path, arguments: Vec::new(), environment })
}

/// Compiles the programs with the system's compiler.
///
/// If the compiler knows `malloc`, it may remove a pair of calls. We therefore hide the function
/// from it.
fn compile(folder: &Path) -> Result<PathBuf> {
    let sources = fs::read_dir(workspace::root().join("benches/c"))?;
    let sources: Vec<PathBuf> = sources.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    let program = folder.join("c-programs");
    let mut cc = Command::new("cc");
    cc.args(["-std=gnu11", "-O2", "-fno-builtin", "-pthread", "-Wall", "-Wextra", "-Werror"]);
    cc.args(sources.iter().filter(|path| path.extension().is_some_and(|kind| kind == "c")));
    process::stdout_of(cc.arg("-o").arg(&program).args(["-lm", "-ldl"]))?;
    Ok(program)
}

#[cfg(test)]
mod tests {
    use benches::{c_programs::NAMES, workload::Group};

    use super::{super::entrant::PRELOADED, *};

    #[test]
    fn the_programs_compile_without_warnings_and_introduce_themselves() {
        let folder = tempfile::tempdir().unwrap();
        let system = PRELOADED.iter().find(|one| one.worker == "libc").unwrap();
        let worker = worker(system, &compile(folder.path()).unwrap()).unwrap();
        let listed = &worker.introduction.workloads;
        assert!(listed.iter().all(|one| one.group == Group::C));
        assert_eq!(listed.iter().map(|one| &*one.name).collect::<Vec<_>>(), NAMES);
    }

    #[test]
    fn every_entrant_has_a_library_or_needs_none() {
        for entrant in PRELOADED {
            assert!(LIBRARIES.iter().any(|one| one.0 == entrant.worker), "{}", entrant.name);
        }
    }
}
