//! Fraud proofs: what the chain judges by itself, without a vote.
//!
//! Two kinds of objection are told apart. What the chain sees at a glance (no such inference, decided already, another
//! key's receipt) fails the call, which costs its fee. What takes a signature check or a replay to see costs the sender
//! [`Config::FraudDeposit`] as well, because an accusation without ground is work for everybody.

use crate::{
    hooks::KEPT_EPOCHS,
    types::{Accuser, Dispute, DisputeStatus},
    Config, Disputes, Error, Event, Pallet,
};
use frame_support::traits::{
    fungible::{Inspect, Mutate},
    tokens::{Fortitude, Precision, Preservation},
    Get,
};
use frame_system::pallet_prelude::{BlockNumberFor, OriginFor};
use sp_runtime::DispatchError;
use starling_primitives::{
    fraud::{judge, Fraud, FraudProof, Known, NoProof},
    records::{Finished, InferenceRecord, InferenceResult},
    tape::tape_seed,
    traits::{Beacon, Bonds, Clock, Hosts, Inferences, Profiles, Round},
    AccountId, Balance, InferenceId, RequestId,
};

/// Whose inference is accused, and what of.
pub(crate) struct Accused {
    id: InferenceId,
    record: InferenceRecord,
    judged: Result<Fraud, NoProof>,
}

impl<T: Config> Pallet<T> {
    /// What the proof shows; `None` when it shows nothing, or nothing that is still open. Changes nothing.
    pub fn fraud(proof: &FraudProof) -> Option<Fraud> {
        Self::look_at(proof).ok()?.judged.ok()
    }

    /// Whether the call is signed by the worker key of a registered host and will succeed, and so is free of fees.
    pub(crate) fn is_true_proof(origin: &OriginFor<T>, proof: &FraudProof) -> bool {
        let worker = Self::accuser(origin.clone()).ok().filter(|accuser| matches!(accuser, Accuser::Host(_)));
        worker.is_some_and(|accuser| Self::can_lose_deposit(&accuser)) && Self::fraud(proof).is_some()
    }

    /// Who answers for a call: the host whose worker signed, or else the signer.
    fn accuser(origin: OriginFor<T>) -> Result<Accuser, DispatchError> {
        let signer = frame_system::ensure_signed(origin)?;
        Ok(match T::Hosts::host_of(&signer) {
            Some(host) => Accuser::Host(host),
            None => Accuser::Account(signer),
        })
    }

    pub(crate) fn do_prove_fraud(origin: OriginFor<T>, proof: &FraudProof) -> Result<(), DispatchError> {
        let accuser = Self::accuser(origin)?;
        // Before the work: who cannot lose the deposit may not ask for it.
        if !Self::can_lose_deposit(&accuser) {
            return Err(Error::<T>::DepositNotCovered.into());
        }
        let Accused { id, record, judged } = Self::look_at(proof)?;
        match judged {
            Ok(fraud) => {
                Self::overturn(id);
                Self::deposit_event(Event::FraudProven { id, accuser, fraud });
                Self::convict(&record.executor, id);
            }
            Err(reason) => {
                let burned = Self::burn_deposit(&accuser);
                Self::deposit_event(Event::FraudUnproven { id, accuser, reason, burned });
            }
        }
        Ok(())
    }

    /// Everything that an error says, then the judgement.
    fn look_at(proof: &FraudProof) -> Result<Accused, Error<T>> {
        let id = proof.inference;
        let current = T::Clock::epoch().index;
        let kept = id.epoch <= current && id.epoch.saturating_add(KEPT_EPOCHS) >= current;
        let seed = T::Beacon::seed(Round::Epoch(id.epoch)).filter(|_| kept).ok_or(Error::<T>::EpochClosed)?;
        let record = T::Inferences::record(id).ok_or(Error::<T>::UnknownInference)?;
        let fallen = Disputes::<T>::get(id.epoch, id.index)
            .is_some_and(|dispute| dispute.status == DisputeStatus::Invalid || dispute.is_about_plant());
        if fallen {
            return Err(Error::<T>::AlreadyFallen);
        }
        let receipt = &proof.receipt.receipt;
        // The epoch is part of what was signed: a gateway that records another one than it asked with must not turn an
        // honest receipt into a wrong one.
        let about = receipt.finished.request_id == record.request_id
            && receipt.executor == record.executor
            && (receipt.epoch, receipt.epoch_seed) == (id.epoch, seed);
        if !about {
            return Err(Error::<T>::OtherReceipt);
        }
        if T::Hosts::worker_of(&record.executor) != Some(AccountId::from(proof.receipt.worker)) {
            return Err(Error::<T>::OtherKey);
        }
        let profile = T::Profiles::registered(record.profile).ok_or(Error::<T>::UnknownProfile)?;
        let finished = record.result.as_ref().map(|result| finished(record.request_id, result));
        let genesis = frame_system::Pallet::<T>::block_hash(BlockNumberFor::<T>::default());
        let known = Known {
            genesis: &genesis,
            tape_seed: &tape_seed(&seed, &record.request_id),
            finished: finished.as_ref(),
            profile: record.profile,
            vocab_size: profile.vocab_size,
            top_k: profile.top_k,
        };
        let judged = judge(&proof.receipt, proof.evidence.clone(), &known);
        Ok(Accused { id, record, judged })
    }

    /// The answer falls, whatever was voted, and can be accused of nothing more. A request that is not paid (it still
    /// runs, or has expired) has nothing to give back: its reserve goes back by itself.
    fn overturn(id: InferenceId) {
        let proven = Dispute {
            opened_at: Self::now(),
            accuser: None,
            panels: 0,
            due: 0,
            status: DisputeStatus::Invalid,
        };
        let known = Disputes::<T>::get(id.epoch, id.index);
        if let Some(dispute) = known.as_ref().filter(|dispute| dispute.status.is_open()) {
            Self::end_early(id, dispute);
        }
        let fallen = Dispute { status: DisputeStatus::Invalid, ..known.unwrap_or(proven) };
        Disputes::<T>::insert(id.epoch, id.index, fallen);
        T::Inferences::invalidate(id);
    }

    fn can_lose_deposit(accuser: &Accuser) -> bool {
        let deposit = T::FraudDeposit::get();
        match accuser {
            Accuser::Host(host) => T::Bonds::bond(host) >= deposit,
            Accuser::Account(account) => {
                T::Currency::reducible_balance(account, Preservation::Preserve, Fortitude::Polite) >= deposit
            }
        }
    }

    fn burn_deposit(accuser: &Accuser) -> Balance {
        let deposit = T::FraudDeposit::get();
        match accuser {
            Accuser::Host(host) => T::Bonds::burn(host, deposit),
            Accuser::Account(account) => T::Currency::burn_from(
                account,
                deposit,
                Preservation::Preserve,
                Precision::BestEffort,
                Fortitude::Polite,
            )
            .unwrap_or(0),
        }
    }
}

/// As the executor sent it.
fn finished(request_id: RequestId, result: &InferenceResult) -> Finished {
    Finished {
        request_id,
        response_hash: result.response_hash,
        transcript_root: result.transcript_root,
        prompt_tokens: result.prompt_tokens,
        completion_tokens: result.completion_tokens,
    }
}
