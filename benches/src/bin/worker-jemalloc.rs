//! The workloads on jemalloc as the global allocator.

use tikv_jemallocator::Jemalloc;

benches::global_worker!(Jemalloc = Jemalloc, Own, version());

fn version() -> Option<String> {
    let version = tikv_jemalloc_ctl::version::read().ok()?;
    Some(version.trim_end_matches(char::from(0)).to_owned())
}
