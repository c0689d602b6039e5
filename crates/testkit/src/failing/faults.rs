use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A plan that decides which calls fail. Calls are numbered from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plan {
    /// No call fails.
    #[default]
    Never,
    /// Only the call with this number fails.
    Nth(usize),
    /// The call with this number and all later calls fail.
    From(usize),
    /// Every call whose number is a multiple of this number fails.
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

/// Counts of requests for memory, and of those that failed on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// The number of requests.
    pub calls: usize,
    /// The number of requests that the [`Plan`] made fail.
    pub failures: usize,
}

/// A [`Plan`] that makes requests fail, and a [`Tally`] of them. Clones share both.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<(Plan, Tally)>>);

impl Faults {
    /// Creates faults that follow `plan`, with all counts at 0.
    pub fn new(plan: Plan) -> Self {
        Self(Arc::new(Mutex::new((plan, Tally::default()))))
    }

    /// Replaces the current plan with `plan`, and resets all counts to 0.
    pub fn restart(&self, plan: Plan) {
        *self.state() = (plan, Tally::default());
    }

    /// Returns the counts since these faults were created or last [restarted](Self::restart).
    pub fn tally(&self) -> Tally {
        self.state().1
    }

    /// Counts a call. Returns true if this call must fail according to the plan.
    pub fn call_fails(&self) -> bool {
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
        (0..5).map(|_| faults.call_fails()).collect()
    }

    #[test]
    fn exactly_the_calls_of_the_plan_fail() {
        assert_eq!(answers(Plan::Never), [false; 5]);
        assert_eq!(answers(Plan::Nth(2)), [false, true, false, false, false]);
        assert_eq!(answers(Plan::From(3)), [false, false, true, true, true]);
        assert_eq!(answers(Plan::Every(2)), [false, true, false, true, false]);
    }
}
