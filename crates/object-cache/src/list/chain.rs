//! A singly linked list of free objects.

use core::ptr::NonNull;

use super::Link;

/// Free objects, each linked to the next. As an iterator, it pops them.
pub(crate) struct Chain<N> {
    /// # Invariant
    ///
    /// The chain owns every object from here on, and their links are initialised.
    head: Option<NonNull<N>>,
}

impl<N: Link> Chain<N> {
    /// An empty chain.
    pub(crate) const EMPTY: Self = Self { head: None };

    /// Makes a chain that begins with `head`.
    ///
    /// # Safety
    ///
    /// - The caller must own every object from `head` on, and gives up that ownership.
    /// - The links of these objects must be initialised.
    pub(crate) unsafe fn from_head(head: Option<NonNull<N>>) -> Self {
        // INVARIANT: this function's contract.
        Self { head }
    }

    /// Gives up the chain. The caller then owns its objects.
    pub(crate) fn into_head(self) -> Option<NonNull<N>> {
        self.head
    }

    /// Returns the first object, which the chain still owns.
    pub(crate) fn first(&self) -> Option<NonNull<N>> {
        self.head
    }

    /// Prepends `object`.
    ///
    /// # Safety
    ///
    /// The caller must own `object` exclusively, and gives up that ownership.
    pub(crate) unsafe fn push(&mut self, object: NonNull<N>) {
        // SAFETY: the caller owns `object` (contract).
        unsafe { N::set_next(object, self.head) };
        // INVARIANT: the link has just been initialised, and ownership has been passed on.
        self.head = Some(object);
    }

    /// Removes the first object. The caller then owns it.
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
