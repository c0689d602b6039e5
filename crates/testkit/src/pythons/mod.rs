//! Finds the CPythons on this machine.
//!
//! If the environment variable `OBMALLOC_PYTHONS` is set, it lists the Pythons to use, separated as
//! in `PATH`. Otherwise, we search the usual places, such as `PATH` and the folder of pyenv. We ask
//! each program for its version, because file names are not reliable: pyenv's scripts can run any
//! version.

pub mod brought;
mod python;
mod search;

pub(crate) use self::python::parse_version;
pub use self::{
    python::{Python, SUPPORTED, clean_command},
    search::{NAMED, Search, are_named, find, search},
};
