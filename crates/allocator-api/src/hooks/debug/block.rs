//! A block of a debug hook, and the bytes around it.
//!
//! ```text
//!  base          p-8 p-7        p            p+n         p+n+8
//!  ├─────────────┼───┼──────────┼─────────────┼───────────┼ ─ ─ ─ ─ ┤
//!  │ n           │api│ 7 × 0xFD │ n bytes     │ 8 × 0xFD  │ serial  │
//!  └─────────────┴───┴──────────┴─────────────┴───────────┴ ─ ─ ─ ─ ┘
//! ```
//!
//! The size and the serial number are big-endian. The offsets are for a 64-bit machine.
//!
//! Unlike CPython, we also support blocks that are aligned to more than a word. In such a block,
//! two additional words precede the header: the alignment of the block, and the distance from the
//! start of the allocated memory to the block. The bytes before these two words are unused.

use core::ptr::NonNull;

use raw_mem::MAX_REQUEST;

use super::{
    host::Misuse,
    readable::{self, is_readable},
    style::{Style, WORD},
};

/// The bytes before a block: its size, its letter and guards.
pub(super) const HEADER: usize = 2 * WORD;

/// The fewest bytes from the start of the allocated memory to an aligned block: its alignment, its
/// distance and its header.
pub(super) const ALIGNED_HEADER: usize = 2 * WORD + HEADER;

/// Returns the letter of a domain for blocks that are aligned to more than a word.
///
/// CPython's debug hooks have no letter for such blocks, so we use the domain's letter in upper
/// case.
pub(super) const fn of_aligned(letter: u8) -> u8 {
    letter.to_ascii_uppercase()
}

/// An address that the program passed. A block does not necessarily begin there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block(NonNull<u8>);

impl Block {
    pub(super) const fn at(start: NonNull<u8>) -> Self {
        Self(start)
    }

    pub(super) const fn start(self) -> NonNull<u8> {
        self.0
    }

    fn byte(self, offset: isize) -> *mut u8 {
        self.0.as_ptr().wrapping_offset(offset)
    }

    /// Returns the first byte of the header.
    pub(super) fn header(self) -> *mut u8 {
        self.byte(-(HEADER as isize))
    }

    /// Returns the address of the first guard after a block of `size` bytes.
    pub(super) fn tail(self, size: usize) -> *mut u8 {
        self.0.as_ptr().wrapping_add(size)
    }

    /// # Safety
    ///
    /// - The header must be readable.
    pub(super) unsafe fn size(self) -> usize {
        // SAFETY: the header begins with the size (contract). Any bytes are a valid number.
        usize::from_be_bytes(unsafe { self.header().cast::<[u8; WORD]>().read() })
    }

    /// # Safety
    ///
    /// - The header must be readable.
    pub(super) unsafe fn letter(self) -> u8 {
        // SAFETY: the byte is in the header (contract).
        unsafe { self.byte(-(WORD as isize)).read() }
    }

    /// Returns the guards before the block.
    ///
    /// # Safety
    ///
    /// - The header must be readable.
    pub(super) unsafe fn leading(self) -> [u8; WORD - 1] {
        // SAFETY: the bytes are in the header (contract).
        unsafe { self.byte(1 - WORD as isize).cast::<[u8; WORD - 1]>().read() }
    }

    /// Returns the guards after a block of `size` bytes.
    ///
    /// # Safety
    ///
    /// - The word after the block must be readable.
    pub(super) unsafe fn trailing(self, size: usize) -> [u8; WORD] {
        // SAFETY: the word is readable (contract).
        unsafe { self.tail(size).cast::<[u8; WORD]>().read() }
    }

    /// Returns the serial number of a block of `size` bytes.
    ///
    /// # Safety
    ///
    /// - The block must have a serial number, which must be readable.
    pub(super) unsafe fn serial(self, size: usize) -> usize {
        let place = self.tail(size).wrapping_add(WORD);
        // SAFETY: the serial number follows the guards, and is readable (contract).
        usize::from_be_bytes(unsafe { place.cast::<[u8; WORD]>().read() })
    }

    /// Writes the header before and the trailer after a block of `size` bytes.
    ///
    /// # Safety
    ///
    /// - The [`HEADER`] bytes before the block, its `size` bytes, and the trailer of `style` after
    ///   it must be writable.
    pub(super) unsafe fn write_around(self, size: usize, letter: u8, serial: usize, style: Style) {
        // SAFETY: the header is writable (contract).
        unsafe {
            self.header().cast::<[u8; WORD]>().write(size.to_be_bytes());
            self.byte(-(WORD as isize)).write(letter);
            self.byte(1 - WORD as isize).write_bytes(style.forbidden, WORD - 1);
        }
        // SAFETY: the trailer is writable (contract).
        unsafe {
            self.tail(size).write_bytes(style.forbidden, WORD);
            if style.has_serials {
                let place = self.tail(size).wrapping_add(WORD).cast::<[u8; WORD]>();
                place.write(serial.to_be_bytes());
            }
        }
        readable::remember(self.header(), HEADER);
        readable::remember(self.tail(size), style.trailer());
    }

