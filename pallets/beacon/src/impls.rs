//! Contributions, seeds and the invariants of both.

use crate::{
    types::{Contribution, RollingMix},
    Config, Contributions, Error, Event, FinalAt, Mix, Pallet, PrunedTo, Seeds, Tallies,
};
use alloc::vec::Vec;
use frame_support::{
    defensive,
    pallet_prelude::{DispatchError, DispatchResult},
    traits::Get,
};
use frame_system::pallet_prelude::{ensure_signed, OriginFor};
use sp_core::sr25519;
use sp_runtime::traits::UniqueSaturatedInto;
use starling_math::clock::{phase, Phase};
use starling_primitives::{
    hashing::hash_of,
    traits::{Beacon, Clock, Hosts, Round, Weights},
    vrf::{self, VrfInput, VrfProof},
    AccountId, BlockNumber, EpochIndex, H256,
};

impl<T: Config> Pallet<T> {
    /// Everything that decides whether a contribution is taken; what is free of fees is exactly what succeeds.
    pub(crate) fn check_contribution(
        origin: OriginFor<T>,
        epoch: EpochIndex,
        proof: &VrfProof,
    ) -> Result<(AccountId, Contribution), DispatchError> {
        let worker = ensure_signed(origin)?;
        let host = T::Hosts::host_of(&worker).ok_or(Error::<T>::NotAWorker)?;
        let state = T::Clock::epoch();
        if epoch != state.index {
            return Err(Error::<T>::WrongEpoch.into());
        }
        let decided = Seeds::<T>::contains_key(Round::Epoch(epoch.saturating_add(1)));
        if decided || phase(&state, Self::now()) != Phase::Reveal {
            return Err(Error::<T>::NotInReveal.into());
        }
        let weight = T::Weights::weight(epoch, &host);
        if weight == 0 && T::Weights::total(epoch) > 0 {
            return Err(Error::<T>::NoWeight.into());
        }
        if !Self::in_place_before(&host, epoch) {
            return Err(Error::<T>::KeyTooNew.into());
        }
        if Contributions::<T>::contains_key(epoch, &host) {
            return Err(Error::<T>::AlreadyContributed.into());
        }
        if Tallies::<T>::get(epoch).count >= T::MaxContributions::get() {
            return Err(Error::<T>::TooManyContributions.into());
        }
        let key = sr25519::Public::from_raw(worker.into());
        let input = VrfInput::Beacon(Self::genesis_hash(), epoch);
        let output = vrf::verify(&key, &input, proof).ok_or(Error::<T>::InvalidProof)?;
        Ok((host, Contribution { output, weight }))
    }

    pub(crate) fn do_contribute(
        epoch: EpochIndex,
        host: AccountId,
        contribution: Contribution,
    ) -> DispatchResult {
        let weight = contribution.weight;
        Tallies::<T>::mutate(epoch, |tally| {
            // Bounded by `MaxContributions` and by the total weight.
            tally.count = tally.count.saturating_add(1);
            tally.weight = tally.weight.saturating_add(weight);
        });
        Contributions::<T>::insert(epoch, &host, contribution);
        Self::deposit_event(Event::Contributed { epoch, host, weight });
        Ok(())
    }

    /// Whether the host's worker key was in place before the seed of `epoch` was final. A key set in the very block
    /// that made the seed final could know it; genesis keys precede everything.
    fn in_place_before(host: &AccountId, epoch: EpochIndex) -> bool {
        match (T::Hosts::worker_since(host), FinalAt::<T>::get(epoch)) {
            (Some(since), Some(at)) => since <= at.saturating_sub(1),
            _ => false,
        }
    }

    /// Whether contributions of at least two thirds of the weight are there; when nobody has weight, one is enough.
    fn has_quorum(epoch: EpochIndex) -> bool {
        let tally = Tallies::<T>::get(epoch);
        let total = u128::from(T::Weights::total(epoch));
        if total == 0 {
            return tally.count > 0;
        }
        u128::from(tally.weight).saturating_mul(3) >= total.saturating_mul(2)
    }

    /// Decides, at the starting gun, whether the next epoch's seed is final. Without a quorum the answer is no; when no
    /// extension is left, the seed is made all the same, from what there is and the blocks' randomness.
    pub(crate) fn decide_seed(epoch: EpochIndex, extensions_left: u8) -> bool {
        let quorum = Self::has_quorum(epoch);
        if quorum || extensions_left == 0 {
            Self::finalise(epoch, quorum);
        }
        quorum
    }

    fn finalise(epoch: EpochIndex, quorum: bool) {
        let next = Round::Epoch(epoch.saturating_add(1));
        if Seeds::<T>::contains_key(next) {
            defensive!("a seed becomes final once");
            return;
        }
        let Some(previous) = Seeds::<T>::get(Round::Epoch(epoch)) else {
            defensive!("every epoch that runs has a seed");
            return;
        };
        let mut contributions: Vec<(AccountId, H256)> =
            Contributions::<T>::iter_prefix(epoch).map(|(host, given)| (host, given.output)).collect();
        contributions.sort_unstable();
        // Few contributors could all be known to one of them; the authors' randomness is not.
        let mix = (!quorum).then(|| Self::roll().value);
        let seed =
            hash_of(b"starling/beacon/epoch", &(Self::genesis_hash(), next, previous, contributions, mix));
        FinalAt::<T>::insert(epoch.saturating_add(1), Self::now());
        Self::set_seed(next, seed);
    }

