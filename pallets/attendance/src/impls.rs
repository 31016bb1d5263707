//! Counting, and the test.

use crate::{Answers, Config, Doubts, Pallet, Tallies};
use starling_math::attendance::{self, Share};
use starling_primitives::{
    traits::{Attendance, Weights},
    AccountId, EpochIndex, ProfileId,
};

/// Epochs before the claimed one whose weights are still known when it is claimed.
const LOOK_BACK: EpochIndex = 1;
/// Epochs for which a host's product is remembered when it claims nothing.
pub(crate) const REMEMBERED: EpochIndex = 30;

impl<T: Config> Pallet<T> {
    /// The running product of the host's test after an epoch, as log2 in 1/256 bit, at most
    /// [`attendance::ABSENT`].
    pub fn doubt(epoch: EpochIndex, host: &AccountId) -> u32 {
        Self::doubt_after(Self::last_doubt(epoch, host), epoch, host)
    }

    /// The same, given what [`Self::last_doubt`] found.
    fn doubt_after(last: Option<(EpochIndex, u32)>, epoch: EpochIndex, host: &AccountId) -> u32 {
        let (known, sum) = match last {
            Some((known, sum)) => (known.saturating_add(1), sum),
            None => (0, 0),
        };
        // What was not claimed is looked at now, as far as it is known; an epoch before that changes nothing.
        let first = known.max(epoch.saturating_sub(LOOK_BACK));
        (first..=epoch).fold(sum, |sum, epoch| attendance::step(sum, Self::bits(epoch, host)))
    }

    /// The newest product that a claim left, up to `epoch`, and its epoch.
    fn last_doubt(epoch: EpochIndex, host: &AccountId) -> Option<(EpochIndex, u32)> {
        let epochs = epoch.saturating_sub(REMEMBERED)..=epoch;
        epochs.rev().find_map(|epoch| Doubts::<T>::get(epoch, host).map(|sum| (epoch, sum)))
    }

    /// What the epoch alone says, over all profiles that the host had weight for.
    fn bits(epoch: EpochIndex, host: &AccountId) -> i64 {
        Answers::<T>::iter_prefix(epoch).fold(0i64, |sum, (profile, answers)| {
            let hosts = T::Weights::of_profile(epoch, profile);
            let weight = match hosts.binary_search_by(|entry| entry.host.cmp(host)) {
                Ok(position) => hosts.get(position).map_or(0, |entry| entry.weight),
                Err(_) => return sum,
            };
            let share = Share { answers, weight, total: starling_math::draw::total(&hosts) };
            let tally = Tallies::<T>::get(epoch, (profile, host));
            sum.saturating_add(attendance::bits(&share, &tally))
        })
    }
}

impl<T: Config> Attendance for Pallet<T> {
    fn on_answered(
        epoch: EpochIndex,
        profile: ProfileId,
        executor: &AccountId,
        gateway: &AccountId,
        count: u32,
    ) {
        Tallies::<T>::mutate(epoch, (profile, executor), |tally| {
            tally.answered = tally.answered.saturating_add(count);
        });
        if executor != gateway {
            Tallies::<T>::mutate(epoch, (profile, gateway), |tally| {
                tally.relayed = tally.relayed.saturating_add(count);
            });
        }
        Answers::<T>::mutate(epoch, profile, |answers| *answers = answers.saturating_add(count));
    }

    fn on_struck(epoch: EpochIndex, profile: ProfileId, executor: &AccountId) {
        // Answers of older epochs are not counted any more.
        if !Answers::<T>::contains_key(epoch, profile) {
            return;
        }
        Tallies::<T>::mutate(epoch, (profile, executor), |tally| {
            tally.answered = tally.answered.saturating_sub(1);
            tally.struck = tally.struck.saturating_add(1);
        });
    }

    fn on_planted(epoch: EpochIndex, profile: ProfileId, executor: &AccountId, gateway: &AccountId) {
        if !Answers::<T>::contains_key(epoch, profile) {
            return;
        }
        Tallies::<T>::mutate(epoch, (profile, executor), |tally| {
            tally.answered = tally.answered.saturating_sub(1);
        });
        if executor != gateway {
            Tallies::<T>::mutate(epoch, (profile, gateway), |tally| {
                tally.relayed = tally.relayed.saturating_sub(1);
            });
        }
        Answers::<T>::mutate(epoch, profile, |answers| *answers = answers.saturating_sub(1));
    }

    fn is_absent(epoch: EpochIndex, host: &AccountId) -> bool {
        Self::doubt(epoch, host) >= attendance::ABSENT
    }

    fn on_claim(epoch: EpochIndex, host: &AccountId) -> bool {
        let last = Self::last_doubt(epoch, host);
        let doubt = Self::doubt_after(last, epoch, host);
        if let Some((last, _)) = last {
            Doubts::<T>::remove(last, host);
        }
        if doubt > 0 {
            Doubts::<T>::insert(epoch, host, doubt);
        }
        doubt >= attendance::ABSENT
    }

    fn profiles(epoch: EpochIndex) -> u32 {
        let epochs = epoch.saturating_sub(LOOK_BACK)..=epoch;
        epochs.map(|epoch| Answers::<T>::iter_key_prefix(epoch).count() as u32).sum()
    }
}
