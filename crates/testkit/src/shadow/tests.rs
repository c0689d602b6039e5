//! Each test breaks one rule, which the shadow must detect.

use super::*;

#[repr(align(16))]
struct Memory([u8; 64]);

fn in_memory(body: impl FnOnce(NonNull<u8>, Shadow)) {
    let mut memory = Memory([0; 64]);
    body(NonNull::from(&mut memory.0).cast(), Shadow::new(16));
}

#[test]
fn an_untouched_block_passes() {
    in_memory(|start, mut shadow| {
        // SAFETY: both blocks lie in the 64 bytes, which only this test uses.
        unsafe {
            shadow.allocated_zeroed(start, 16);
            shadow.allocated(start.add(16), 20);
        }
        shadow.check();
        assert_eq!(shadow.blocks(), 2);
        shadow.freed(start);
        assert_eq!(shadow.blocks(), 1);
    });
}

#[test]
#[should_panic(expected = "overlaps")]
fn a_block_that_overlaps_the_end_of_another_is_detected() {
    in_memory(|start, mut shadow| {
        // SAFETY: both blocks lie in the 64 bytes, which only this test uses.
        unsafe {
            shadow.allocated(start, 17);
            shadow.allocated(start.add(16), 8);
        }
    });
}

#[test]
#[should_panic(expected = "overlaps")]
fn a_block_that_overlaps_the_start_of_another_is_detected() {
    in_memory(|start, mut shadow| {
        // SAFETY: both blocks lie in the 64 bytes, which only this test uses.
        unsafe {
            shadow.allocated(start.add(16), 8);
            shadow.allocated(start, 17);
        }
    });
}

#[test]
#[should_panic(expected = "overlaps")]
fn two_blocks_of_zero_bytes_at_one_address_are_detected() {
    in_memory(|start, mut shadow| {
        // SAFETY: blocks of 0 bytes are neither read nor written.
        unsafe {
            shadow.allocated(start, 0);
            shadow.allocated(start, 0);
        }
    });
}

#[test]
#[should_panic(expected = "not aligned")]
fn a_misaligned_block_is_detected() {
    // SAFETY: the block lies in the 64 bytes, which only this test uses.
    in_memory(|start, mut shadow| unsafe { shadow.allocated(start.add(8), 8) });
}

#[test]
#[should_panic(expected = "byte 3 of the block of 8 bytes")]
fn an_overwritten_byte_is_detected() {
    in_memory(|start, mut shadow| {
        // SAFETY: the block lies in the 64 bytes, and byte 3 lies in the block.
        unsafe {
            shadow.allocated(start, 8);
            start.add(3).write(0);
        }
        shadow.freed(start);
    });
}

#[test]
#[should_panic(expected = "overwritten")]
fn contents_that_were_not_copied_are_detected() {
    in_memory(|start, mut shadow| {
        // SAFETY: both blocks lie in the 64 bytes, which only this test uses.
        unsafe {
            shadow.allocated(start, 8);
            shadow.reallocated(start, start.add(32), 16);
        }
    });
}

#[test]
#[should_panic(expected = "byte 5 of the zeroed block of 8 bytes")]
fn a_nonzero_byte_in_a_zeroed_block_is_detected() {
    in_memory(|start, mut shadow| {
        // SAFETY: the block lies in the 64 bytes, and byte 5 lies in the block.
        unsafe {
            start.add(5).write(1);
            shadow.allocated_zeroed(start, 8);
        }
    });
}
