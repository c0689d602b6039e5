//! A macro that declares a cache with a separate part for every thread.

/// Declares a zero-sized type that gives every thread a cache for objects of one type.
///
/// The declared type is a [`StorageSource`](crate::StorageSource) that finds the cache of the
/// calling thread. Functions can therefore use the cache without receiving it as a parameter.
/// Because the type has no size, [`Cached`](crate::Cached) and [`CachedRc`](crate::CachedRc)
/// pointers with this source take one word. A `Cached` pointer with this source may move to another
/// thread if its value may.
///
/// - `shared()` returns the [`SharedCache`](crate::SharedCache) that all threads share. [Its
///   documentation](crate::SharedCache#when-a-thread-ends) says what happens to the cached objects
///   of a thread that ends.
/// - `local(f)` calls `f` with the [`ThreadCache`](crate::ThreadCache) of the calling thread and
///   returns the result of `f`. `local` returns `None` if the thread is ending and has already
///   dropped its cache.
///
/// The macro expands to code that uses `thread_local!`, so it needs the standard library.
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
            /// Returns the shared cache, through which the caches of all threads exchange free
            /// objects.
            #[allow(dead_code, reason = "not every user needs it")]
            $vis fn shared(self) -> &'static $crate::SharedCache<$T, $A> {
                static SHARED: $crate::SharedCache<$T, $A> =
                    $crate::SharedCache::new($magazine, $lower);
                &SHARED
            }

            /// Calls `f` with the calling thread's cache. Returns `None` if the thread is ending
            /// and has already dropped its cache.
            #[inline]
            $vis fn local<R>(
                self,
                f: impl FnOnce(&$crate::ThreadCache<'static, $T, $A>) -> R,
            ) -> Option<R> {
                ::std::thread_local! {
                    static LOCAL: $crate::ThreadCache<'static, $T, $A> =
                        $Handle.shared().thread();
                }
                LOCAL.try_with(f).ok()
            }
        }

        // SAFETY: all values of this type use thread caches of the same static `SharedCache`, and
        // these caches give the guarantees. Each thread uses its own cache.
        unsafe impl $crate::StorageSource<$T> for $Handle {
            #[inline]
            fn take(&self) -> Option<::core::ptr::NonNull<$T>> {
                match self.local(|cache| $crate::StorageSource::take(cache)) {
                    Some(storage) => storage,
                    None => self.shared().take_below(),
                }
            }

            #[inline]
            unsafe fn put(&self, storage: ::core::ptr::NonNull<$T>) {
                // SAFETY: `storage` came from a cache of the same `SharedCache` (contract).
                let put = self.local(|cache| unsafe { $crate::StorageSource::put(cache, storage) });
                if put.is_none() {
                    // SAFETY: `storage` came from a cache of the same `SharedCache` (contract). The
                    // calling thread has already dropped its cache, so no cache has received the
                    // storage.
                    unsafe { self.shared().put_below(storage) };
                }
            }
        }
    };
}
