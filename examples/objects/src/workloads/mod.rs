//! Rust versions of programs in `examples/python`. They do the same work on the same types of
//! objects.

mod dict_list_churn;
mod json_round_trip;
mod object_tree;

use clap::ValueEnum;

use crate::{Layers, Runtime};

/// A program. It has the same name as the Python program in `examples/python`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Workload {
    /// Dicts and lists that grow, shrink and are dropped.
    DictListChurn,
    /// JSON that is written and read again.
    JsonRoundTrip,
    /// A tree of small objects that is built and dropped several times.
    ObjectTree,
}

impl Workload {
    /// Every program.
    pub const ALL: [Self; 3] = [Self::DictListChurn, Self::JsonRoundTrip, Self::ObjectTree];

    /// Returns the name of the program.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DictListChurn => "dict_list_churn",
            Self::JsonRoundTrip => "json_round_trip",
            Self::ObjectTree => "object_tree",
        }
    }

    /// Returns the line that the Python program in `examples/python` prints. Ours must print the
    /// same line.
    pub const fn prints(self) -> &'static str {
        match self {
            Self::DictListChurn => "lists 28344818526 dicts 10148922",
            Self::JsonRoundTrip => "json 331328",
            Self::ObjectTree => "trees 133093 kept 817004",
        }
    }

    /// Runs the program, and returns the line that it prints.
    ///
    /// # Panics
    ///
    /// Panics if memory is exhausted.
    pub fn run<L: Layers>(self, runtime: &Runtime<L>) -> String {
        match self {
            Self::DictListChurn => dict_list_churn::run(runtime),
            Self::JsonRoundTrip => json_round_trip::run(runtime),
            Self::ObjectTree => object_tree::run(runtime),
        }
    }
}
