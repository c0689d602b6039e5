//! The symbols of the library.

use std::{collections::BTreeSet, process::Command};

use crate::support::{library, run};

/// Every symbol that the library exports.
const SYMBOLS: &str = "
    malloc free calloc realloc reallocarray malloc_usable_size free_sized free_aligned_sized cfree
    posix_memalign aligned_alloc memalign valloc pvalloc
    malloc_trim mallinfo mallinfo2 malloc_stats mallopt malloc_info
    __libc_malloc __libc_calloc __libc_realloc __libc_free __libc_memalign __libc_valloc
    __libc_pvalloc
    obmalloc_version obmalloc_figures
    _exit _Exit sigaction signal __sysv_signal __register_atfork
    _Znwm _Znam _ZnwmRKSt9nothrow_t _ZnamRKSt9nothrow_t _ZnwmSt11align_val_t _ZnamSt11align_val_t
    _ZnwmSt11align_val_tRKSt9nothrow_t _ZnamSt11align_val_tRKSt9nothrow_t
    _ZdlPv _ZdaPv _ZdlPvm _ZdaPvm _ZdlPvRKSt9nothrow_t _ZdaPvRKSt9nothrow_t
    _ZdlPvSt11align_val_t _ZdaPvSt11align_val_t _ZdlPvmSt11align_val_t _ZdaPvmSt11align_val_t
    _ZdlPvSt11align_val_tRKSt9nothrow_t _ZdaPvSt11align_val_tRKSt9nothrow_t
";

#[test]
fn the_library_exports_these_symbols_and_no_others() {
    let exports = run(Command::new("nm").args(["-D", "--defined-only"]).arg(library()));
    let exports = &exports.is_clean().stdout;
    let found: BTreeSet<_> = exports.lines().filter_map(|line| line.split(' ').nth(2)).collect();
    assert_eq!(found, SYMBOLS.split_whitespace().collect());
}

#[test]
fn the_library_needs_nothing_but_the_c_library_and_knows_its_name() {
    let dynamic = run(Command::new("readelf").arg("-d").arg(library())).stdout;
    let mut needs = dynamic.lines().filter(|line| line.contains("(NEEDED)"));
    assert!(needs.all(|line| line.contains("[libc.so") || line.contains("[ld-linux")));
    assert!(dynamic.contains("soname: [libobmalloc.so]"), "{dynamic}");
    assert!(dynamic.contains("NODELETE"), "dlclose unloads the library: {dynamic}");
}

/// Exported functions to which this library itself refers by name. The program may have replaced
/// the forms of `operator new` and `operator delete` that other forms call. The addresses of
/// `malloc_info` and `__libc_pvalloc` show whether we precede the C library.
const BASES: &str = "
    malloc_info __libc_pvalloc
    _Znwm _Znam _ZnwmSt11align_val_t _ZnamSt11align_val_t
    _ZdlPv _ZdaPv _ZdlPvSt11align_val_t _ZdaPvSt11align_val_t
";

#[test]
fn no_exported_function_calls_another_one_by_its_name_except_forms_of_new_and_delete() {
    let relocations = run(Command::new("readelf").args(["-rW"]).arg(library())).stdout;
    let own = |symbol: &&str| {
        // The unwinder and the standard library pass memory to the C library and get memory from
        // it. Functions such as `reallocarray` and `free_sized` call the program's `realloc` and
        // `free`. `pthread_atfork`, which is linked statically, calls `__register_atfork`.
        let theirs = ["malloc", "calloc", "realloc", "free", "posix_memalign", "__register_atfork"];
        !theirs.contains(symbol) && SYMBOLS.split_whitespace().any(|own| own == *symbol)
    };
    let symbols = relocations.lines().filter_map(|line| line.split_whitespace().nth(4));
    let own: BTreeSet<_> = symbols.filter(own).collect();
    assert_eq!(own, BASES.split_whitespace().collect());
}
