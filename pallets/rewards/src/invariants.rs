//! What always holds.

use crate::{BurnedTo, Claimed, Config, Fees, Pallet, Pots, PrunedTo};
use frame_support::{ensure, traits::fungible::Inspect};
use sp_runtime::TryRuntimeError;
use starling_primitives::{traits::Clock, Balance};

impl<T: Config> Pallet<T> {
    /// Invariants:
    ///
    /// 1. A pot is never overdrawn, and what was claimed of it is the sum of its claims.
    /// 2. The fees of a pot are the unclaimed fees of its hosts and the fees that were claimed.
    /// 3. The claimed shares of the emission sum to no more than the emission.
    /// 4. There are pots of the running epoch and the two before only, and none that is burned.
    /// 5. The account holds the existential deposit and what is in the pots. It may hold more, because anybody can send
    ///    tokens to it; [`Self::surplus`] says how much.
    pub fn do_try_state() -> Result<(), TryRuntimeError> {
        let current = T::Clock::epoch().index;
        let burned = BurnedTo::<T>::get();
        ensure!(PrunedTo::<T>::get() <= burned && burned <= current, "burned or pruned too early");
        for (epoch, pot) in Pots::<T>::iter() {
            ensure!((burned..=current).contains(&epoch), "a pot out of its time");
            ensure!(pot.held().is_some(), "a pot is overdrawn");
            let (mut emission, mut claimed_fees): (Balance, Balance) = (0, 0);
            for (_, due) in Claimed::<T>::iter_prefix(epoch) {
                emission = emission.checked_add(due.emission).ok_or("shares overflow")?;
                claimed_fees = claimed_fees.checked_add(due.fees).ok_or("fees overflow")?;
            }
            let claimed = emission.checked_add(claimed_fees).ok_or("claims overflow")?;
            let mut fees = claimed_fees;
            for (_, own) in Fees::<T>::iter_prefix(epoch) {
                ensure!(own > 0, "an entry without fees");
                fees = fees.checked_add(own).ok_or("fees overflow")?;
            }
            ensure!(claimed == pot.claimed, "claims do not sum up");
            ensure!(fees == pot.fees, "fees do not sum up");
            ensure!(emission <= pot.emission, "more was shared than emitted");
        }
        Self::surplus().ok_or("the pots hold more than their account")?;
        Ok(())
    }

    /// What the account holds beyond the pots and its existential deposit: tokens somebody sent to it.
    pub fn surplus() -> Option<Balance> {
        let held = Pots::<T>::iter_values().try_fold(0, |sum: Balance, pot| sum.checked_add(pot.held()?))?;
        let needed = held.checked_add(T::Currency::minimum_balance())?;
        T::Currency::total_balance(&Self::pots_account()).checked_sub(needed)
    }
}
