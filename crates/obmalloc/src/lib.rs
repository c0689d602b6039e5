//! The small-object heap of CPython: arenas, pools and blocks, for one owner.
