//! Declared maintenance: a host says beforehand when it will be down, and what time asks of it then costs it nothing.

use crate::{pallet::*, types::Maintenance, Pallet};
use frame_support::{ensure, pallet_prelude::DispatchResult};
use starling_primitives::{traits::Clock, AccountId, BlockNumber};

/// Part of an epoch that a host may be away.
const EPOCH_PARTS: u32 = 24;

impl<T: Config> Pallet<T> {
    /// Keeps what a host declares, in the place of what it declared in an earlier epoch.
    pub(crate) fn do_declare_maintenance(
        host: &AccountId,
        from: BlockNumber,
        blocks: BlockNumber,
    ) -> DispatchResult {
        ensure!(Hosts::<T>::contains_key(host), Error::<T>::NotRegistered);
        let epoch = T::Clock::epoch();
        let last = Maintenances::<T>::get(host);
        ensure!(last.is_none_or(|last| last.epoch < epoch.index), Error::<T>::MaintenanceDeclared);
        let most = epoch.schedule.epoch_blocks.checked_div(EPOCH_PARTS).unwrap_or_default();
        ensure!((1..=most).contains(&blocks), Error::<T>::MaintenanceTooLong);
        // A request that is recorded today is due within a window: what has begun is no excuse.
        let earliest = Self::now().saturating_add(epoch.schedule.coverage_blocks);
        let latest = Self::now().saturating_add(epoch.schedule.epoch_blocks);
        ensure!((earliest..=latest).contains(&from), Error::<T>::MaintenanceNotice);
        let until = from.saturating_add(blocks);
        let maintenance = Maintenance { epoch: epoch.index, from, until };
        Maintenances::<T>::insert(host, maintenance);
        Self::deposit_event(Event::MaintenanceDeclared { host: host.clone(), from, until });
        Ok(())
    }

    /// Whether the host declared to be away in one of the blocks `from..=to`.
    pub(crate) fn is_away_in(host: &AccountId, from: BlockNumber, to: BlockNumber) -> bool {
        Maintenances::<T>::get(host).is_some_and(|declared| declared.from <= to && from < declared.until)
    }
}
