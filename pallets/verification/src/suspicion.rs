//! The sequential test: what many verdicts show that each lies within the limits.
//!
//! Each verifier has a running product of its own for each executor and profile ([`starling_math::evidence`]). When that
//! crosses its limit, the verifier accuses the executor; what the accusations come to follows from the accusers' weight.
//! Liars of less than half of the weight can thus neither convict an honest host nor shield another one.
//!
//! Doubts, accusations and standings are kept by epoch. What the epoch before left still counts and is taken over when
//! it changes, so that everything older can be pruned.

use crate::{verdicts::Jury, Accusations, Config, Doubts, Event, Pallet, Standings};
use starling_math::evidence::{self, Standing};
use starling_primitives::{
    profile::Calibration, traits::Clock, verdict::Figures, AccountId, EpochIndex, InferenceId, ProfileId,
    Work,
};

/// Whom a verdict speaks about, and who speaks.
pub(crate) struct Judged<'a> {
    pub(crate) id: InferenceId,
    pub(crate) profile: ProfileId,
    pub(crate) executor: &'a AccountId,
    pub(crate) verifier: &'a AccountId,
}

impl<T: Config> Pallet<T> {
    /// Lets a verdict within the limits count for the verifier's own test. Returns whether it accuses by that.
    pub(crate) fn weigh(judged: &Judged, jury: &Jury, calibration: &Calibration, figures: &Figures) -> bool {
        let Some(bits) = evidence::bits(figures, calibration) else { return false };
        let epoch = T::Clock::epoch().index;
        let place = (judged.executor.clone(), judged.profile, judged.verifier.clone());
        let before = previous(epoch).map_or(0, |epoch| Doubts::<T>::take(epoch, &place));
        let before = Doubts::<T>::take(epoch, &place).max(before);
        let after = evidence::step(before, bits);
        if after >= evidence::ACCUSES {
            Self::accuse(epoch, judged, jury);
            return true;
        }
        if after > 0 {
            Doubts::<T>::insert(epoch, place, after);
        }
        false
    }

    fn accuse(epoch: EpochIndex, judged: &Judged, jury: &Jury) {
        let Judged { id, profile, executor, verifier } = *judged;
        let place = (executor.clone(), profile);
        let mut accusers = Accusations::<T>::take(epoch, &place);
        if let Some(before) = previous(epoch) {
            for accuser in Accusations::<T>::take(before, &place) {
                if !accusers.contains(&accuser) {
                    // Full only if there are more accusers than hosts.
                    let _ = accusers.try_push(accuser);
                }
            }
        }
        if !accusers.contains(verifier) {
            let _ = accusers.try_push(verifier.clone());
        }
        let accusing = accusers.iter().fold(0, |sum: Work, accuser| sum.saturating_add(jury.weight(accuser)));
        let standing = evidence::standing(accusing, jury.eligible(executor));
        let (host, verifier) = (executor.clone(), verifier.clone());
        Self::deposit_event(Event::Accused { host, profile, verifier, standing });
        if standing == Standing::Convicted {
            return Self::convict(executor, id);
        }
        Accusations::<T>::insert(epoch, place, accusers);
        Standings::<T>::mutate(epoch, executor, |known| *known = (*known).max(Some(standing)));
    }

    /// The worst that the accusations of this epoch and the one before come to.
    pub fn standing(host: &AccountId) -> Option<Standing> {
        let epoch = T::Clock::epoch().index;
        let before = previous(epoch).and_then(|epoch| Standings::<T>::get(epoch, host));
        Standings::<T>::get(epoch, host).max(before)
    }
}

fn previous(epoch: EpochIndex) -> Option<EpochIndex> {
    epoch.checked_sub(1)
}
