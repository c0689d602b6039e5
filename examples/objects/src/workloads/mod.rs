//! The programs of `examples/python`, one by one: the same work on the same kinds of objects, and
//! the same line at the end.

mod async_echo;
mod class_simulation;
mod dict_list_churn;
mod event_queue;
mod expression_parser;
mod json_round_trip;
mod object_tree;
mod string_building;
mod text_counts;

use crate::{Layers, Runtime};

/// A program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Its name: that of the program in `examples/python`.
    pub name: &'static str,
    /// What the program prints.
    pub prints: &'static str,
}

macro_rules! workloads {
    ($($name:ident: $prints:literal),* $(,)?) => {
        /// All of them.
        pub const ALL: &[Workload] =
            &[$(Workload { name: stringify!($name), prints: $prints }),*];

        impl Workload {
            /// Runs the program, and returns what it prints.
            ///
            /// # Panics
            ///
            /// Panics when there is no memory.
            pub fn run<L: Layers>(self, runtime: &Runtime<L>) -> String {
                match self.name {
                    $(stringify!($name) => $name::run(runtime),)*
                    other => unreachable!("{other} is not in the table that this is made of"),
                }
            }
        }
    };
}

workloads! {
    async_echo: "echoed 22500 checksum 2314100",
    class_simulation: "trades 712395 goods 712395 money 150000.000",
    dict_list_churn: "lists 28344818526 dicts 10148922",
    event_queue: "events 644000 ended at 4694.788 kept 3000",
    expression_parser: "expressions 636191",
    json_round_trip: "json 331328",
    object_tree: "trees 133093 kept 817004",
    string_building: "strings 404074",
    text_counts: "words 684 checksum 335760",
}
