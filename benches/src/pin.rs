//! A processor for each thread.
//!
//! The kernel may leave two new threads on one processor for some milliseconds, or for the whole
//! of a chunk; which of both it does would be all that is measured.

/// Keeps this thread on the processor of number `number`, counted over those that the process may
/// use. Elsewhere than on Linux the kernel chooses.
#[cfg(target_os = "linux")]
pub(crate) fn to_processor(number: usize) {
    let mut allowed = std::mem::MaybeUninit::<libc::cpu_set_t>::zeroed();
    let size = size_of::<libc::cpu_set_t>();
    // SAFETY: there is room for the set.
    if unsafe { libc::sched_getaffinity(0, size, allowed.as_mut_ptr()) } != 0 {
        return;
    }
    // SAFETY: bits, which were zero before the kernel filled them in.
    let allowed = unsafe { allowed.assume_init() };
    // SAFETY: every number is below the size of the set.
    let is_allowed = |cpu: &usize| unsafe { libc::CPU_ISSET(*cpu, &allowed) };
    let count = (0..libc::CPU_SETSIZE as usize).filter(is_allowed).count();
    let chosen = (0..libc::CPU_SETSIZE as usize).filter(is_allowed).nth(number % count.max(1));
    let Some(chosen) = chosen else { return };
    // SAFETY: an empty set is all zero.
    let mut one = unsafe { std::mem::zeroed::<libc::cpu_set_t>() };
    // SAFETY: the number is below the size of the set.
    unsafe { libc::CPU_SET(chosen, &mut one) };
    // SAFETY: the set is filled in. Where it is refused, the kernel chooses.
    unsafe { libc::sched_setaffinity(0, size, &one) };
}

/// Keeps this thread on the processor of number `number`, where the kernel can be told so.
#[cfg(not(target_os = "linux"))]
pub(crate) fn to_processor(_number: usize) {}
