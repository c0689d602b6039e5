//! A cache for each thread, found without being passed around.

/// Declares a cache for each thread over one shared [`SharedCache`](crate::SharedCache), and a
/// handle that finds the running thread's: a type of no size that is a
/// [`BareHome`](crate::BareHome), so that [`Cached`](crate::Cached) and
/// [`CachedRc`](crate::CachedRc) with it are one word, and can go to other threads if their values
/// can.
///
/// [`SharedCache`](crate::SharedCache#when-a-thread-ends) says what happens when a thread ends.
/// Needs the standard library where it is used, for `thread_local!`.
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
/// // The other thread left the storage in the depot: this one finds it there.
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
            /// What the caches of all threads share.
            #[allow(dead_code, reason = "a user of the handle need not ask")]
            $vis fn shared(self) -> &'static $crate::SharedCache<$T, $A> {
                static SHARED: $crate::SharedCache<$T, $A> =
                    $crate::SharedCache::new($magazine, $lower);
                &SHARED
            }

            /// Calls `f` with the running thread's cache; `None` when the thread has dropped it,
            /// which it does at its end.
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

        // SAFETY: every copy of the handle leads to caches of one `SharedCache`, whose promise
        // this is.
        unsafe impl $crate::Home<$T> for $Handle {
            #[inline]
            unsafe fn retire(&self, object: ::core::ptr::NonNull<$T>) {
                // SAFETY: the caller's promise.
                unsafe { $crate::drop_and_put(self, object) }
            }
        }

        // SAFETY: as above.
        unsafe impl $crate::BareHome<$T> for $Handle {
            #[inline]
            fn take(&self) -> Option<::core::ptr::NonNull<$T>> {
                match self.local(|cache| cache.take()) {
                    Some(storage) => storage,
                    None => self.shared().take_below(),
                }
            }

            #[inline]
            unsafe fn put(&self, storage: ::core::ptr::NonNull<$T>) {
                // SAFETY: the caller's promise.
                if self.local(|cache| unsafe { cache.put(storage) }).is_none() {
                    // SAFETY: the caller's promise; no cache took it.
                    unsafe { self.shared().put_below(storage) };
                }
            }
        }
    };
}
