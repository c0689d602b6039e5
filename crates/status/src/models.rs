//! Loom models of a shared text with a writer and a reader.

use sync::{
    Arc,
    atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
    thread,
};

use crate::SharedText;

#[test]
fn a_reader_gets_a_whole_text_or_none() {
    sync::model(|| {
        let text = Arc::new(SharedText::<2>::default());
        let shared = Arc::clone(&text);
        let reader = thread::spawn(move || {
            if let Some(found) = shared.try_read() {
                assert!(found.is_empty() || found == [1; 16], "{found:?}");
            }
        });
        text.publish(&[1; 16]);
        reader.join().unwrap();
    });
}

/// A broken sequence lock, whose writer stores the words of the text with `Relaxed` ordering.
///
/// A reader can see a new word before it sees the odd sequence number that announces the change.
#[test]
fn relaxed_words_are_rejected() {
    sync::rejected(|| {
        let text = Arc::new([const { 0 }; 3].map(AtomicU64::new));
        let shared = Arc::clone(&text);
        let reader = thread::spawn(move || {
            let [sequence, first, second] = &*shared;
            let before = sequence.load(Acquire);
            let found = (first.load(Relaxed), second.load(Relaxed));
            if before % 2 == 0 && sequence.load(Relaxed) == before {
                assert_eq!(found.0, found.1);
            }
        });
        let [sequence, first, second] = &*text;
        sequence.store(1, Relaxed);
        first.store(7, Relaxed);
        second.store(7, Relaxed);
        sequence.store(2, Release);
        reader.join().unwrap();
    });
}
