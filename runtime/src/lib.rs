//! The Starling runtime: composition of the pallets.
//!
//! This crate decides nothing. Decisions are pure functions in `starling-math`, state is in the pallets; here they are
//! connected ([`configs`], [`hooks`]), shown to the node ([`apis`]) and given their first state ([`genesis`]).
//!
//! One WASM serves every network: schedule, slot duration and session length are genesis data.

#![cfg_attr(not(feature = "std"), no_std)]
// The runtime and runtime-API macros expand to undocumented public items, in numbers beyond naming.
#![allow(missing_docs, reason = "most public items are made by macros")]
#![recursion_limit = "256"]

extern crate alloc;

#[cfg(feature = "std")]
include!(concat!(env!("OUT_DIR"), "/wasm_binary.rs"));

pub mod apis;
#[cfg(feature = "runtime-benchmarks")]
mod benchmarks;
pub mod configs;
pub mod genesis;
pub mod hooks;
pub mod migrations;
pub mod starling_api;

use alloc::vec::Vec;
use pallet_authorities::{WeightedBabe, WeightedGrandpa};
use sp_runtime::{generic, impl_opaque_keys, traits::BlakeTwo256, MultiAddress, MultiSignature};
use sp_version::RuntimeVersion;

pub use apis::RuntimeApi;
pub use starling_primitives::{AccountId, Balance, BlockNumber, TOKEN};

/// Signature of a transaction.
pub type Signature = MultiSignature;
/// Number of transactions of an account.
pub type Nonce = u32;
/// Hash of blocks and states.
pub type Hash = sp_core::H256;
/// How a transaction names an account.
pub type Address = MultiAddress<AccountId, ()>;
/// Header of a block.
pub type Header = generic::Header<BlockNumber, BlakeTwo256>;
/// Block with decoded transactions.
pub type Block = generic::Block<Header, UncheckedExtrinsic>;
/// Transaction as it arrives.
pub type UncheckedExtrinsic = generic::UncheckedExtrinsic<Address, RuntimeCall, Signature, TxExtension>;
/// What the signer of a transaction signs.
pub type SignedPayload = generic::SignedPayload<RuntimeCall, TxExtension>;
/// What every transaction is checked for, and pays. Duty calls skip the payment, within bounds.
pub type TxExtension = (
    frame_system::AuthorizeCall<Runtime>,
    frame_system::CheckNonZeroSender<Runtime>,
    frame_system::CheckSpecVersion<Runtime>,
    frame_system::CheckTxVersion<Runtime>,
    frame_system::CheckGenesis<Runtime>,
    frame_system::CheckEra<Runtime>,
    pallet_duty_calls::CheckDutyNonce<Runtime>,
    frame_system::CheckWeight<Runtime>,
    pallet_skip_feeless_payment::SkipCheckIfFeeless<
        Runtime,
        pallet_transaction_payment::ChargeTransactionPayment<Runtime>,
    >,
    frame_metadata_hash_extension::CheckMetadataHash<Runtime>,
    frame_system::WeightReclaim<Runtime>,
);
/// Applies blocks.
pub type Executive = frame_executive::Executive<
    Runtime,
    Block,
    frame_system::ChainContext<Runtime>,
    Runtime,
    AllPalletsWithSystem,
>;

/// What the node knows of the runtime's types: as little as it needs to follow an upgrade.
pub mod opaque {
    use super::*;
    pub use sp_runtime::OpaqueExtrinsic as UncheckedExtrinsic;

    /// Header of a block.
    pub type Header = super::Header;
    /// Block with opaque transactions.
    pub type Block = generic::Block<Header, UncheckedExtrinsic>;
    /// Names a block.
    pub type BlockId = generic::BlockId<Block>;
    /// Hash of blocks and states.
    pub type Hash = super::Hash;
}

impl_opaque_keys! {
    /// Keys of an authority. The weighted handlers stand where BABE and GRANDPA would.
    pub struct SessionKeys {
        pub grandpa: WeightedGrandpa<Runtime>,
        pub babe: WeightedBabe<Runtime>,
    }
}

