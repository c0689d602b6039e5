//! The amount of memory that the users of a source have mapped, and the limits on it.
//!
//! The limits are checked only when memory is mapped, so requests that need no new mapping cost
//! nothing extra.

#![forbid(unsafe_code)]

/// The limits on the memory that is mapped for a heap or a process, in bytes.
///
/// An arena counts in full, even if few of its blocks are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Memory beyond this limit is refused.
    pub hard: usize,
    /// When this limit is exceeded for the first time, a warning is written to stderr.
    pub soft: usize,
}

impl Limits {
    /// No limits.
    pub const NONE: Self = Self { hard: usize::MAX, soft: usize::MAX };

    /// Creates a hard limit of `bytes` bytes.
    pub const fn hard(bytes: usize) -> Self {
        Self { hard: bytes, ..Self::NONE }
    }

    /// Creates a soft limit of `bytes` bytes.
    pub const fn soft(bytes: usize) -> Self {
        Self { soft: bytes, ..Self::NONE }
    }
}

/// A request that would exceed a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimitReached {
    /// The bytes that would have to be mapped for the request.
    pub requested: usize,
    /// The bytes that are mapped.
    pub used: usize,
    /// The limit, in bytes.
    pub limit: usize,
}

/// The bytes that the users of a source have mapped, their peak, and the limits.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    bytes: usize,
    highwater: usize,
    limits: Limits,
    has_warned: bool,
    reached: Option<LimitReached>,
}

impl Usage {
    /// Creates a value with these limits, for a source whose memory is not in use yet.
    pub const fn new(limits: Limits) -> Self {
        Self { bytes: 0, highwater: 0, limits, has_warned: false, reached: None }
    }

    /// Returns the bytes in use, including the bytes that are [held](Self::hold).
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the largest number of bytes that were in use at the same time.
    pub const fn highwater(&self) -> usize {
        self.highwater
    }

    /// Returns the limits.
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    /// Replaces the limits. Memory already in use is not affected, even if it exceeds the new
    /// limits.
    pub fn set_limits(&mut self, limits: Limits) {
        (self.limits, self.has_warned, self.reached) = (limits, false, None);
    }

    /// Returns true if `more` bytes may be mapped. Otherwise stores the refusal.
    pub fn allows(&mut self, more: usize) -> bool {
        let is_allowed = more <= self.limits.hard.saturating_sub(self.bytes);
        let (used, limit) = (self.bytes, self.limits.hard);
        self.reached = (!is_allowed).then_some(LimitReached { requested: more, used, limit });
        is_allowed
    }

    /// Returns the refusal of the last checked request, if that request was refused.
    pub const fn refusal(&self) -> Option<LimitReached> {
        self.reached
    }

    /// Counts `more` bytes as in use before they are mapped, so that the hard limit covers them.
    ///
    /// Call this function before asking the system for the memory. Once the outcome is known,
    /// call [`remove`](Self::remove) with the same number of bytes. If the bytes were mapped, then
    /// call [`add`](Self::add) as well.
    ///
    /// Held bytes count towards the hard limit at once. They count towards the peak and the soft
    /// limit only if [`add`](Self::add) is called for another request while the bytes are held.
    pub fn hold(&mut self, more: usize) {
        self.bytes = self.bytes.saturating_add(more);
    }

    /// Records that `more` bytes were mapped. Returns true if this exceeds the soft limit for the
    /// first time.
    #[must_use = "the caller should warn"]
    pub fn add(&mut self, more: usize) -> bool {
        self.bytes = self.bytes.saturating_add(more);
        self.highwater = self.highwater.max(self.bytes);
        let must_warn = self.bytes > self.limits.soft && !self.has_warned;
        self.has_warned |= must_warn;
        must_warn
    }

    /// Records that `less` bytes were unmapped.
    pub fn remove(&mut self, less: usize) {
        self.bytes = self.bytes.saturating_sub(less);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_beyond_the_hard_limit_is_refused_and_remembered() {
        let mut usage = Usage::new(Limits::hard(100));
        assert!(usage.allows(100) && !usage.add(60));
        assert!(usage.allows(40) && !usage.allows(41));
        let expected = LimitReached { requested: 41, used: 60, limit: 100 };
        assert_eq!(usage.refusal(), Some(expected));
        usage.remove(60);
        assert!(usage.allows(100));
        assert_eq!(usage.refusal(), None);
        assert_eq!((usage.bytes(), usage.highwater()), (0, 60));
    }

    #[test]
    fn a_soft_limit_warns_once_and_refuses_nothing() {
        let mut usage = Usage::new(Limits::soft(100));
        assert!(!usage.add(100) && usage.add(1) && !usage.add(1));
        assert!(usage.allows(usize::MAX / 2));
        usage.remove(50);
        assert!(!usage.add(50));
        usage.set_limits(Limits::soft(10));
        assert!(usage.add(1));
    }

    #[test]
    fn bytes_that_are_only_held_count_for_the_hard_limit() {
        let mut usage = Usage::new(Limits { soft: 50, hard: 100 });
        usage.hold(80);
        assert!(!usage.allows(30));
        usage.remove(80);
        assert_eq!((usage.bytes(), usage.highwater()), (0, 0));
        assert!(usage.allows(30) && usage.add(51));
    }

    #[test]
    fn held_bytes_count_for_the_peak_and_the_warning_of_another_request() {
        let mut usage = Usage::new(Limits::soft(50));
        usage.hold(80);
        assert!(usage.add(1));
        usage.remove(80);
        assert_eq!((usage.bytes(), usage.highwater()), (1, 81));
    }

    #[test]
    fn a_limit_below_what_is_in_use_refuses_every_mapping() {
        let mut usage = Usage::new(Limits::NONE);
        let _ = usage.add(100);
        usage.set_limits(Limits::hard(50));
        assert!(!usage.allows(1) && usage.allows(0));
    }
}
