//! The path of a freed block from the thread that freed it to the heap that owns it.
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
