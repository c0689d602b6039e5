//! A program without the standard library. It exits with 0 if `program` runs to its end.

#![no_std]
#![no_main]

mod program;

use core::{
    ffi::{c_int, c_void},
    fmt::{self, Write},
    panic::PanicInfo,
};

#[link(name = "c")]
unsafe extern "C" {
    fn abort() -> !;
    fn write(file: c_int, bytes: *const c_void, count: usize) -> isize;
}

struct Stderr;

impl Write for Stderr {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // SAFETY: the pointer and the length are those of `text`.
        match unsafe { write(2, text.as_ptr().cast(), text.len()) } {
            ..0 => Err(fmt::Error),
            _ => Ok(()),
        }
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let _ = writeln!(Stderr, "{info}");
    // SAFETY: `abort` has no precondition.
    unsafe { abort() }
}

#[unsafe(no_mangle)]
extern "C" fn main() -> c_int {
    program::main();
    0
}
