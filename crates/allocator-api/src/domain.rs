#![forbid(unsafe_code)]

use core::fmt;

/// A kind of memory request that can have its own allocator. CPython: `PyMemAllocatorDomain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Domain {
    /// Memory for any purpose, which any thread may request. CPython: `PYMEM_DOMAIN_RAW`.
    Raw = 0,
    /// Buffers of the interpreter. CPython: `PYMEM_DOMAIN_MEM`.
    Mem = 1,
    /// Objects of the interpreter. CPython: `PYMEM_DOMAIN_OBJ`.
    Obj = 2,
}

impl Domain {
    /// All domains, ordered by value.
    pub const ALL: [Self; 3] = [Self::Raw, Self::Mem, Self::Obj];

    /// Returns the domain's value: 0, 1 or 2.
    #[inline]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Returns the domain's name: `raw`, `mem` or `obj`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Mem => "mem",
            Self::Obj => "obj",
        }
    }

    /// Returns the letter that CPython's debug hooks write before a block: `r`, `m` or `o`.
    pub const fn letter(self) -> u8 {
        match self {
            Self::Raw => b'r',
            Self::Mem => b'm',
            Self::Obj => b'o',
        }
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

const _: () =
    assert!(Domain::Raw as u32 == 0 && Domain::Mem as u32 == 1 && Domain::Obj as u32 == 2);

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn domains_are_numbered_and_named_as_in_cpython() {
        assert_eq!(Domain::ALL.map(Domain::index), [0, 1, 2]);
        assert_eq!(Domain::ALL.map(|domain| domain.to_string()), ["raw", "mem", "obj"]);
        assert_eq!(Domain::ALL.map(Domain::letter), *b"rmo");
    }
}
