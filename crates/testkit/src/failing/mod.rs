//! Sources and allocators that count their calls and fail when told to.
//!
//! ```text
//!   test ──── Faults ◄──── FailingArenas { source }   inside the heap
//!              shared ◄─── FailingAlloc  { lower }    below the heap
//! ```
//!
//! The test keeps a handle on the [`Faults`] while the heap owns the rest.

mod alloc;
mod arenas;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use self::{
    alloc::{FailingAlloc, LiveBlocks},
    arenas::FailingArenas,
};

/// Which calls fail. The first call is number 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plan {
    /// None.
    #[default]
    Never,
    /// This one alone.
    Nth(usize),
    /// This one and all after it.
    From(usize),
    /// Every one whose number is a multiple of this.
    Every(usize),
}

impl Plan {
    fn fails(self, call: usize) -> bool {
        match self {
            Self::Never => false,
            Self::Nth(nth) => call == nth,
            Self::From(first) => call >= first,
            Self::Every(step) => call.is_multiple_of(step),
        }
    }
}

/// How often something was asked for, and how often it was refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests for memory.
    pub calls: usize,
    /// Requests that the plan refused.
    pub failures: usize,
}

/// A [`Plan`] and what came of it. Clones share both.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<(Plan, Tally)>>);

impl Faults {
    /// Nothing counted yet, and failures as `plan` says.
    pub fn new(plan: Plan) -> Self {
        Self(Arc::new(Mutex::new((plan, Tally::default()))))
    }

    /// Follows `plan` from now on, and counts from 0 again.
    pub fn restart(&self, plan: Plan) {
        *self.state() = (plan, Tally::default());
    }

    /// The counts since the start, or the last [`restart`](Self::restart).
    pub fn tally(&self) -> Tally {
        self.state().1
    }

    /// Counts a call, and says whether it is to fail.
    pub fn strike(&self) -> bool {
        let (plan, tally) = &mut *self.state();
        tally.calls += 1;
        let fails = plan.fails(tally.calls);
        tally.failures += usize::from(fails);
        fails
    }

    fn state(&self) -> MutexGuard<'_, (Plan, Tally)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(plan: Plan) -> Vec<bool> {
        let faults = Faults::new(plan);
        (0..5).map(|_| faults.strike()).collect()
    }

    #[test]
    fn the_calls_that_a_plan_names_fail_and_no_others() {
        assert_eq!(answers(Plan::Never), [false; 5]);
        assert_eq!(answers(Plan::Nth(2)), [false, true, false, false, false]);
        assert_eq!(answers(Plan::From(3)), [false, false, true, true, true]);
        assert_eq!(answers(Plan::Every(2)), [false, true, false, true, false]);
    }
}
