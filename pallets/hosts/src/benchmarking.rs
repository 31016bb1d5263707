//! Benchmarks of the calls, for a host that serves as many profiles as it may and announced the longest addresses.

use crate::{types::MAX_PROFILES, *};
use alloc::vec;
use frame_benchmarking::v2::*;
use frame_support::{
    dispatch::CheckIfFeeless,
    traits::{Get, UnfilteredDispatchable},
    BoundedVec,
};
use frame_system::RawOrigin;
use starling_primitives::benchmarking::{self as scene, Scene, EPOCH, HOSTS, START};

/// Clock, profiles, and hosts with weight, of which host 0 is none.
fn prepare<T: Config + Scene>() -> AccountId {
    T::set_clock(START + 1_000);
    T::set_profiles(MAX_PROFILES);
    let mut hosts = scene::weights(HOSTS);
    hosts.retain(|entry| entry.host != scene::host(0));
    for epoch in EPOCH - 2..=EPOCH {
        T::set_weights(epoch, 1, &hosts);
    }
    T::fund(&scene::host(0), 2 * T::Bond::get());
    scene::host(0)
}

fn registered<T: Config + Scene>() -> AccountId {
    let host = prepare::<T>();
    T::set_host(&host, &scene::worker(0));
    host
}

fn profiles(count: u32) -> HostProfiles {
    // Descending, so that sorting has work.
    BoundedVec::truncate_from((0..count).rev().collect())
}

fn longest() -> Endpoints {
    let address = BoundedVec::truncate_from(vec![b'a'; 128]);
    Endpoints {
        peer_id: BoundedVec::truncate_from(vec![b'p'; 64]),
        multiaddrs: BoundedVec::truncate_from(vec![address; 8]),
        gateway_url: BoundedVec::truncate_from(vec![b'u'; 256]),
    }
}

fn suspend<T: Config>(host: &AccountId) {
    <Pallet<T> as HostsTrait>::convict(host);
}

#[benchmarks(where T: Scene)]
mod benches {
    use super::*;

    #[benchmark]
    fn register(p: Linear<0, MAX_PROFILES>) {
        let host = prepare::<T>();
        #[extrinsic_call]
        _(RawOrigin::Signed(host.clone()), scene::worker(0), profiles(p));
        assert!(Hosts::<T>::contains_key(&host));
    }

    #[benchmark]
    fn set_worker() {
        let host = registered::<T>();
        #[extrinsic_call]
        _(RawOrigin::Signed(host), scene::worker(1));
        assert!(HostOfWorker::<T>::contains_key(scene::worker(1)));
    }

    #[benchmark]
    fn set_profiles(p: Linear<0, MAX_PROFILES>) {
        let host = registered::<T>();
        #[extrinsic_call]
        _(RawOrigin::Signed(host.clone()), profiles(p));
        assert_eq!(Hosts::<T>::get(&host).map(|info| info.profiles.len() as u32), Some(p));
    }

    #[benchmark]
    fn drain() {
        let host = registered::<T>();
        #[extrinsic_call]
        _(RawOrigin::Signed(host.clone()));
        assert_eq!(Hosts::<T>::get(&host).map(|info| info.status), Some(HostStatus::Draining));
    }

    /// After a conviction that took all of the bond.
    #[benchmark]
    fn resume() {
        let host = registered::<T>();
        <Pallet<T> as starling_primitives::traits::Bonds>::burn(&host, T::Bond::get());
        suspend::<T>(&host);
        #[extrinsic_call]
        _(RawOrigin::Signed(host.clone()));
        assert_eq!(Hosts::<T>::get(&host).map(|info| info.status), Some(HostStatus::Joining));
    }

    #[benchmark]
    fn deregister() {
        let host = registered::<T>();
        AnnouncedAt::<T>::insert(&host, START);
        Maintenances::<T>::insert(&host, Maintenance { epoch: EPOCH, from: START, until: START + 1 });
        #[extrinsic_call]
        _(RawOrigin::Signed(host.clone()));
        assert!(!Hosts::<T>::contains_key(&host));
    }

    /// In the place of an earlier one.
    #[benchmark]
    fn declare_maintenance() {
        let host = registered::<T>();
        Maintenances::<T>::insert(&host, Maintenance { epoch: EPOCH - 1, from: START, until: START + 1 });
        let from = START + 1_000 + T::Clock::epoch().schedule.coverage_blocks;
        #[extrinsic_call]
        _(RawOrigin::Signed(host.clone()), from, 1);
        assert_eq!(Maintenances::<T>::get(&host).map(|declared| declared.from), Some(from));
    }

    #[benchmark]
    fn announce() -> Result<(), BenchmarkError> {
        let host = registered::<T>();
        AnnouncedAt::<T>::insert(&host, START);
        let call = Call::<T>::announce { endpoints: longest() };
        let origin = RawOrigin::Signed(scene::worker(0)).into();
        #[block]
        {
            if !call.is_feeless(&origin) {
                return Err(BenchmarkError::Stop("a worker's call is free of fees"));
            }
            call.dispatch_bypass_filter(origin)?;
        }
        assert_eq!(AnnouncedAt::<T>::get(&host), Some(START + 1_000));
        Ok(())
    }
}
