use core::ptr::NonNull;

use super::Link;

/// A linked list of free objects. Iterating over the chain removes its objects.
pub(crate) struct Chain<N> {
    /// # Invariant
    ///
    /// The chain owns the object at `head` and every object after it, whose links are initialised.
    head: Option<NonNull<N>>,
}

impl<N: Link> Chain<N> {
    pub(crate) const EMPTY: Self = Self { head: None };

    /// # Safety
    ///
    /// - The caller must own `head` and every object after it, and gives them up.
    /// - Their links must be initialised.
    pub(crate) unsafe fn from_head(head: Option<NonNull<N>>) -> Self {
        // INVARIANT: the contract of this function promises both parts.
        Self { head }
    }

    /// Returns the first object, and gives up the ownership of all objects.
    pub(crate) fn into_head(self) -> Option<NonNull<N>> {
        self.head
    }

    pub(crate) fn first(&self) -> Option<NonNull<N>> {
        self.head
    }

    /// # Safety
    ///
    /// - The caller must own `object` exclusively and must not use it afterwards.
    pub(crate) unsafe fn push(&mut self, object: NonNull<N>) {
        // SAFETY: the caller owns `object` (contract).
        unsafe { N::set_next(object, self.head) };
        // INVARIANT: the caller has given up `object` (contract), whose link is now initialised.
        self.head = Some(object);
    }

    pub(crate) fn pop(&mut self) -> Option<NonNull<N>> {
        let object = self.head?;
        // SAFETY: the chain owns the object, whose link is initialised (invariant of `head`).
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
