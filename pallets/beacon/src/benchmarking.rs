//! Benchmarks of contributions, of what the clock asks for, and of pruning.

use crate::*;
use frame_benchmarking::v2::*;
use frame_support::{
    dispatch::CheckIfFeeless,
    traits::{Get, UnfilteredDispatchable},
};
use frame_system::RawOrigin;
use starling_primitives::{
    benchmarking::{self as scene, Scene, EPOCH, HOSTS, START},
    traits::{Beacon, EpochHooks, Round},
    AccountId, H256,
};
use types::{Contribution, RollingMix, Tally};

/// Block `offset` of an epoch in which all hosts have weight; the next seed is open.
fn prepare<T: Config + Scene>(offset: u32) {
    T::set_clock(START + offset);
    T::forget_next_seed();
    T::set_weights(EPOCH, 1, &scene::weights(HOSTS));
    // A block mixes its randomness in before it draws: the rolling costs, too.
    Mix::<T>::put(RollingMix { value: H256::repeat_byte(1), block: 0 });
}

fn contributed<T: Config>(epoch: u32, count: u32) {
    for index in 0..count {
        let contribution = Contribution { output: scene::request(index), weight: scene::WEIGHT };
        Contributions::<T>::insert(epoch, scene::host(index), contribution);
    }
    let weight = scene::WEIGHT * u64::from(count);
    Tallies::<T>::insert(epoch, Tally { count, weight });
}

#[benchmarks(where T: Scene)]
mod benches {
    use super::*;

    #[benchmark]
    fn contribute() -> Result<(), BenchmarkError> {
        prepare::<T>(scene::epoch().schedule.reveal_start);
        let worker = AccountId::new(scene::PROVER);
        T::set_host(&scene::host(0), &worker);
        let call = Call::<T>::contribute { epoch: EPOCH, proof: scene::BEACON_PROOF };
        let origin = RawOrigin::Signed(worker).into();
        #[block]
        {
            if !call.is_feeless(&origin) {
                return Err(BenchmarkError::Stop("what succeeds is free of fees"));
            }
            call.dispatch_bypass_filter(origin)?;
        }
        assert_eq!(Tallies::<T>::get(EPOCH).count, 1);
        Ok(())
    }

    #[benchmark]
    fn roll() {
        prepare::<T>(1_000);
        #[block]
        {
            Pallet::<T>::roll();
        }
        assert_eq!(Mix::<T>::get().block, START + 1_000);
    }

    /// The seed of a coverage window; that of other rounds costs no more.
    #[benchmark]
    fn draw() {
        let offset = scene::epoch().schedule.coverage_blocks;
        prepare::<T>(offset);
        #[block]
        {
            <Pallet<T> as EpochHooks>::on_coverage_boundary(EPOCH, offset);
        }
        assert!(Pallet::<T>::seed(Round::Coverage(EPOCH, 0)).is_some());
    }

    /// The starting gun after so many contributions, without an extension left.
    #[benchmark]
    fn finalise(c: Linear<0, { T::MaxContributions::get() }>) {
        prepare::<T>(scene::epoch().schedule.race_start);
        contributed::<T>(EPOCH, c);
        #[block]
        {
            <Pallet<T> as EpochHooks>::seed_is_final(EPOCH, 0);
        }
        assert!(Pallet::<T>::seed(Round::Epoch(EPOCH + 1)).is_some());
    }

    /// So many contributions to an epoch that is over.
    #[benchmark]
    fn prune(n: Linear<0, { T::MaxPrunedPerBlock::get() }>) {
        prepare::<T>(1_000);
        let epoch = EPOCH - 3;
        PrunedTo::<T>::put(epoch);
        contributed::<T>(epoch, n);
        #[block]
        {
            Pallet::<T>::prune_steps(n);
        }
        assert!(Contributions::<T>::iter_key_prefix(epoch).next().is_none());
    }
}
