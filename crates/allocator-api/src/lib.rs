//! The facade: vtables shaped like PyMemAllocatorEx, domains, hooks.
