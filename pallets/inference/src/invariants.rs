//! What always holds.

use crate::{
    Config, Counts, DelegationCount, Delegations, Deposits, Inferences, Pallet, PendingFees, Pruned,
    RequestIndex,
};
use alloc::collections::BTreeMap;
use frame_support::{
    ensure,
    traits::{fungible::Inspect, Get},
};
use sp_runtime::DispatchError;
use starling_primitives::{records::InferenceState, AccountId, Balance, InferenceId};

impl<T: Config> Pallet<T> {
    /// Checks the pallet's state.
    ///
    /// 1. The account holds what the ledger and the waiting fees say, and one existential deposit more.
    /// 2. A client's reserve is the sum over its running records; so is the reserve of a delegated key.
    /// 3. An empty deposit is not stored, nor is a delegation that is over; a client's delegations are counted.
    /// 4. Records are dense from the pruning cursor to the epoch's count, and nothing is stored before the cursor.
    /// 5. Index and records name each other.
    /// 6. Only a record with a result was paid, delivered or disputed; settled records hold no money.
    pub fn do_try_state() -> Result<(), DispatchError> {
        Self::check_account()?;
        Self::check_reserves()?;
        Self::check_delegations()?;
        Self::check_density()?;
        Self::check_records()
    }

    fn check_account() -> Result<(), DispatchError> {
        let ledger = Deposits::<T>::iter_values().fold(0, |sum: Balance, deposit| {
            sum.saturating_add(deposit.free).saturating_add(deposit.reserved)
        });
        let pending = PendingFees::<T>::iter_values()
            .flatten()
            .fold(0, |sum: Balance, (_, fee)| sum.saturating_add(fee));
        let owed = ledger.saturating_add(pending).saturating_add(T::Currency::minimum_balance());
        ensure!(T::Currency::balance(&Self::account_id()) >= owed, "the account holds less than it owes");
        Ok(())
    }

    fn check_reserves() -> Result<(), DispatchError> {
        let mut clients: BTreeMap<AccountId, Balance> = BTreeMap::new();
        let mut keys: BTreeMap<(AccountId, AccountId), Balance> = BTreeMap::new();
        for record in Inferences::<T>::iter_values().filter(|record| record.state == InferenceState::Started)
        {
            let add = |sum: &mut Balance| *sum = sum.saturating_add(record.amount);
            add(clients.entry(record.client.clone()).or_default());
            if let Some(key) = record.delegate.clone() {
                add(keys.entry((record.client.clone(), key)).or_default());
            }
        }
        for (client, deposit) in Deposits::<T>::iter() {
            ensure!(deposit != Default::default(), "an empty deposit is stored");
            let reserved = clients.remove(&client).unwrap_or(0);
            ensure!(deposit.reserved == reserved, "a client's reserve differs from its running records'");
        }
        ensure!(clients.values().all(|sum| *sum == 0), "a running record of a client without deposit");
        for (client, key, delegation) in Delegations::<T>::iter() {
            let reserved = keys.remove(&(client, key)).unwrap_or(0);
            ensure!(delegation.reserved == reserved, "a key's reserve differs from its running records'");
        }
        ensure!(keys.values().all(|sum| *sum == 0), "a running record of a key without delegation");
        Ok(())
    }

    fn check_delegations() -> Result<(), DispatchError> {
        let mut counts: BTreeMap<AccountId, u32> = BTreeMap::new();
        for (client, _, delegation) in Delegations::<T>::iter() {
            ensure!(!delegation.is_over(), "a delegation that is over is stored");
            let count = counts.entry(client).or_default();
            *count = count.saturating_add(1);
        }
        let stored: BTreeMap<AccountId, u32> = DelegationCount::<T>::iter().collect();
        ensure!(counts == stored, "delegations are miscounted");
        ensure!(stored.values().all(|count| *count <= T::MaxDelegations::get()), "too many delegations");
        Ok(())
    }

    fn check_density() -> Result<(), DispatchError> {
        let cursor = Pruned::<T>::get();
        let mut found: BTreeMap<u32, u32> = BTreeMap::new();
        for (epoch, index, _) in Inferences::<T>::iter() {
            ensure!((epoch, index) >= (cursor.epoch, cursor.index), "a record before the pruning cursor");
            ensure!(index < Counts::<T>::get(epoch), "a record beyond its epoch's count");
            let count = found.entry(epoch).or_default();
            *count = count.saturating_add(1);
        }
        for (epoch, count) in Counts::<T>::iter() {
            ensure!(epoch >= cursor.epoch, "a count of a pruned epoch");
            let pruned = if epoch == cursor.epoch { cursor.index } else { 0 };
            let present = found.remove(&epoch).unwrap_or(0);
            ensure!(present == count.saturating_sub(pruned), "records are not dense");
        }
        Ok(())
    }

    fn check_records() -> Result<(), DispatchError> {
        let mut records = 0u32;
        for (epoch, index, record) in Inferences::<T>::iter() {
            records = records.saturating_add(1);
            let indexed = RequestIndex::<T>::get(record.request_id);
            ensure!(indexed == Some(InferenceId { epoch, index }), "the index does not name the record");
            let (needs_result, may_hold) = match record.state {
                InferenceState::Started => (false, true),
                InferenceState::Expired => (false, false),
                InferenceState::Invalid | InferenceState::Planted => (true, false),
                _ => (true, true),
            };
            ensure!(record.result.is_some() == needs_result, "state and result disagree");
            ensure!(may_hold || record.amount == 0, "a settled record holds money");
        }
        ensure!(
            RequestIndex::<T>::iter().count() == records as usize,
            "the index names more than the records"
        );
        Ok(())
    }
}