    /// Returns the first of the two words before the header of an aligned block.
    fn alignment_words(self) -> *mut [usize; 2] {
        self.byte(-(ALIGNED_HEADER as isize)).cast()
    }

    /// Returns the alignment of an aligned block, and its distance from the allocated memory.
    ///
    /// # Safety
    ///
    /// - A live block that was allocated with an alignment must begin here.
    pub(super) unsafe fn alignment(self) -> [usize; 2] {
        // SAFETY: the two words precede the header of an aligned block (contract).
        unsafe { self.alignment_words().read() }
    }

    /// Stores the alignment of an aligned block, and its distance from the allocated memory.
    ///
    /// # Safety
    ///
    /// - The [`ALIGNED_HEADER`] bytes before the block must be writable.
    /// - The address of the block must be a multiple of the word size.
    pub(super) unsafe fn write_alignment(self, align: usize, distance: usize) {
        // SAFETY: the two words are writable and aligned (contract).
        unsafe { self.alignment_words().write([align, distance]) };
    }

    /// Checks that a live block of the domain `letter` begins here, and returns its size in bytes.
    ///
    /// Reads no memory that cannot be read, unless it was unmapped in a way that [`readable`] does
    /// not notice.
    ///
    /// # Safety
    ///
    /// - The address must be one that the program uses as a block.
    pub(super) unsafe fn check(self, letter: u8, style: Style) -> Result<usize, Misuse> {
        if !self.0.addr().get().is_multiple_of(WORD) {
            return Err(Misuse::Unaligned);
        }
        if !is_readable(self.header(), HEADER) {
            return Err(Misuse::Unreadable);
        }
        // SAFETY: the header is readable.
        let (size, found, leading) = unsafe { (self.size(), self.letter(), self.leading()) };
        // When the debug hook frees a block, it fills the block and its header with dead bytes (by
        // default `0xDD`). It thus replaces the letter, the byte of the header that names the
        // block's domain, and the wrapped allocator may then overwrite this byte once more. We
        // therefore check for a freed block before we compare the letter. Otherwise, we would
        // report that a freed block belongs to another domain or, if its overwritten letter
        // happened to be the expected one, that its guard bytes are damaged.
        if self.is_dead(found, leading, style) {
            return Err(Misuse::Freed);
        }
        if found != letter && found != of_aligned(letter) {
            return Err(Misuse::WrongApi { allocated: found, verified: letter });
        }
        if leading != [style.forbidden; WORD - 1] {
            return Err(Misuse::Underflow);
        }
        if found != letter && !self.has_valid_alignment() {
            return Err(Misuse::Underflow);
        }
        // The guard bytes after the block are in the trailer, whose address we compute from the
        // size in the header. The program may have overwritten this size, so we first check that
        // the memory at the computed address can be read.
        if size > MAX_REQUEST - style.overhead() || !is_readable(self.tail(size), style.trailer()) {
            return Err(Misuse::BadSize);
        }
        // SAFETY: the trailer is readable.
        if unsafe { self.trailing(size) } != [style.forbidden; WORD] {
            return Err(Misuse::Overflow);
        }
        Ok(size)
    }

    /// Returns false if the program has overwritten the alignment or the distance before the header
    /// of an aligned block.
    fn has_valid_alignment(self) -> bool {
        let words = self.alignment_words();
        if !is_readable(words.cast_const().cast(), 2 * WORD) {
            return false;
        }
        // SAFETY: the words are readable. They are aligned, because the block is.
        let [align, distance] = unsafe { words.read() };
        let is_alignment = align > WORD && align.is_power_of_two();
        is_alignment
            && self.0.addr().get().is_multiple_of(align)
            && distance.checked_sub(ALIGNED_HEADER).is_some_and(|extra| extra < align)
    }

    /// Returns true if the header or the contents show that the block has been freed.
    ///
    /// The debug hook fills the header and the contents of a freed block with dead bytes (by
    /// default `0xDD`), but the wrapped allocator may overwrite the header afterwards. The header
    /// contains a letter that names the block's domain, and guard bytes. If the letter and these
    /// guard bytes are all dead bytes, the block counts as freed. Otherwise, the block counts as
    /// freed if the guard bytes have been overwritten and the block's contents begin with a word of
    /// dead bytes.
    fn is_dead(self, letter: u8, leading: [u8; WORD - 1], style: Style) -> bool {
        let is_header_dead = letter == style.dead && leading == [style.dead; WORD - 1];
        let is_in_no_domain = leading != [style.forbidden; WORD - 1];
        is_header_dead || (is_in_no_domain && self.first_word() == Some([style.dead; WORD]))
    }

    /// Returns the first word at the address, or `None` if it cannot be read.
    fn first_word(self) -> Option<[u8; WORD]> {
        let start = self.0.cast::<[u8; WORD]>();
        // SAFETY: the word is readable. Any bytes are a valid value.
        is_readable(start.as_ptr().cast(), WORD).then(|| unsafe { start.read() })
    }
}
