//! Intrusive linked lists, in which each node stores the pointer to the next node.
//!
//! In an allocator, each list node is a free block of memory. In loom tests, a node is a small
//! object instead, because loom cannot observe accesses to raw memory.

use core::{
    marker::PhantomData,
    ptr::{self, NonNull},
};

/// A list node that stores a pointer to the next node.
///
/// # Safety
///
/// The function [`next`](Self::next) must return the pointer that [`set_next`](Self::set_next)
/// stored last.
pub unsafe trait Link: Sized {
    /// Returns the pointer to the next node that `node` stores, which may be null.
    ///
    /// # Safety
    ///
    /// - The caller must exclusively own `node`.
    /// - The link of `node` must have been set before.
    unsafe fn next(node: NonNull<Self>) -> *mut Self;

    /// Stores the pointer `next` in `node`.
    ///
    /// # Safety
    ///
    /// The caller must exclusively own `node`.
    unsafe fn set_next(node: NonNull<Self>, next: *mut Self);
}

/// A linked list that owns its nodes.
///
/// Iterating over a chain removes its nodes from the front. The caller owns each returned node.
#[derive(Debug)]
pub struct Chain<N> {
    /// # Invariant
    ///
    /// `head` is null or starts a list that ends at null. The chain exclusively owns all its nodes.
    head: *mut N,
    owned: PhantomData<N>,
}

impl<N: Link> Chain<N> {
    /// An empty chain.
    pub const EMPTY: Self = Self { head: ptr::null_mut(), owned: PhantomData };

    /// Makes a chain of the list that starts at `head`, which may be null.
    ///
    /// # Safety
    ///
    /// - Each node of the list must link to the next node, and the last node must link to null.
    /// - The caller must own all nodes exclusively, and must not use them afterwards.
    #[inline]
    pub unsafe fn from_head(head: *mut N) -> Self {
        // INVARIANT: the caller gave up a list that ends at null (contract of `from_head`).
        Self { head, owned: PhantomData }
    }

    /// Returns true if the chain has no nodes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.head.is_null()
    }

    /// Puts `node` at the front of the chain.
    ///
    /// # Safety
    ///
    /// The caller must own `node` exclusively and must not use it afterwards.
    #[inline]
    pub unsafe fn push(&mut self, node: NonNull<N>) {
        // SAFETY: the caller owns `node` (contract of `push`).
        unsafe { N::set_next(node, self.head) };
        // INVARIANT: the caller gave up `node` (contract of `push`), and its link was set above.
        self.head = node.as_ptr();
    }
}

impl<N: Link> Iterator for Chain<N> {
    type Item = NonNull<N>;

    #[inline]
    fn next(&mut self) -> Option<NonNull<N>> {
        let node = NonNull::new(self.head)?;
        // SAFETY: the chain owns the node, and the link of the node was set (invariant of `head`).
        self.head = unsafe { N::next(node) };
        Some(node)
    }
}

/// A non-empty list that owns its nodes.
///
/// A segment knows its last node, so it can be put in front of another list in constant time.
#[derive(Debug)]
pub struct Segment<N> {
    /// # Invariant
    ///
    /// The segment exclusively owns the linked nodes from `first` to `last`, including both. The
    /// link of `last` may be unset.
    first: NonNull<N>,
    last: NonNull<N>,
}

impl<N: Link> Segment<N> {
    /// Makes a segment of one node.
    ///
    /// # Safety
    ///
    /// The caller must own `node` exclusively and must not use it afterwards.
    #[inline]
    pub unsafe fn of(node: NonNull<N>) -> Self {
        // INVARIANT: the caller gave up the node to the segment (contract of `of`).
        Self { first: node, last: node }
    }

    /// Puts `node` at the front of `segment`. `None` becomes a segment of one node.
    ///
    /// # Safety
    ///
    /// The caller must own `node` exclusively and must not use it afterwards.
    #[inline]
    pub unsafe fn push(segment: &mut Option<Self>, node: NonNull<N>) {
        match segment {
            Some(segment) => {
                // SAFETY: the caller owns `node` (contract of `push`).
                unsafe { N::set_next(node, segment.first.as_ptr()) };
                // INVARIANT: the caller gave up `node` (contract), and its link was set above.
                segment.first = node;
            }
            // SAFETY: the caller owns `node`, and gives it up (contract of `push`).
            None => *segment = Some(unsafe { Self::of(node) }),
        }
    }

    /// Returns the first node, which still belongs to the segment.
    #[inline]
    pub fn first(&self) -> NonNull<N> {
        self.first
    }

    /// Links the last node to `rest`. The segment does not become the owner of `rest`.
    #[inline]
    #[expect(clippy::not_unsafe_ptr_arg_deref, reason = "the link is stored, not followed")]
    pub fn link_to(&self, rest: *mut N) {
        // SAFETY: the segment owns its last node (invariant of `first`).
        unsafe { N::set_next(self.last, rest) }
    }

    /// Converts the segment into a chain of the same nodes.
    pub fn into_chain(self) -> Chain<N> {
        self.link_to(ptr::null_mut());
        // SAFETY: the segment owned the nodes. All links are set, and the last one is null.
        unsafe { Chain::from_head(self.first.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Node(*mut Node);

    // SAFETY: both functions access the same field, so `next` reads what `set_next` has written.
    unsafe impl Link for Node {
        unsafe fn next(node: NonNull<Self>) -> *mut Self {
            // SAFETY: the caller owns the node (contract of `next`).
            unsafe { node.as_ref() }.0
        }

        unsafe fn set_next(node: NonNull<Self>, next: *mut Self) {
            // SAFETY: the caller owns the node (contract of `set_next`).
            unsafe { (*node.as_ptr()).0 = next };
        }
    }

    #[test]
    fn a_chain_returns_the_node_that_was_pushed_last_first() {
        let mut nodes = [const { Node(ptr::null_mut()) }; 3];
        let nodes = nodes.each_mut().map(NonNull::from);
        let mut chain = Chain::EMPTY;
        // SAFETY: the test owns the nodes, and does not access them while they are in the list.
        nodes.iter().for_each(|node| unsafe { chain.push(*node) });
        assert!(chain.eq(nodes.iter().rev().copied()));
    }

    #[test]
    fn a_segment_becomes_a_chain_of_its_nodes() {
        let mut nodes = [const { Node(ptr::null_mut()) }; 3];
        let nodes = nodes.each_mut().map(NonNull::from);
        let mut segment = None;
        // SAFETY: the test owns the nodes, and does not access them while they are in the list.
        nodes.iter().for_each(|node| unsafe { Segment::push(&mut segment, *node) });
        let segment = segment.expect("three nodes were pushed");
        assert_eq!(segment.first(), nodes[2]);
        assert!(segment.into_chain().eq(nodes.iter().rev().copied()));
    }
}
