//! Freezes the weights of each session and hands them to BABE and GRANDPA.
//!
//! ## Pallet API
//!
//! [`Pallet`] is a session manager (also a historical one); [`WeightedBabe`] and [`WeightedGrandpa`] take the place of
//! the consensus pallets in the runtime's session keys. There are no calls.
//!
//! ## Overview
//!
//! The hosts' weights of the newest epoch decide who makes and finalises blocks, and how often. A session is shorter
//! than an epoch, so a new set is in force one or two sessions after an epoch began.
//!
//! ## Low-level details
//!
//! * **Frozen when planned.** BABE's clients use the set that was announced one session ahead. If weights were read again
//!   when the session starts, the set on chain would differ from the announced one. So `new_session` stores the
//!   plan of a session, and both handlers read it. BABE's current set is, by construction, the one announced before.
//! * **Never zero.** BABE's client asserts that no authority weight is 0.
//! * **Sorted and bounded.** Authorities are in the order of their accounts; above the bound, the heaviest stay.
//! * **Never empty.** Who has no session keys, or was convicted, is left out. If nobody remains, the old set stays; if
//!   even its keys are gone, the handlers keep the authorities they have: a chain without a sprint does not halt.
//! * **A new GRANDPA set only when it differs**, in an account, a key or a weight. Upstream makes one each time the session
//!   manager returns a set, because the economic identities behind equal keys may have changed; here accounts are part
//!   of what is compared, so an equivocation can still be attributed to a set.
//! * **Who equivocates is convicted**, once for the sets that it was in when the proof came: BABE refuses its blocks until
//!   it has left the sets (unless too little weight would be left to make blocks), and the next GRANDPA set is without it.
//!   See [`equivocations`].
//! * The genesis gives every host with session keys the same weight.
//!
//! ## Limitations
//!
//! No key ownership is stored for the two sessions of the genesis: an equivocation in them can be proven as long as its
//! session runs.
//!
//! Primary slots and finality follow the weights exactly. BABE's secondary slots, which fill the gaps, are assigned
//! uniformly; [`starling_primitives::schedule::Schedule::min_authority_share`] keeps tiny hosts from filling them.

#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod babe;
#[cfg(feature = "runtime-benchmarks")]
mod benchmarking;
pub mod equivocations;
mod grandpa;
mod manager;
pub mod weights;

#[cfg(test)]
mod mock;
#[cfg(test)]
mod tests;

pub use babe::WeightedBabe;
pub use equivocations::{DisableUpToHalf, OncePerSet};
pub use grandpa::WeightedGrandpa;
pub use pallet::*;
pub use weights::WeightInfo;

use alloc::vec::Vec;
use sp_staking::SessionIndex;
use starling_primitives::{
    traits::{Clock, Court, Hosts, Weights},
    AccountId, H256,
};

/// Weight of everybody in a set for which nothing was planned: that of the genesis.
const EQUAL_WEIGHT: u64 = 1;

#[frame_support::pallet]
pub mod pallet {
    use super::*;
    use frame_support::pallet_prelude::*;
    use frame_system::pallet_prelude::*;

    const STORAGE_VERSION: StorageVersion = StorageVersion::new(1);

    #[pallet::pallet]
    #[pallet::storage_version(STORAGE_VERSION)]
    pub struct Pallet<T>(_);

    /// What the pallet needs from the runtime.
    #[pallet::config]
    pub trait Config:
        frame_system::Config<AccountId = AccountId, RuntimeEvent: From<Event<Self>>>
        + pallet_session::Config<ValidatorId = AccountId>
        + pallet_session::historical::Config
        + pallet_babe::Config
        + pallet_grandpa::Config
    {
        /// The epoch clock.
        type Clock: Clock;
        /// The weights of the hosts.
        type Weights: Weights;
        /// The registry of hosts.
        type Hosts: Hosts;
        /// Who convicts.
        type Court: Court;
        /// Authorities at most. The same bound as that of BABE and GRANDPA.
        #[pallet::constant]
        type MaxPlanned: Get<u32>;
        /// Sessions for which the proof of key ownership is kept.
        #[pallet::constant]
        type KeptSessions: Get<SessionIndex>;
        /// What a session's change costs. The session pallet charges a whole block for it.
        type WeightInfo: WeightInfo;
    }

    /// Accounts and weights of an authority set, sorted by account.
    pub type Plan<T> = BoundedVec<(AccountId, u64), <T as Config>::MaxPlanned>;

    /// Authorities of the current session and the next, as they were when planned. Empty: everybody weighs the same.
    /// Hasher: the chain chooses the keys.
    #[pallet::storage]
    pub type Planned<T: Config> = StorageMap<_, Twox64Concat, SessionIndex, Plan<T>, ValueQuery>;

