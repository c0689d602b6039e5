//! Traits in scope at a use of `thread_cache!` must not change which functions its code calls.

use object_cache::{Cached, StorageSource, ThreadCache, raw_mem::Malloc, thread_cache};

thread_cache! {
    /// The numbers of this test.
    pub struct Numbers: u64, magazine = 50, below: Malloc = Malloc;
}

/// A trait with the names of all methods that the macro could call.
#[expect(dead_code, reason = "nothing may call these methods")]
#[expect(clippy::wrong_self_convention, reason = "it must capture `Option::is_none`")]
trait Capture: Sized {
    fn is_none(self) -> bool {
        panic!("captured")
    }
    fn ok(self) -> Option<()> {
        panic!("captured")
    }
    fn local<R>(&self, _: impl FnOnce(&ThreadCache<'static, u64, Malloc>) -> R) -> Option<R> {
        panic!("captured")
    }
    fn shared(&self) -> &'static Self {
        panic!("captured")
    }
    fn thread(&self) -> Self {
        panic!("captured")
    }
    fn try_with<R>(&self, _: R) -> R {
        panic!("captured")
    }
    fn take_below(self) -> Self {
        panic!("captured")
    }
    fn put_below(self, _: ()) {
        panic!("captured")
    }
}

impl<T> Capture for T {}

#[test]
fn traits_in_scope_do_not_capture_the_calls_of_the_macro() {
    drop(Cached::new_in(1, Numbers));
    let first = Cached::new_in(7, Numbers).unwrap();
    let second = Cached::new_in(8, Numbers).unwrap();
    assert_eq!((*first, *second), (7, 8));
    let storage = Numbers.take().unwrap();
    // SAFETY: the storage came from this source, and holds no value.
    unsafe { Numbers.put(storage) };
}
