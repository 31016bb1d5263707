//! How a verdict is checked, judged and counted.

use crate::{
    cost::Shape,
    suspicion::Judged,
    types::{Refusal, VerdictRecord},
    Config, Error, Event, Pallet, Verdicts,
};
use alloc::vec::Vec;
use frame_system::pallet_prelude::OriginFor;
use sp_runtime::{traits::UniqueSaturatedInto, DispatchError};
use starling_math::{
    complaint::{Ground, Hearing},
    judge,
};
use starling_primitives::{
    profile::Calibration,
    records::{InferenceRecord, InferenceResult, InferenceState},
    traits::{Clock, HostWeight, Hosts, Inferences, Profiles, Weights},
    verdict::{Figures, Outcome, Verdict, DISTANCE_CLIP, MARGIN_CLIP},
    AccountId, BlockNumber, EpochIndex, InferenceId, ProfileId, Work,
};

/// The hosts that may judge a profile's inferences in an epoch, sorted by account.
pub(crate) struct Jury {
    epoch: EpochIndex,
    profile: ProfileId,
    pub(crate) hosts: Vec<HostWeight>,
    pub(crate) total: Work,
    pub(crate) calibration: Option<Calibration>,
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

    /// Weight of everybody who may judge an inference of `executor`.
    pub(crate) fn eligible(&self, executor: &AccountId) -> Work {
        self.total.saturating_sub(self.weight(executor))
    }
}

/// The juries that a call needs, each loaded once.
#[derive(Default)]
pub(crate) struct Juries(Vec<Jury>);

impl Juries {
    /// How many were loaded.
    pub(crate) fn len(&self) -> u32 {
        self.0.len() as u32
    }

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
pub(crate) struct Frame<'a> {
    pub(crate) verifier: &'a AccountId,
    pub(crate) now: BlockNumber,
}

/// A verdict that may be taken.
struct Admitted {
    record: InferenceRecord,
    verdict: VerdictRecord,
    /// On what ground it opens a dispute.
    complaint: Option<Ground>,
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

    /// Takes what it can of the batch.
    pub(crate) fn do_submit(verifier: &AccountId, items: &[Verdict]) -> Shape {
        let frame = Frame { verifier, now: Self::now() };
        let mut juries = Juries::default();
        let mut shape = Shape::default();
        for item in items {
            let id = item.inference;
            match Self::admit(&frame, &mut juries, item) {
                Ok(Admitted { record, verdict, complaint }) => {
                    let accused = Self::keep(&frame, &mut juries, id, &record, verdict);
                    if let Some(ground) = complaint {
                        Self::open_dispute(id, verifier, ground);
                    }
                    shape.taken = shape.taken.saturating_add(1);
                    shape.dearer = shape.dearer.saturating_add((complaint.is_some() || accused).into());
                }
                Err(reason) => {
                    shape.refused = shape.refused.saturating_add(1);
                    Self::deposit_event(Event::VerdictRefused { id, reason });
                }
            }
        }
        shape.juries = juries.len();
        shape
    }

    /// Whether a verdict of this worker's would be taken.
    pub(crate) fn may_submit(verifier: &AccountId, items: &[Verdict]) -> bool {
        let frame = Frame { verifier, now: Self::now() };
        let mut juries = Juries::default();
        items.iter().any(|item| Self::admit(&frame, &mut juries, item).is_ok())
    }

    fn admit(frame: &Frame, juries: &mut Juries, item: &Verdict) -> Result<Admitted, Refusal> {
        let id = item.inference;
        if !Self::takes_verdicts(id.epoch) {
            return Err(Refusal::EpochClosed);
        }
        let record = T::Inferences::record(id).ok_or(Refusal::UnknownInference)?;
        let result = record.result.as_ref().ok_or(Refusal::NotFinished)?;
        if record.executor == *frame.verifier {
            return Err(Refusal::OwnInference);
        }
        if record.state == InferenceState::Planted {
            return Err(Refusal::Planted);
        }
        let jury = juries.of::<T>(id.epoch, record.profile).ok_or(Refusal::NotServing)?;
        jury.member(frame.verifier).ok_or(Refusal::NotServing)?;
        let calibration = jury.calibration.ok_or(Refusal::UnknownProfile)?;
        let known = Verdicts::<T>::get(id.epoch, (id.index, frame.verifier));
        if known.is_some_and(|known| !known.is_replaced_by(&item.outcome)) {
            return Err(Refusal::Duplicate);
        }
        // What is said openly while a panel judges could be copied by its members.
        if Self::is_disputed(id) {
            return Err(Refusal::Disputed);
        }
        let passed = judge_outcome(&item.outcome, result, &calibration)?;
        let verdict = VerdictRecord { outcome: item.outcome, passed, at: frame.now };
        let complains = !passed && Self::is_disputable(id, &record);
        let ground = Ground::of(&item.outcome);
        let complaint = match complains.then(|| Self::hearing(id.epoch, frame.verifier, ground)) {
            Some(Hearing::Later) => return Err(Refusal::NotHeardYet),
            Some(Hearing::Now) => Some(ground),
            Some(Hearing::Never) | None => None,
        };
        Ok(Admitted { record, verdict, complaint })
    }

    /// Claims for an epoch end with the one after it, and verdicts with them.
    pub(crate) fn takes_verdicts(epoch: EpochIndex) -> bool {
        let current = T::Clock::epoch().index;
        epoch == current || epoch.checked_add(1) == Some(current)
    }

    /// Stores a verifier's own verdict and lets it count for the sequential test. Returns whether that accuses.
    pub(crate) fn keep(
        frame: &Frame,
        juries: &mut Juries,
        id: InferenceId,
        record: &InferenceRecord,
        verdict: VerdictRecord,
    ) -> bool {
        let (verifier, executor) = (frame.verifier, &record.executor);
        let Some(jury) = juries.of::<T>(id.epoch, record.profile) else { return false };
        let accused = match (&verdict.outcome, &jury.calibration) {
            (Outcome::Measured(figures), Some(calibration)) => {
                let judged = Judged { id, profile: record.profile, executor, verifier };
                Self::weigh(&judged, jury, calibration, figures)
            }
            _ => false,
        };
        Verdicts::<T>::insert(id.epoch, (id.index, verifier), verdict);
        if record.first_verdict_at.is_none() {
            T::Inferences::note_verdict(id, frame.now);
        }
        let passed = verdict.passed;
        Self::deposit_event(Event::VerdictSubmitted { id, verifier: verifier.clone(), passed });
        accused
    }
}

/// Whether a verdict lies within the limits. Figures must belong to a transcript of the recorded length: at most as
/// many tokens, none of them beyond its clip.
pub(crate) fn judge_outcome(
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
