//! Prints the pools of a small heap as JSON.
//!
//! ```sh
//! cargo run --release --example snapshot -p obmalloc --features serde
//! ```

use obmalloc::{Heap, Native, SizeClass};
use raw_mem::{Malloc, MmapArenas};

fn main() -> serde_json::Result<()> {
    let mut heap = Heap::<_, _, Native>::with_geometry(MmapArenas::new(), Malloc);
    let sizes = [400, 400, 400, 6000, 100_000];
    let blocks = sizes.map(|size| SizeClass::of(size).and_then(|class| heap.alloc(class)));
    assert!(blocks.iter().all(Option::is_some), "the system has memory");
    let snapshot = heap.snapshot();
    for pool in snapshot.arenas.iter().flat_map(|arena| &arena.runs).filter(|run| run.in_use > 0) {
        println!("{}", serde_json::to_string(pool)?);
    }
    Ok(())
}
