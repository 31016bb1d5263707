//! What the votes on a referendum come to.

use crate::{Config, Vote};
use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use core::{fmt, marker::PhantomData};
use frame_support::traits::VoteTally;
use scale_info::TypeInfo;
use sp_runtime::{PerThing, Perbill};
use starling_primitives::{
    traits::{Clock, Weights},
    EpochIndex, Work,
};

/// Weight for and against, out of all weight of the epoch in which the referendum was proposed.
#[derive(Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
#[scale_info(skip_type_params(T))]
#[codec(mel_bound())]
#[codec(encode_bound())]
#[codec(decode_bound())]
pub struct Tally<T> {
    /// Whose weights count.
    pub epoch: EpochIndex,
    /// All weight of that epoch.
    pub total: Work,
    /// In favour.
    pub ayes: Work,
    /// Against.
    pub nays: Work,
    #[codec(skip)]
    runtime: PhantomData<fn() -> T>,
}

// Derived, these would ask the same of the runtime.
impl<T> Clone for Tally<T> {
    fn clone(&self) -> Self {
        let Self { epoch, total, ayes, nays, runtime } = *self;
        Self { epoch, total, ayes, nays, runtime }
    }
}

impl<T> PartialEq for Tally<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.epoch, self.total, self.ayes, self.nays) == (other.epoch, other.total, other.ayes, other.nays)
    }
}

impl<T> Eq for Tally<T> {}

impl<T> fmt::Debug for Tally<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tally")
            .field("epoch", &self.epoch)
            .field("total", &self.total)
            .field("ayes", &self.ayes)
            .field("nays", &self.nays)
            .finish()
    }
}

impl<T> Tally<T> {
    /// Counts a vote in place of the one that its host cast before.
    pub(crate) fn replace(&mut self, before: Option<Vote>, now: Vote) {
        if let Some(before) = before {
            let side = self.side(before.aye);
            *side = side.saturating_sub(before.weight);
        }
        let side = self.side(now.aye);
        *side = side.saturating_add(now.weight);
    }

    fn side(&mut self, aye: bool) -> &mut Work {
        if aye {
            &mut self.ayes
        } else {
            &mut self.nays
        }
    }
}

/// `part` of `whole`, rounded down; nothing of nothing.
fn share(part: Work, whole: Work) -> Perbill {
    if whole == 0 {
        return Perbill::zero();
    }
    Perbill::from_rational_with_rounding(part, whole, sp_runtime::Rounding::Down).unwrap_or(Perbill::one())
}

impl<T: Config, Class> VoteTally<Work, Class> for Tally<T> {
    fn new(_: Class) -> Self {
        let epoch = T::Clock::epoch().index;
        Self { epoch, total: T::Weights::total(epoch), ayes: 0, nays: 0, runtime: PhantomData }
    }

    fn ayes(&self, _: Class) -> Work {
        self.ayes
    }

    fn support(&self, _: Class) -> Perbill {
        share(self.ayes, self.total)
    }

    fn approval(&self, _: Class) -> Perbill {
        share(self.ayes, self.ayes.saturating_add(self.nays))
    }

    #[cfg(feature = "runtime-benchmarks")]
    fn unanimity(_: Class) -> Self {
        Self { epoch: 0, total: 100, ayes: 100, nays: 0, runtime: PhantomData }
    }

    #[cfg(feature = "runtime-benchmarks")]
    fn rejection(_: Class) -> Self {
        Self { epoch: 0, total: 100, ayes: 0, nays: 100, runtime: PhantomData }
    }

    #[cfg(feature = "runtime-benchmarks")]
    fn from_requirements(support: Perbill, approval: Perbill, _: Class) -> Self {
        let total: Work = 1_000_000_000;
        let ayes = support.mul_ceil(total);
        let nays = approval.saturating_reciprocal_mul_floor(ayes).saturating_sub(ayes);
        Self { epoch: 0, total, ayes, nays, runtime: PhantomData }
    }

    #[cfg(feature = "runtime-benchmarks")]
    fn setup(_: Class, _: Perbill) {}
}
