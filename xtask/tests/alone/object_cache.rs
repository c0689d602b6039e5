//! Cached objects in a buffer, without the standard library, `alloc`, or a system allocator.

use core::mem::MaybeUninit;

use object_cache::{Cached, CachedRc, FreeList, RcBox, cpython::Immortals, raw_mem::Bump};

static DIGITS: Immortals<u8, 10> = Immortals::new(0, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);

/// Creates and drops many more objects than fit into the buffer at the same time.
pub(crate) fn main() {
    let mut buffer = [MaybeUninit::uninit(); 1024];
    let memory = Bump::new(&mut buffer);
    let floats = FreeList::new(10, &memory);
    let shared = FreeList::<RcBox<u64>, _>::new(10, &memory);
    let mut sum = 0.0;
    for number in 0..1000 {
        let float = Cached::new_in(number as f64, &floats).expect("a free float");
        let mut counted = CachedRc::new_in(0, &shared).expect("a free number");
        *CachedRc::get_mut(&mut counted).expect("the only pointer") = number;
        let same = counted.clone();
        assert_eq!(CachedRc::count(&counted), 2);
        sum += Cached::into_inner(float) + *same as f64;
    }
    let hits = floats.stats().hits + shared.stats().hits;
    assert!(sum == 999_000.0 && hits == 1998 && DIGITS.get(7) == Some(&7));
}
