//! Tests of the program `obmalloc` as a user runs it.

mod compare;
mod doctor;
mod environment;
mod live;
mod output;
mod paths;
mod refusals;
mod run;
mod support;
