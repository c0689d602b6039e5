//! Running processes that have a status page.

#![forbid(unsafe_code)]

mod list;
mod page;
mod stats;
mod trim;

pub use self::{
    list::{PsArgs, ps},
    stats::{StatsArgs, stats},
    trim::{TrimArgs, trim},
};
