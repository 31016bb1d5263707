//! The epoch clock: epoch, phase and schedule; tells other pallets when a boundary passes.
//!
//! ## Pallet API
//!
//! See the [`pallet`] module. Other pallets read the clock through [`starling_primitives::traits::Clock`], which
//! [`Pallet`] implements, and are told of boundaries through [`starling_primitives::traits::EpochHooks`].
//!
//! ## Overview
//!
//! An epoch is a number of blocks, divided into stages by a [`Schedule`]: serving, the reveal of the beacon, the race,
//! the commitments, the check. The phase of a block is a pure function ([`starling_math::clock::phase`]) of the
//! block's number and the [`EpochState`] that this pallet stores; so the host agent, which reads the same state, always
//! agrees with the chain.
//!
//! ## Low-level details
//!
//! * The clock moves only in `on_initialize`, before any call of the block is applied and, because the runtime puts
//!   this pallet right behind `System`, before any other pallet's hook.
//! * A proposed schedule is checked at once and takes effect at the next epoch's first block, never inside an epoch.
//! * When the beacon has too few contributions at the starting gun, the reveal window is extended by its own length,
//!   at most [`Schedule::max_extensions`] times; then the epoch has no sprint. Every later stage shifts with it.
//! * Slot duration and session length are genesis data beside the schedule, because one runtime serves chains of
//!   different pace. The client caches both: they must not change after genesis, and there is no call that could.

#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

#[cfg(feature = "runtime-benchmarks")]
mod benchmarking;
pub mod weights;

#[cfg(test)]
mod mock;
#[cfg(test)]
mod tests;

pub use pallet::*;
pub use weights::WeightInfo;

use frame_support::pallet_prelude::Weight;
use sp_runtime::traits::UniqueSaturatedInto;
use starling_math::clock;
use starling_primitives::{
    schedule::{EpochState, Schedule},
    traits::{Clock, EpochHooks},
    BlockNumber, EpochIndex,
};

#[frame_support::pallet]
pub mod pallet {
    use super::*;
    use frame_support::pallet_prelude::*;
    use frame_system::pallet_prelude::*;

    const STORAGE_VERSION: StorageVersion = StorageVersion::new(1);

    #[pallet::pallet]
    #[pallet::storage_version(STORAGE_VERSION)]
    pub struct Pallet<T>(_);

    /// What the clock needs from the runtime.
    #[pallet::config]
    pub trait Config: frame_system::Config<RuntimeEvent: From<Event<Self>>> {
        /// Told of every boundary. What they do they charge for themselves.
        type Hooks: EpochHooks;
        /// Weights of this pallet.
        type WeightInfo: WeightInfo;
    }

    /// The clock of a chain that has no genesis configuration.
    #[pallet::type_value]
    pub fn DefaultEpoch() -> EpochState {
        EpochState { index: 0, start: 0, extension: 0, sprint_cancelled: false, schedule: Schedule::MAIN }
    }

    /// Slot duration of a chain that has no genesis configuration.
    #[pallet::type_value]
    pub fn DefaultSlotDuration() -> u64 {
        5_000
    }

    /// Session length of a chain that has no genesis configuration.
    #[pallet::type_value]
    pub fn DefaultSessionSlots() -> u64 {
        720
    }

    /// The current epoch.
    #[pallet::storage]
    pub type Current<T> = StorageValue<_, EpochState, ValueQuery, DefaultEpoch>;

    /// The epoch before, as it was when it ended.
    #[pallet::storage]
    pub type Previous<T> = StorageValue<_, EpochState, OptionQuery>;

    /// A schedule that takes effect when the next epoch begins.
    #[pallet::storage]
    pub type NextSchedule<T> = StorageValue<_, Schedule, OptionQuery>;

    /// Length of a slot in milliseconds; even. Set in genesis, never changed.
    #[pallet::storage]
    pub type SlotDuration<T> = StorageValue<_, u64, ValueQuery, DefaultSlotDuration>;

    /// Slots of a session (an epoch in BABE's words). Set in genesis, never changed.
    #[pallet::storage]
    pub type SessionSlots<T> = StorageValue<_, u64, ValueQuery, DefaultSessionSlots>;

    /// Pace of the chain.
    #[pallet::genesis_config]
    #[derive(frame_support::DebugNoBound)]
    pub struct GenesisConfig<T: Config> {
        /// Schedule of the first epoch.
        pub schedule: Schedule,
        /// Length of a slot in milliseconds; even, not 0.
        pub slot_duration_ms: u64,
        /// Slots of a session, at least 4.
        pub session_slots: u64,
        #[doc(hidden)]
        #[serde(skip)]
        pub _config: PhantomData<T>,
    }

    impl<T: Config> Default for GenesisConfig<T> {
        fn default() -> Self {
            Self {
                schedule: Schedule::MAIN,
                slot_duration_ms: DefaultSlotDuration::get(),
                session_slots: DefaultSessionSlots::get(),
                _config: PhantomData,
            }
        }
    }

