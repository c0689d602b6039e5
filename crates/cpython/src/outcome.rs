//! The outcome of the decision whether to install the heap.

use crate::{
    abi::CPython,
    counted::Counted,
    decide::{Plan, Refusal, decide},
    domains::is_in_force,
    install::Installation,
    options::Options,
    self_check,
    settings::Settings,
};

pub(crate) enum Outcome {
    Installed(Installation),
    Refused {
        refusal: Refusal,
        /// The hooks that count the requests of a free-threaded build.
        counted: Option<Counted>,
    },
}

impl Outcome {
    pub(crate) const fn refused(refusal: Refusal) -> Self {
        Self::Refused { refusal, counted: None }
    }

    pub(crate) const fn installation(&self) -> Option<&Installation> {
        match self {
            Self::Installed(installation) => Some(installation),
            Self::Refused { .. } => None,
        }
    }

    pub(crate) const fn counted(&self) -> Option<&Counted> {
        match self {
            Self::Installed(_) => None,
            Self::Refused { counted, .. } => counted.as_ref(),
        }
    }

    /// Returns true if CPython uses the heap at this moment.
    pub(crate) fn is_in_force(&self, python: &CPython) -> bool {
        self.installation().is_some() && is_in_force(python)
    }
}

/// Installs the heap in `python` unless [`decide`] refuses. Returns the plan if it was installed.
///
/// # Safety
///
/// - This must be called by a constructor, so that CPython is either running or cannot start
///   before the function returns.
pub(crate) unsafe fn carry_out(
    python: &CPython,
    settings: &Settings,
    options: &Options,
) -> (Outcome, Option<Plan>) {
    // SAFETY: `decide` calls the check only if CPython has not started (contract).
    let check_layout = || unsafe { self_check::check_layout(python) };
    let installed = decide(python, settings, options, check_layout).and_then(|plan| {
        // SAFETY: CPython has not started since the decision (contract).
        let installation = unsafe { Installation::by_plan(python, plan, settings, options) }?;
        Ok((installation, plan))
    });
    match installed {
        Ok((installation, plan)) => (Outcome::Installed(installation), Some(plan)),
        Err(refusal) => {
            // SAFETY: our caller has promised the same (contract of this function).
            let counted = unsafe { count(python, settings, &refusal) };
            (Outcome::Refused { refusal, counted }, None)
        }
    }
}

/// Counts the requests of a free-threaded build if statistics are requested.
///
/// # Safety
///
/// - As for [`carry_out`].
unsafe fn count(python: &CPython, settings: &Settings, refusal: &Refusal) -> Option<Counted> {
    let Refusal::FreeThreaded(version) = refusal else { return None };
    if settings.stats.is_none() || python.is_initialized() {
        return None;
    }
    // SAFETY: CPython has not started, and cannot start now (contract).
    if version.is_newer() && unsafe { self_check::check_layout(python) }.is_err() {
        return None;
    }
    // SAFETY: CPython has not started (contract), and its layout is known or checked.
    Some(unsafe { Counted::install(python) })
}
