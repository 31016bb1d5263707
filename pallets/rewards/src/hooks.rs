//! What the clock tells, and pruning in bounded steps.

use crate::{BurnedTo, Claimed, Config, Event, Fees, Pallet, Pots, PrunedTo, WeightInfo};
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
        let cost = T::WeightInfo::epoch_change();
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
        let check = T::WeightInfo::prune(0);
        let step = T::WeightInfo::prune(1).saturating_sub(check);
        let Some(budget) = remaining.checked_sub(&check) else { return Weight::zero() };
        let affordable = budget.checked_div_per_component(&step).unwrap_or(0);
        let limit = u32::try_from(affordable).unwrap_or(u32::MAX).min(T::MaxPrunedPerBlock::get());
        let steps = Self::prune_steps(limit);
        check.saturating_add(step.saturating_mul(steps.into()))
    }

    /// Removes at most `limit` fees and claims of burned pots; returns how many.
    pub(crate) fn prune_steps(limit: u32) -> u32 {
        let mut left = limit;
        while left > 0 {
            let epoch = PrunedTo::<T>::get();
            if epoch >= BurnedTo::<T>::get() {
                break;
            }
            left = Self::prune_epoch(epoch, left);
        }
        limit.saturating_sub(left)
    }

    /// Removes fees, then claims; the end of an epoch is one item more. Returns what is left of the limit. Each map is walked
    /// once: a search for its first key, again for each item, would pass all keys that this block has removed before.
    fn prune_epoch(epoch: EpochIndex, limit: u32) -> u32 {
        let fees = Fees::<T>::iter_key_prefix(epoch).drain().take(limit as usize).count() as u32;
        let left = limit.saturating_sub(fees);
        let claims = Claimed::<T>::iter_key_prefix(epoch).drain().take(left as usize).count() as u32;
        let left = left.saturating_sub(claims);
        if left == 0 {
            return 0;
        }
        PrunedTo::<T>::put(epoch.saturating_add(1));
        left.saturating_sub(1)
    }
}
