//! Benchmarks of a session's change: planning one, and handing one to BABE and GRANDPA.

use crate::*;
use codec::Decode;
use frame_benchmarking::v2::*;
use frame_support::{traits::OneSessionHandler, BoundedVec};
use pallet_session::SessionManager;
use sp_runtime::traits::TrailingZeroInput;
use starling_primitives::benchmarking::{self as scene, Scene, EPOCH, HOSTS, START};

/// A key whose bytes follow from a number.
fn key<K: Decode>(index: u32) -> Result<K, BenchmarkError> {
    let bytes = scene::account("session key", index);
    K::decode(&mut TrailingZeroInput::new(bytes.as_ref())).map_err(|_| "any bytes are a key".into())
}

#[benchmarks(where T: Scene)]
mod benches {
    use super::*;

    /// So many hosts qualify.
    #[benchmark]
    fn plan_session(h: Linear<1, HOSTS>) -> Result<(), BenchmarkError> {
        T::set_clock(START + 1_000);
        T::set_weights(EPOCH, 1, &scene::weights(h));
        for index in 0..h {
            T::set_host(&scene::host(index), &scene::worker(index));
            let keys: <T as pallet_session::Config>::Keys = key(index)?;
            pallet_session::NextKeys::<T>::insert(scene::host(index), keys);
        }
        #[block]
        {
            <Pallet<T> as SessionManager<AccountId>>::new_session(100);
        }
        assert_eq!(Planned::<T>::get(100).len() as u32, h);
        Ok(())
    }

    /// So many authorities, with other weights than before, in the session that begins and in the one after.
    #[benchmark]
    fn begin_session(h: Linear<1, HOSTS>) -> Result<(), BenchmarkError> {
        T::set_clock(START + 1_000);
        let session = pallet_session::Pallet::<T>::current_index();
        let mut accounts: Vec<AccountId> = (0..h).map(scene::host).collect();
        accounts.sort_unstable();
        let plan: Vec<_> = accounts.iter().map(|account| (account.clone(), scene::WEIGHT)).collect();
        for session in [session, session + 1] {
            Planned::<T>::insert(session, BoundedVec::truncate_from(plan.clone()));
        }
        let babe = (0..h).map(key).collect::<Result<Vec<sp_consensus_babe::AuthorityId>, _>>()?;
        let grandpa = (0..h).map(key).collect::<Result<Vec<sp_consensus_grandpa::AuthorityId>, _>>()?;
        // Nothing is announced: both of BABE's sets are weighed.
        pallet_babe::NextAuthorities::<T>::kill();
        #[block]
        {
            let keyed = || accounts.iter().zip(babe.iter().cloned());
            WeightedBabe::<T>::on_new_session(true, keyed(), keyed());
            let keyed = || accounts.iter().zip(grandpa.iter().cloned());
            WeightedGrandpa::<T>::on_new_session(true, keyed(), keyed());
        }
        assert_eq!(pallet_babe::NextAuthorities::<T>::get().len() as u32, h);
        Ok(())
    }
}
