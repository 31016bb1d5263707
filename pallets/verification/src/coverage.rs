//! Coverage windows.
//!
//! At a boundary the window closes that ended at the boundary before, so that whoever has a drawn duty in it has had at
//! least one window's time. What was recorded after an epoch's last boundary, and for that epoch in the first blocks of
//! the next one, is closed by the next epoch's first two boundaries.

use crate::{types::CoverageMark, Config, Coverage, CoverageMarks, CoverageState, Event, Pallet, WeightInfo};
use frame_support::dispatch::DispatchClass;
use starling_math::clock;
use starling_primitives::{
    traits::{Clock, EpochHooks, Inferences},
    BlockNumber, EpochIndex,
};

impl<T: Config> Pallet<T> {
    /// Closes the window that ends at `end`, and lets the next one end at what is recorded by now.
    fn close_window(epoch: EpochIndex, end: u32, seed: (EpochIndex, u32)) {
        let state = Coverage::<T>::get(epoch);
        let window = state.windows.saturating_add(1);
        if end > state.closed {
            let (seed_epoch, seed_window) = seed;
            let mark =
                CoverageMark { first: state.closed, end, closed_at: Self::now(), seed_epoch, seed_window };
            CoverageMarks::<T>::insert(epoch, window, mark);
            Self::deposit_event(Event::CoverageClosed { epoch, window, mark });
        }
        let counted = T::Inferences::count(epoch);
        Coverage::<T>::insert(
            epoch,
            CoverageState { windows: window, closed: end.max(state.closed), counted },
        );
    }
}

impl<T: Config> EpochHooks for Pallet<T> {
    fn on_coverage_boundary(epoch: EpochIndex, offset: BlockNumber) {
        let cost = T::WeightInfo::coverage();
        frame_system::Pallet::<T>::register_extra_weight_unchecked(cost, DispatchClass::Mandatory);
        // An ended epoch's own grid may go on during its grace; its last windows follow the current one's.
        if epoch != T::Clock::epoch().index {
            return;
        }
        let boundary = clock::coverage_window(&T::Clock::epoch().schedule, offset);
        // The beacon numbers seeds by the stretch of time that ends here, from 0; it drew this one just now.
        let seed = (epoch, boundary.saturating_sub(1));
        Self::pass_boundary(epoch, boundary.saturating_sub(1));
        Self::close_window(epoch, Coverage::<T>::get(epoch).counted, seed);
        let Some(previous) = epoch.checked_sub(1) else { return };
        match boundary {
            1 => Self::close_window(previous, Coverage::<T>::get(previous).counted, seed),
            // No more records of that epoch are taken from this block on.
            2 => Self::close_window(previous, T::Inferences::count(previous), seed),
            _ => {}
        }
    }

    fn on_epoch_change(ended: EpochIndex) {
        Coverage::<T>::mutate(ended, |state| state.counted = T::Inferences::count(ended));
    }
}
