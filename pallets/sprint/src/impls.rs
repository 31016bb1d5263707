//! Commitments and verdicts.

use crate::{
    types::{Refusal, VerdictBatch, Voter},
    CommitmentCount, Commitments, Config, Error, Event, Pallet, Voters,
};
use alloc::vec::Vec;
use frame_support::{
    defensive,
    pallet_prelude::{DispatchError, Get},
};
use frame_system::pallet_prelude::{ensure_signed, OriginFor};
use sp_runtime::traits::UniqueSaturatedInto;
use starling_math::{
    clock::{phase, Phase},
    draw::sprint_score,
};
use starling_primitives::{
    schedule::EpochState,
    sprint::{SprintCommitment, SprintVerdict, MAX_SPRINT_COUNT},
    traits::{Beacon, Clock, HostWeight, Hosts, Profiles, Round, Weights},
    AccountId, BlockNumber, EpochIndex, ProfileId, Work, H256,
};

/// A verifier that may vote.
pub(crate) struct Ballot {
    epoch: EpochState,
    profile: ProfileId,
    verifier: AccountId,
    weight: Work,
    /// Seed of the epoch's challenge, by which verifiers are drawn.
    challenge: H256,
}

impl Ballot {
    fn score(&self, prover: &AccountId) -> i64 {
        sprint_score(&self.challenge, prover, &self.verifier, self.weight)
    }
}

impl<T: Config> Pallet<T> {
    /// Everything that decides whether a commitment is taken; what is free of fees is exactly what succeeds.
    pub(crate) fn check_commitment(
        origin: OriginFor<T>,
        profile: ProfileId,
        commitment: &SprintCommitment,
    ) -> Result<(EpochIndex, AccountId), DispatchError> {
        let worker = ensure_signed(origin)?;
        let host = T::Hosts::host_of(&worker).ok_or(Error::<T>::NotAWorker)?;
        let epoch = T::Clock::epoch();
        if phase(&epoch, Self::now()) != Phase::Commit {
            return Err(Error::<T>::NotInCommit.into());
        }
        Self::check_takes_part(epoch.index, profile, &host)?;
        if !Self::may_get_weight(&host) {
            return Err(Error::<T>::NotTakingPart.into());
        }
        if !(1..=MAX_SPRINT_COUNT).contains(&commitment.count) {
            return Err(Error::<T>::CountOutOfRange.into());
        }
        if Commitments::<T>::contains_key(epoch.index, (profile, &host)) {
            return Err(Error::<T>::AlreadyCommitted.into());
        }
        if CommitmentCount::<T>::get(epoch.index) >= T::MaxCommitments::get() {
            return Err(Error::<T>::TooManyCommitments.into());
        }
        Ok((epoch.index, host))
    }

    /// Whether a host takes part in this epoch's sprint with a profile, as prover or as verifier.
    fn check_takes_part(epoch: EpochIndex, profile: ProfileId, host: &AccountId) -> Result<(), Error<T>> {
        if !T::Hosts::serves(host, profile) {
            return Err(Error::<T>::NotServing);
        }
        if !T::Hosts::may_sprint(host) {
            return Err(Error::<T>::NotTakingPart);
        }
        if T::Beacon::withheld(epoch, host) {
            return Err(Error::<T>::Withheld);
        }
        let gun = T::Beacon::final_at(epoch.saturating_add(1));
        let key_in_place = match (T::Hosts::worker_since(host), gun) {
            (Some(since), Some(gun)) => since < gun,
            _ => false,
        };
        if !key_in_place {
            return Err(Error::<T>::KeyTooNew);
        }
        if T::Profiles::profile(profile).is_none() {
            return Err(Error::<T>::UnknownProfile);
        }
        Ok(())
    }

    pub(crate) fn do_commit(
        epoch: EpochIndex,
        profile: ProfileId,
        host: AccountId,
        commitment: SprintCommitment,
    ) {
        // Bounded by `MaxCommitments`.
        CommitmentCount::<T>::mutate(epoch, |count| *count = count.saturating_add(1));
        Commitments::<T>::insert(epoch, (profile, &host), commitment);
        Self::deposit_event(Event::Committed { epoch, profile, host, commitment });
    }

