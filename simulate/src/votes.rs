//! The seam between hosts that have judged and the chain that decides: verdicts, fraud proofs, and the panels that look at
//! a disputed answer. How the chain decides disputes is known here and nowhere else in this crate.

use crate::host::Host;
use frame_support::dispatch::DispatchResult;
use pallet_verification::{types::MAX_VERDICTS, Disputes, LastBoundary, PanelTallies, Panels};
use starling_math::panel::Stage;
use starling_primitives::{
    fraud::FraudProof,
    traits::Duties,
    verdict::{Outcome, PanelCommit, PanelReveal, PanelRound, Verdict},
    AccountId, EpochIndex, InferenceId, H256,
};
use starling_runtime::{Runtime, RuntimeEvent, Verification};

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
        RuntimeEvent::Verification(
            pallet_verification::Event::DisputeOpened { id, .. }
            | pallet_verification::Event::PlantContested { id, .. },
        ) => Some(*id),
        _ => None,
    });
    opened.collect()
}

/// Whether nothing has decided a dispute yet.
pub fn is_open(id: InferenceId) -> bool {
    Disputes::<Runtime>::get(id.epoch, id.index).is_some_and(|dispute| dispute.status.is_open())
}

/// The panel that judges an answer now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sitting {
    /// Which of its panels it is.
    pub round: PanelRound,
    /// Who sits on it.
    pub members: Vec<AccountId>,
    /// What they may do.
    pub stage: Stage,
}

/// Who judges a disputed answer, once that is drawn.
pub fn sitting(id: InferenceId) -> Option<Sitting> {
    let round = Disputes::<Runtime>::get(id.epoch, id.index)?.panels.checked_sub(1)?;
    let place = (id.index, round);
    let panel = Panels::<Runtime>::get(id.epoch, place)?;
    let tally = PanelTallies::<Runtime>::get(id.epoch, place);
    let stage = panel.stage(LastBoundary::<Runtime>::get().count, &tally);
    let members = panel.members.into_iter().map(|member| member.host).collect();
    Some(Sitting { round, members, stage })
}

/// Commits a member to what it will reveal.
pub fn commit(host: &Host, reveal: &PanelReveal) -> DispatchResult {
    let PanelReveal { inference, round, .. } = *reveal;
    let commitment = reveal.commitment(&host.keys.account);
    let items = vec![PanelCommit { inference, round, commitment }].try_into().expect("one fits");
    host.call(pallet_verification::Call::<Runtime>::commit_verdicts { items })
}

/// Reveals what a member committed itself to.
pub fn reveal(host: &Host, reveal: PanelReveal) -> DispatchResult {
    let items = vec![reveal].try_into().expect("one fits");
    host.call(pallet_verification::Call::<Runtime>::reveal_verdicts { items })
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
    /// It approved a plant.
    Negligent(AccountId),
}

/// Convictions, accusations and negligences among these events.
pub fn fallen(events: &[RuntimeEvent]) -> Vec<Fallen> {
    use pallet_verification::Event as Verification;
    let found = events.iter().filter_map(|event| match event {
        RuntimeEvent::Verification(Verification::Convicted { host, .. }) => {
            Some(Fallen::Convicted(host.clone()))
        }
        RuntimeEvent::Verification(Verification::Accused { host, .. }) => Some(Fallen::Accused(host.clone())),
        RuntimeEvent::Verification(Verification::Negligent { host, .. }) => {
            Some(Fallen::Negligent(host.clone()))
        }
        _ => None,
    });
    found.collect()
}
