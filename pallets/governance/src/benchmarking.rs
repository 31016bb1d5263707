//! Benchmarks of the calls, in a full network.

use crate::*;
use frame_benchmarking::v2::*;
use frame_support::traits::Polling;
use frame_system::RawOrigin;
use starling_primitives::{
    benchmarking::{self as scene, Scene, EPOCH, HOSTS, START},
    AccountId,
};

/// An open referendum of an epoch in which all hosts have weight.
fn open<T: Config + Scene>() -> Result<PollIndex<T>, BenchmarkError> {
    T::set_clock(START + 1_000);
    T::set_weights(EPOCH, 0, &scene::weights(HOSTS));
    let class = T::Polls::classes().into_iter().next();
    let class = class.ok_or(BenchmarkError::Stop("there are classes"))?;
    T::Polls::create_ongoing(class).map_err(|()| BenchmarkError::Stop("a referendum can be opened"))
}

fn insert<T: Config>(poll: PollIndex<T>, host: AccountId) {
    Votes::<T>::insert(poll, host, Vote { aye: false, weight: scene::WEIGHT });
}

#[benchmarks(where T: Scene)]
mod benches {
    use super::*;

    /// A vote that is changed.
    #[benchmark]
    fn vote() -> Result<(), BenchmarkError> {
        let poll = open::<T>()?;
        insert::<T>(poll, scene::host(0));
        #[extrinsic_call]
        _(RawOrigin::Signed(scene::host(0)), poll, true);
        assert!(Votes::<T>::get(poll, scene::host(0)).is_some_and(|cast| cast.aye));
        Ok(())
    }

    #[benchmark]
    fn remove_votes(n: Linear<0, MAX_REMOVED>) -> Result<(), BenchmarkError> {
        let poll = open::<T>()?;
        (0..n).for_each(|index| insert::<T>(poll, scene::host(index)));
        T::Polls::end_ongoing(poll, true).map_err(|()| BenchmarkError::Stop("a referendum can be ended"))?;
        #[extrinsic_call]
        _(RawOrigin::Signed(scene::host(HOSTS)), poll);
        assert!(Votes::<T>::iter_key_prefix(poll).next().is_none());
        Ok(())
    }
}
