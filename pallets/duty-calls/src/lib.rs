//! # Duty calls pallet
//!
//! Room in a block for the calls that hosts owe.
//!
//! ## Overview
//!
//! What a host owes the network (records, verdicts, contributions, commitments, claims) is free of fees, and what is free
//! can be sent without end. This pallet bounds it, and puts it in order, so that a host that floods the network with free
//! calls takes room from nobody but itself:
//!
//! * *In the pool* a worker has at most [`Config::MaxWaiting`] duty calls waiting; one more is refused. The duty calls of
//!   hosts with weight come before everything else, the first of each host before the second of any; those of hosts
//!   without weight come last.
//! * *In a block* a host may fill twice its share of the weight ([`starling_math::room`]) and at least a 64th, of the
//!   block's time as of its length, and all duty calls together leave [`Config::Reserved`] of both for those who pay. A call
//!   that finds no room waits in the pool for the next block.
//!
//! Whether a call is free at all is said by the pallet that it belongs to. Duty calls of accounts that are no host's
//! worker are none of this pallet's business: they pay.
//!
//! ## Low-level details
//!
//! * [`CheckDutyNonce`] stands where [`CheckNonce`](frame_system::CheckNonce) would and looks like it from outside, so
//!   wallets need not know it.
//! * A call takes the room that it declares, and gives back what it turns out not to need. The room must be open when it
//!   comes, not large enough for it: any call fits an empty block.
//! * What was used of a block is forgotten when it ends and never reaches the database. Each call pays for its own
//!   forgetting.

#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

#[cfg(feature = "runtime-benchmarks")]
mod benchmarking;
mod extension;
#[cfg(test)]
mod mock;
#[cfg(test)]
mod tests;
mod usage;
pub mod weights;

pub use extension::CheckDutyNonce;
pub use pallet::*;
pub use usage::Usage;
pub use weights::WeightInfo;

/// The pallet.
#[frame_support::pallet]
pub mod pallet {
    use super::{Usage, WeightInfo};
    use frame_support::{
        dispatch::{DispatchClass, DispatchInfo},
        pallet_prelude::*,
        traits::Contains,
    };
    use frame_system::pallet_prelude::*;
    use sp_runtime::Perbill;
    use starling_math::room;
    use starling_primitives::{
        traits::{Clock, Hosts, Weights},
        AccountId, Work,
    };

    const STORAGE_VERSION: StorageVersion = StorageVersion::new(1);

    #[pallet::pallet]
    #[pallet::storage_version(STORAGE_VERSION)]
    pub struct Pallet<T>(_);

    /// What the pallet needs of the runtime.
    #[pallet::config]
    pub trait Config: frame_system::Config<AccountId = AccountId> {
        /// The calls that hosts owe.
        type DutyCalls: Contains<Self::RuntimeCall>;
        /// The epoch clock.
        type Clock: Clock;
        /// The registry of hosts.
        type Hosts: Hosts;
        /// Weights of the epochs.
        type Weights: Weights;
        /// Duty calls of one worker that the pool holds at most.
        #[pallet::constant]
        type MaxWaiting: Get<u32>;
        /// Part of what normal transactions may use of a block that duty calls leave to others.
        #[pallet::constant]
        type Reserved: Get<Perbill>;
        /// What the check takes.
        type WeightInfo: WeightInfo;
    }

    /// What each host's duty calls have used of this block. Empty between blocks.
    ///
    /// Hasher: hosts choose their accounts.
    #[pallet::storage]
    pub type Used<T: Config> = StorageMap<_, Blake2_128Concat, AccountId, Usage, ValueQuery>;

    /// What all duty calls have used of this block. Empty between blocks.
    #[pallet::storage]
    pub type UsedByAll<T: Config> = StorageValue<_, Usage, ValueQuery>;

    #[pallet::hooks]
    impl<T: Config> Hooks<BlockNumberFor<T>> for Pallet<T> {
        fn on_finalize(_now: BlockNumberFor<T>) {
            // As many entries as hosts called in this block; all of them are in the overlay only.
            let _ = Used::<T>::clear(u32::MAX, None);
            UsedByAll::<T>::kill();
        }

        #[cfg(feature = "try-runtime")]
        fn try_state(_now: BlockNumberFor<T>) -> Result<(), sp_runtime::TryRuntimeError> {
            Self::do_try_state()
        }
    }

    /// A host's weight among all.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Standing {
        weight: Work,
        total: Work,
    }

    impl Standing {
        /// Whether its duties come first: it has weight, or nobody has any.
        pub(crate) fn comes_first(self) -> bool {
            self.weight > 0 || self.total == 0
        }
    }

    impl<T: Config> Pallet<T> {
        /// Of the running epoch.
        pub(crate) fn standing(host: &AccountId) -> Standing {
            let hosts = T::Weights::hosts(T::Clock::epoch().index);
            let weight = hosts.iter().find(|entry| entry.host == *host).map_or(0, |entry| entry.weight);
            Standing { weight, total: starling_math::draw::total(&hosts) }
        }

        /// Takes the room of a call. False, and nothing taken, when the host's or everybody's is used up.
        pub(crate) fn take_room(host: &AccountId, standing: Standing, call: Usage) -> bool {
            let block = Self::block();
            let own = block.map(|whole| room::allowance(whole, standing.weight, standing.total));
            let all = block.map(|whole| whole.saturating_sub(T::Reserved::get().mul_ceil(whole)));
            let (used, used_by_all) = (Used::<T>::get(host), UsedByAll::<T>::get());
            if !used.is_below(own) || !used_by_all.is_below(all) {
                return false;
            }
            Used::<T>::insert(host, used.saturating_add(call));
            UsedByAll::<T>::put(used_by_all.saturating_add(call));
            true
        }

        /// Gives back what a call took and did not use.
        pub(crate) fn give_back(host: &AccountId, unused: Usage) {
            Used::<T>::mutate(host, |used| *used = used.saturating_sub(unused));
            UsedByAll::<T>::mutate(|used| *used = used.saturating_sub(unused));
        }

        /// What a call takes: with what every extrinsic costs, since that is all that is left of the cheapest.
        pub(crate) fn usage(info: &DispatchInfo, len: usize) -> Usage {
            let base = T::BlockWeights::get().get(info.class).base_extrinsic;
            let weight = info.total_weight().saturating_add(base);
            Usage { ref_time: weight.ref_time(), bytes: u64::try_from(len).unwrap_or(u64::MAX) }
        }

        /// What normal transactions may use of a block.
        fn block() -> Usage {
            let weights = T::BlockWeights::get();
            let weight = weights.get(DispatchClass::Normal).max_total.unwrap_or(weights.max_block);
            let bytes = *T::BlockLength::get().max.get(DispatchClass::Normal);
            Usage { ref_time: weight.ref_time(), bytes: bytes.into() }
        }

        /// Invariant: between blocks nothing is in use.
        #[cfg(any(test, feature = "try-runtime"))]
        pub(crate) fn do_try_state() -> Result<(), sp_runtime::TryRuntimeError> {
            frame_support::ensure!(Used::<T>::iter().next().is_none(), "a host's room outlives its block");
            frame_support::ensure!(!UsedByAll::<T>::exists(), "the room of all outlives its block");
            Ok(())
        }
    }
}
