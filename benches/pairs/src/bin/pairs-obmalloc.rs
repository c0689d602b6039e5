//! Pairs of an allocation and a free, on obmalloc.

#[global_allocator]
static GLOBAL: global_alloc::ObMalloc = global_alloc::ObMalloc::new();

fn main() {
    pairs::main();
}
