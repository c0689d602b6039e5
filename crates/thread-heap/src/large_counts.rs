//! The number and the size of the large blocks in use.

#![forbid(unsafe_code)]

use sync::atomic::AtomicUsize;

/// The large blocks in use. The counts are for reports, so no other memory is tied to them.
pub(crate) struct LargeCounts {
    pub(crate) blocks: AtomicUsize,
    pub(crate) bytes: AtomicUsize,
}

impl LargeCounts {
    sync::const_unless_model! {
        pub(crate) fn new() -> Self {
            Self { blocks: AtomicUsize::new(0), bytes: AtomicUsize::new(0) }
        }
    }
}
