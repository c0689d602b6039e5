//! A dead object as a link: its own first words say which dead object comes next.
//!
//! ```text
//!   dead object:   ┌──────┬───────┬─ ─ ─ ─ ─ ─
//!                  │ next │ count │ whatever the value left
//!                  └──────┴───────┴─ ─ ─ ─ ─ ─
//!   count:         only in the first object of a magazine, between threads
//! ```
//!
//! 1. A chain links storage that nobody uses: no value lives in it.
//! 2. What is written into a link is read by the chain's owner alone. A chain that changes hands
//!    between threads does so through the [`depot`](crate::depot), which orders the accesses.
//!
//! Lists are generic over [`Link`], because loom cannot see raw memory: in a model the link is a
//! node that loom watches, and the lists are the ones that ship.

use core::ptr::NonNull;

/// What can stand in a chain.
///
/// For every function here the caller owns the object: no value lives in it, and nobody else
/// reads or writes it meanwhile.
pub(crate) trait Link: Sized {
    /// Writes what comes after `this`.
    ///
    /// # Safety
    ///
    /// The caller owns `this`.
    unsafe fn set_next(this: NonNull<Self>, next: Option<NonNull<Self>>);

    /// Reads what [`set_next`](Self::set_next) wrote.
    ///
    /// # Safety
    ///
    /// The caller owns `this`, and `set_next` was called on it since it died.
    unsafe fn next(this: NonNull<Self>) -> Option<NonNull<Self>>;
}

/// A link that can also lead a magazine.
pub(crate) trait Lead: Link {
    /// Writes how many objects the chain from `this` on has.
    ///
    /// # Safety
    ///
    /// The caller owns `this`.
    unsafe fn set_count(this: NonNull<Self>, count: u32);

    /// Reads what [`set_count`](Self::set_count) wrote.
    ///
    /// # Safety
    ///
    /// The caller owns `this`, and `set_count` was called on it since it died.
    unsafe fn count(this: NonNull<Self>) -> u32;
}

/// The first words of a dead object. Storage that never leads a magazine may hold the first of
/// them alone.
#[repr(C)]
pub(crate) struct Dead {
    next: Option<NonNull<Dead>>,
    count: u32,
}

impl Link for Dead {
    #[inline]
    unsafe fn set_next(this: NonNull<Self>, next: Option<NonNull<Self>>) {
        // SAFETY: the caller owns the storage, which has room for the first word at least; no
        // reference is made, so the rest of it need not exist.
        unsafe { (&raw mut (*this.as_ptr()).next).write(next) }
    }

    #[inline]
    unsafe fn next(this: NonNull<Self>) -> Option<NonNull<Self>> {
        // SAFETY: as in `set_next`, which has initialised the word.
        unsafe { (&raw const (*this.as_ptr()).next).read() }
    }
}

impl Lead for Dead {
    unsafe fn set_count(this: NonNull<Self>, count: u32) {
        // SAFETY: the caller owns the storage; what leads magazines has room for all of `Dead`.
        unsafe { (&raw mut (*this.as_ptr()).count).write(count) }
    }

    unsafe fn count(this: NonNull<Self>) -> u32 {
        // SAFETY: as in `set_count`, which has initialised the word.
        unsafe { (&raw const (*this.as_ptr()).count).read() }
    }
}

/// Dead objects, each the link to the next.
pub(crate) struct Chain<N> {
    /// # Invariant
    ///
    /// From here on every object is owned by the chain, and its link was written.
    head: Option<NonNull<N>>,
}

impl<N: Link> Chain<N> {
    /// A chain of nothing.
    pub(crate) const EMPTY: Self = Self { head: None };

    /// The chain that begins with `head`.
    ///
    /// # Safety
    ///
    /// The caller gives up every object from `head` on, and the links between them were written.
    pub(crate) unsafe fn from_head(head: Option<NonNull<N>>) -> Self {
        // INVARIANT: the caller's promise.
        Self { head }
    }

    /// Gives the chain up to the caller, who owns its objects from now on.
    pub(crate) fn into_head(self) -> Option<NonNull<N>> {
        self.head
    }

    /// The object that [`pop`](Self::pop) would take.
    pub(crate) fn first(&self) -> Option<NonNull<N>> {
        self.head
    }

