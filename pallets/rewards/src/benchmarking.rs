//! Benchmarks of the claim, of the epoch's change and of pruning.

use crate::*;
use frame_benchmarking::v2::*;
use frame_support::{
    dispatch::CheckIfFeeless,
    traits::{Get, UnfilteredDispatchable},
};
use frame_system::RawOrigin;
use starling_primitives::{
    benchmarking::{self as scene, Scene, EPOCH, HOSTS, START},
    traits::{EpochHooks, Round},
    vrf::{self, VrfInput},
    AccountId, H256, TOKEN,
};

#[benchmarks(where T: Scene)]
mod benches {
    use super::*;

    /// A claim whose duties are checked over so many inferences, none of which is one of them.
    #[benchmark]
    fn claim(s: Linear<0, { cost::MAX_CLAIM_SAMPLES }>) -> Result<(), BenchmarkError> {
        let epoch = EPOCH - 1;
        T::set_clock(START + scene::epoch().schedule.grace_blocks);
        T::set_profiles(1);
        let (host, worker) = (scene::host(0), AccountId::new(scene::PROVER));
        let hosts = scene::weights(HOSTS);
        T::set_weights(epoch, 1, &hosts);
        T::set_host(&host, &worker);
        T::set_contributed(epoch, &host);
        T::set_pot(epoch, &host);
        T::set_seed(Round::Claim(epoch), H256::repeat_byte(3));
        let input = VrfInput::Duty(scene::genesis(), epoch, scene::epoch_seed(epoch));
        let secret = vrf::verify(&scene::PROVER.into(), &input, &scene::DUTY_PROOF);
        let secret = secret.ok_or(BenchmarkError::Stop("the proof holds"))?;
        T::set_no_duties(&hosts, &host, &secret, s);
        let call = Call::<T>::claim { epoch, proof: scene::DUTY_PROOF };
        let origin = RawOrigin::Signed(worker).into();
        #[block]
        {
            if !call.is_feeless(&origin) {
                return Err(BenchmarkError::Stop("what succeeds is free of fees"));
            }
            call.dispatch_bypass_filter(origin)?;
        }
        assert!(Claimed::<T>::contains_key(epoch, &host));
        Ok(())
    }

    /// The emission of one epoch is minted, and what is left of another's burned.
    #[benchmark]
    fn epoch_change() {
        T::set_clock(START);
        for epoch in [EPOCH - 1, EPOCH - 2] {
            T::set_weights(epoch, 1, &scene::weights(HOSTS));
            T::set_pot(epoch, &scene::host(0));
        }
        #[block]
        {
            <Pallet<T> as EpochHooks>::on_epoch_change(EPOCH - 1);
        }
        assert_eq!(BurnedTo::<T>::get(), EPOCH - 1);
        assert!(!Pots::<T>::contains_key(EPOCH - 2));
    }

    /// So many fees of a burned pot.
    #[benchmark]
    fn prune(n: Linear<0, { T::MaxPrunedPerBlock::get() }>) {
        T::set_clock(START);
        let epoch = EPOCH - 3;
        (PrunedTo::<T>::put(epoch), BurnedTo::<T>::put(epoch + 1));
        for index in 0..n {
            Fees::<T>::insert(epoch, scene::host(index), TOKEN);
        }
        #[block]
        {
            Pallet::<T>::prune_steps(n);
        }
        assert!(Fees::<T>::iter_key_prefix(epoch).next().is_none());
    }
}
