//! What the clock tells, and pruning in bounded steps.

use crate::{weights, BurnedTo, Claimed, Config, Event, Fees, Pallet, Pots, PrunedTo};
use frame_support::{
    defensive,
    dispatch::DispatchClass,
    traits::{
        fungible::Mutate,
        tokens::{Fortitude, Precision, Preservation},
        Get,
    },
    weights::Weight,
};
use starling_math::emission::epoch_emission;
use starling_primitives::{
    traits::{EpochHooks, Weights},
    EpochIndex,
};

impl<T: Config> EpochHooks for Pallet<T> {
    fn on_epoch_change(ended: EpochIndex) {
        let cost = weights::epoch_change::<T>();
        frame_system::Pallet::<T>::register_extra_weight_unchecked(cost, DispatchClass::Mandatory);
        Self::mint(ended);
        if let Some(over) = ended.checked_sub(1) {
            Self::burn(over);
        }
    }
}

impl<T: Config> Pallet<T> {
    /// Mints the emission of an epoch that has ended, if there is anybody to be paid.
    fn mint(epoch: EpochIndex) {
        let amount = epoch_emission(epoch);
        if amount == 0 || T::Weights::total(epoch) == 0 {
            return;
        }
        if T::Currency::mint_into(&Self::pots_account(), amount).is_err() {
            defensive!("the issuance has room for all emissions together");
            return;
        }
        Pots::<T>::mutate(epoch, |pot| pot.emission = pot.emission.saturating_add(amount));
        Self::deposit_event(Event::Minted { epoch, amount });
    }

    /// Burns what is left of a pot whose time is over.
    fn burn(epoch: EpochIndex) {
        BurnedTo::<T>::put(epoch.saturating_add(1));
        let Some(left) = Pots::<T>::take(epoch).held() else {
            defensive!("no more is paid out of a pot than into it");
            return;
        };
        if left == 0 {
            return;
        }
        let account = Self::pots_account();
        match T::Currency::burn_from(
            &account,
            left,
            Preservation::Preserve,
            Precision::Exact,
            Fortitude::Force,
        ) {
            Ok(amount) => Self::deposit_event(Event::Burned { epoch, amount }),
            Err(_) => {
                defensive!("the account holds what the ledger says");
            }
        }
    }

    /// Prunes what a block has room for, at most `MaxPrunedPerBlock` items. Returns the weight used.
    pub(crate) fn prune(remaining: Weight) -> Weight {
        let check = weights::prune_check::<T>();
        let step = weights::prune_step::<T>();
        let Some(budget) = remaining.checked_sub(&check) else { return Weight::zero() };
        let affordable = budget.checked_div_per_component(&step).unwrap_or(0);
        let limit = u32::try_from(affordable).unwrap_or(u32::MAX).min(T::MaxPrunedPerBlock::get());
        let steps = Self::prune_steps(limit);
        check.saturating_add(step.saturating_mul(steps.into()))
    }

    /// Removes at most `limit` fees and claims of burned pots; returns how many.
    pub(crate) fn prune_steps(limit: u32) -> u32 {
        let mut steps = 0u32;
        while steps < limit {
            let epoch = PrunedTo::<T>::get();
            if epoch >= BurnedTo::<T>::get() {
                break;
            }
            if let Some(host) = Fees::<T>::iter_key_prefix(epoch).next() {
                Fees::<T>::remove(epoch, host);
            } else if let Some(host) = Claimed::<T>::iter_key_prefix(epoch).next() {
                Claimed::<T>::remove(epoch, host);
            } else {
                PrunedTo::<T>::put(epoch.saturating_add(1));
            }
            steps = steps.saturating_add(1);
        }
        steps
    }
}
