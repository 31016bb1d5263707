//! Benchmarks of commitments and verdicts, of the election at the epoch's change, and of pruning.

use crate::*;
use alloc::vec::Vec;
use frame_benchmarking::v2::*;
use frame_support::{
    dispatch::CheckIfFeeless,
    traits::{Get, UnfilteredDispatchable},
    BoundedVec,
};
use frame_system::RawOrigin;
use starling_primitives::{
    benchmarking::{self as scene, Scene, EPOCH, HOSTS, START},
    sprint::{SprintCommitment, SprintVerdict},
    traits::Round,
    AccountId, EpochIndex, ProfileId, Work, H256,
};
use types::MAX_VERDICTS_PER_CALL as MAX_VERDICTS;

const COMMITMENT: SprintCommitment = SprintCommitment { root: H256::repeat_byte(1), count: 1_000 };
const VERDICT: SprintVerdict = SprintVerdict { checked: 200, failed: 1, fabricated: false };
/// Profiles that one host serves.
const PROFILES: u32 = 16;

/// Block `offset` of an epoch in which all hosts have weight, and host 0 contributed.
fn prepare<T: Config + Scene>(offset: u32) {
    T::set_clock(START + offset);
    T::set_profiles(PROFILES);
    T::set_weights(EPOCH, 1, &scene::weights(HOSTS));
    T::set_host(&scene::host(0), &scene::worker(0));
    T::set_contributed(EPOCH, &scene::host(0));
}

/// Sends what a worker sends: whether it is free of fees is asked first, as in every block.
fn send<T: Config>(call: Call<T>) -> Result<(), BenchmarkError> {
    let origin = RawOrigin::Signed(scene::worker(0)).into();
    if !call.is_feeless(&origin) {
        return Err(BenchmarkError::Stop("what succeeds is free of fees"));
    }
    call.dispatch_bypass_filter(origin).map(drop).map_err(|error| error.error.into())
}

fn commit<T: Config>(epoch: EpochIndex, profile: ProfileId, host: &AccountId) {
    Commitments::<T>::insert(epoch, (profile, host), COMMITMENT);
    CommitmentCount::<T>::mutate(epoch, |count| *count += 1);
}

/// Votes of as many hosts on a commitment.
fn vote<T: Config>(epoch: EpochIndex, (profile, prover): (ProfileId, &AccountId), count: u32, weight: Work) {
    // Whoever votes for real takes the place of one of them.
    let voter =
        |index| Voter { verifier: scene::host(500 + index), weight, score: i64::MIN, verdict: VERDICT };
    let voters: Vec<Voter> = (0..count).map(voter).collect();
    Voters::<T>::insert(epoch, (profile, prover), BoundedVec::truncate_from(voters));
}

/// So many hosts had weight, contributed and are registered when the epoch before [`EPOCH`] ends.
fn end_epoch<T: Config + Scene>(hosts: u32) {
    T::set_clock(START);
    T::set_profiles(PROFILES);
    T::set_weights(EPOCH - 1, 1, &scene::weights(hosts));
    for index in 0..hosts {
        T::set_host(&scene::host(index), &scene::worker(index));
        T::set_contributed(EPOCH - 1, &scene::host(index));
    }
}

#[benchmarks(where T: Scene)]
mod benches {
    use super::*;

    #[benchmark]
    fn commit() -> Result<(), BenchmarkError> {
        prepare::<T>(scene::epoch().schedule.commit_start);
        let call = Call::<T>::commit { profile: 0, commitment: COMMITMENT };
        #[block]
        {
            send(call)?;
        }
        assert!(Commitments::<T>::contains_key(EPOCH, (0, scene::host(0))));
        Ok(())
    }

    /// Verdicts that each take the place of another host's.
    #[benchmark]
    fn submit_verdicts(n: Linear<1, MAX_VERDICTS>) -> Result<(), BenchmarkError> {
        prepare::<T>(scene::epoch().schedule.check_start);
        T::set_seed(Round::Challenge(EPOCH), H256::repeat_byte(9));
        let count = n;
        for index in 1..=count {
            let prover = scene::host(index);
            super::commit::<T>(EPOCH, 0, &prover);
            vote::<T>(EPOCH, (0, &prover), T::MaxVoters::get(), scene::WEIGHT - 1);
        }
        let verdicts: Vec<_> = (1..=count).map(|index| (scene::host(index), VERDICT)).collect();
        let call = Call::<T>::submit_verdicts { profile: 0, verdicts: BoundedVec::truncate_from(verdicts) };
        #[block]
        {
            send(call)?;
        }
        let voters = Voters::<T>::get(EPOCH, (0, scene::host(count)));
        assert!(voters.iter().any(|voter| voter.verifier == scene::host(0)));
        Ok(())
    }

    /// So many hosts committed to one profile, as many others as can voted on each, and all get weight for the first time.
    #[benchmark]
    fn elect(h: Linear<0, { T::MaxHosts::get() }>) {
        end_epoch::<T>(h);
        for index in 0..h {
            super::commit::<T>(EPOCH - 1, 0, &scene::host(index));
            vote::<T>(EPOCH - 1, (0, &scene::host(index)), T::MaxVoters::get(), scene::WEIGHT);
        }
        #[block]
        {
            Pallet::<T>::elect(EPOCH - 1);
        }
        assert_eq!(EpochWeights::<T>::get(EPOCH).len() as u32, h);
    }

    /// Commitments to so many profiles that all hosts with weight serve.
    #[benchmark]
    fn elect_profiles(p: Linear<1, PROFILES>) {
        end_epoch::<T>(HOSTS);
        for profile in 0..p {
            super::commit::<T>(EPOCH - 1, profile, &scene::host(0));
            vote::<T>(EPOCH - 1, (profile, &scene::host(0)), 1, scene::WEIGHT);
        }
        #[block]
        {
            Pallet::<T>::elect(EPOCH - 1);
        }
        assert_eq!(ProfileWeights::<T>::iter_prefix(EPOCH).count() as u32, p);
    }

    /// So many lists of voters, the longest entries but for the lists of weights.
    #[benchmark]
    fn prune(n: Linear<0, { T::MaxPrunedPerBlock::get() }>) {
        T::set_clock(START);
        let epoch = EPOCH - 3;
        PrunedTo::<T>::put(epoch);
        for index in 0..n {
            let voter = |index| Voter {
                verifier: scene::host(index),
                weight: scene::WEIGHT,
                score: 0,
                verdict: VERDICT,
            };
            let voters = (0..T::MaxVoters::get()).map(voter).collect();
            Voters::<T>::insert(epoch, (0, scene::host(index)), BoundedVec::truncate_from(voters));
        }
        #[block]
        {
            Pallet::<T>::prune_steps(n);
        }
        assert!(Voters::<T>::iter_key_prefix(epoch).next().is_none());
    }
}
