//! # Inference pallet
//!
//! Client deposits and the records of every request, from start to settlement.
//!
//! ## Overview
//!
//! A client puts tokens into a *deposit* and signs an authorization for each request: what runs, at which price at
//! most, through which gateway. The gateway records the request as `Started`, which reserves the price limit; the
//! executor records it as `Finished`, which pays the price into the epoch's pot and releases the rest; the gateway
//! records it as `Delivered`. A request that does not finish in time expires and the client has its reserve back. A
//! client can let other keys (say, that of a gateway which gave out an API key) spend from its deposit, up to a limit.
//!
//! Nobody waits for these records: they are submitted in batches beside the request, one call per kind and block. An
//! item that cannot be taken never fails its batch; it only leaves the event [`Event::RecordRefused`].
//!
//! ## Low-level details
//!
//! * *Money.* All deposits lie in one account of this pallet; who owns how much of it is a ledger
//!   ([`Deposits`]). The account holds one existential deposit more than the ledger from genesis on, so that it can
//!   never be reaped. Fees move to [`Config::Pots`] once per batch and epoch. A pot that cannot take a fee yet (it
//!   would stay below the existential deposit) gets it as soon as it can; until then it waits in [`PendingFees`].
//! * *Draws.* The executor of a record must be the one that [`starling_math::draw`] gives for the epoch's seed and
//!   frozen weights. Seed, weights and profile are loaded once per batch.
//! * *Records* are dense per epoch and live until their epoch is three epochs old; then they are pruned in
//!   `on_idle`, in bounded steps, and what they still reserve goes back. A record outlives the authorization that
//!   made it, so no authorization can be used twice.
//! * *Epochs.* A record belongs to the epoch whose seed drew its executor. Records of the epoch before are taken
//!   during the first two coverage windows of an epoch: later ones could neither be covered by a verification window
//!   nor finish before the claims open.
//!
//! ## Limitations
//!
//! * The executor's fallback (submitting `Started` for a silent gateway) works for requests that are not recorded
//!   yet. Only the gateway can move a recorded request to the next attempt: the authorization is public by then.
//! * A gateway can skip attempts, so it can choose among the eight executors a request can be drawn to.

#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;
// The mock is shared with the benchmark, which sees the pallet by this name.
#[cfg(test)]
extern crate self as pallet_inference;

#[cfg(feature = "runtime-benchmarks")]
mod benchmarking;
pub mod cost;
mod finish;
mod hooks;
mod impls;
mod invariants;
mod ledger;
#[cfg(test)]
mod mock;
mod start;
#[cfg(test)]
mod tests;
pub mod types;
pub mod weights;

pub use pallet::*;
pub use types::{Delegation, Deposit, Refusal};
pub use weights::WeightInfo;

/// The pallet.
#[frame_support::pallet]
pub mod pallet {
    use crate::{
        cost::{self, FinishShape, StartShape},
        types::{
            Delegation, DeliveredBatch, Deposit, ExpiredBatch, Fees, FinishedBatch, PruneCursor, Refusal,
            StartedBatch,
        },
        WeightInfo,
    };
    use frame_support::{pallet_prelude::*, traits::fungible::Mutate, PalletId};
    use frame_system::pallet_prelude::*;
    use starling_primitives::{
        records::InferenceRecord,
        traits::{Attendance, Beacon, Clock, Hosts, Pots, Profiles, Reputation, Weights},
        AccountId, Balance, EpochIndex, InferenceId, RequestId, H256,
    };

    const STORAGE_VERSION: StorageVersion = StorageVersion::new(1);

    #[pallet::pallet]
    #[pallet::storage_version(STORAGE_VERSION)]
    pub struct Pallet<T>(_);

    /// What the pallet needs of the runtime.
    #[pallet::config]
    pub trait Config: frame_system::Config<AccountId = AccountId, Hash = H256> {
        /// The native token.
        type Currency: Mutate<AccountId, Balance = Balance>;
        /// The epoch clock.
        type Clock: Clock;
        /// Seeds of the epochs.
        type Beacon: Beacon;
        /// The registry of hosts.
        type Hosts: Hosts;
        /// The registry of profiles.
        type Profiles: Profiles;
        /// Weights of the epochs.
        type Weights: Weights;
        /// Told of expired requests.
        type Reputation: Reputation;
        /// Counts the answers.
        type Attendance: Attendance;
        /// Where fees go.
        type Pots: Pots;
        /// Derives the account that holds the deposits.
        #[pallet::constant]
        type PalletId: Get<PalletId>;
        /// Least amount of a deposit: pays for the ledger's growth.
        #[pallet::constant]
        type MinDeposit: Get<Balance>;
        /// Keys that one client can delegate to at a time.
        #[pallet::constant]
        type MaxDelegations: Get<u32>;
        /// Records that a block prunes at most.
        #[pallet::constant]
        type MaxPrunedPerBlock: Get<u32>;
        /// What calls and hooks cost.
        type WeightInfo: WeightInfo;
    }

