//! A text that one thread replaces while other threads and processes read it.

#![cfg_attr(not(test), forbid(unsafe_code))]

use sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

/// The size of a word in bytes.
const WORD: usize = size_of::<u64>();

/// The number of times that a reader tries to get a consistent text before it gives up.
const MOST_TRIES: usize = 1000;

/// A text of at most `WORDS` words, guarded by a sequence number (a seqlock).
///
/// Zeroed memory is an empty text.
#[derive(Debug)]
#[repr(C)]
pub struct SharedText<const WORDS: usize> {
    /// Odd while the writer replaces the text.
    sequence: AtomicU64,
    /// The length in bytes.
    length: AtomicU64,
    words: [AtomicU64; WORDS],
}

impl<const WORDS: usize> Default for SharedText<WORDS> {
    fn default() -> Self {
        Self {
            sequence: AtomicU64::new(0),
            length: AtomicU64::new(0),
            words: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl<const WORDS: usize> SharedText<WORDS> {
    /// Replaces the text and returns true. If `text` is too long, removes the old text and returns
    /// false.
    ///
    /// Only one thread may call this function at a time. Otherwise, readers can get a mixture of
    /// the two new texts.
    pub(crate) fn publish(&self, text: &[u8]) -> bool {
        let fits = text.len() <= WORDS * WORD;
        let text = if fits { text } else { &[] };
        let sequence = self.sequence.load(Relaxed);
        self.sequence.store(sequence.wrapping_add(1) | 1, Relaxed);
        // Release: a reader that sees one of these stores also sees the odd sequence number.
        self.length.store(text.len() as u64, Release);
        for (word, bytes) in self.words.iter().zip(text.chunks(WORD)) {
            let mut whole = [0; WORD];
            whole[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_le_bytes(whole), Release);
        }
        // Release: a reader that sees this sequence number also sees the text.
        self.sequence.store((sequence.wrapping_add(1) | 1).wrapping_add(1), Release);
        fits
    }

    /// Returns the text, or `None` if the writer does not finish or the text is damaged.
    pub fn read(&self) -> Option<Vec<u8>> {
        (0..MOST_TRIES).find_map(|_| self.try_read())
    }

    /// Returns the text, unless the writer replaces it during this call or it is damaged.
    pub(crate) fn try_read(&self) -> Option<Vec<u8>> {
        let before = self.sequence.load(Acquire);
        if before % 2 == 1 {
            std::hint::spin_loop();
            return None;
        }
        // Acquire: the second load of the sequence number must follow these loads.
        let length = usize::try_from(self.length.load(Acquire)).ok()?;
        let count = length.div_ceil(WORD);
        let words = self.words.get(..count)?;
        let mut text: Vec<u8> =
            words.iter().flat_map(|word| word.load(Acquire).to_le_bytes()).collect();
        text.truncate(length);
        (self.sequence.load(Relaxed) == before).then_some(text)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_last_text_is_read() {
        let text = SharedText::<4>::default();
        assert_eq!(text.read().unwrap(), b"");
        for words in ["a text of 3 words", "", "short", "exactly 32 bytes, not one more.."] {
            assert!(text.publish(words.as_bytes()));
            assert_eq!(text.read().unwrap(), words.as_bytes());
        }
    }

    #[test]
    fn a_text_that_is_too_long_is_left_out() {
        let text = SharedText::<1>::default();
        assert!(text.publish(b"12345678") && !text.publish(b"123456789"));
        assert_eq!(text.read().unwrap(), b"");
    }

    #[test]
    fn an_unfinished_or_damaged_text_is_not_read() {
        let text = SharedText::<1>::default();
        text.sequence.store(3, Relaxed);
        assert_eq!(text.read(), None);
        text.sequence.store(4, Relaxed);
        text.length.store(9, Relaxed);
        assert_eq!(text.read(), None);
    }

    #[test]
    fn a_writer_that_died_in_the_middle_can_be_followed_by_another() {
        let text = SharedText::<1>::default();
        text.sequence.store(3, Relaxed);
        assert!(text.publish(b"new"));
        assert_eq!(text.read().unwrap(), b"new");
    }

    #[test]
    fn readers_never_get_a_mixture() {
        let text = SharedText::<8>::default();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut seen = 0;
                while seen < 1000 {
                    if let Some(found) = text.try_read() {
                        assert!(found.windows(2).all(|pair| pair[0] == pair[1]), "{found:?}");
                        seen += 1;
                    }
                }
            });
            let mut byte = 0_u8;
            while !reader.is_finished() {
                byte = byte.wrapping_add(1);
                text.publish(&[byte; 64]);
                std::thread::yield_now();
            }
        });
    }
}
