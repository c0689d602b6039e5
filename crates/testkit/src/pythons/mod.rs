//! Finds the CPythons on this machine.
//!
//! `$OBMALLOC_PYTHONS` lists the Pythons to use, in the format of `PATH`. It replaces the search.
//! Each program is asked for its version, because a script of pyenv can start any version.

pub mod brought;
mod python;
mod search;

pub(crate) use self::python::parse_version;
pub use self::{
    python::{Python, SUPPORTED, clean_command},
    search::{NAMED, Search, are_named, find, search},
};
