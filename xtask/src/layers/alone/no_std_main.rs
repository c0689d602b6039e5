//! A program without the standard library: its exit code says whether `program` ran to its end.

#![no_std]
#![no_main]

mod bump;
mod program;

use core::{ffi::c_int, panic::PanicInfo};

#[link(name = "c")]
unsafe extern "C" {
    fn abort() -> !;
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    // SAFETY: abort may be called at any time.
    unsafe { abort() }
}

#[unsafe(no_mangle)]
extern "C" fn main() -> c_int {
    program::main();
    0
}
