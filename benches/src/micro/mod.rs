//! A few instructions over and over, on one thread.
//!
//! An operation is a block's life: its allocation and its free. Where a block grows, each step is
//! one.

mod batch;
mod growth;
mod mixed;
mod pair;

use crate::{
    contender::Contender,
    workload::{Group, Workload},
};

/// Blocks that are live at once in a batch.
pub const BATCH: usize = 10_000;

/// All of them.
pub fn workloads<C: Contender>() -> Vec<Workload<C>> {
    let workload = |name, chunk| Workload::new(Group::Micro, name, chunk);
    vec![
        workload("pair 16", pair::plain::<C, 16>),
        workload("pair 64", pair::plain::<C, 64>),
        workload("pair 256", pair::plain::<C, 256>),
        workload("pair 512", pair::plain::<C, 512>),
        workload("zeroed 64", pair::zeroed::<C, 64>),
        workload("zeroed 512", pair::zeroed::<C, 512>),
        workload("batch same", batch::same),
        workload("batch reverse", batch::reverse),
        workload("batch random", batch::random),
        workload("mixed", mixed::replace),
        workload("grow by 16", growth::by_16),
        workload("grow twofold", growth::twofold),
    ]
}
