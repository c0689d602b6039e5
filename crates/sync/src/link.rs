//! Linked lists of nodes that hold their own link.
//!
//! A node is a free block in a build and a small object in a model, because loom cannot observe raw
//! memory. The lists are generic over their nodes, so the lists that ship are the lists that loom
//! explores.

use core::{
    marker::PhantomData,
    ptr::{self, NonNull},
};

/// A node with room for a link.
///
/// # Safety
///
/// [`next`](Self::next) must return what [`set_next`](Self::set_next) last stored in the node.
pub unsafe trait Link: Sized {
    /// Reads the link of `node`: the next node, or null.
    ///
    /// # Safety
    ///
    /// - The caller must exclusively own `node`.
    /// - The link must have been set.
    unsafe fn next(node: NonNull<Self>) -> *mut Self;

    /// Writes the link of `node`.
    ///
    /// # Safety
    ///
    /// The caller must exclusively own `node`.
    unsafe fn set_next(node: NonNull<Self>, next: *mut Self);
}

/// A list of nodes that ends with a null link. The chain owns its nodes.
///
/// As an iterator it takes the nodes out one by one. Each belongs to whoever receives it.
#[derive(Debug)]
pub struct Chain<N> {
    /// # Invariant
    ///
    /// The chain exclusively owns the nodes along the links from here to null.
    head: *mut N,
    owned: PhantomData<N>,
}

impl<N: Link> Chain<N> {
    /// The chain without nodes.
    pub const EMPTY: Self = Self { head: ptr::null_mut(), owned: PhantomData };

    /// Makes a chain of the nodes along the links from `head` to null.
    ///
    /// # Safety
    ///
    /// The caller must exclusively own these nodes, and gives up that ownership.
    #[inline]
    pub unsafe fn from_head(head: *mut N) -> Self {
        // INVARIANT: the caller owned the nodes (contract of `from_head`).
        Self { head, owned: PhantomData }
    }

    /// Puts `node` before the others.
    ///
    /// # Safety
    ///
    /// The caller must exclusively own `node`, and gives up that ownership.
    #[inline]
    pub unsafe fn push(&mut self, node: NonNull<N>) {
        // SAFETY: the caller owns `node` (contract of `push`).
        unsafe { N::set_next(node, self.head) };
        // INVARIANT: the node was given up, and links to the others.
        self.head = node.as_ptr();
    }
}

impl<N: Link> Iterator for Chain<N> {
    type Item = NonNull<N>;

    #[inline]
    fn next(&mut self) -> Option<NonNull<N>> {
        let node = NonNull::new(self.head)?;
        // SAFETY: we own the node, and its link was set (invariant of `head`).
        self.head = unsafe { N::next(node) };
        Some(node)
    }
}

/// A list of at least one node whose last node is known, so that it can be put before another list
/// in constant time. The segment owns its nodes.
#[derive(Debug)]
pub struct Segment<N> {
    /// # Invariant
    ///
    /// The segment exclusively owns the nodes along the links from `first` to `last`. The link of
    /// `last` may be unset.
    first: NonNull<N>,
    last: NonNull<N>,
}

impl<N: Link> Segment<N> {
    /// Makes a segment of one node.
    ///
    /// # Safety
    ///
    /// The caller must exclusively own `node`, and gives up that ownership.
    #[inline]
    pub unsafe fn of(node: NonNull<N>) -> Self {
        // INVARIANT: the caller owned the node (contract of `of`).
        Self { first: node, last: node }
    }

    /// Puts `node` before the nodes of `segment`, or makes a segment of it if there is none.
    ///
    /// # Safety
    ///
    /// The caller must exclusively own `node`, and gives up that ownership.
    #[inline]
    pub unsafe fn push(segment: &mut Option<Self>, node: NonNull<N>) {
        match segment {
            Some(segment) => {
                // SAFETY: the caller owns `node` (contract of `push`).
                unsafe { N::set_next(node, segment.first.as_ptr()) };
                // INVARIANT: the node was given up, and links to the others.
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

    /// Links the last node to `rest`.
    #[inline]
    #[expect(clippy::not_unsafe_ptr_arg_deref, reason = "the link is stored, not followed")]
    pub fn link_to(&self, rest: *mut N) {
        // SAFETY: the segment owns the node (invariant of `first`).
        unsafe { N::set_next(self.last, rest) }
    }

    /// Makes a chain of the nodes.
    pub fn into_chain(self) -> Chain<N> {
        self.link_to(ptr::null_mut());
        // SAFETY: the segment owned the nodes, and the last link is null now.
        unsafe { Chain::from_head(self.first.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Node(*mut Node);

    // SAFETY: the link is read from where it is written.
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
        // SAFETY: the test owns the nodes, and no longer uses them.
        nodes.iter().for_each(|node| unsafe { chain.push(*node) });
        assert!(chain.eq(nodes.iter().rev().copied()));
    }

    #[test]
    fn a_segment_becomes_a_chain_of_its_nodes() {
        let mut nodes = [const { Node(ptr::null_mut()) }; 3];
        let nodes = nodes.each_mut().map(NonNull::from);
        let mut segment = None;
        // SAFETY: the test owns the nodes, and no longer uses them.
        nodes.iter().for_each(|node| unsafe { Segment::push(&mut segment, *node) });
        let segment = segment.expect("three nodes were pushed");
        assert_eq!(segment.first(), nodes[2]);
        assert!(segment.into_chain().eq(nodes.iter().rev().copied()));
    }
}
