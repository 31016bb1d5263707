//! The ledger of deposits over the pallet's one account, and the way of fees from there into the pots.

use crate::{
    types::{Delegation, Deposit, Refusal},
    Config, DelegationCount, Delegations, Deposits, Error, Event, Pallet, PendingFees,
};
use frame_support::{
    defensive, ensure,
    traits::{
        fungible::{Inspect, Mutate},
        tokens::Preservation::Preserve,
        Get,
    },
};
use sp_runtime::{
    traits::{AccountIdConversion, Zero},
    DispatchResult,
};
use starling_primitives::{records::InferenceRecord, traits::Pots, AccountId, Balance, EpochIndex};

impl<T: Config> Pallet<T> {
    /// Account that holds all deposits.
    pub fn account_id() -> AccountId {
        T::PalletId::get().into_account_truncating()
    }

    /// Mints the existential deposit that keeps the account alive however little the ledger holds.
    pub(crate) fn endow_account() {
        let account = Self::account_id();
        let minimum = T::Currency::minimum_balance();
        if T::Currency::balance(&account) < minimum && T::Currency::mint_into(&account, minimum).is_err() {
            defensive!("the account of deposits could not be endowed");
        }
    }

    pub(crate) fn do_deposit(client: AccountId, amount: Balance) -> DispatchResult {
        ensure!(amount >= T::MinDeposit::get(), Error::<T>::DepositTooLow);
        let deposit = Deposits::<T>::get(&client).credited(amount).ok_or(Error::<T>::Overflow)?;
        T::Currency::transfer(&client, &Self::account_id(), amount, Preserve)?;
        Self::put_deposit(&client, deposit);
        Self::deposit_event(Event::Deposited { client, amount });
        Ok(())
    }

    pub(crate) fn do_withdraw(client: AccountId, amount: Balance) -> DispatchResult {
        let deposit = Deposits::<T>::get(&client).debited(amount).ok_or(Error::<T>::NotEnoughFree)?;
        T::Currency::transfer(&Self::account_id(), &client, amount, Preserve)?;
        Self::put_deposit(&client, deposit);
        Self::deposit_event(Event::Withdrawn { client, amount });
        Ok(())
    }

    pub(crate) fn do_delegate(client: AccountId, key: AccountId, limit: Balance) -> DispatchResult {
        ensure!(!limit.is_zero(), Error::<T>::LimitZero);
        let delegation = match Delegations::<T>::get(&client, &key) {
            Some(known) => Delegation { limit, ..known },
            None => {
                let count = DelegationCount::<T>::get(&client);
                ensure!(count < T::MaxDelegations::get(), Error::<T>::TooManyDelegations);
                DelegationCount::<T>::insert(&client, count.saturating_add(1));
                Delegation { limit, ..Delegation::default() }
            }
        };
        Delegations::<T>::insert(&client, &key, delegation);
        Self::deposit_event(Event::Delegated { client, key, limit });
        Ok(())
    }

    pub(crate) fn do_revoke(client: AccountId, key: AccountId) -> DispatchResult {
        let known = Delegations::<T>::get(&client, &key).ok_or(Error::<T>::NotDelegated)?;
        ensure!(!known.limit.is_zero(), Error::<T>::NotDelegated);
        // What the key spent is forgotten: should it be delegated to again, its new limit starts fresh.
        Self::put_delegation(&client, &key, Delegation { limit: 0, spent: 0, ..known });
        Self::deposit_event(Event::Revoked { client, key });
        Ok(())
    }

    /// Reserves the price limit of a new record, from the client and from the key that signed.
    pub(crate) fn reserve(
        client: &AccountId,
        delegate: Option<&AccountId>,
        amount: Balance,
    ) -> Result<(), Refusal> {
        let deposit = Deposits::<T>::get(client).reserved(amount).ok_or(Refusal::DepositTooLow)?;
        if let Some(key) = delegate {
            let known = Delegations::<T>::get(client, key).filter(|known| known.limit > 0);
            let charged =
                known.ok_or(Refusal::NotDelegated)?.charged(amount).ok_or(Refusal::LimitExceeded)?;
            Delegations::<T>::insert(client, key, charged);
        }
        Self::put_deposit(client, deposit);
        Ok(())
    }

