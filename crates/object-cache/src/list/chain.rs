//! A singly linked list of free objects.

use core::ptr::NonNull;

use super::Link;

/// A chain of free objects, each of which is linked to the next one. As an iterator, the chain
/// removes its objects one after the other, beginning with the first, and returns each of them.
pub(crate) struct Chain<N> {
    /// # Invariant
    ///
    /// The chain owns the object that `head` points to and every object after it. The links of
    /// these objects are initialised.
    head: Option<NonNull<N>>,
}

impl<N: Link> Chain<N> {
    /// An empty chain.
    pub(crate) const EMPTY: Self = Self { head: None };

    /// Makes a chain that begins with `head`.
    ///
    /// # Safety
    ///
    /// - The caller must own `head` and every object after it, and gives up that ownership.
    /// - The links of these objects must be initialised.
    pub(crate) unsafe fn from_head(head: Option<NonNull<N>>) -> Self {
        // INVARIANT: the contract of this function promises both parts.
        Self { head }
    }

    /// Converts the chain to a pointer to its first object. The caller then owns all of the chain's
    /// objects.
    pub(crate) fn into_head(self) -> Option<NonNull<N>> {
        self.head
    }

    /// Returns the first object, which the chain still owns.
    pub(crate) fn first(&self) -> Option<NonNull<N>> {
        self.head
    }

    /// Adds `object` to the front of the chain.
    ///
    /// # Safety
    ///
    /// - The caller must own `object` exclusively, and gives up that ownership.
    pub(crate) unsafe fn push(&mut self, object: NonNull<N>) {
        // SAFETY: the caller owns `object` (contract).
        unsafe { N::set_next(object, self.head) };
        // INVARIANT: the chain owns `object`, because the caller has given it up (contract). The
        // link of `object` has just been initialised.
        self.head = Some(object);
    }

    /// Removes the first object and returns it. The caller then owns that object.
    pub(crate) fn pop(&mut self) -> Option<NonNull<N>> {
        let object = self.head?;
        // SAFETY: the chain owns the object, and the object's link is initialised (invariant of
        // `head`).
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
mod tests {
    use super::*;
    use crate::list::FreeObject;

    #[test]
    fn the_object_pushed_last_is_popped_first() {
        let mut words = [[0_u64; 2]; 3];
        let mut chain = Chain::<FreeObject>::EMPTY;
        let objects = words.each_mut().map(|word| NonNull::from(word).cast::<FreeObject>());
        // SAFETY: the words belong to this test and are large enough for a link.
        objects.iter().for_each(|&object| unsafe { chain.push(object) });
        assert!(chain.eq(objects.iter().rev().copied()));
    }
}
