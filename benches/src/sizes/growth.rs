//! Vectors that grow to 16 MiB.

use std::hint::black_box;

use super::bytes::MIB;
use crate::{contender::Held, contenders::Global, workload::Taken};

const FIRST: usize = 16;

const FULL: usize = 16 * MIB;

/// The number of vectors in a chunk. Each of them takes milliseconds.
const VECTORS: usize = 2;

/// Repeatedly doubles a block of 16 bytes with `realloc`, and writes to every new byte.
pub(super) fn doubled(contender: &mut Global) -> Taken {
    Taken::by(VECTORS, || {
        for _ in 0..VECTORS {
            let mut held = Held::new(contender, black_box(FIRST));
            held.fill(0);
            while held.size() < FULL {
                let size = held.size();
                held = held.resize(contender, size * 2);
                held.fill(size);
            }
            held.free(contender);
        }
    })
}

/// Pushes words to a vector of the standard library, which doubles its capacity when it is full.
pub(super) fn pushed(_: &mut Global) -> Taken {
    Taken::by(VECTORS, || {
        for _ in 0..VECTORS {
            let mut vector: Vec<usize> = Vec::new();
            for number in 0..black_box(FULL / size_of::<usize>()) {
                vector.push(number);
            }
            black_box(&vector);
        }
    })
}
