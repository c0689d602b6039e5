//! The checks for a CPython that is newer than all versions with which this library was tested.
//!
//! | when | what must hold |
//! | --- | --- |
//! | before the heap is installed | a vtable has five words, in the known order |
//! | | each public function calls the vtable of its own domain, with the known arguments |
//! | | the table of built-in modules has the known layout, and contains `_imp` |
//! | after that | each operation does what it promises, in each domain |
//! | | the heap's statistics follow the requests |
//!
//! The checks run before CPython starts, so no other code uses CPython's allocators at the same
//! time.

mod difference;
mod layout;
mod probe;
mod trial;

pub(crate) use self::{
    difference::Difference, layout::check as check_layout, trial::check as check_operations,
};
