//! The orders in which objects are taken and put back.

use std::{
    hint::black_box,
    mem::MaybeUninit,
    time::{Duration, Instant},
};

use clap::ValueEnum;

use crate::contender::{Contender, begin, end};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pattern {
    /// Each object is put back before the next one is taken.
    OneByOne,
    /// 64 objects are taken, and then put back in the order in which they were taken.
    Burst64,
    /// 1,000 objects are taken, and then put back in the order in which they were taken.
    Burst1000,
}

impl Pattern {
    pub(crate) const ALL: [Self; 3] = [Self::OneByOne, Self::Burst64, Self::Burst1000];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::OneByOne => "one by one",
            Self::Burst64 => "bursts of 64",
            Self::Burst1000 => "bursts of 1,000",
        }
    }

    /// Returns the largest multiple of the burst length that is at most `pairs`.
    pub(crate) const fn whole(self, pairs: usize) -> usize {
        let burst = match self {
            Self::OneByOne => 1,
            Self::Burst64 => 64,
            Self::Burst1000 => 1000,
        };
        pairs / burst * burst
    }

    /// Measures the time for about `pairs` objects, after a warm-up that fills the pool.
    pub(crate) fn run<C: Contender>(self, pairs: usize) -> Duration {
        match self {
            Self::OneByOne => one_by_one(black_box(&mut C::new(1)), pairs),
            Self::Burst64 => bursts::<C, 64>(black_box(&mut C::new(64)), pairs),
            Self::Burst1000 => bursts::<C, 1000>(black_box(&mut C::new(1000)), pairs),
        }
    }
}

#[inline(never)]
fn one_by_one<C: Contender>(contender: &mut C, pairs: usize) -> Duration {
    let first = begin(contender);
    end(contender, first);
    let start = Instant::now();
    for _ in 0..pairs {
        let held = begin(contender);
        end(contender, held);
    }
    start.elapsed()
}

#[inline(never)]
fn bursts<C: Contender, const N: usize>(contender: &mut C, pairs: usize) -> Duration {
    let mut all = [const { MaybeUninit::uninit() }; N];
    burst(contender, &mut all);
    let start = Instant::now();
    for _ in 0..pairs / N {
        burst(contender, &mut all);
    }
    start.elapsed()
}

#[inline(always)]
fn burst<C: Contender>(contender: &mut C, all: &mut [MaybeUninit<C::Held>]) {
    for held in &mut *all {
        held.write(begin(contender));
    }
    for held in &*all {
        // SAFETY: `held` has just been written, and is written again before the next read.
        end(contender, unsafe { held.assume_init_read() });
    }
}