    /// Hash of accounts, keys and weights of the GRANDPA set that was scheduled last.
    #[pallet::storage]
    pub type GrandpaSet<T> = StorageValue<_, H256, ValueQuery>;

    /// Who equivocated, and the last session for which it has paid: the one after that in which it was convicted, for which
    /// it had been planned. Kept as long as an equivocation of that session can be proven.
    /// Hasher: hosts choose their accounts.
    #[pallet::storage]
    pub type Equivocators<T> = StorageMap<_, Blake2_128Concat, AccountId, SessionIndex>;

    /// What happened to the authorities.
    #[pallet::event]
    #[pallet::generate_deposit(pub(super) fn deposit_event)]
    pub enum Event<T: Config> {
        /// Authorities and their weights for a coming session.
        SessionPlanned {
            /// The session.
            session: SessionIndex,
            /// Its number of authorities.
            authorities: u32,
            /// Sum of their weights.
            total: u64,
        },
        /// No host qualifies as authority: the set stays as it is.
        SetKept {
            /// The session that keeps it.
            session: SessionIndex,
        },
        /// An authority made two blocks for a slot or voted twice in a round, and is convicted.
        Equivocated {
            /// The host.
            host: AccountId,
            /// The session in which it did.
            session: SessionIndex,
        },
    }

    #[pallet::hooks]
    impl<T: Config> Hooks<BlockNumberFor<T>> for Pallet<T> {
        #[cfg(feature = "try-runtime")]
        fn try_state(_now: BlockNumberFor<T>) -> Result<(), sp_runtime::TryRuntimeError> {
            Self::do_try_state()
        }
    }
}

impl<T: Config> Pallet<T> {
    /// Pairs the keys of a session with its planned weights, in the order given.
    fn weigh<'a, K>(
        session: SessionIndex,
        keys: impl Iterator<Item = (&'a AccountId, K)>,
    ) -> Vec<(&'a AccountId, K, u64)> {
        let plan = Planned::<T>::get(session);
        let weight = |account: &AccountId| {
            plan.binary_search_by(|(planned, _)| planned.cmp(account))
                .ok()
                .and_then(|at| plan.get(at))
                .map_or(EQUAL_WEIGHT, |(_, weight)| (*weight).max(EQUAL_WEIGHT))
        };
        keys.map(|(account, key)| (account, key, weight(account))).collect()
    }

    /// Invariants of the authorities:
    ///
    /// 1. A plan is sorted by account, without repetition, and has no weight 0; its weights sum without overflow.
    /// 2. Plans are kept for the current session and the next only.
    /// 3. BABE's sets are not empty, have no weight 0, and the next one is the plan of the next session.
    /// 4. GRANDPA's set is not empty and has no weight 0.
    /// 5. An equivocator is remembered exactly as long as key ownership is.
    #[cfg(any(feature = "invariants", test))]
    pub fn do_try_state() -> Result<(), sp_runtime::TryRuntimeError> {
        use frame_support::{ensure, traits::Get};
        let current = pallet_session::Pallet::<T>::current_index();
        for (session, plan) in Planned::<T>::iter() {
            ensure!((current..=current.saturating_add(1)).contains(&session), "the plan of another session");
            ensure!(
                plan.iter().zip(plan.iter().skip(1)).all(|(a, b)| a.0 < b.0),
                "a plan that is not sorted"
            );
            ensure!(plan.iter().all(|(_, weight)| *weight > 0), "a plan with weight 0");
            let total = plan.iter().try_fold(0u64, |total, (_, weight)| total.checked_add(*weight));
            ensure!(total.is_some(), "a plan whose weights overflow");
        }
        let babe = pallet_babe::Authorities::<T>::get();
        let next = pallet_babe::NextAuthorities::<T>::get();
        let grandpa = pallet_grandpa::Authorities::<T>::get();
        ensure!(!babe.is_empty() && !next.is_empty() && !grandpa.is_empty(), "no authorities");
        ensure!(babe.iter().chain(next.iter()).all(|(_, weight)| *weight > 0), "BABE weight 0");
        ensure!(grandpa.iter().all(|(_, weight)| *weight > 0), "GRANDPA weight 0");
        let plan = Planned::<T>::get(current.saturating_add(1));
        let planned = next.iter().map(|(_, weight)| weight).eq(plan.iter().map(|(_, weight)| weight));
        ensure!(plan.is_empty() || planned, "what is announced is not what is planned");
        let kept = current.saturating_sub(T::KeptSessions::get().saturating_add(1));
        ensure!(Equivocators::<T>::iter_values().all(|until| until >= kept), "an equivocator of old");
        Ok(())
    }
}
