//! What a run measured.

use std::collections::BTreeMap;

use benches::memory::Curve;

use super::{
    super::machine::Machine,
    way::{Host, Way},
};

/// The curves of all ways, by host and workload.
pub(super) type Curves = BTreeMap<(Host, &'static str), Vec<(&'static Way, Curve)>>;

/// Everything that was measured.
pub(super) struct Measured {
    pub(super) machine: Machine,
    pub(super) python: String,
    pub(super) curves: Curves,
    pub(super) left_out: Vec<String>,
}
