//! Runs the threads of a pattern.

use std::{hint::black_box, thread};

use crate::{contender::Held, pin, workload::Taken};

/// Runs `work` on one pinned thread for each element of `needs`.
///
/// Each thread moves its element to its own stack. In a shared vector, two threads could write to
/// the same cache line, depending on where the allocator under test puts the vector.
pub(super) fn on_threads<N: Send>(
    needs: Vec<N>,
    operations: usize,
    work: impl Fn(usize, &mut N) + Sync,
) -> Taken {
    let mut used = Vec::with_capacity(needs.len());
    // The threads return the elements, so that they are dropped after the measurement.
    Taken::together(needs.len() * operations, || {
        thread::scope(|scope| {
            let start = |(number, need)| {
                let work = &work;
                scope.spawn(move || {
                    pin::to_processor(number);
                    // `black_box` makes the compiler copy the element to the stack.
                    let mut need = black_box(need);
                    work(number, &mut need);
                    need
                })
            };
            let threads: Vec<_> = needs.into_iter().enumerate().map(start).collect();
            used.extend(threads.into_iter().map(|thread| thread.join()));
        });
    })
}

pub(super) fn room(blocks: usize) -> Vec<Held> {
    Vec::with_capacity(blocks)
}

/// Returns true if `value` is less than 64 KiB from the current frame, and therefore on the calling
/// thread's stack.
#[cfg(test)]
pub(super) fn is_on_this_stack<T>(value: &T) -> bool {
    let here = 0_u8;
    std::ptr::from_ref(value).addr().abs_diff((&raw const here).addr()) < 64 << 10
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Regression test: the states of all threads were in one vector, where two of them could share
    /// a cache line.
    #[test]
    fn the_state_of_a_thread_lies_on_its_stack() {
        on_threads(vec![0_u64; 4], 1, |_, need| assert!(is_on_this_stack(need)));
    }
}
