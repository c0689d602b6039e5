#![doc = include_str!("../README.md")]

mod file;
pub mod folder;
mod text;

#[cfg(all(test, loom))]
mod models;

pub use file::{KEPT, Page, SIZE, StatusFile, start_time, this_process};
pub use text::SharedText;
