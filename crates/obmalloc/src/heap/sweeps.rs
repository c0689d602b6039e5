//! The sweeps of a heap, which return free memory to the system. The module `purging` describes the
//! rules.

#![forbid(unsafe_code)]

use core::time::Duration;

use raw_mem::{ArenaSource, MemAlloc};

use crate::{
    arena::pages::PAGE,
    geometry::{Geometry, shape::Shape},
    heap::{
        Heap,
        purging::{PurgePolicy, Purging, Reason, VISITS, Which},
    },
};

impl<S: ArenaSource, A: MemAlloc, G: Geometry> Heap<S, A, G> {
    /// Sets when the heap returns free memory to the system automatically.
    pub fn set_purge_policy(&mut self, policy: PurgePolicy) {
        self.purging = Purging::new(policy);
    }

    /// Purges all pages without a block in use. Returns their size in bytes.
    pub(crate) fn purge_free_pages(&mut self) -> usize {
        if !Shape::<G>::PURGES {
            return 0;
        }
        self.arenas.visit(|arena| arena.uncarve::<G>());
        self.purge(Which::All)
    }

    /// If a sweep is due, returns memory to the system that has been free for a long time.
    ///
    /// The heap itself calls this function whenever it takes a slow path. A program that allocates
    /// rarely should also call this function from time to time, because its free memory may
    /// otherwise stay mapped. Most calls take little time, because only every 64th call checks the
    /// clock.
    ///
    /// Returns true if the call checked the clock, and may therefore have returned memory.
    #[inline(always)]
    pub fn visit(&mut self) -> bool {
        if !Shape::<G>::PURGES {
            return false;
        }
        self.purging.visits -= 1;
        let is_due = self.purging.visits == 0;
        if is_due {
            self.look_at_clock();
        }
        is_due
    }

    #[cold]
    #[inline(never)]
    fn look_at_clock(&mut self) {
        self.purging.visits = VISITS;
        let Some(now) = self.purging.policy.now() else { return self.renew_permission() };
        if now != self.purging.looked {
            self.purging.looked = now;
            self.renew_permission();
        }
        if self.purging.should_trim(now) {
            self.trim();
            self.purging.note_trimmed(now);
        }
        if !self.purging.policy.decays() {
            return;
        }
        let due = self.purging.due;
        if due.is_zero() || now >= due {
            self.purging.due = now.saturating_add(self.purging.policy.interval());
        }
        if !due.is_zero() && now >= due {
            self.sweep(now);
        } else if !self.purging.policy.whole_arenas && self.purging.is_much_looser(self.units()) {
            self.purge_after_drop(now);
        }
    }

    /// Returns the number of units in all arenas.
    fn units(&self) -> usize {
        self.arenas.counts().current * Shape::<G>::POOLS
    }

    /// Purges memory that has been free since the last sweep, and records what is free now.
    fn sweep(&mut self, now: Duration) {
        while let Some(pool) = self.empty.end_idle::<G>(&mut self.used, &mut self.arenas) {
            self.free_pool(pool);
        }
        self.empty.note_idle();
        self.unmap_excess();
        self.sweep_large();
        self.source.decay();
        if self.purging.policy.whole_arenas {
            return;
        }
        if self.purging.policy.decay.is_zero() {
            self.purge_free_pages();
            return;
        }
        self.judge_purges(now);
        if self.purging.may_purge(Reason::Idle, now) {
            let mut retained = 0;
            self.arenas.visit(|arena| retained += arena.retained_bytes::<G>());
            let exceeds = retained > self.purging.policy.limit;
            let pages = self.purge(if exceeds { Which::All } else { Which::Idle }) / PAGE;
            self.purging.note_purged(pages, Reason::Idle);
        }
        self.arenas.visit(|arena| arena.note_idle());
        if self.purging.may_walk(self.units(), now) {
            self.walk(now);
        }
    }

    /// Purges all memory that is free now, unless the last such purge was a mistake.
    fn purge_after_drop(&mut self, now: Duration) {
        self.purging.loosened = 0;
        self.judge_purges(now);
        if self.purging.may_purge(Reason::Drop, now) {
            self.walk(now);
            let pages = self.purge(Which::InArenasInUse) / PAGE;
            self.purging.note_purged(pages, Reason::Drop);
        }
    }

    fn judge_purges(&mut self, now: Duration) {
        let mut reused = 0;
        self.arenas.visit(|arena| reused += arena.take_reused());
        self.purging.judge(reused, now);
    }

    /// Takes the blocks on completely free pages off their pools' free lists. The pages keep their
    /// memory.
    fn walk(&mut self, now: Duration) {
        self.purging.loosened = 0;
        self.arenas.visit(|arena| arena.uncarve::<G>());
        self.purging.note_walk(now);
    }
}
