//! A shared library with obmalloc as its allocator, such as a plug-in of another program.

#[global_allocator]
static GLOBAL: global_alloc::ObMalloc = global_alloc::ObMalloc::new();

/// Creates and drops strings, and returns their total length in bytes.
#[unsafe(no_mangle)]
pub extern "C" fn work(count: usize) -> usize {
    let words: Vec<String> = (0..count).map(|number| number.to_string()).collect();
    words.concat().len()
}
