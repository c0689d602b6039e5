//! The workloads on CPython's own allocator of objects.

use std::process::ExitCode;

use benches::{contender::Realloc, contenders::CPython, worker};

fn main() -> ExitCode {
    match CPython::load() {
        Ok(python) => {
            let version = python.version().to_owned();
            worker::serve_single(python, Realloc::Own, Some(version))
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