/// The version, with this `spec_version`; the attribute, which writes it into a section of the WASM, takes numbers only.
macro_rules! version {
    ($spec_version:tt) => {
        /// Version of the runtime.
        #[sp_version::runtime_version]
        pub const VERSION: RuntimeVersion = RuntimeVersion {
            spec_name: alloc::borrow::Cow::Borrowed("starling"),
            impl_name: alloc::borrow::Cow::Borrowed("starling-node"),
            authoring_version: 1,
            spec_version: $spec_version,
            impl_version: 1,
            apis: apis::RUNTIME_API_VERSIONS,
            transaction_version: 1,
            system_version: 1,
        };
    };
}

#[cfg(not(feature = "next-version"))]
version!(1);
#[cfg(feature = "next-version")]
version!(2);

/// The pallets. The order is that of their hooks and of their genesis: the clock moves first, because everything else
/// asks it; money exists before it is held.
#[frame_support::runtime]
mod runtime {
    #[runtime::runtime]
    #[runtime::derive(
        RuntimeCall,
        RuntimeEvent,
        RuntimeError,
        RuntimeOrigin,
        RuntimeFreezeReason,
        RuntimeHoldReason,
        RuntimeSlashReason,
        RuntimeLockId,
        RuntimeTask,
        RuntimeViewFunction
    )]
    pub struct Runtime;

    #[runtime::pallet_index(0)]
    pub type System = frame_system;
    #[runtime::pallet_index(1)]
    pub type Epochs = pallet_epochs;
    #[runtime::pallet_index(2)]
    pub type Timestamp = pallet_timestamp;
    #[runtime::pallet_index(3)]
    pub type Babe = pallet_babe;
    #[runtime::pallet_index(4)]
    pub type Authorship = pallet_authorship;
    #[runtime::pallet_index(5)]
    pub type Balances = pallet_balances;
    #[runtime::pallet_index(6)]
    pub type TransactionPayment = pallet_transaction_payment;
    #[runtime::pallet_index(7)]
    pub type SkipFeelessPayment = pallet_skip_feeless_payment;
    #[runtime::pallet_index(8)]
    pub type Offences = pallet_offences;
    #[runtime::pallet_index(9)]
    pub type Historical = pallet_session::historical;
    #[runtime::pallet_index(10)]
    pub type Session = pallet_session;
    #[runtime::pallet_index(11)]
    pub type Grandpa = pallet_grandpa;
    #[runtime::pallet_index(12)]
    pub type Authorities = pallet_authorities;

    #[runtime::pallet_index(20)]
    pub type Sudo = pallet_sudo;
    #[runtime::pallet_index(21)]
    pub type Utility = pallet_utility;
    #[runtime::pallet_index(22)]
    pub type Multisig = pallet_multisig;
    #[runtime::pallet_index(23)]
    pub type Proxy = pallet_proxy;
    #[runtime::pallet_index(24)]
    pub type Preimage = pallet_preimage;
    #[runtime::pallet_index(25)]
    pub type Scheduler = pallet_scheduler;
    #[runtime::pallet_index(26)]
    pub type Referenda = pallet_referenda;

    #[runtime::pallet_index(30)]
    pub type Profiles = pallet_profiles;
    #[runtime::pallet_index(31)]
    pub type Hosts = pallet_hosts;
    #[runtime::pallet_index(32)]
    pub type Beacon = pallet_beacon;
    #[runtime::pallet_index(33)]
    pub type Sprint = pallet_sprint;
    #[runtime::pallet_index(34)]
    pub type Inference = pallet_inference;
    #[runtime::pallet_index(35)]
    pub type Verification = pallet_verification;
    #[runtime::pallet_index(36)]
    pub type Rewards = pallet_rewards;
    #[runtime::pallet_index(37)]
    pub type DutyCalls = pallet_duty_calls;
    #[runtime::pallet_index(38)]
    pub type Governance = pallet_governance;
    #[runtime::pallet_index(39)]
    pub type Attendance = pallet_attendance;
}

#[cfg(feature = "runtime-benchmarks")]
frame_benchmarking::define_benchmarks!(
    [pallet_authorities, Authorities]
    [pallet_beacon, Beacon]
    [pallet_duty_calls, DutyCalls]
    [pallet_epochs, Epochs]
    [pallet_governance, Governance]
    [pallet_hosts, Hosts]
    [pallet_inference, Inference]
    [pallet_profiles, Profiles]
    [pallet_rewards, Rewards]
    [pallet_sprint, Sprint]
    [pallet_verification, Verification]
);
