//! # Governance pallet
//!
//! Votes of hosts on referenda, by weight.
//!
//! ## Overview
//!
//! What no rule decides (which profiles there are, the schedule, a new runtime) is decided by those who do the work, not
//! by a key. Anyone proposes through `pallet-referenda`; hosts vote here with their accounts. A vote weighs what its host
//! weighed in the epoch in which the referendum was proposed, and all weights are measured against that epoch's whole.
//!
//! ## Low-level details
//!
//! * The epoch is fixed with the proposal, because compute is easily moved: with the weights of the day, who works under
//!   one account today and another tomorrow would vote twice.
//! * Weights are kept for two more epochs, so a referendum can be voted on until then. Its periods must fit in.
//! * A vote can be changed as long as the referendum is open.
//! * Votes of closed referenda are removed by anybody, a bounded number at a time ([`Call::remove_votes`]).

#![cfg_attr(not(feature = "std"), no_std)]

#[cfg(any(test, feature = "try-runtime"))]
extern crate alloc;

#[cfg(feature = "runtime-benchmarks")]
mod benchmarking;
#[cfg(test)]
mod mock;
mod tally;
#[cfg(test)]
mod tests;
pub mod weights;

pub use pallet::*;
pub use tally::Tally;
pub use weights::WeightInfo;

/// The pallet.
#[frame_support::pallet]
pub mod pallet {
    use super::{Tally, WeightInfo};
    use codec::HasCompact;
    use frame_support::{
        pallet_prelude::*,
        traits::{PollStatus, Polling},
    };
    use frame_system::pallet_prelude::*;
    use starling_primitives::{
        traits::{Clock, Weights},
        AccountId, Work,
    };

    /// Votes that one call removes at most.
    pub const MAX_REMOVED: u32 = 128;

    /// A host's vote.
    #[derive(
        Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
    )]
    pub struct Vote {
        /// Whether it is in favour.
        pub aye: bool,
        /// What it weighs.
        pub weight: Work,
    }

    /// Names a referendum.
    pub type PollIndex<T> = <<T as Config>::Polls as Polling<Tally<T>>>::Index;

    const STORAGE_VERSION: StorageVersion = StorageVersion::new(1);

    #[pallet::pallet]
    #[pallet::storage_version(STORAGE_VERSION)]
    pub struct Pallet<T>(_);

    /// What the pallet needs of the runtime.
    #[pallet::config]
    pub trait Config: frame_system::Config<AccountId = AccountId> {
        /// The referenda.
        type Polls: Polling<Tally<Self>, Votes = Work, Index: HasCompact>;
        /// The epoch clock.
        type Clock: Clock;
        /// Weights of the epochs.
        type Weights: Weights;
        /// Weights of the calls.
        type WeightInfo: WeightInfo;
    }

    /// The votes, by referendum and host. Hashers: the chain counts referenda, users choose accounts.
    #[pallet::storage]
    pub type Votes<T: Config> =
        StorageDoubleMap<_, Twox64Concat, PollIndex<T>, Blake2_128Concat, AccountId, Vote>;

    #[pallet::event]
    #[pallet::generate_deposit(pub(crate) fn deposit_event)]
    pub enum Event<T: Config> {
        /// A host voted.
        Voted {
            /// The referendum.
            poll: PollIndex<T>,
            /// The host.
            host: AccountId,
            /// Its vote.
            vote: Vote,
        },
        /// Votes of a closed referendum were removed.
        VotesRemoved {
            /// The referendum.
            poll: PollIndex<T>,
            /// How many.
            count: u32,
        },
    }

    #[pallet::error]
    pub enum Error<T> {
        /// There is no such referendum, or it is over.
        NotOpen,
        /// The signer is no host that had weight when the referendum was proposed; or that is too long ago.
        NoWeight,
        /// The referendum still takes votes.
        StillOpen,
    }

    #[pallet::hooks]
    impl<T: Config> Hooks<BlockNumberFor<T>> for Pallet<T> {
        #[cfg(feature = "try-runtime")]
        fn try_state(_now: BlockNumberFor<T>) -> Result<(), sp_runtime::TryRuntimeError> {
            Self::do_try_state()
        }
    }

    #[pallet::call]
    impl<T: Config> Pallet<T> {
        /// Votes on a referendum, or changes a vote.
        ///
        /// ## Dispatch Origin
        /// Signed by the account of a host (not its worker).
        ///
        /// ## Errors
        /// [`Error::NotOpen`], [`Error::NoWeight`].
        ///
        /// ## Events
        /// [`Event::Voted`].
        #[pallet::call_index(0)]
        #[pallet::weight(T::WeightInfo::vote())]
        pub fn vote(
            origin: OriginFor<T>,
            #[pallet::compact] poll: PollIndex<T>,
            aye: bool,
        ) -> DispatchResult {
            let host = ensure_signed(origin)?;
            let vote = T::Polls::try_access_poll(poll, |status| {
                let PollStatus::Ongoing(tally, _) = status else { return Err(Error::<T>::NotOpen.into()) };
                let weight = T::Weights::weight(tally.epoch, &host);
                ensure!(weight > 0, Error::<T>::NoWeight);
                let vote = Vote { aye, weight };
                tally.replace(Votes::<T>::get(poll, &host), vote);
                Ok::<_, DispatchError>(vote)
            })?;
            Votes::<T>::insert(poll, &host, vote);
            Self::deposit_event(Event::Voted { poll, host, vote });
            Ok(())
        }

        /// Removes up to [`MAX_REMOVED`] votes of a referendum that is over.
        ///
        /// ## Dispatch Origin
        /// Signed by anyone.
        ///
        /// ## Errors
        /// [`Error::StillOpen`].
        ///
        /// ## Events
        /// [`Event::VotesRemoved`].
        #[pallet::call_index(1)]
        #[pallet::weight(T::WeightInfo::remove_votes(MAX_REMOVED))]
        pub fn remove_votes(
            origin: OriginFor<T>,
            #[pallet::compact] poll: PollIndex<T>,
        ) -> DispatchResultWithPostInfo {
            ensure_signed(origin)?;
            ensure!(T::Polls::as_ongoing(poll).is_none(), Error::<T>::StillOpen);
            let mut count: u32 = 0;
            for host in Votes::<T>::iter_key_prefix(poll).take(MAX_REMOVED as usize) {
                Votes::<T>::remove(poll, host);
                count = count.saturating_add(1);
            }
            Self::deposit_event(Event::VotesRemoved { poll, count });
            Ok(Some(T::WeightInfo::remove_votes(count)).into())
        }
    }

    impl<T: Config> Pallet<T> {
        /// Invariant: the tally of an open referendum is the sum of its votes.
        #[cfg(any(test, feature = "try-runtime"))]
        pub(crate) fn do_try_state() -> Result<(), sp_runtime::TryRuntimeError> {
            let mut polls: alloc::vec::Vec<PollIndex<T>> =
                Votes::<T>::iter_keys().map(|(poll, _)| poll).collect();
            polls.sort();
            polls.dedup();
            for poll in polls {
                let Some((tally, _)) = T::Polls::as_ongoing(poll) else { continue };
                let sum = |side: bool| {
                    Votes::<T>::iter_prefix_values(poll)
                        .filter(|vote| vote.aye == side)
                        .fold(0, |sum: Work, vote| sum.saturating_add(vote.weight))
                };
                ensure!((tally.ayes, tally.nays) == (sum(true), sum(false)), "a tally is not its votes' sum");
                ensure!(
                    tally.ayes.saturating_add(tally.nays) <= tally.total,
                    "more votes than there is weight"
                );
            }
            Ok(())
        }
    }
}
