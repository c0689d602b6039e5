//! Pins threads to processors, because two new threads may otherwise share a processor for a while.

/// Pins the calling thread to a processor, which is given by its index among the allowed
/// processors.
#[cfg(target_os = "linux")]
pub(crate) fn to_processor(number: usize) {
    let mut allowed = std::mem::MaybeUninit::<libc::cpu_set_t>::zeroed();
    let size = size_of::<libc::cpu_set_t>();
    // SAFETY: the pointer is valid for the write of `size` bytes.
    if unsafe { libc::sched_getaffinity(0, size, allowed.as_mut_ptr()) } != 0 {
        return;
    }
    // SAFETY: a set consists of bits, for which zero is valid.
    let allowed = unsafe { allowed.assume_init() };
    // SAFETY: every number is below `CPU_SETSIZE`.
    let is_allowed = |cpu: &usize| unsafe { libc::CPU_ISSET(*cpu, &allowed) };
    let count = (0..libc::CPU_SETSIZE as usize).filter(is_allowed).count();
    let chosen = (0..libc::CPU_SETSIZE as usize).filter(is_allowed).nth(number % count.max(1));
    let Some(chosen) = chosen else { return };
    // SAFETY: a set consists of bits, for which zero is valid.
    let mut one = unsafe { std::mem::zeroed::<libc::cpu_set_t>() };
    // SAFETY: `chosen` is below `CPU_SETSIZE`.
    unsafe { libc::CPU_SET(chosen, &mut one) };
    // SAFETY: the pointer is valid for the read of `size` bytes.
    unsafe { libc::sched_setaffinity(0, size, &one) };
}

/// Does nothing, because pinning is implemented only for Linux.
#[cfg(not(target_os = "linux"))]
pub(crate) fn to_processor(_number: usize) {}
