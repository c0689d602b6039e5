use core::{mem, ptr::NonNull};

use crate::list::{Chain, Link};

/// Sorts `chain` by address in ascending order. Uses a merge sort that allocates no memory.
///
/// `sorted[i]` is empty or holds 2^i objects, so adding an object works like incrementing a binary
/// number.
pub(super) fn by_address<N: Link>(chain: Chain<N>) -> Chain<N> {
    let mut sorted = [const { Chain::EMPTY }; usize::BITS as usize];
    for object in chain {
        let mut carry = Chain::EMPTY;
        // SAFETY: the object has just left its chain.
        unsafe { carry.push(object) };
        for place in &mut sorted {
            if place.first().is_none() {
                *place = carry;
                break;
            }
            carry = merge(mem::replace(place, Chain::EMPTY), carry);
        }
    }
    sorted.into_iter().fold(Chain::EMPTY, merge)
}

fn merge<N: Link>(mut a: Chain<N>, mut b: Chain<N>) -> Chain<N> {
    let (mut head, mut last) = (None, None);
    let mut append = |next: Option<NonNull<N>>| {
        match last {
            // SAFETY: `last` has left its chain, and no other chain owns it yet.
            Some(last) => unsafe { N::set_next(last, next) },
            None => head = next,
        }
        last = next;
    };
    while let (Some(first_of_a), Some(first_of_b)) = (a.first(), b.first()) {
        append(if first_of_a < first_of_b { a.pop() } else { b.pop() });
    }
    let remaining = if a.first().is_some() { a } else { b };
    append(remaining.into_head());
    // SAFETY: we own `head` and all objects after it. Their links were set by `append`, or by the
    // chain of `remaining`.
    unsafe { Chain::from_head(head) }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::list::FreeObject;

    proptest! {
        #[test]
        fn sorting_retains_every_object_and_orders_them(
            order in Just((0..40).collect::<Vec<_>>()).prop_shuffle(),
            count in 0..40_usize,
        ) {
            let mut words = [[0_u64; 2]; 40];
            let start = NonNull::from(&mut words).cast::<[u64; 2]>();
            let mut chain = Chain::<FreeObject>::EMPTY;
            for &index in &order[..count] {
                // SAFETY: 40 objects begin at `start`, and each is pushed once.
                unsafe { chain.push(start.add(index).cast()) };
            }
            let mut expected = order[..count].to_vec();
            expected.sort_unstable();
            // SAFETY: 40 objects begin at `start`, and `index` is below 40.
            let expected = expected.iter().map(|&index| unsafe { start.add(index) }.cast());
            prop_assert!(by_address(chain).eq(expected));
        }
    }
}
