//! How a verdict is checked, judged and counted.

use crate::{
    suspicion::Judged,
    types::{Refusal, VerdictRecord},
    Config, Disputes, Error, Event, Pallet, Tallies, Verdicts,
};
use alloc::vec::Vec;
use frame_system::pallet_prelude::OriginFor;
use sp_runtime::{traits::UniqueSaturatedInto, DispatchError};
use starling_math::judge;
use starling_primitives::{
    profile::Calibration,
    records::{InferenceRecord, InferenceResult},
    traits::{Clock, HostWeight, Hosts, Inferences, Profiles, Weights},
    verdict::{Figures, Outcome, Verdict, DISTANCE_CLIP, MARGIN_CLIP},
    AccountId, BlockNumber, EpochIndex, InferenceId, ProfileId, Work,
};

/// What a batch came to.
#[derive(Default)]
pub(crate) struct Submitted {
    /// Verdicts taken.
    pub(crate) taken: u32,
    /// Disputes opened or settled, and accusations.
    pub(crate) disputes: u32,
}

/// The hosts that may vote on a profile's inferences in an epoch, sorted by account.
pub(crate) struct Jury {
    epoch: EpochIndex,
    profile: ProfileId,
    pub(crate) hosts: Vec<HostWeight>,
    pub(crate) total: Work,
    calibration: Option<Calibration>,
}

impl Jury {
    pub(crate) fn load<T: Config>(epoch: EpochIndex, profile: ProfileId) -> Self {
        let hosts = T::Weights::of_profile(epoch, profile);
        let total = starling_math::draw::total(&hosts);
        let calibration = T::Profiles::registered(profile).map(|profile| profile.calibration);
        Self { epoch, profile, hosts, total, calibration }
    }

    pub(crate) fn member(&self, host: &AccountId) -> Option<&HostWeight> {
        let position = self.hosts.binary_search_by(|entry| entry.host.cmp(host)).ok()?;
        self.hosts.get(position)
    }

    pub(crate) fn weight(&self, host: &AccountId) -> Work {
        self.member(host).map_or(0, |member| member.weight)
    }

    /// Weight of everybody who may vote on an inference of `executor`.
    pub(crate) fn eligible(&self, executor: &AccountId) -> Work {
        self.total.saturating_sub(self.weight(executor))
    }
}

/// The juries that a call needs, each loaded once.
#[derive(Default)]
pub(crate) struct Juries(Vec<Jury>);

impl Juries {
    pub(crate) fn of<T: Config>(&mut self, epoch: EpochIndex, profile: ProfileId) -> Option<&Jury> {
        let known = self.0.iter().position(|jury| (jury.epoch, jury.profile) == (epoch, profile));
        let position = match known {
            Some(position) => position,
            None => {
                self.0.push(Jury::load::<T>(epoch, profile));
                self.0.len().checked_sub(1)?
            }
        };
        self.0.get(position)
    }
}

/// What the items of a batch share.
struct Frame<'a> {
    verifier: &'a AccountId,
    now: BlockNumber,
    epoch: EpochIndex,
}

/// A verdict that may be taken.
struct Admitted {
    record: InferenceRecord,
    verdict: VerdictRecord,
    replaced: Option<VerdictRecord>,
    weight: Work,
    eligible: Work,
    calibration: Calibration,
}

impl<T: Config> Pallet<T> {
    pub(crate) fn now() -> BlockNumber {
        frame_system::Pallet::<T>::block_number().unique_saturated_into()
    }

    /// The host whose worker key signed.
    pub(crate) fn ensure_worker(origin: OriginFor<T>) -> Result<AccountId, DispatchError> {
        let worker = frame_system::ensure_signed(origin)?;
        T::Hosts::host_of(&worker).ok_or_else(|| Error::<T>::NotAWorker.into())
    }

    /// Whether the call is signed by the worker key of a registered host, and so free of fees.
    pub(crate) fn is_worker(origin: &OriginFor<T>) -> bool {
        Self::ensure_worker(origin.clone()).is_ok()
    }

    /// Takes what it can of the batch.
    pub(crate) fn do_submit(verifier: &AccountId, items: &[Verdict]) -> Submitted {
        let frame = Frame { verifier, now: Self::now(), epoch: T::Clock::epoch().index };
        let mut juries = Juries::default();
        let mut submitted = Submitted::default();
        for item in items {
            let id = item.inference;
            match Self::admit(&frame, &mut juries, item) {
                Ok(admitted) => {
                    let accused = Self::let_weigh(&frame, &mut juries, id, &admitted);
                    let settled = Self::count(&frame, id, admitted) || accused;
                    submitted.taken = submitted.taken.saturating_add(1);
                    submitted.disputes = submitted.disputes.saturating_add(settled.into());
                }
                Err(reason) => Self::deposit_event(Event::VerdictRefused { id, reason }),
            }
        }
        submitted
    }

