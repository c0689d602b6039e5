//! Tells memory checkers which memory must not be used.
//!
//! An allocator that returns memory to the system marks this memory as inaccessible. A memory
//! checker, which is Valgrind's memcheck or AddressSanitizer, then reports every access to it. A
//! mark does not change the protection of the pages, so it has no effect without a memory checker.
//!
//! The marks reach memcheck in every build for x86-64, except on Windows and under Miri. If the
//! program does not run under Valgrind, a mark costs about ten instructions and has no effect.
//!
//! The marks reach AddressSanitizer only in builds with `--cfg asan`, because its functions exist
//! only in programs that are linked with AddressSanitizer.

/// Marks `len` bytes from the address `start` as inaccessible.
pub fn mark_inaccessible(start: usize, len: usize) {
    memcheck::request(memcheck::MAKE_MEM_NOACCESS, start, len);
    sanitizer::poison(start, len);
}

/// Marks `len` bytes from the address `start` as accessible and initialised.
pub fn mark_accessible(start: usize, len: usize) {
    memcheck::request(memcheck::MAKE_MEM_DEFINED, start, len);
    sanitizer::unpoison(start, len);
}

/// Requests to memcheck, as Valgrind 3.25 defines them in `valgrind.h` and `memcheck.h`.
mod memcheck {
    const MEMCHECK: usize = (b'M' as usize) << 24 | (b'C' as usize) << 16;
    pub(super) const MAKE_MEM_NOACCESS: usize = MEMCHECK;
    pub(super) const MAKE_MEM_DEFINED: usize = MEMCHECK + 2;

    /// Makes a request. Has no effect in a process that does not run under Valgrind.
    #[cfg(all(target_arch = "x86_64", target_pointer_width = "64", not(any(miri, windows))))]
    #[inline]
    pub(super) fn request(code: usize, start: usize, len: usize) {
        let request = [code, start, len, 0, 0, 0];
        // SAFETY: the rotations add up to 128 bits, so `rdi` keeps its value, and exchanging a
        // register with itself has no effect. Valgrind recognises the sequence. It then reads the
        // request at `rax`, and writes its answer to `rdx`.
        unsafe {
            core::arch::asm!(
                "rol rdi, 3",
                "rol rdi, 13",
                "rol rdi, 61",
                "rol rdi, 51",
                "xchg rbx, rbx",
                in("rax") &raw const request,
                inout("rdx") 0_usize => _,
                options(nostack),
            );
        }
    }

    /// Does nothing, because the sequence of instructions depends on the architecture.
    #[cfg(not(all(target_arch = "x86_64", target_pointer_width = "64", not(any(miri, windows)))))]
    pub(super) fn request(_code: usize, _start: usize, _len: usize) {}
}

/// Requests to AddressSanitizer, as LLVM declares them in `sanitizer/asan_interface.h`.
#[cfg(asan)]
mod sanitizer {
    use core::{ffi::c_void, ptr};

    unsafe extern "C" {
        fn __asan_poison_memory_region(start: *const c_void, len: usize);
        fn __asan_unpoison_memory_region(start: *const c_void, len: usize);
    }

    pub(super) fn poison(start: usize, len: usize) {
        // SAFETY: the call changes only the sanitizer's own memory.
        unsafe { __asan_poison_memory_region(ptr::without_provenance(start), len) }
    }

    pub(super) fn unpoison(start: usize, len: usize) {
        // SAFETY: as above.
        unsafe { __asan_unpoison_memory_region(ptr::without_provenance(start), len) }
    }
}

/// Does nothing, because the program is not linked with AddressSanitizer.
#[cfg(not(asan))]
mod sanitizer {
    pub(super) fn poison(_start: usize, _len: usize) {}

    pub(super) fn unpoison(_start: usize, _len: usize) {}
}
