//! The seam between hosts that have judged and the chain that decides: verdicts, fraud proofs, and who must look at a
//! disputed answer. How the chain decides disputes is known here and nowhere else in this crate.

use crate::host::Host;
use frame_support::dispatch::DispatchResult;
use pallet_verification::types::MAX_VERDICTS;
use starling_primitives::{
    fraud::FraudProof,
    traits::{Duties, Inferences, Weights},
    verdict::{Outcome, Verdict},
    AccountId, EpochIndex, InferenceId, H256,
};
use starling_runtime::{Inference, Runtime, RuntimeEvent, Sprint, Verification};

/// Sends a host's verdicts.
pub fn vote(host: &Host, verdicts: &[(InferenceId, Outcome)]) -> DispatchResult {
    for part in verdicts.chunks(MAX_VERDICTS as usize) {
        let items: Vec<_> = part
            .iter()
            .map(|(inference, outcome)| Verdict { inference: *inference, outcome: *outcome })
            .collect();
        let items = items.try_into().expect("a part is no longer than a batch");
        host.call(pallet_verification::Call::<Runtime>::submit_verdicts { items })?;
    }
    Ok(())
}

/// Shows a lie to the chain.
pub fn prove(host: &Host, proof: FraudProof) -> DispatchResult {
    host.call(pallet_verification::Call::<Runtime>::prove_fraud { proof: Box::new(proof) })
}

/// The disputes that these events opened.
pub fn disputes(events: &[RuntimeEvent]) -> Vec<InferenceId> {
    let opened = events.iter().filter_map(|event| match event {
        RuntimeEvent::Verification(pallet_verification::Event::DisputeOpened { id, .. }) => Some(*id),
        _ => None,
    });
    opened.collect()
}

/// Hosts that must look at a disputed answer: all that serve its profile, but its executor.
pub fn jury(id: InferenceId) -> Vec<AccountId> {
    let Some(record) = Inference::record(id) else { return Vec::new() };
    let hosts = Sprint::of_profile(id.epoch, record.profile).into_iter().map(|entry| entry.host);
    hosts.filter(|host| *host != record.executor).collect()
}

/// What a host has not done of its duties among these inferences of an epoch.
pub fn undone(epoch: EpochIndex, host: &AccountId, secret: &H256, among: &[u32]) -> Vec<u32> {
    <Verification as Duties>::undone(epoch, host, secret, among)
}

/// What the events say about a host's standing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fallen {
    /// It was convicted.
    Convicted(AccountId),
    /// A verifier's sequential test accuses it.
    Accused(AccountId),
}

/// Convictions and accusations among these events.
pub fn fallen(events: &[RuntimeEvent]) -> Vec<Fallen> {
    use pallet_verification::Event as Verification;
    let found = events.iter().filter_map(|event| match event {
        RuntimeEvent::Verification(Verification::Convicted { host, .. }) => {
            Some(Fallen::Convicted(host.clone()))
        }
        RuntimeEvent::Verification(Verification::Accused { host, .. }) => Some(Fallen::Accused(host.clone())),
        _ => None,
    });
    found.collect()
}