    /// Draws the seed of a round that is no epoch from the newest epoch seed and the blocks' randomness, this block's
    /// included.
    pub(crate) fn draw(round: Round) {
        if Seeds::<T>::contains_key(round) {
            defensive!("a seed is drawn once");
            return;
        }
        let epoch = T::Clock::epoch().index;
        let newest = Seeds::<T>::get(Round::Epoch(epoch.saturating_add(1)))
            .or_else(|| Seeds::<T>::get(Round::Epoch(epoch)));
        let mix = Self::roll().value;
        Self::set_seed(round, hash_of(b"starling/beacon/round", &(newest, mix, round)));
    }

    fn set_seed(round: Round, seed: H256) {
        Seeds::<T>::insert(round, seed);
        Self::deposit_event(Event::SeedFinal { round, seed });
    }

    /// Mixes this block's randomness in, once per block: the clock's hooks may need it before this pallet's own hook.
    pub(crate) fn roll() -> RollingMix {
        let mix = Mix::<T>::get();
        let block = Self::now();
        if mix.block == block {
            return mix;
        }
        let value = match T::BlockRandomness::get() {
            Some(randomness) => hash_of(b"starling/beacon/mix", &(mix.value, block, randomness)),
            None => mix.value,
        };
        let mix = RollingMix { value, block };
        Mix::<T>::put(mix);
        mix
    }

    /// Hash of the genesis block; `System` never prunes that one.
    fn genesis_hash() -> H256 {
        frame_system::Pallet::<T>::block_hash(frame_system::pallet_prelude::BlockNumberFor::<T>::default())
    }

    fn now() -> BlockNumber {
        frame_system::Pallet::<T>::block_number().unique_saturated_into()
    }

    /// Invariants:
    ///
    /// 1. The running epoch has a seed, and an epoch has a seed exactly when it is known since which block.
    /// 2. The tally of an epoch is the sum of its contributions, which are at most `MaxContributions` and weigh no more
    ///    than all hosts together.
    /// 3. Coverage seeds of an epoch are those of the windows `0..CoverageDrawn`.
    /// 4. Nothing is left of an epoch before `PrunedTo`, which is no later than the epoch before the last.
    #[cfg(any(feature = "invariants", test))]
    pub fn do_try_state() -> Result<(), sp_runtime::TryRuntimeError> {
        use crate::{types::Tally, CoverageDrawn};
        use frame_support::ensure;
        use starling_primitives::Work;
        let current = T::Clock::epoch().index;
        let pruned = PrunedTo::<T>::get();
        ensure!(Seeds::<T>::contains_key(Round::Epoch(current)), "the running epoch has no seed");
        ensure!(pruned <= current.saturating_sub(2), "something was pruned too early");
        for (round, _) in Seeds::<T>::iter() {
            let epoch = match round {
                Round::Epoch(epoch) => {
                    ensure!(FinalAt::<T>::contains_key(epoch), "a seed without its block");
                    epoch
                }
                Round::Coverage(epoch, window) => {
                    ensure!(window < CoverageDrawn::<T>::get(epoch), "a coverage seed that was not counted");
                    epoch
                }
                Round::Challenge(epoch) | Round::Claim(epoch) => epoch,
            };
            ensure!(epoch >= pruned, "a seed of a pruned epoch");
        }
        for (epoch, at) in FinalAt::<T>::iter() {
            ensure!(epoch >= pruned && at <= Self::now(), "a block that is out of range");
            ensure!(Seeds::<T>::contains_key(Round::Epoch(epoch)), "a block without its seed");
        }
        for (epoch, drawn) in CoverageDrawn::<T>::iter() {
            // The epoch that is being pruned loses its windows from the last one down.
            ensure!(epoch >= pruned, "a count of a pruned epoch");
            for window in 0..drawn {
                ensure!(Seeds::<T>::contains_key(Round::Coverage(epoch, window)), "a window without a seed");
            }
        }
        for (epoch, _, _) in Contributions::<T>::iter() {
            ensure!(Tallies::<T>::contains_key(epoch), "a contribution that was not counted");
        }
        for (epoch, tally) in Tallies::<T>::iter() {
            ensure!(epoch >= pruned && tally.count <= T::MaxContributions::get(), "a tally out of range");
            let half_pruned = epoch == pruned && epoch.saturating_add(2) < current;
            let mut sum = Tally::default();
            for (_, contribution) in Contributions::<T>::iter_prefix(epoch) {
                sum.count = sum.count.saturating_add(1);
                sum.weight = sum.weight.saturating_add(contribution.weight);
            }
            ensure!(half_pruned || sum == tally, "the tally is not the sum");
            let total: Work = T::Weights::total(epoch);
            let kept = epoch.saturating_add(2) >= current;
            ensure!(!kept || tally.weight <= total, "more weight than there is");
        }
        Ok(())
    }
}

impl<T: Config> Beacon for Pallet<T> {
    fn seed(round: Round) -> Option<H256> {
        Seeds::<T>::get(round)
    }

    fn final_at(epoch: EpochIndex) -> Option<BlockNumber> {
        FinalAt::<T>::get(epoch)
    }

    fn withheld(epoch: EpochIndex, host: &AccountId) -> bool {
        Self::withheld_its_weight(epoch, host) && T::Weights::weight(epoch, host) > 0
    }

    fn withheld_its_weight(epoch: EpochIndex, host: &AccountId) -> bool {
        epoch >= PrunedTo::<T>::get()
            && Seeds::<T>::contains_key(Round::Epoch(epoch.saturating_add(1)))
            && !Contributions::<T>::contains_key(epoch, host)
    }
}