    #[pallet::genesis_build]
    impl<T: Config> BuildGenesisConfig for GenesisConfig<T> {
        fn build(&self) {
            assert!(self.schedule.check().is_ok(), "the schedule of the genesis cannot run");
            assert!(
                self.slot_duration_ms > 0 && self.slot_duration_ms.is_multiple_of(2),
                "slots last an even number of milliseconds, because the minimum period is half of one"
            );
            assert!(self.session_slots >= 4, "a session has at least four slots");
            Current::<T>::put(EpochState { schedule: self.schedule, ..DefaultEpoch::get() });
            SlotDuration::<T>::put(self.slot_duration_ms);
            SessionSlots::<T>::put(self.session_slots);
        }
    }

    /// What the clock says.
    #[pallet::event]
    #[pallet::generate_deposit(pub(super) fn deposit_event)]
    pub enum Event<T: Config> {
        /// An epoch begins.
        EpochStarted {
            /// The epoch.
            epoch: EpochIndex,
            /// Its first block.
            block: BlockNumber,
        },
        /// The reveal window opens: hosts with weight contribute to the beacon.
        RevealStarted {
            /// The current epoch.
            epoch: EpochIndex,
        },
        /// Too few contributions: the reveal window, and everything after it, is longer by its own length.
        RevealExtended {
            /// The current epoch.
            epoch: EpochIndex,
            /// Blocks added so far.
            extension: BlockNumber,
        },
        /// Too few contributions, and no extension left: this epoch has no sprint.
        SprintCancelled {
            /// The current epoch.
            epoch: EpochIndex,
        },
        /// The starting gun: the seed of the next epoch is final, the race begins.
        RaceStarted {
            /// The current epoch.
            epoch: EpochIndex,
        },
        /// The race is over: commitments are taken.
        CommitStarted {
            /// The current epoch.
            epoch: EpochIndex,
        },
        /// No commitment is taken any more: the challenge is drawn, samples are checked.
        CheckStarted {
            /// The current epoch.
            epoch: EpochIndex,
        },
        /// The grace is over: rewards may be claimed.
        ClaimsOpen {
            /// The epoch that may be claimed, the one before the current.
            epoch: EpochIndex,
        },
        /// A schedule will be in force from the next epoch on.
        ScheduleProposed {
            /// The schedule.
            schedule: Schedule,
        },
    }

    /// Why a call is refused.
    #[pallet::error]
    pub enum Error<T> {
        /// The stages of the schedule are not in order, or one of them is empty.
        StagesOutOfOrder,
        /// The grace does not hold two coverage windows and one expiry, or reaches into the reveal window.
        GraceOutOfRange,
        /// A length, count or share is zero or too large.
        ValueOutOfRange,
    }

    #[pallet::hooks]
    impl<T: Config> Hooks<BlockNumberFor<T>> for Pallet<T> {
        fn on_initialize(now: BlockNumberFor<T>) -> Weight {
            Self::tick(now.unique_saturated_into())
        }

        #[cfg(feature = "try-runtime")]
        fn try_state(_now: BlockNumberFor<T>) -> Result<(), sp_runtime::TryRuntimeError> {
            Self::do_try_state()
        }
    }

    #[pallet::call]
    impl<T: Config> Pallet<T> {
        /// Proposes a schedule for the epochs from the next one on.
        ///
        /// ## Dispatch Origin
        /// Root.
        ///
        /// ## Details
        /// Replaces an earlier proposal that is not yet in force. The running epoch is never changed.
        ///
        /// ## Errors
        /// `StagesOutOfOrder`, `GraceOutOfRange`, `ValueOutOfRange`: the schedule cannot run.
        ///
        /// ## Events
        /// `ScheduleProposed`.
        #[pallet::call_index(0)]
        #[pallet::weight(T::WeightInfo::propose_schedule())]
        pub fn propose_schedule(origin: OriginFor<T>, schedule: Schedule) -> DispatchResult {
            use starling_primitives::schedule::ScheduleError::*;
            ensure_root(origin)?;
            schedule.check().map_err(|error| match error {
                StagesOutOfOrder => Error::<T>::StagesOutOfOrder,
                GraceOutOfRange => Error::<T>::GraceOutOfRange,
                ValueOutOfRange => Error::<T>::ValueOutOfRange,
            })?;
            NextSchedule::<T>::put(schedule);
            Self::deposit_event(Event::ScheduleProposed { schedule });
            Ok(())
        }
    }
}

impl<T: Config> Pallet<T> {
    /// Moves the clock to `now` and tells the hooks what passed.
    fn tick(now: BlockNumber) -> Weight {
        let mut epoch = Current::<T>::get();
        let changed = now >= clock::epoch_end(&epoch);
        if changed {
            epoch = Self::next_epoch(epoch, now);
        }
        let passed = [
            changed,
            Self::coverage(&epoch, now),
            Self::claims(&epoch, now),
            Self::reveal(&epoch, now),
            Self::starting_gun(epoch, now),
            Self::sprint(&epoch, now),
        ];
        if passed.contains(&true) {
            T::WeightInfo::boundary()
        } else {
            T::WeightInfo::tick()
        }
    }

