//! A thousand blocks of mixed sizes, of which one after the other is replaced.

use crate::{
    contender::{Contender, Held},
    random::Random,
    workload::Taken,
};

/// Blocks that are live at once.
const LIVE: usize = 1_000;

/// Replacements of a chunk.
const REPLACED: usize = 200_000;

/// A block at random is freed, and one of 1 to 512 bytes takes its place. What is replaced by
/// which size is drawn before.
pub(super) fn replace<C: Contender>(contender: &mut C) -> Taken {
    let mut random = Random::new(3);
    let draws: Vec<_> =
        (0..REPLACED).map(|_| (random.below(LIVE) as u16, random.size(1, 512) as u16)).collect();
    let mut live: Vec<_> = (0..LIVE).map(|_| Held::new(contender, random.size(1, 512))).collect();
    let taken = Taken::by(REPLACED, || {
        for (place, size) in &draws {
            let place = &mut live[usize::from(*place)];
            place.free(contender);
            *place = Held::new(contender, usize::from(*size));
        }
    });
    live.into_iter().for_each(|held| held.free(contender));
    taken
}
