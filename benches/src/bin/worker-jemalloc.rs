//! The workloads on jemalloc as the global allocator.

use std::process::ExitCode;

use benches::{contender::Realloc, worker};

#[global_allocator]
static GLOBAL: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let version = tikv_jemalloc_ctl::version::read().ok();
    let version = version.map(|version| version.trim_end_matches(char::from(0)).to_owned());
    worker::serve_global(Realloc::Own, version)
}
