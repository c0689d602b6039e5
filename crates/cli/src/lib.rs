#![doc = include_str!("../README.md")]

pub mod command_line;
pub mod compare;
pub mod doctor;
mod env_line;
pub mod environment;
mod executable;
pub mod failure;
pub mod libraries;
pub mod live;
pub mod manual;
pub mod measure;
mod output;
pub mod own_folder;
pub mod preload;
mod processes;
pub mod program;
pub mod python;
pub mod reports;
pub mod run;
pub mod side;
mod started;
pub mod system;
pub mod table;
pub mod target;