    /// Whether the signer may vote, and at least one of the verdicts can be taken.
    pub(crate) fn check_verdicts(
        origin: OriginFor<T>,
        profile: ProfileId,
        verdicts: &VerdictBatch,
    ) -> Result<Ballot, DispatchError> {
        let worker = ensure_signed(origin)?;
        let verifier = T::Hosts::host_of(&worker).ok_or(Error::<T>::NotAWorker)?;
        let epoch = T::Clock::epoch();
        if phase(&epoch, Self::now()) != Phase::Check {
            return Err(Error::<T>::NotInCheck.into());
        }
        Self::check_takes_part(epoch.index, profile, &verifier)?;
        let weight = Self::voting_weight(&Self::hosts(epoch.index), &verifier);
        if weight == 0 {
            return Err(Error::<T>::NoWeight.into());
        }
        let challenge = T::Beacon::seed(Round::Challenge(epoch.index)).ok_or(Error::<T>::NotInCheck)?;
        let ballot = Ballot { epoch, profile, verifier, weight, challenge };
        if !verdicts.iter().any(|(prover, verdict)| Self::check_verdict(&ballot, prover, verdict).is_ok()) {
            return Err(Error::<T>::NothingToTake.into());
        }
        Ok(ballot)
    }

    /// Weight of a vote, given the weights of the running epoch: one each while there are none.
    pub(crate) fn voting_weight(weights: &[HostWeight], verifier: &AccountId) -> Work {
        if weights.is_empty() {
            return 1;
        }
        Self::find(weights, verifier).map_or(0, |entry| entry.weight)
    }

    fn check_verdict(ballot: &Ballot, prover: &AccountId, verdict: &SprintVerdict) -> Result<(), Refusal> {
        let Ballot { epoch, profile, verifier, .. } = ballot;
        if prover == verifier {
            return Err(Refusal::OneselfJudged);
        }
        let commitment =
            Commitments::<T>::get(epoch.index, (profile, prover)).ok_or(Refusal::NoCommitment)?;
        let samples = commitment.count.min(epoch.schedule.sprint_samples);
        if !(1..=samples).contains(&verdict.checked) || verdict.failed > verdict.checked {
            return Err(Refusal::CountsOutOfRange);
        }
        let voters = Voters::<T>::get(epoch.index, (profile, prover));
        if voters.iter().any(|voter| voter.verifier == *verifier) {
            return Err(Refusal::AlreadyVoted);
        }
        let full = voters.len() as u32 >= T::MaxVoters::get();
        if full && voters.last().is_some_and(|last| last.score >= ballot.score(prover)) {
            return Err(Refusal::TooManyVoters);
        }
        Ok(())
    }

    pub(crate) fn do_submit_verdicts(ballot: &Ballot, verdicts: VerdictBatch) {
        for (prover, verdict) in verdicts {
            let (profile, verifier) = (ballot.profile, ballot.verifier.clone());
            match Self::check_verdict(ballot, &prover, &verdict) {
                Ok(()) => {
                    Self::take_verdict(ballot, &prover, verdict);
                    let epoch = ballot.epoch.index;
                    Self::deposit_event(Event::VerdictSubmitted {
                        epoch,
                        profile,
                        prover,
                        verifier,
                        verdict,
                    });
                }
                Err(reason) => {
                    Self::deposit_event(Event::VerdictRefused { profile, prover, verifier, reason });
                }
            }
        }
    }

    /// Stores a verdict that was checked; the verifier with the lowest score gives up its place when there is none left.
    fn take_verdict(ballot: &Ballot, prover: &AccountId, verdict: SprintVerdict) {
        let Ballot { epoch, profile, verifier, weight, .. } = ballot;
        let score = ballot.score(prover);
        let voter = Voter { verifier: verifier.clone(), weight: *weight, score, verdict };
        Voters::<T>::mutate(epoch.index, (profile, prover), |voters| {
            if voters.is_full() {
                voters.pop();
            }
            // The highest first; among equals the first stays first.
            let place = voters.partition_point(|other| other.score >= voter.score);
            if voters.try_insert(place, voter).is_err() {
                defensive!("a place was made");
            }
        });
    }

    /// The entry of a host in a list sorted by account.
    pub(crate) fn find<'a>(weights: &'a [HostWeight], host: &AccountId) -> Option<&'a HostWeight> {
        let place = weights.binary_search_by(|entry| entry.host.cmp(host)).ok()?;
        weights.get(place)
    }

    pub(crate) fn now() -> BlockNumber {
        frame_system::Pallet::<T>::block_number().unique_saturated_into()
    }
}

impl<T: Config> Weights for Pallet<T> {
    fn hosts(epoch: EpochIndex) -> Vec<HostWeight> {
        crate::EpochWeights::<T>::get(epoch).into_inner()
    }

    fn of_profile(epoch: EpochIndex, profile: ProfileId) -> Vec<HostWeight> {
        crate::ProfileWeights::<T>::get(epoch, profile).into_inner()
    }

    fn weight(epoch: EpochIndex, host: &AccountId) -> Work {
        Self::find(&Self::hosts(epoch), host).map_or(0, |entry| entry.weight)
    }

    fn total(epoch: EpochIndex) -> Work {
        starling_math::draw::total(&Self::hosts(epoch))
    }
}
