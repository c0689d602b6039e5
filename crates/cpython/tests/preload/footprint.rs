//! The memory that the library itself takes.

use std::process::Command;

use crate::support::{plain, preloaded, run, supported};

const KIB: u64 = 1024;

/// The private memory that a Python may take in addition with the library, in bytes.
///
/// The goal is 64 KiB, which CPython 3.12 and 3.14 meet. The library takes 148 KiB in 3.11, most of
/// it in arenas, and up to 80 KiB in other versions.
const MOST_PRIVATE: u64 = 160 * KIB;

/// The resident memory that a Python may take in addition with the library, in bytes.
///
/// The goal is 256 KiB, which CPython 3.12 and 3.13 meet. The library takes up to 364 KiB in other
/// versions. About 200 KiB of it are the code and constants of the library.
const MOST_RESIDENT: u64 = 384 * KIB;

/// The memory of a Python that has done nothing yet, in bytes.
#[derive(Clone, Copy, Debug)]
struct Footprint {
    resident: u64,
    /// The part that other processes cannot share, because its pages do not belong to a file.
    private: u64,
}

/// Returns the medians over several processes.
///
/// The kernel maps the code of a library in blocks. The number of blocks depends on the address of
/// the library, which is random. A few processes therefore take 50 to 150 KiB more than the others,
/// which would move a mean.
fn footprint(command: impl Fn() -> Command) -> Footprint {
    const PROCESSES: u64 = 21;
    let code = "print(open('/proc/self/smaps_rollup').read())";
    let texts: Vec<_> =
        (0..PROCESSES).map(|_| run(command().args(["-I", "-c", code])).stdout).collect();
    let median = |name: &str| {
        let bytes = |text: &String| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * KIB
        };
        let mut sizes: Vec<_> = texts.iter().map(bytes).collect();
        sizes.sort_unstable();
        sizes[sizes.len() / 2]
    };
    Footprint { resident: median("Rss:"), private: median("Anonymous:") }
}

#[test]
fn a_python_that_does_nothing_takes_little_more_memory() {
    for python in supported() {
        let (own, ours) = (footprint(|| plain(python)), footprint(|| preloaded(python)));
        let seen = format!("{}: {own:?}, {ours:?}", python.name());
        assert!(ours.private <= own.private + MOST_PRIVATE, "{seen}");
        assert!(ours.resident <= own.resident + MOST_RESIDENT, "{seen}");
    }
}
