//! How freed blocks get from the thread that freed them to the owner of the heap that they belong
//! to.
//!
//! ```text
//!   freeing thread                                     owner
//!   outbox ── up to 32 blocks, as few batches ──► inbox ── take_all ──► pools
//!                                                   │  ▲
//!                                    a takeover by  ▼  │
//!                                    another thread  waiting pools
//! ```

pub(crate) mod batch;
pub(crate) mod inbox;
pub(crate) mod outbox;
pub(crate) mod takeover;
pub(crate) mod waiting_pools;
