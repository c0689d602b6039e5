//! Each rule broken once, and found.

use super::*;

#[repr(align(16))]
struct Memory([u8; 64]);

/// Hands 64 zeroed bytes to `body`, with a shadow that knows of none of them.
fn in_memory(body: impl FnOnce(NonNull<u8>, Shadow)) {
    let mut memory = Memory([0; 64]);
    body(NonNull::from(&mut memory.0).cast(), Shadow::new(16));
}

#[test]
fn a_block_that_is_left_alone_passes() {
    in_memory(|start, mut shadow| {
        // SAFETY: both blocks lie in the memory.
        unsafe {
            shadow.given_zeroed(start, 16);
            shadow.given(start.add(16), 20);
        }
        shadow.check();
        assert_eq!((shadow.blocks(), shadow.bytes()), (2, 36));
        shadow.taken(start);
        assert_eq!(shadow.blocks(), 1);
    });
}

#[test]
#[should_panic(expected = "overlaps")]
fn a_block_over_the_end_of_another_is_found() {
    in_memory(|start, mut shadow| {
        // SAFETY: both blocks lie in the memory.
        unsafe {
            shadow.given(start, 17);
            shadow.given(start.add(16), 8);
        }
    });
}

#[test]
#[should_panic(expected = "overlaps")]
fn a_block_over_the_start_of_another_is_found() {
    in_memory(|start, mut shadow| {
        // SAFETY: both blocks lie in the memory.
        unsafe {
            shadow.given(start.add(16), 8);
            shadow.given(start, 17);
        }
    });
}

#[test]
#[should_panic(expected = "overlaps")]
fn one_address_for_two_blocks_of_zero_bytes_is_found() {
    in_memory(|start, mut shadow| {
        // SAFETY: no byte is touched.
        unsafe {
            shadow.given(start, 0);
            shadow.given(start, 0);
        }
    });
}

#[test]
#[should_panic(expected = "not aligned")]
fn a_misaligned_block_is_found() {
    // SAFETY: the block lies in the memory.
    in_memory(|start, mut shadow| unsafe { shadow.given(start.add(8), 8) });
}

#[test]
#[should_panic(expected = "byte 3 of the block of 8 bytes")]
fn an_overwritten_byte_is_found() {
    in_memory(|start, mut shadow| {
        // SAFETY: the block lies in the memory, and so does its fourth byte.
        unsafe {
            shadow.given(start, 8);
            start.add(3).write(0);
        }
        shadow.taken(start);
    });
}

#[test]
#[should_panic(expected = "overwritten")]
fn contents_that_did_not_move_along_are_found() {
    in_memory(|start, mut shadow| {
        // SAFETY: both blocks lie in the memory.
        unsafe {
            shadow.given(start, 8);
            shadow.moved(start, start.add(32), 16);
        }
    });
}

#[test]
#[should_panic(expected = "byte 5 of the zeroed block of 8 bytes")]
fn a_zeroed_block_that_is_not_zero_is_found() {
    in_memory(|start, mut shadow| {
        // SAFETY: the block lies in the memory, and so does its sixth byte.
        unsafe {
            start.add(5).write(1);
            shadow.given_zeroed(start, 8);
        }
    });
}
