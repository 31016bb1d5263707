//! Benchmark of the check, in a full network.

use crate::*;
use frame_benchmarking::{benchmarking::add_to_whitelist, v2::*};
use frame_support::traits::Hooks;
use starling_primitives::{
    benchmarking::{self as scene, Scene, EPOCH, HOSTS, START},
    traits::Hosts,
};

#[benchmarks(where T: Scene)]
mod benches {
    use super::*;

    /// A host's duty call: found in the registry and in the weights, counted, and forgotten with its block.
    #[benchmark]
    fn check() -> Result<(), BenchmarkError> {
        T::set_clock(START + 1_000);
        let weights = scene::weights(HOSTS);
        T::set_weights(EPOCH, 0, &weights);
        // The last one to be found.
        let host = weights.last().map(|entry| entry.host.clone()).unwrap_or(scene::host(0));
        T::set_host(&host, &scene::worker(0));
        // What is used of a block never reaches the database.
        add_to_whitelist(Used::<T>::hashed_key_for(&host).into());
        add_to_whitelist(UsedByAll::<T>::hashed_key().to_vec().into());
        let taken;
        #[block]
        {
            let host =
                T::Hosts::host_of(&scene::worker(0)).ok_or(BenchmarkError::Stop("the worker has a host"))?;
            let standing = Pallet::<T>::standing(&host);
            taken = Pallet::<T>::take_room(&host, standing, Usage { ref_time: 1, bytes: 1 });
            Pallet::<T>::give_back(&host, Usage { ref_time: 1, bytes: 0 });
            let now = frame_system::Pallet::<T>::block_number();
            Pallet::<T>::on_finalize(now);
        }
        assert!(taken && !UsedByAll::<T>::exists());
        Ok(())
    }
}
