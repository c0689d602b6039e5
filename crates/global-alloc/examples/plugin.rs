//! A shared library that has obmalloc as its allocator, as a plug-in of another program may.

#[global_allocator]
static GLOBAL: global_alloc::ObMalloc = global_alloc::ObMalloc::new();

/// Builds and drops strings, and returns how many bytes they had.
#[unsafe(no_mangle)]
pub extern "C" fn work(count: usize) -> usize {
    let words: Vec<String> = (0..count).map(|number| number.to_string()).collect();
    words.concat().len()
}
