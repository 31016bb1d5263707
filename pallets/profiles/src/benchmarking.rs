//! Benchmarks of the calls.

use crate::*;
use alloc::vec;
use frame_benchmarking::v2::*;
use frame_support::BoundedVec;
use frame_system::RawOrigin;
use starling_primitives::{
    benchmarking::{Scene, EPOCH, START},
    profile::{Calibration, Numerics},
    H256,
};

/// A profile with the longest name.
fn longest() -> Profile {
    Profile {
        name: BoundedVec::truncate_from(vec![b'n'; MAX_NAME as usize]),
        weights_digest: H256::repeat_byte(1),
        tokenizer_digest: H256::repeat_byte(2),
        numerics: Numerics::Bf16,
        top_k: 20,
        max_context: 32_768,
        vocab_size: 151_936,
        prompt_price: 1,
        completion_price: 1,
        prompt_work: 1,
        completion_work: 1,
        sprint_tolerance: 0,
        calibration: Calibration { distance_limit: 10, margin_limit: 10, short_allowance: 10 },
    }
}

#[benchmarks(where T: Scene)]
mod benches {
    use super::*;

    #[benchmark]
    fn register() {
        T::set_profiles(16);
        #[extrinsic_call]
        _(RawOrigin::Root, longest());
        assert!(Profiles::<T>::contains_key(16));
    }

    #[benchmark]
    fn retire() {
        T::set_clock(START);
        T::set_profiles(16);
        #[extrinsic_call]
        _(RawOrigin::Root, 15);
        assert_eq!(RetiredIn::<T>::get(15), Some(EPOCH));
    }
}
