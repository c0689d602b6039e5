//! Runs the threads of a pattern.

use std::thread;

use crate::{contender::Held, pin, workload::Taken};

/// Runs `work` on one pinned thread for each element of `needs`.
pub(super) fn on_threads<N: Send>(
    mut needs: Vec<N>,
    operations: usize,
    work: impl Fn(usize, &mut N) + Sync,
) -> Taken {
    Taken::together(needs.len() * operations, || {
        thread::scope(|scope| {
            for (number, need) in needs.iter_mut().enumerate() {
                let work = &work;
                scope.spawn(move || {
                    pin::to_processor(number);
                    work(number, need);
                });
            }
        });
    })
}

pub(super) fn room(blocks: usize) -> Vec<Held> {
    Vec::with_capacity(blocks)
}
