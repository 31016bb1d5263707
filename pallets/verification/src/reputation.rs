//! Reputation.

use crate::{Config, Convictions, Event, Missed, Pallet, Reputations};
use starling_math::{evidence::Standing, reputation};
use starling_primitives::{
    traits::{Clock, Reputation},
    AccountId, EpochIndex, Ppm,
};

impl<T: Config> Pallet<T> {
    pub(crate) fn set_reputation(host: &AccountId, reputation: Ppm) {
        if Reputations::<T>::get(host) == reputation {
            return;
        }
        if reputation == 0 {
            Reputations::<T>::remove(host);
        } else {
            Reputations::<T>::insert(host, reputation);
        }
        Self::deposit_event(Event::ReputationChanged { host: host.clone(), reputation });
    }
}

impl<T: Config> Reputation for Pallet<T> {
    /// Who is accused has none while the accusation lasts, so that everything it does is verified.
    fn reputation(host: &AccountId) -> Ppm {
        match Self::standing(host) {
            Some(_) => 0,
            None => Reputations::<T>::get(host),
        }
    }

    fn may_work(host: &AccountId) -> bool {
        Self::standing(host) < Some(Standing::Stopped)
    }

    /// An epoch with a miss or a conviction is not a clean one, even though it was claimed.
    fn on_clean_epoch(host: &AccountId, epoch: EpochIndex) {
        if Missed::<T>::get(epoch, host) == 0 && !Convictions::<T>::contains_key(epoch, host) {
            Self::set_reputation(host, reputation::after_clean_epoch(Reputations::<T>::get(host)));
        }
    }

    fn on_missed(host: &AccountId, epoch: EpochIndex) {
        // The misses of older epochs are being pruned: nobody will ask for them.
        if epoch.saturating_add(crate::hooks::KEPT_EPOCHS) >= T::Clock::epoch().index {
            Missed::<T>::mutate(epoch, host, |missed| *missed = missed.saturating_add(1));
        }
        Self::set_reputation(host, reputation::after_miss(Reputations::<T>::get(host)));
    }
}