    /// Puts `object` in front.
    ///
    /// # Safety
    ///
    /// The caller owns `object`, and gives it up.
    pub(crate) unsafe fn push(&mut self, object: NonNull<N>) {
        // SAFETY: the caller owns the object.
        unsafe { N::set_next(object, self.head) };
        // INVARIANT: the link was written just now.
        self.head = Some(object);
    }

    /// Takes the first object out if `wanted` says so; the caller owns it.
    pub(crate) fn pop_if(&mut self, wanted: impl FnOnce(NonNull<N>) -> bool) -> Option<NonNull<N>> {
        if wanted(self.head?) { self.pop() } else { None }
    }

    /// Takes the first object out; the caller owns it.
    pub(crate) fn pop(&mut self) -> Option<NonNull<N>> {
        let object = self.head?;
        // SAFETY: `head`'s invariant.
        self.head = unsafe { N::next(object) };
        Some(object)
    }
}

impl<N: Link> Iterator for Chain<N> {
    type Item = NonNull<N>;

    fn next(&mut self) -> Option<NonNull<N>> {
        self.pop()
    }
}

#[cfg(test)]
pub(crate) mod node {
    //! A link that a model can watch.

    use core::ptr::NonNull;

    use sync::UnsafeCell;

    use super::{Lead, Link};

    /// A dead object of the tests. Loom sees each access to its parts.
    #[derive(Debug)]
    pub(crate) struct Node {
        next: UnsafeCell<Option<NonNull<Node>>>,
        count: UnsafeCell<u32>,
        value: UnsafeCell<u32>,
    }

    // SAFETY: a node is reached by whoever owns it, one thread at a time; that this is so is what
    // the models check.
    unsafe impl Send for Node {}
    // SAFETY: as above.
    unsafe impl Sync for Node {}

    impl Default for Node {
        fn default() -> Self {
            Self {
                next: UnsafeCell::new(None),
                count: UnsafeCell::new(0),
                value: UnsafeCell::new(0),
            }
        }
    }

    /// Some nodes, to be shared by the threads of a model.
    #[derive(Clone)]
    pub(crate) struct Nodes(std::sync::Arc<[Node; 3]>);

    impl Nodes {
        pub(crate) fn new() -> Self {
            Self(std::sync::Arc::default())
        }

        /// A node, to be asked for by one owner.
        pub(crate) fn get(&self, index: usize) -> NonNull<Node> {
            NonNull::from(&self.0[index])
        }
    }

    impl Node {
        /// Uses the object as its owner may: writes all over it.
        ///
        /// # Safety
        ///
        /// The caller owns `this`.
        pub(crate) unsafe fn live(this: NonNull<Self>) {
            // SAFETY: the caller's promise.
            let node = unsafe { this.as_ref() };
            // SAFETY: as above.
            node.value.with_mut(|value| unsafe { *value += 1 });
        }
    }

    impl Link for Node {
        unsafe fn set_next(this: NonNull<Self>, next: Option<NonNull<Self>>) {
            // SAFETY: the caller owns the node.
            unsafe { this.as_ref() }.next.with_mut(|link| unsafe { *link = next });
        }

        unsafe fn next(this: NonNull<Self>) -> Option<NonNull<Self>> {
            // SAFETY: the caller owns the node.
            unsafe { this.as_ref() }.next.with(|link| unsafe { *link })
        }
    }

    impl Lead for Node {
        unsafe fn set_count(this: NonNull<Self>, count: u32) {
            // SAFETY: the caller owns the node.
            unsafe { this.as_ref() }.count.with_mut(|cell| unsafe { *cell = count });
        }

        unsafe fn count(this: NonNull<Self>) -> u32 {
            // SAFETY: the caller owns the node.
            unsafe { this.as_ref() }.count.with(|cell| unsafe { *cell })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_pushed_last_is_popped_first() {
        let mut words = [[0_u64; 2]; 3];
        let mut chain = Chain::<Dead>::EMPTY;
        let objects = words.each_mut().map(|word| NonNull::from(word).cast::<Dead>());
        // SAFETY: the words are this test's, and large enough for a link.
        objects.iter().for_each(|&object| unsafe { chain.push(object) });
        assert!(chain.eq(objects.iter().rev().copied()));
    }
}
