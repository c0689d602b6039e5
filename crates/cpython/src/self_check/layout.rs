//! The layout of CPython's vtables, and of its table of built-in modules.

use std::{
    ffi::c_void,
    ptr::{self, NonNull},
};

use allocator_api::{Domain, VTable};

use super::{
    difference::Difference,
    probe::{self, Call},
};
use crate::{
    abi::{CPython, DomainFunctions, Words},
    reinit,
};

const VTABLE_WORDS: usize = size_of::<VTable>() / size_of::<*const c_void>();

/// Checks that this CPython uses vtables and built-in modules as the known versions do.
///
/// # Safety
///
/// - CPython must not have started.
/// - No other thread may use CPython's allocators in the meantime.
pub(crate) unsafe fn check(python: &CPython) -> Result<(), Difference> {
    for domain in Domain::ALL {
        check_words(python, domain)?;
    }
    for domain in Domain::ALL {
        let functions = CPython::functions(domain).ok_or(Difference::Functions(domain))?;
        // SAFETY: no other thread uses the allocators (contract).
        unsafe { check_calls(python, domain, &functions) }?;
    }
    // SAFETY: CPython has not started (contract).
    match unsafe { reinit::has_first_module(python) } {
        true => Ok(()),
        false => Err(Difference::BuiltinModules),
    }
}

/// Checks that a vtable of CPython has five words, and that none of its four functions is null.
fn check_words(python: &CPython, domain: Domain) -> Result<(), Difference> {
    // CPython copies the vtable to two arrays with different initial contents. Words that are equal
    // afterwards belong to the vtable.
    let [one, other] = [1, 2].map(|fill| {
        let mut words: Words = [ptr::without_provenance(fill); _];
        python.read_words(domain, &mut words);
        words
    });
    let is_written = |at: usize| one[at] == other[at];
    if !(0..one.len()).all(|at| is_written(at) == (at < VTABLE_WORDS)) {
        let words = (0..one.len()).filter(|at| is_written(*at)).count();
        return Err(Difference::Words { domain, words });
    }
    let has_null = one[1..VTABLE_WORDS].iter().any(|word| word.is_null());
    if has_null { Err(Difference::NullFunction(domain)) } else { Ok(()) }
}

/// Checks how CPython's public functions for `domain` call the domain's vtable.
///
/// Sets a vtable that records the calls, and restores CPython's own vtable afterwards.
///
/// # Safety
///
/// - As for [`check`].
/// - [`check_words`] must have succeeded for every domain.
unsafe fn check_calls(
    python: &CPython,
    domain: Domain,
    functions: &DomainFunctions,
) -> Result<(), Difference> {
    let allocators = || Domain::ALL.map(|domain| python.allocator(domain));
    let before = allocators();
    // SAFETY: the functions accept any call, and no one else makes requests (contract).
    unsafe { python.write_words(domain, &probe::words()) };
    let during = allocators();
    let calls = if only_probe_was_set(domain, &before, &during) {
        // SAFETY: the recording vtable serves the domain.
        unsafe { record_calls(functions) }
            .map_err(|operation| Difference::Call { domain, operation })
    } else {
        Err(Difference::Set(domain))
    };
    for domain in Domain::ALL {
        // SAFETY: the recording vtable has allocated no block.
        unsafe { python.set_allocator(domain, &before[domain.index()]) };
    }
    calls?;
    let is_same = allocators().iter().zip(&before).all(|(after, before)| after.is(before));
    if is_same { Ok(()) } else { Err(Difference::Set(domain)) }
}

fn only_probe_was_set(domain: Domain, before: &[VTable; 3], during: &[VTable; 3]) -> bool {
    Domain::ALL.map(Domain::index).into_iter().all(|at| {
        if at == domain.index() { probe::is(&during[at]) } else { during[at].is(&before[at]) }
    })
}

/// Checks each public function of the domain, and returns the first one that does not make the
/// expected call.
///
/// After a failure, the remaining functions are not called. They could pass a block of the
/// recording allocator to another allocator.
///
/// # Safety
///
/// - The recording vtable must serve the domain.
unsafe fn record_calls(functions: &DomainFunctions) -> Result<(), &'static str> {
    let block = Some(probe::block());
    let mut result = None;
    let mut check = |operation, request: &mut dyn FnMut() -> Option<NonNull<u8>>, expected| {
        let call = probe::record(|| result = request());
        if call == Some(expected) && result == block { Ok(()) } else { Err(operation) }
    };
    // SAFETY: the recording vtable accepts any request (contract).
    unsafe {
        check("malloc", &mut || (functions.malloc)(100), Call::malloc(100))?;
        check("calloc", &mut || (functions.calloc)(3, 8), Call::calloc(3, 8))?;
        check("realloc", &mut || (functions.realloc)(block, 200), Call::realloc(200))?;
    }
    let mut free = || {
        // SAFETY: the recording vtable accepts any request (contract).
        unsafe { (functions.free)(block) };
        block
    };
    check("free", &mut free, Call::free())
}