    /// The ledger: who owns how much of the pallet's account. Entries exist while they hold something.
    ///
    /// Hasher: accounts are chosen by their owners.
    #[pallet::storage]
    pub type Deposits<T: Config> = StorageMap<_, Blake2_128Concat, AccountId, Deposit, ValueQuery>;

    /// Keys that may spend from a client's deposit.
    ///
    /// A double map so that a wallet can list a client's keys. Hashers: accounts are chosen by their owners.
    #[pallet::storage]
    pub type Delegations<T: Config> =
        StorageDoubleMap<_, Blake2_128Concat, AccountId, Blake2_128Concat, AccountId, Delegation>;

    /// Number of a client's delegations, at most [`Config::MaxDelegations`].
    ///
    /// Hasher: accounts are chosen by their owners.
    #[pallet::storage]
    pub type DelegationCount<T: Config> = StorageMap<_, Blake2_128Concat, AccountId, u32, ValueQuery>;

    /// The records, by epoch and index.
    ///
    /// Hashers: both keys are counted by the chain.
    #[pallet::storage]
    pub type Inferences<T: Config> =
        StorageDoubleMap<_, Twox64Concat, EpochIndex, Twox64Concat, u32, InferenceRecord>;

    /// Place of a request's record.
    ///
    /// Hasher: the chain does not see the header, so the client could choose the id freely.
    #[pallet::storage]
    pub type RequestIndex<T: Config> = StorageMap<_, Blake2_128Concat, RequestId, InferenceId>;

    /// Number of records of an epoch.
    ///
    /// Hasher: epochs are counted by the chain.
    #[pallet::storage]
    pub type Counts<T: Config> = StorageMap<_, Twox64Concat, EpochIndex, u32, ValueQuery>;

    /// Fees that the epoch's pot could not take yet; they lie in the pallet's account.
    ///
    /// Hasher: epochs are counted by the chain.
    #[pallet::storage]
    pub type PendingFees<T: Config> = StorageMap<_, Twox64Concat, EpochIndex, Fees, ValueQuery>;

    /// Where pruning stands.
    #[pallet::storage]
    pub type Pruned<T: Config> = StorageValue<_, PruneCursor, ValueQuery>;

    /// Gives the pallet's account the existential deposit that keeps it alive.
    #[pallet::genesis_config]
    #[derive(frame_support::DefaultNoBound)]
    pub struct GenesisConfig<T: Config> {
        #[serde(skip)]
        _config: core::marker::PhantomData<T>,
    }

    #[pallet::genesis_build]
    impl<T: Config> BuildGenesisConfig for GenesisConfig<T> {
        fn build(&self) {
            Pallet::<T>::endow_account();
        }
    }