    fn next_epoch(ended: EpochState, now: BlockNumber) -> EpochState {
        let epoch = EpochState {
            index: ended.index.saturating_add(1),
            start: now,
            extension: 0,
            sprint_cancelled: false,
            schedule: NextSchedule::<T>::take().unwrap_or(ended.schedule),
        };
        Previous::<T>::put(ended);
        Current::<T>::put(epoch);
        Self::deposit_event(Event::EpochStarted { epoch: epoch.index, block: now });
        T::Hooks::on_epoch_change(ended.index);
        epoch
    }

    fn coverage(epoch: &EpochState, now: BlockNumber) -> bool {
        let offset = now.saturating_sub(epoch.start);
        let passes = offset > 0 && offset.is_multiple_of(epoch.schedule.coverage_blocks);
        if passes {
            T::Hooks::on_coverage_boundary(epoch.index, offset);
        }
        passes
    }

    fn claims(epoch: &EpochState, now: BlockNumber) -> bool {
        let Some(claimable) = epoch.index.checked_sub(1) else { return false };
        let opens = now == clock::claims_open(epoch);
        if opens {
            Self::deposit_event(Event::ClaimsOpen { epoch: claimable });
            T::Hooks::on_claims_open(epoch.index);
        }
        opens
    }

    fn reveal(epoch: &EpochState, now: BlockNumber) -> bool {
        let starts = now == clock::reveal_start(epoch);
        if starts {
            Self::deposit_event(Event::RevealStarted { epoch: epoch.index });
            T::Hooks::on_reveal(epoch.index);
        }
        starts
    }

    /// At the block in which the race would start: starts it, extends the reveal window or cancels the sprint.
    fn starting_gun(mut epoch: EpochState, now: BlockNumber) -> bool {
        if epoch.sprint_cancelled || now != clock::race_start(&epoch) {
            return false;
        }
        let length = epoch.schedule.reveal_blocks();
        let used = epoch.extension.checked_div(length).unwrap_or(u32::MAX);
        let left = u32::from(epoch.schedule.max_extensions).saturating_sub(used);
        if T::Hooks::seed_is_final(epoch.index, u8::try_from(left).unwrap_or(u8::MAX)) {
            Self::deposit_event(Event::RaceStarted { epoch: epoch.index });
            return true;
        }
        if left > 0 {
            epoch.extension = epoch.extension.saturating_add(length);
            Self::deposit_event(Event::RevealExtended { epoch: epoch.index, extension: epoch.extension });
        } else {
            epoch.sprint_cancelled = true;
            Self::deposit_event(Event::SprintCancelled { epoch: epoch.index });
        }
        Current::<T>::put(epoch);
        true
    }

    fn sprint(epoch: &EpochState, now: BlockNumber) -> bool {
        if epoch.sprint_cancelled {
            return false;
        }
        if now == clock::commit_start(epoch) {
            Self::deposit_event(Event::CommitStarted { epoch: epoch.index });
            return true;
        }
        let checks = now == clock::check_start(epoch);
        if checks {
            Self::deposit_event(Event::CheckStarted { epoch: epoch.index });
            T::Hooks::on_check(epoch.index);
        }
        checks
    }

    /// Invariants of the stored clock:
    ///
    /// 1. The schedules in force and proposed can run.
    /// 2. The block lies in the current epoch.
    /// 3. The extension is a whole number of reveal windows, at most as many as allowed; a sprint is cancelled only
    ///    when all are used.
    /// 4. The epoch before ended where the current one began.
    #[cfg(any(feature = "invariants", test))]
    pub fn do_try_state() -> Result<(), sp_runtime::TryRuntimeError> {
        use frame_support::ensure;
        let epoch = Current::<T>::get();
        let now: BlockNumber = frame_system::Pallet::<T>::block_number().unique_saturated_into();
        ensure!(epoch.schedule.check().is_ok(), "the schedule in force cannot run");
        ensure!(NextSchedule::<T>::get().is_none_or(|next| next.check().is_ok()), "the next one cannot run");
        ensure!((epoch.start..clock::epoch_end(&epoch)).contains(&now), "the clock has stopped");
        let window = epoch.schedule.reveal_blocks();
        let all = window.saturating_mul(epoch.schedule.max_extensions.into());
        ensure!(epoch.extension.is_multiple_of(window) && epoch.extension <= all, "extension out of range");
        ensure!(!epoch.sprint_cancelled || epoch.extension == all, "a sprint was cancelled too early");
        ensure!(Previous::<T>::exists() == (epoch.index > 0), "the epoch before is missing or too much");
        if let Some(previous) = Previous::<T>::get() {
            ensure!(previous.index.saturating_add(1) == epoch.index, "an epoch was skipped");
            ensure!(clock::epoch_end(&previous) == epoch.start, "epochs have a gap");
        }
        let slot = SlotDuration::<T>::get();
        ensure!(slot > 0 && slot.is_multiple_of(2), "slot duration out of range");
        Ok(())
    }
}

impl<T: Config> Clock for Pallet<T> {
    fn epoch() -> EpochState {
        Current::<T>::get()
    }

    fn previous() -> Option<EpochState> {
        Previous::<T>::get()
    }
}
