//! Functions that only glibc has: statistics, settings, and older names of other functions.

use std::{ffi::c_void, fmt::Write};

use libc::{FILE, c_char, c_int, size_t};
use obmalloc::Kind;

use crate::{
    aligned::{aligned, at_page, whole_pages},
    c::{or_null, release, release_in_force, resized, zeroed},
    heap::{self, MIN_ALIGN},
    report,
};

/// Returns unused memory to the system. The result is 1 if there was any, and 0 otherwise.
///
/// Unmaps empty arenas, and purges pages that contain no live block. The argument `pad` has no
/// effect.
#[unsafe(no_mangle)]
pub extern "C" fn malloc_trim(pad: size_t) -> c_int {
    let _ = pad;
    c_int::from(heap::trim() > 0)
}

/// Returns figures of all threads in the format of glibc. Fields that have no meaning here are 0.
///
/// If a thread frees a block of another thread's heap, it passes the block to the owner of the
/// heap. The figures count the block as free from then on, even if the owner has not reclaimed it
/// yet.
///
/// With `OBMALLOC=debug`, all figures are 0.
///
/// A signal handler must not call this function. The same holds for glibc's own `mallinfo2`.
#[unsafe(no_mangle)]
pub extern "C" fn mallinfo2() -> libc::mallinfo2 {
    info()
}

fn info() -> libc::mallinfo2 {
    let figures = heap::totals_of_process();
    let large = figures.of_kind(Kind::Large);
    let arenas = figures.arenas() * heap::ARENA;
    let in_use = figures.allocated().saturating_sub(large.allocated).min(arenas);
    libc::mallinfo2 {
        arena: arenas,
        ordblks: 0,
        smblks: 0,
        hblks: large.blocks,
        hblkhd: large.active,
        usmblks: 0,
        fsmblks: 0,
        uordblks: in_use,
        fordblks: arenas - in_use,
        keepcost: figures.retained(),
    }
}

/// Returns the figures of [`mallinfo2()`] as 32-bit numbers. Larger numbers become `INT_MAX`.
#[unsafe(no_mangle)]
pub extern "C" fn mallinfo() -> libc::mallinfo {
    let all = info();
    let cut = |number: usize| c_int::try_from(number).unwrap_or(c_int::MAX);
    libc::mallinfo {
        arena: cut(all.arena),
        ordblks: 0,
        smblks: 0,
        hblks: cut(all.hblks),
        hblkhd: cut(all.hblkhd),
        usmblks: 0,
        fsmblks: 0,
        uordblks: cut(all.uordblks),
        fordblks: cut(all.fordblks),
        keepcost: cut(all.keepcost),
    }
}

/// Prints the statistics to stderr.
#[unsafe(no_mangle)]
pub extern "C" fn malloc_stats() {
    report::print();
}

/// Sets nothing, because the parameters describe glibc's own heap. Returns 0, which means failure.
#[unsafe(no_mangle)]
pub extern "C" fn mallopt(parameter: c_int, value: c_int) -> c_int {
    let _ = (parameter, value);
    0
}

/// Writes the figures of [`mallinfo2()`] to `stream` as XML.
///
/// Returns 0, `EINVAL` if `options` is not 0, or -1 if the text cannot be written.
///
/// # Safety
///
/// - `stream` must be an open stream of the C library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc_info(options: c_int, stream: *mut FILE) -> c_int {
    if options != 0 {
        return libc::EINVAL;
    }
    let all = info();
    let mut text = Text { bytes: [0; 512], len: 0 };
    let written = write!(
        text,
        "<malloc version=\"obmalloc-{}\">\n<system type=\"current\" size=\"{}\"/>\n\
         <total type=\"rest\" count=\"0\" size=\"{}\"/>\n\
         <total type=\"mmap\" count=\"{}\" size=\"{}\"/>\n</malloc>\n",
        env!("CARGO_PKG_VERSION"),
        all.arena,
        all.fordblks,
        all.hblks,
        all.hblkhd,
    );
    // SAFETY: the text ends with a zero byte, and the stream is open (contract).
    let outcome = unsafe { libc::fputs(text.bytes.as_ptr().cast::<c_char>(), stream) };
    if written.is_ok() && outcome >= 0 { 0 } else { -1 }
}

/// A C string. The last byte is always 0.
struct Text {
    bytes: [u8; 512],
    len: usize,
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.len + text.len();
        let room = self.bytes[..511].get_mut(self.len..end).ok_or(std::fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

/// Defines functions under the older names of glibc.
macro_rules! older {
    ($($symbol:ident($($name:ident: $type:ty),*) $(-> $result:ty)? = $body:expr;)*) => { $(
        #[doc = "An older name of another function of this library."]
        ///
        /// # Safety
        ///
        /// - Each pointer argument must be null or point to a live block that this library has
        ///   allocated.
        /// - Once the function has freed or moved a block, the caller must no longer use the old
        ///   address of the block.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $symbol($($name: $type),*) $(-> $result)? {
            $body
        }
    )* };
}

// We export older and internal names too, such as `cfree` and `__libc_malloc`, because some
// programs call them. A program may pass a block from `__libc_malloc` to `free`, so both functions
// must use the same heap.
older! {
    // SAFETY: the contract is the same.
    cfree(ptr: *mut c_void) = unsafe { release_in_force(ptr) };
    // SAFETY: the contract is the same.
    __libc_free(ptr: *mut c_void) = unsafe { release(ptr) };
    // SAFETY: the contract is the same.
    __libc_realloc(ptr: *mut c_void, size: usize) -> *mut c_void = unsafe { resized(ptr, size) };
    __libc_malloc(size: usize) -> *mut c_void = or_null(heap::alloc(size, MIN_ALIGN));
    __libc_calloc(count: usize, size: usize) -> *mut c_void = zeroed(count, size);
    __libc_memalign(align: usize, size: usize) -> *mut c_void = aligned(align, size);
    __libc_valloc(size: usize) -> *mut c_void = at_page(size);
    __libc_pvalloc(size: usize) -> *mut c_void = whole_pages(size);
}
