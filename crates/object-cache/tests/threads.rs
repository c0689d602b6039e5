//! Caches that real threads use.

use std::{
    cell::RefCell,
    ptr::NonNull,
    sync::{
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    thread,
};

use object_cache::{CacheStats, Cached, raw_mem::MemAlloc, thread_cache};
use raw_mem::Malloc;

struct Counting {
    live: AtomicUsize,
}

impl Counting {
    const fn new() -> Self {
        Self { live: AtomicUsize::new(0) }
    }
}

// SAFETY: memory is malloc's.
unsafe impl MemAlloc for &'static Counting {
    fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
        self.live.fetch_add(1, Relaxed);
        Malloc.malloc(size)
    }

    fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
        self.live.fetch_add(1, Relaxed);
        Malloc.calloc(count, size)
    }

    unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
        // SAFETY: the block is malloc's (contract of `realloc`).
        unsafe { Malloc.realloc(ptr, size) }
    }

    unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
        self.live.fetch_sub(usize::from(ptr.is_some()), Relaxed);
        // SAFETY: the block is malloc's (contract of `free`).
        unsafe { Malloc.free(ptr) }
    }
}

struct Message([usize; 2]);

impl Message {
    fn new(number: usize) -> Self {
        Self([number, !number])
    }

    fn assert_is_whole(&self) -> usize {
        assert_eq!(self.0[0], !self.0[1], "no other object overwrote it");
        self.0[0]
    }
}

#[test]
fn a_maker_hits_objects_that_another_thread_drops() {
    const WARM_UP: usize = 20_000;
    const MESSAGES: usize = if cfg!(miri) { 20_500 } else { 400_000 };

    static BELOW: Counting = Counting::new();
    thread_cache! {
        struct Messages: Message, magazine = 64, below: &'static Counting = &BELOW;
    }
    fn stats() -> CacheStats {
        Messages.local(|messages| messages.stats()).expect("the thread is not ending")
    }

    let (sender, receiver) = mpsc::sync_channel::<Cached<Message, Messages>>(256);
    let dropper =
        thread::spawn(move || receiver.iter().map(|message| message.assert_is_whole()).sum());
    let mut start = CacheStats::default();
    for number in 0..MESSAGES {
        if number == WARM_UP {
            start = stats();
        }
        sender.send(Cached::new_in(Message::new(number), Messages).unwrap()).unwrap();
    }
    let (end, live) = (stats(), BELOW.live.load(Relaxed));
    drop(sender);
    let sum: usize = dropper.join().unwrap();
    assert_eq!(sum, MESSAGES * (MESSAGES - 1) / 2);

    let steady =
        CacheStats { hits: end.hits - start.hits, misses: end.misses - start.misses, ..end };
    let rate = steady.hit_rate();
    println!("hit rate {rate:.6}: {steady:?}; {live} live blocks");
    assert!(rate > 0.95, "hit rate {rate}");
    // At most, the channel, two magazines of each thread and the depot are full at the same time.
    let most = 256 + 2 + 4 * 64 + 16 * 64;
    assert!(live <= most, "{live} live blocks");

    let _ = Messages.local(|messages| messages.clear());
    let _ = Messages.shared().clear();
    assert_eq!(BELOW.live.load(Relaxed), 0, "no storage is lost");
}

#[test]
fn objects_that_outlive_their_threads_cache_return_to_the_layer_below() {
    static BELOW: Counting = Counting::new();
    thread_cache! {
        struct Messages: Message, magazine = 4, below: &'static Counting = &BELOW;
    }
    thread_local! {
        static BEFORE: RefCell<Vec<Cached<Message, Messages>>> = const { RefCell::new(Vec::new()) };
        static AFTER: RefCell<Vec<Cached<Message, Messages>>> = const { RefCell::new(Vec::new()) };
    }
    fn make(count: usize) -> Vec<Cached<Message, Messages>> {
        (0..count).map(|number| Cached::new_in(Message::new(number), Messages).unwrap()).collect()
    }

    thread::spawn(|| {
        // The order of first uses decides which of the two thread-locals outlives the cache.
        BEFORE.with(|before| before.borrow_mut().clear());
        let messages = make(10);
        AFTER.with(|after| *after.borrow_mut() = make(10));
        BEFORE.with(|before| *before.borrow_mut() = messages);
    })
    .join()
    .unwrap();

    let live = BELOW.live.load(Relaxed);
    assert_eq!(live, 10, "only those dropped before the cache are in the depot");
    assert_eq!(Messages.shared().clear().objects, live, "no storage is lost");
    assert_eq!(BELOW.live.load(Relaxed), 0);
}

#[test]
fn short_lived_threads_neither_leak_nor_accumulate() {
    static BELOW: Counting = Counting::new();
    thread_cache! {
        struct Messages: Message, magazine = 8, below: &'static Counting = &BELOW;
    }
    const THREADS: usize = if cfg!(miri) { 10 } else { 200 };

    let mut inherited: Vec<Cached<Message, Messages>> = Vec::new();
    for _ in 0..THREADS {
        inherited = thread::spawn(move || {
            inherited.iter().for_each(|message| _ = message.assert_is_whole());
            drop(inherited);
            (0..50).map(|number| Cached::new_in(Message::new(number), Messages).unwrap()).collect()
        })
        .join()
        .unwrap();
        assert!(BELOW.live.load(Relaxed) <= 50 + 16 * 8, "the depot is bounded");
    }
    drop(inherited);
    let stats = Messages.shared().stats();
    assert!(stats.hit_rate() > 0.95, "each thread reuses objects of the one before");
    let _ = Messages.local(|messages| messages.clear());
    let _ = Messages.shared().clear();
    assert_eq!(BELOW.live.load(Relaxed), 0, "no storage is lost");
}

#[test]
fn objects_passed_around_a_ring_of_threads_stay_whole() {
    static BELOW: Counting = Counting::new();
    thread_cache! {
        struct Messages: Message, magazine = 8, below: &'static Counting = &BELOW;
    }
    const THREADS: usize = 4;
    const ROUNDS: usize = if cfg!(miri) { 100 } else { 50_000 };

    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..THREADS).map(|_| mpsc::sync_channel::<Cached<Message, Messages>>(64)).unzip();
    let mut nexts = senders;
    nexts.rotate_left(1);
    let threads: Vec<_> = receivers
        .into_iter()
        .zip(nexts)
        .map(|(receiver, next)| {
            thread::spawn(move || {
                for number in 0..ROUNDS {
                    let message = Cached::new_in(Message::new(number), Messages).unwrap();
                    let _ = next.try_send(message);
                    for received in receiver.try_iter().take(2) {
                        received.assert_is_whole();
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let _ = Messages.shared().clear();
    assert_eq!(BELOW.live.load(Relaxed), 0, "no storage is lost");
}
