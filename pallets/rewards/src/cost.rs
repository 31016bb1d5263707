//! What a claim costs, and the bounds that it depends on.

use crate::{weights::WeightInfo, Config};
use frame_support::{traits::Get, weights::Weight};

/// Samples of a claim that any schedule can ask for.
pub const MAX_CLAIM_SAMPLES: u32 = 1_000;
/// Profiles that a claim looks at in both epochs together at most: as many as can be registered, twice.
pub const MAX_PROFILES: u32 = 2_048;
/// Epochs among which a host's last claim is looked for at most.
const EPOCHS: u64 = 31;
/// Looking at one profile's list of hosts: an estimate, since the benchmark has none with answers.
const PROFILE: Weight = Weight::from_parts(10_000_000, 0);

/// `claim` with duties checked over `samples` inferences and attendance over `profiles`: of each, the number of answers, the
/// weights and the host's tally are read by the fee rule, by the call and for what the claim leaves; so is the host's last claim.
pub fn claim<T: Config>(samples: u32, profiles: u32) -> Weight {
    let profile = PROFILE.saturating_add(T::DbWeight::get().reads(3));
    let last = T::DbWeight::get().reads(EPOCHS);
    T::WeightInfo::claim(samples)
        .saturating_add(last.saturating_mul(3))
        .saturating_add(profile.saturating_mul(3).saturating_mul(profiles.into()))
}
