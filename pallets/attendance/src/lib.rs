//! # Attendance pallet
//!
//! Whether hosts answer the requests that they are drawn for.
//!
//! ## Overview
//!
//! Weight follows the race, and the emission follows weight. A host that races with hardware which it does not have for
//! the rest of the epoch, or that answers and then hides its transcripts, would be paid for work that others do. This
//! pallet counts what each host has answered, of what all hosts have, and tests by that whether the host is *absent*
//! ([`starling_math::attendance`]). Who is absent has no share of the epoch's emission; the fees that it earned stay its own.
//!
//! An answer counts as long as it stands. One whose dispute is lost, because it is wrong or because its transcript was not
//! to be had, is *struck*, and counts against its host.
//!
//! ## Low-level details
//!
//! * The test is made when it is asked for, at a claim, from counters: no hook walks over the hosts.
//! * A claim leaves the running product of the test, unless that is 1. It waits for the host's next claim, for thirty epochs
//!   at most, so that not to claim does not forget it; what happened since is counted as far as the weights are kept.
//! * Counters and products are pruned in bounded steps when no claim can ask for them any more.

#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

mod hooks;
mod impls;
#[cfg(test)]
mod mock;
#[cfg(test)]
mod tests;
pub mod weights;

pub use pallet::*;

/// The pallet.
#[frame_support::pallet]
pub mod pallet {
    use frame_support::pallet_prelude::*;
    use frame_system::pallet_prelude::*;
    use starling_math::attendance::Tally;
    use starling_primitives::{
        traits::{Clock, Weights},
        AccountId, EpochIndex, ProfileId,
    };

    const STORAGE_VERSION: StorageVersion = StorageVersion::new(1);

    #[pallet::pallet]
    #[pallet::storage_version(STORAGE_VERSION)]
    pub struct Pallet<T>(_);

    /// What the pallet needs of the runtime.
    #[pallet::config]
    pub trait Config: frame_system::Config<AccountId = AccountId> {
        /// The epoch clock.
        type Clock: Clock;
        /// Weights of the epochs.
        type Weights: Weights;
        /// Entries that a block prunes at most.
        #[pallet::constant]
        type MaxPrunedPerBlock: Get<u32>;
    }

    /// What a host has done in an epoch, by (profile, host). Hashers: the chain chooses epochs, users choose accounts.
    #[pallet::storage]
    pub type Tallies<T: Config> = StorageDoubleMap<
        _,
        Twox64Concat,
        EpochIndex,
        Blake2_128Concat,
        (ProfileId, AccountId),
        Tally,
        ValueQuery,
    >;

    /// Answers that all hosts have given in an epoch, struck ones included. Hashers: the chain chooses the keys.
    #[pallet::storage]
    pub type Answers<T: Config> =
        StorageDoubleMap<_, Twox64Concat, EpochIndex, Twox64Concat, ProfileId, u32, ValueQuery>;

    /// The running product of a host's test after the last epoch that it claimed, as log2 in 1/256 bit; absent where that is
    /// 0. Hashers: the chain chooses epochs, users choose accounts.
    #[pallet::storage]
    pub type Doubts<T: Config> =
        StorageDoubleMap<_, Twox64Concat, EpochIndex, Blake2_128Concat, AccountId, u32>;

    /// First epoch that is not pruned yet.
    #[pallet::storage]
    pub type PrunedBefore<T: Config> = StorageValue<_, EpochIndex, ValueQuery>;

    #[pallet::hooks]
    impl<T: Config> Hooks<BlockNumberFor<T>> for Pallet<T> {
        fn on_idle(_now: BlockNumberFor<T>, remaining: Weight) -> Weight {
            Self::prune(remaining)
        }

        #[cfg(feature = "try-runtime")]
        fn try_state(_now: BlockNumberFor<T>) -> Result<(), sp_runtime::TryRuntimeError> {
            Self::do_try_state()
        }
    }
}