    #[pallet::event]
    #[pallet::generate_deposit(pub(crate) fn deposit_event)]
    pub enum Event<T: Config> {
        /// A client added to its deposit.
        Deposited {
            /// Who.
            client: AccountId,
            /// How much.
            amount: Balance,
        },
        /// A client took back some of the free part of its deposit.
        Withdrawn {
            /// Who.
            client: AccountId,
            /// How much.
            amount: Balance,
        },
        /// A client lets a key spend from its deposit.
        Delegated {
            /// Whose deposit.
            client: AccountId,
            /// The key.
            key: AccountId,
            /// Up to how much in all.
            limit: Balance,
        },
        /// A key may not start requests for the client any more.
        Revoked {
            /// Whose deposit.
            client: AccountId,
            /// The key.
            key: AccountId,
        },
        /// A request runs; its price limit is reserved.
        Started {
            /// Place of the record.
            id: InferenceId,
            /// The request.
            request_id: RequestId,
            /// Who pays.
            client: AccountId,
            /// Host that took the request.
            gateway: AccountId,
            /// Host that runs it.
            executor: AccountId,
            /// What is reserved.
            reserved: Balance,
        },
        /// The executor did not answer: another host runs the request.
        Reassigned {
            /// Place of the record.
            id: InferenceId,
            /// The request.
            request_id: RequestId,
            /// Host that runs it now.
            executor: AccountId,
            /// Attempt it was drawn with.
            attempt: u8,
        },
        /// The answer is complete and paid.
        Finished {
            /// Place of the record.
            id: InferenceId,
            /// The request.
            request_id: RequestId,
            /// What it cost.
            price: Balance,
            /// What went back to the free part of the client's deposit.
            released: Balance,
            /// Host that earned it.
            host: AccountId,
        },
        /// The client has the answer, says the gateway.
        Delivered {
            /// Place of the record.
            id: InferenceId,
            /// The request.
            request_id: RequestId,
            /// Whether it is the answer that the executor committed to.
            matched: bool,
        },
        /// The request did not finish in time; the client has its reserve back.
        Expired {
            /// Place of the record.
            id: InferenceId,
            /// The request.
            request_id: RequestId,
            /// Host that missed it.
            executor: AccountId,
            /// What went back.
            refunded: Balance,
        },
        /// A verdict beyond the limits is being voted on.
        Disputed {
            /// Place of the record.
            id: InferenceId,
        },
        /// The vote is over, or the answer is proven wrong.
        Settled {
            /// Place of the record.
            id: InferenceId,
            /// Whether the answer stands.
            valid: bool,
            /// What went back to the client's deposit.
            refunded: Balance,
        },
        /// The answer was bad on purpose, as its executor has said.
        Planted {
            /// Place of the record.
            id: InferenceId,
            /// What went back to the client's deposit.
            refunded: Balance,
        },
        /// An item of a batch was not taken. Nothing was stored for it.
        RecordRefused {
            /// The request.
            request_id: RequestId,
            /// Why.
            reason: Refusal,
        },
    }

    #[pallet::error]
    pub enum Error<T> {
        /// The signer is not the worker key of a registered host.
        NotAWorker,
        /// The amount is below the least deposit.
        DepositTooLow,
        /// The free part of the deposit is smaller than that.
        NotEnoughFree,
        /// A limit of nothing is no delegation; revoke it instead.
        LimitZero,
        /// The client delegates to as many keys as it may.
        TooManyDelegations,
        /// The client does not delegate to this key.
        NotDelegated,
        /// A sum left the range of balances.
        Overflow,
    }

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

    #[pallet::call]
    impl<T: Config> Pallet<T> {
        /// Adds to the caller's deposit.
        ///
        /// ## Dispatch Origin
        /// Signed by the client.
        ///
        /// ## Errors
        /// [`Error::DepositTooLow`], or the currency's own.
        ///
        /// ## Events
        /// [`Event::Deposited`].
        #[pallet::call_index(0)]
        #[pallet::weight(T::WeightInfo::deposit())]
        pub fn deposit(origin: OriginFor<T>, #[pallet::compact] amount: Balance) -> DispatchResult {
            let client = ensure_signed(origin)?;
            Self::do_deposit(client, amount)
        }

        /// Takes back some of the free part of the caller's deposit.
        ///
        /// ## Dispatch Origin
        /// Signed by the client.
        ///
        /// ## Errors
        /// [`Error::NotEnoughFree`], or the currency's own.
        ///
        /// ## Events
        /// [`Event::Withdrawn`].
        #[pallet::call_index(1)]
        #[pallet::weight(T::WeightInfo::withdraw())]
        pub fn withdraw(origin: OriginFor<T>, #[pallet::compact] amount: Balance) -> DispatchResult {
            let client = ensure_signed(origin)?;
            Self::do_withdraw(client, amount)
        }

        /// Lets `key` sign requests that the caller's deposit pays, for `limit` in all. A key that has a limit gets
        /// the new one; what it spent so far counts.
        ///
        /// ## Dispatch Origin
        /// Signed by the client.
        ///
        /// ## Errors
        /// [`Error::LimitZero`], [`Error::TooManyDelegations`].
        ///
        /// ## Events
        /// [`Event::Delegated`].
        #[pallet::call_index(2)]
        #[pallet::weight(T::WeightInfo::delegate())]
        pub fn delegate(
            origin: OriginFor<T>,
            key: AccountId,
            #[pallet::compact] limit: Balance,
        ) -> DispatchResult {
            let client = ensure_signed(origin)?;
            Self::do_delegate(client, key, limit)
        }

