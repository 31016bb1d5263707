//! Benchmarks of the clock. What the other pallets do at a boundary they measure and charge themselves.

use crate::*;
use frame_benchmarking::v2::*;
use frame_system::RawOrigin;
use starling_primitives::benchmarking::{Scene, EPOCH, START};

#[benchmarks(where T: Scene)]
mod benches {
    use super::*;

    /// A block in which nothing but the clock moves.
    #[benchmark]
    fn tick() {
        T::set_clock(START + 1);
        #[block]
        {
            Pallet::<T>::tick(START + 1);
        }
        assert_eq!(Current::<T>::get().index, EPOCH);
    }

    /// The first block of an epoch that takes over a proposed schedule, in a network without hosts.
    #[benchmark]
    fn boundary() {
        T::set_clock(START);
        let now = clock::epoch_end(&Current::<T>::get());
        frame_system::Pallet::<T>::set_block_number(now.into());
        NextSchedule::<T>::put(Schedule::TEST);
        #[block]
        {
            Pallet::<T>::tick(now);
        }
        assert_eq!(Current::<T>::get().index, EPOCH + 1);
    }

    #[benchmark]
    fn propose_schedule() {
        #[extrinsic_call]
        _(RawOrigin::Root, Schedule::MAIN);
        assert_eq!(NextSchedule::<T>::get(), Some(Schedule::MAIN));
    }
}