    /// Dissolves the reserve of a running record: `price` of it leaves the ledger, the rest is free again. Returns the
    /// rest. The caller moves `price` and changes the record.
    pub(crate) fn dissolve(record: &InferenceRecord, price: Balance) -> Result<Balance, Refusal> {
        let Some(deposit) = Deposits::<T>::get(&record.client).settled(record.amount, price) else {
            defensive!("a running record's reserve is part of its client's deposit");
            return Err(Refusal::Internal);
        };
        if let Some(key) = &record.delegate {
            match Delegations::<T>::get(&record.client, key)
                .and_then(|known| known.settled(record.amount, price))
            {
                Some(settled) => Self::put_delegation(&record.client, key, settled),
                None => {
                    defensive!("a delegation stays while requests run that its key signed");
                }
            }
        }
        Self::put_deposit(&record.client, deposit);
        Ok(record.amount.saturating_sub(price))
    }

    /// Adds money that already lies in the pallet's account to a client's free part.
    pub(crate) fn credit(record: &InferenceRecord, amount: Balance) {
        match Deposits::<T>::get(&record.client).credited(amount) {
            Some(deposit) => Self::put_deposit(&record.client, deposit),
            None => {
                defensive!("balances sum below the total issuance");
            }
        }
        if let Some(key) = &record.delegate {
            if let Some(known) = Delegations::<T>::get(&record.client, key) {
                let spent = known.spent.saturating_sub(amount);
                Self::put_delegation(&record.client, key, Delegation { spent, ..known });
            }
        }
    }

    /// Moves a host's fees into the epoch's pot, with what waits for it; keeps them waiting if the pot cannot take them.
    pub(crate) fn pay_fees(epoch: EpochIndex, host: &AccountId, amount: Balance) {
        if amount.is_zero() {
            return;
        }
        let waiting = PendingFees::<T>::get(epoch);
        if waiting.is_empty() {
            if Self::move_to_pot(epoch, amount) {
                T::Pots::on_fee(epoch, host, amount);
            } else {
                Self::add_pending(epoch, &[(host.clone(), amount)]);
            }
        } else {
            Self::add_pending(epoch, &[(host.clone(), amount)]);
            Self::flush_pending(epoch);
        }
    }

    /// Tries to move the waiting fees of an epoch into its pot, all at once.
    pub(crate) fn flush_pending(epoch: EpochIndex) {
        let waiting = PendingFees::<T>::get(epoch);
        let sum = waiting.iter().fold(0, |sum: Balance, (_, amount)| sum.saturating_add(*amount));
        if sum.is_zero() || !Self::move_to_pot(epoch, sum) {
            return;
        }
        PendingFees::<T>::remove(epoch);
        for (host, amount) in &waiting {
            T::Pots::on_fee(epoch, host, *amount);
        }
    }

    /// Takes up to `amount` of a host's waiting fees back into the ledger; returns what was taken.
    pub(crate) fn take_pending(epoch: EpochIndex, host: &AccountId, amount: Balance) -> Balance {
        PendingFees::<T>::mutate_exists(epoch, |waiting| {
            let Some(fees) = waiting else { return 0 };
            let Some((_, fee)) = fees.iter_mut().find(|(owner, _)| owner == host) else { return 0 };
            let taken = amount.min(*fee);
            *fee = fee.saturating_sub(taken);
            fees.retain(|(_, fee)| !fee.is_zero());
            if fees.is_empty() {
                *waiting = None;
            }
            taken
        })
    }

    pub(crate) fn add_pending(epoch: EpochIndex, fees: &[(AccountId, Balance)]) {
        PendingFees::<T>::mutate(epoch, |waiting| {
            for (host, amount) in fees {
                if let Some((_, fee)) = waiting.iter_mut().find(|(owner, _)| owner == host) {
                    *fee = fee.saturating_add(*amount);
                } else if waiting.try_push((host.clone(), *amount)).is_err() {
                    defensive!("no more hosts earn fees in an epoch than can have weight in it");
                }
            }
        });
    }

    fn move_to_pot(epoch: EpochIndex, amount: Balance) -> bool {
        T::Currency::transfer(&Self::account_id(), &T::Pots::account(epoch), amount, Preserve).is_ok()
    }

    fn put_deposit(client: &AccountId, deposit: Deposit) {
        if deposit == Deposit::default() {
            Deposits::<T>::remove(client);
        } else {
            Deposits::<T>::insert(client, deposit);
        }
    }

    fn put_delegation(client: &AccountId, key: &AccountId, delegation: Delegation) {
        if delegation.is_over() {
            Delegations::<T>::remove(client, key);
            DelegationCount::<T>::mutate_exists(client, |count| {
                *count = count.and_then(|count| count.checked_sub(1)).filter(|count| *count > 0);
            });
        } else {
            Delegations::<T>::insert(client, key, delegation);
        }
    }
}
