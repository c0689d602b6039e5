//! Workloads with blocks of 16 bytes to 16 MiB on one thread.
//!
//! | workload | what it does |
//! | --- | --- |
//! | pair | allocates a block and frees it |
//! | batch | allocates up to 1,000 blocks of one size, and frees them in the same order |
//! | written pair | does the same as pair, and writes to every page of the block |
//! | vector | grows a vector to 16 MiB and writes to every byte |
//! | zeroed pair | allocates a zeroed block, reads every page of it, and frees it |
//! | aligned | allocates 100 blocks of 16 bytes to 256 KiB with an alignment, and frees them |
//!
//! In pairs, batches and aligned blocks, only the first byte is written to, so the time is that of
//! the allocator. If the allocator returns memory to the system after each block, the time includes
//! the page fault of that byte.
//!
//! Only global allocators run these workloads. A heap that one owner uses directly serves no block
//! of more than 512 bytes. CPython's allocator passes such blocks to the C library, which is
//! measured as the system's allocator.

mod aligned;
mod blocks;
mod bytes;
mod growth;

use crate::{
    contenders::Global,
    workload::{Group, Taken, Workload},
};
use bytes::{KIB, MIB};

/// Returns a pair and a batch for each of the sizes, whose name follows the size.
macro_rules! pairs_and_batches {
    ($($size:expr => $name:literal),* $(,)?) => {
        [$(
            workload(concat!("pair ", $name), blocks::pair::<{ $size }>),
            workload(concat!("batch ", $name), blocks::batch::<{ $size }>),
        )*]
    };
}

/// Returns all workloads of this group.
pub fn workloads() -> Vec<Workload<Global>> {
    let mut workloads = Vec::from(pairs_and_batches![
        16 => "16 B",
        32 => "32 B",
        64 => "64 B",
        128 => "128 B",
        256 => "256 B",
        512 => "512 B",
        KIB => "1 KiB",
        2 * KIB => "2 KiB",
        4 * KIB => "4 KiB",
        16 * KIB => "16 KiB",
        64 * KIB => "64 KiB",
        256 * KIB => "256 KiB",
        MIB => "1 MiB",
        4 * MIB => "4 MiB",
        16 * MIB => "16 MiB",
    ]);
    // Stable, so that the pairs come first and each kind is in the order of size.
    workloads.sort_by_key(|one| one.name.starts_with("batch"));
    workloads.extend([
        workload("written pair 64 KiB", blocks::written::<{ 64 * KIB }>),
        workload("written pair 1 MiB", blocks::written::<MIB>),
        workload("written pair 16 MiB", blocks::written::<{ 16 * MIB }>),
        workload("zeroed pair 64 KiB", blocks::zeroed::<{ 64 * KIB }>),
        workload("zeroed pair 1 MiB", blocks::zeroed::<MIB>),
        workload("zeroed pair 16 MiB", blocks::zeroed::<{ 16 * MIB }>),
        workload("vector to 16 MiB, realloc", growth::doubled),
        workload("vector to 16 MiB, push", growth::pushed),
        workload("aligned to 64 B", aligned::batch::<64>),
        workload("aligned to 4 KiB", aligned::batch::<{ 4 * KIB }>),
        workload("aligned to 64 KiB", aligned::batch::<{ 64 * KIB }>),
    ]);
    workloads
}

fn workload(name: &'static str, chunk: fn(&mut Global) -> Taken) -> Workload<Global> {
    Workload::new(Group::Sizes, name, chunk)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_size_has_a_pair_and_a_batch() {
        let names: BTreeSet<_> = workloads().iter().map(|one| one.name).collect();
        assert_eq!(names.len(), workloads().len(), "each name is used once");
        let sizes: Vec<_> = names.iter().filter_map(|name| name.strip_prefix("pair ")).collect();
        assert_eq!(sizes.len(), 15);
        for size in sizes {
            assert!(names.contains(format!("batch {size}").as_str()), "{size}");
        }
    }
}
