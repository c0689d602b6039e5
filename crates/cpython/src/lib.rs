//! A shared library that puts the obmalloc heap into an unmodified CPython.