        /// Forbids `key` to sign further requests. Those that run go on.
        ///
        /// ## Dispatch Origin
        /// Signed by the client.
        ///
        /// ## Errors
        /// [`Error::NotDelegated`].
        ///
        /// ## Events
        /// [`Event::Revoked`].
        #[pallet::call_index(3)]
        #[pallet::weight(T::WeightInfo::revoke())]
        pub fn revoke(origin: OriginFor<T>, key: AccountId) -> DispatchResult {
            let client = ensure_signed(origin)?;
            Self::do_revoke(client, key)
        }

        /// Records that requests run, or that they run at the next executor.
        ///
        /// ## Dispatch Origin
        /// Signed by the worker key of a registered host; free of fees for it. The host is the gateway of each
        /// item, or its executor when the gateway keeps silent.
        ///
        /// ## Errors
        /// [`Error::NotAWorker`].
        ///
        /// ## Events
        /// For each item one of [`Event::Started`], [`Event::Reassigned`], [`Event::RecordRefused`].
        #[pallet::call_index(4)]
        #[pallet::weight(cost::start::<T>(StartShape::of(items)))]
        #[pallet::feeless_if(|origin: &OriginFor<T>, items: &StartedBatch| -> bool {
            !items.is_empty() && Pallet::<T>::is_worker(origin)
        })]
        pub fn start(origin: OriginFor<T>, items: StartedBatch) -> DispatchResultWithPostInfo {
            let host = Self::ensure_worker(origin)?;
            let shape = StartShape::of(&items).with_taken(Self::do_start(&host, &items));
            Ok(Some(cost::start::<T>(shape)).into())
        }

        /// Records complete answers and pays them.
        ///
        /// ## Dispatch Origin
        /// Signed by the worker key of the executor; free of fees for it.
        ///
        /// ## Errors
        /// [`Error::NotAWorker`].
        ///
        /// ## Events
        /// For each item [`Event::Finished`] or [`Event::RecordRefused`].
        #[pallet::call_index(5)]
        #[pallet::weight(cost::finish::<T>(FinishShape::worst(items.len() as u32)))]
        #[pallet::feeless_if(|origin: &OriginFor<T>, items: &FinishedBatch| -> bool {
            !items.is_empty() && Pallet::<T>::is_worker(origin)
        })]
        pub fn finish(origin: OriginFor<T>, items: FinishedBatch) -> DispatchResultWithPostInfo {
            let host = Self::ensure_worker(origin)?;
            let shape = Self::do_finish(&host, &items);
            Ok(Some(cost::finish::<T>(shape)).into())
        }

        /// Records that clients have their answers.
        ///
        /// ## Dispatch Origin
        /// Signed by the worker key of the gateway; free of fees for it.
        ///
        /// ## Errors
        /// [`Error::NotAWorker`].
        ///
        /// ## Events
        /// For each item [`Event::Delivered`] or [`Event::RecordRefused`].
        #[pallet::call_index(6)]
        #[pallet::weight(cost::deliver::<T>(items.len() as u32, 0))]
        #[pallet::feeless_if(|origin: &OriginFor<T>, items: &DeliveredBatch| -> bool {
            !items.is_empty() && Pallet::<T>::is_worker(origin)
        })]
        pub fn deliver(origin: OriginFor<T>, items: DeliveredBatch) -> DispatchResultWithPostInfo {
            let host = Self::ensure_worker(origin)?;
            let taken = Self::do_deliver(&host, &items);
            let refused = (items.len() as u32).saturating_sub(taken);
            Ok(Some(cost::deliver::<T>(taken, refused)).into())
        }

        /// Gives clients back what requests reserve that did not finish in time.
        ///
        /// ## Dispatch Origin
        /// Signed by anyone; free of fees for the worker key of a registered host.
        ///
        /// ## Events
        /// For each item [`Event::Expired`] or [`Event::RecordRefused`].
        #[pallet::call_index(7)]
        #[pallet::weight(cost::expire::<T>(items.len() as u32, 0))]
        #[pallet::feeless_if(|origin: &OriginFor<T>, items: &ExpiredBatch| -> bool {
            !items.is_empty() && Pallet::<T>::is_worker(origin)
        })]
        pub fn expire(origin: OriginFor<T>, items: ExpiredBatch) -> DispatchResultWithPostInfo {
            ensure_signed(origin)?;
            let taken = Self::do_expire(&items);
            let refused = (items.len() as u32).saturating_sub(taken);
            Ok(Some(cost::expire::<T>(taken, refused)).into())
        }
    }
}