    fn admit(frame: &Frame, juries: &mut Juries, item: &Verdict) -> Result<Admitted, Refusal> {
        let id = item.inference;
        // Claims for an epoch end with the one after it, and verdicts with them.
        if id.epoch != frame.epoch && id.epoch.checked_add(1) != Some(frame.epoch) {
            return Err(Refusal::EpochClosed);
        }
        let record = T::Inferences::record(id).ok_or(Refusal::UnknownInference)?;
        let result = record.result.as_ref().ok_or(Refusal::NotFinished)?;
        if record.executor == *frame.verifier {
            return Err(Refusal::OwnInference);
        }
        let jury = juries.of::<T>(id.epoch, record.profile).ok_or(Refusal::NotServing)?;
        let weight = jury.member(frame.verifier).ok_or(Refusal::NotServing)?.weight;
        let calibration = jury.calibration.ok_or(Refusal::UnknownProfile)?;
        let replaced = Verdicts::<T>::get(id.epoch, (id.index, frame.verifier));
        let replaces =
            |known: VerdictRecord| known.outcome == Outcome::Unavailable && item.outcome != known.outcome;
        if replaced.is_some_and(|known| !replaces(known)) {
            return Err(Refusal::Duplicate);
        }
        let passed = judge_outcome(&item.outcome, result, &calibration)?;
        let verdict = VerdictRecord { outcome: item.outcome, passed, at: frame.now };
        let eligible = jury.eligible(&record.executor);
        Ok(Admitted { record, verdict, replaced, weight, eligible, calibration })
    }

    /// The sequential test takes what lies within the limits; returns whether it accuses.
    fn let_weigh(frame: &Frame, juries: &mut Juries, id: InferenceId, admitted: &Admitted) -> bool {
        let Admitted { record, verdict, calibration, .. } = admitted;
        let Outcome::Measured(figures) = &verdict.outcome else { return false };
        let Some(jury) = juries.of::<T>(id.epoch, record.profile) else { return false };
        let (profile, executor, verifier) = (record.profile, &record.executor, frame.verifier);
        Self::weigh(&Judged { id, profile, executor, verifier }, jury, calibration, figures)
    }

    /// Stores a verdict and lets it count. Returns whether a dispute was opened or settled.
    fn count(frame: &Frame, id: InferenceId, admitted: Admitted) -> bool {
        let Admitted { record, verdict, replaced, weight, eligible, .. } = admitted;
        Verdicts::<T>::insert(id.epoch, (id.index, frame.verifier), verdict);
        let votes = Tallies::<T>::mutate(id.epoch, id.index, |votes| {
            if let Some(old) = replaced {
                *votes = votes.without(&old.outcome, old.passed, weight);
            }
            *votes = votes.with(&verdict.outcome, verdict.passed, weight);
            *votes
        });
        if record.first_verdict_at.is_none() {
            T::Inferences::note_verdict(id, frame.now);
        }
        Self::deposit_event(Event::VerdictSubmitted {
            id,
            verifier: frame.verifier.clone(),
            passed: verdict.passed,
        });
        let accuses = !verdict.passed && verdict.outcome != Outcome::Unavailable;
        let opened = accuses && Self::open_dispute(id, &record, frame.verifier);
        if opened || Disputes::<T>::contains_key(id.epoch, id.index) {
            let settled = Self::decide(id, &record.executor, &votes, eligible);
            opened || settled
        } else {
            Self::note_unavailable(id, &record.executor, votes, eligible);
            false
        }
    }
}

/// Whether a verdict lies within the limits. Figures must belong to a transcript of the recorded length: at most as
/// many tokens, none of them beyond its clip.
fn judge_outcome(
    outcome: &Outcome,
    result: &InferenceResult,
    calibration: &Calibration,
) -> Result<bool, Refusal> {
    match outcome {
        Outcome::Measured(figures) if belongs(figures, result) => Ok(judge::passes(figures, calibration)),
        Outcome::Measured(_) => Err(Refusal::BadFigures),
        Outcome::ReplayFailed | Outcome::Unavailable => Ok(false),
    }
}

fn belongs(figures: &Figures, result: &InferenceResult) -> bool {
    let at_most = |clip: u32| u64::from(figures.tokens).saturating_mul(clip.into());
    (1..=result.completion_tokens).contains(&figures.tokens)
        && figures.distance_sum <= at_most(DISTANCE_CLIP)
        && figures.margin_sum <= at_most(MARGIN_CLIP)
}
