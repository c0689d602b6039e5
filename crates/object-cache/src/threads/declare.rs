/// Declares a zero-sized type that gives every thread a cache for objects of one type.
///
/// The declared type is a [`StorageSource`](crate::StorageSource), which provides storage from the
/// calling thread's cache. A [`Cached`](crate::Cached) pointer with this source has the size of one
/// word, because a value of the declared type takes no memory.
///
/// - `shared()` returns the [`SharedCache`](crate::SharedCache) that all threads use.
/// - `local(f)` calls `f` with the calling thread's [`ThreadCache`](crate::ThreadCache).
///
/// After the cache of a thread has been dropped, `local` returns `None` on that thread.
///
/// ```
/// use object_cache::{Cached, thread_cache};
/// use raw_mem::Malloc;
///
/// struct Float(f64);
///
/// thread_cache! {
///     /// The floats of every thread, in magazines of 50.
///     pub struct Floats: Float, magazine = 50, below: Malloc = Malloc;
/// }
///
/// let pi: Cached<Float, Floats> = Cached::new_in(Float(3.14), Floats).unwrap();
/// assert_eq!(size_of_val(&pi), size_of::<usize>());
/// std::thread::spawn(move || drop(pi)).join().unwrap();
/// // The other thread left the storage in the depot, where this thread finds it.
/// let e = Cached::new_in(Float(2.72), Floats).unwrap();
/// assert_eq!(Floats.local(|floats| floats.stats().hits), Some(1));
/// # drop(e);
/// ```
#[macro_export]
macro_rules! thread_cache {
    (
        $(#[$meta:meta])*
        $vis:vis struct $Handle:ident: $T:ty, magazine = $magazine:expr, below: $A:ty = $lower:expr;
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default)]
        $vis struct $Handle;

        impl $Handle {
            /// Returns the cache that all threads share.
            #[allow(dead_code, reason = "not every user needs it")]
            $vis fn shared(self) -> &'static $crate::SharedCache<$T, $A> {
                static SHARED: $crate::SharedCache<$T, $A> =
                    $crate::SharedCache::new($magazine, $lower);
                &SHARED
            }

            /// Calls `f` with the calling thread's cache, or returns `None` if it was dropped.
            #[inline]
            $vis fn local<R>(
                self,
                f: impl ::core::ops::FnOnce(&$crate::ThreadCache<'static, $T, $A>) -> R,
            ) -> ::core::option::Option<R> {
                ::std::thread_local! {
                    static LOCAL: $crate::ThreadCache<'static, $T, $A> =
                        $crate::SharedCache::thread($Handle::shared($Handle));
                }
                ::core::result::Result::ok(::std::thread::LocalKey::try_with(&LOCAL, f))
            }
        }

        // Every function is called by its path. A method call could be captured by a trait that is
        // in scope where the macro is used.
        // SAFETY: the thread caches of one static `SharedCache` give the guarantees.
        unsafe impl $crate::StorageSource<$T> for $Handle {
            #[inline]
            fn take(&self) -> ::core::option::Option<::core::ptr::NonNull<$T>> {
                match $Handle::local(*self, |cache| $crate::StorageSource::take(cache)) {
                    ::core::option::Option::Some(storage) => storage,
                    ::core::option::Option::None => {
                        $crate::SharedCache::take_below($Handle::shared(*self))
                    }
                }
            }

            #[inline]
            unsafe fn put(&self, storage: ::core::ptr::NonNull<$T>) {
                // SAFETY: `storage` came from a cache of the same `SharedCache` (contract).
                let put = |cache: &_| unsafe { $crate::StorageSource::put(cache, storage) };
                match $Handle::local(*self, put) {
                    ::core::option::Option::Some(()) => {}
                    // SAFETY: `storage` came from a cache of the same `SharedCache` (contract), and
                    // no cache has received it.
                    ::core::option::Option::None => unsafe {
                        $crate::SharedCache::put_below($Handle::shared(*self), storage);
                    },
                }
            }
        }
    };
}
