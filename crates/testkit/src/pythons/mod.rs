//! Finds the CPythons on this machine.
//!
//! `$OBMALLOC_PYTHONS` lists the ones to use, in the format of `PATH`. Without it, the usual places
//! and the [downloaded](brought) Pythons are searched.
//!
//! Each program is asked for its version, because pyenv's programs are scripts that start whichever
//! Python pyenv is configured for.

pub mod brought;
mod python;
mod search;

pub(crate) use self::python::parse_version;
pub use self::{
    python::{Python, SUPPORTED, clean_command},
    search::{NAMED, Search, are_named, find, search},
};
