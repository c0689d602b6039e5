//! The program `obmalloc`. `obmalloc help` lists its commands.

#![forbid(unsafe_code)]

use std::{
    io::{self, Write},
    process::ExitCode,
};

use obmalloc_cli::{command_line, system};

fn main() -> ExitCode {
    system::end_on_closed_pipes();
    match command_line::obey() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // If stderr is closed too, only the exit code can tell that the command failed.
            let _ = writeln!(io::stderr(), "error: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}
