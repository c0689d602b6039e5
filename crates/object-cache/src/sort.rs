//! Chains in the order of their addresses, without memory to sort in.

use core::ptr::NonNull;

use crate::link::{Chain, Link};

/// Sorts `chain` by address, lowest first: a merge sort from the bottom up.
///
/// ```text
///   sorted[i]: nothing, or a sorted chain of 2^i objects; adding one object carries, as adding
///   1 to a binary number does
/// ```
pub(crate) fn by_address<N: Link>(mut chain: Chain<N>) -> Chain<N> {
    let mut sorted = [const { Chain::EMPTY }; usize::BITS as usize];
    while let Some(object) = chain.pop() {
        let mut carry = Chain::EMPTY;
        // SAFETY: the object has just left its chain.
        unsafe { carry.push(object) };
        for place in &mut sorted {
            if place.first().is_none() {
                *place = carry;
                break;
            }
            carry = merge(core::mem::replace(place, Chain::EMPTY), carry);
        }
    }
    sorted.into_iter().fold(Chain::EMPTY, merge)
}

/// Merges two sorted chains.
fn merge<N: Link>(mut a: Chain<N>, mut b: Chain<N>) -> Chain<N> {
    let mut merged = Tail::new();
    loop {
        match (a.first(), b.first()) {
            (Some(from_a), Some(from_b)) => {
                let lower = if from_a < from_b { &mut a } else { &mut b };
                lower.pop().into_iter().for_each(|object| merged.push(object));
            }
            (Some(_), None) => return merged.end_with(a),
            (None, _) => return merged.end_with(b),
        }
    }
}

/// A chain that grows at its end.
struct Tail<N> {
    head: Option<NonNull<N>>,
    /// # Invariant
    ///
    /// The last object from `head` on, which is ours like all of them.
    last: Option<NonNull<N>>,
}

impl<N: Link> Tail<N> {
    fn new() -> Self {
        Self { head: None, last: None }
    }

    /// Appends an object that has left its chain.
    fn push(&mut self, object: NonNull<N>) {
        self.link(Some(object));
        // INVARIANT: it was linked behind the last one.
        self.last = Some(object);
    }

    fn link(&mut self, next: Option<NonNull<N>>) {
        match self.last {
            // SAFETY: `last`'s invariant.
            Some(last) => unsafe { N::set_next(last, next) },
            None => self.head = next,
        }
    }

    /// The whole, with `rest` behind it.
    fn end_with(mut self, rest: Chain<N>) -> Chain<N> {
        self.link(rest.into_head());
        // SAFETY: every object but the last was linked when its successor was pushed, the last
        // one just now, and `rest` is a chain.
        unsafe { Chain::from_head(self.head) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::link::Dead;

    proptest! {
        #[test]
        fn sorting_keeps_every_object_and_orders_them(order in Just((0..40).collect::<std::vec::Vec<_>>()).prop_shuffle(), count in 0..40_usize) {
            let mut words = [[0_u64; 2]; 40];
            let start = NonNull::from(&mut words).cast::<[u64; 2]>();
            let mut chain = Chain::<Dead>::EMPTY;
            for &index in &order[..count] {
                // SAFETY: there are 40 objects from `start` on, each pushed once.
                unsafe { chain.push(start.add(index).cast()) };
            }
            let mut expected = order[..count].to_vec();
            expected.sort_unstable();
            // SAFETY: as above.
            let expected = expected.iter().map(|&index| unsafe { start.add(index) }.cast());
            prop_assert!(by_address(chain).eq(expected));
        }
    }
}
