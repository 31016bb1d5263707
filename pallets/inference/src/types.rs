//! What the pallet stores, and why it refuses.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use frame_support::{traits::ConstU32, BoundedVec};
use scale_info::TypeInfo;
use starling_primitives::{
    records::{Delivered, FinishedIn, Started},
    AccountId, Balance, EpochIndex, RequestId,
};

/// `Started` records that one call takes at most.
pub const MAX_STARTED: u32 = 256;
/// `Finished` records that one call takes at most.
pub const MAX_FINISHED: u32 = 512;
/// `Delivered` records that one call takes at most.
pub const MAX_DELIVERED: u32 = 512;
/// Requests that one call expires at most.
pub const MAX_EXPIRED: u32 = 256;
/// Hosts that can have weight in an epoch, and so the fees that can wait for its pot, at most.
pub const MAX_HOSTS: u32 = 1_024;

/// Argument of `start`.
pub type StartedBatch = BoundedVec<Started, ConstU32<MAX_STARTED>>;
/// Argument of `finish`.
pub type FinishedBatch = BoundedVec<FinishedIn, ConstU32<MAX_FINISHED>>;
/// Argument of `deliver`.
pub type DeliveredBatch = BoundedVec<Delivered, ConstU32<MAX_DELIVERED>>;
/// Argument of `expire`.
pub type ExpiredBatch = BoundedVec<RequestId, ConstU32<MAX_EXPIRED>>;
/// Fees of one epoch, by host, that its pot could not take yet.
pub type Fees = BoundedVec<(AccountId, Balance), ConstU32<MAX_HOSTS>>;

/// A client's part of the pallet's account.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct Deposit {
    /// Can be withdrawn, or reserved for a request.
    pub free: Balance,
    /// Promised to requests that run.
    pub reserved: Balance,
}

impl Deposit {
    /// With `amount` more in the free part.
    pub(crate) fn credited(self, amount: Balance) -> Option<Self> {
        Some(Self { free: self.free.checked_add(amount)?, ..self })
    }

    /// With `amount` less in the free part.
    pub(crate) fn debited(self, amount: Balance) -> Option<Self> {
        Some(Self { free: self.free.checked_sub(amount)?, ..self })
    }

    /// With `amount` moved from the free to the reserved part.
    pub(crate) fn reserved(self, amount: Balance) -> Option<Self> {
        Some(Self { free: self.free.checked_sub(amount)?, reserved: self.reserved.checked_add(amount)? })
    }

    /// With a reserve dissolved: `price` of it is paid, the rest is free again. `price` is at most `reserve`.
    pub(crate) fn settled(self, reserve: Balance, price: Balance) -> Option<Self> {
        let released = reserve.checked_sub(price)?;
        Some(Self { free: self.free.checked_add(released)?, reserved: self.reserved.checked_sub(reserve)? })
    }
}

/// What a delegated key may spend.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct Delegation {
    /// Most that the key may spend in all; 0 once revoked, while requests it signed still run.
    pub limit: Balance,
    /// Prices paid so far, less what was refunded.
    pub spent: Balance,
    /// Promised to requests that run.
    pub reserved: Balance,
}

impl Delegation {
    /// What the key can still promise.
    pub fn available(&self) -> Balance {
        self.limit.saturating_sub(self.spent).saturating_sub(self.reserved)
    }

    /// With `amount` promised. `None` when the limit does not allow it.
    pub(crate) fn charged(self, amount: Balance) -> Option<Self> {
        if amount > self.available() {
            return None;
        }
        Some(Self { reserved: self.reserved.checked_add(amount)?, ..self })
    }

    /// With a promise dissolved of which `price` was paid.
    pub(crate) fn settled(self, reserve: Balance, price: Balance) -> Option<Self> {
        Some(Self {
            spent: self.spent.checked_add(price)?,
            reserved: self.reserved.checked_sub(reserve)?,
            ..self
        })
    }

    /// Whether nothing depends on this entry any more.
    pub(crate) fn is_over(&self) -> bool {
        self.limit == 0 && self.reserved == 0
    }
}

/// Next record to be pruned.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct PruneCursor {
    /// Its epoch; everything of earlier epochs is gone.
    pub epoch: EpochIndex,
    /// Its index.
    pub index: u32,
}

/// Why an item of a batch was not taken.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub enum Refusal {
    /// No record has this request id (not yet, or not any more).
    UnknownRequest,
    /// The request is recorded already, with this attempt or a later one.
    Duplicate,
    /// A later attempt must keep client, gateway, profile, epoch and price limit.
    TermsChanged,
    /// The request does not run any more, so that no other executor can take it.
    NotRunning,
    /// The submitting host is neither the gateway nor the executor, or not the one who may send this record.
    NotInvolved,
    /// The gateway is not a registered host.
    UnknownGateway,
    /// The epoch is neither the current one nor, shortly after its end, the one before.
    EpochClosed,
    /// The attempt is above the highest one.
    AttemptTooHigh,
    /// The authorization's last block lies behind, or further ahead than an epoch.
    AuthorizationOutOfRange,
    /// No such profile, or no host has weight for it.
    UnknownProfile,
    /// The draw gives another executor.
    WrongExecutor,
    /// The signature is not the signer's over this authorization on this chain.
    BadSignature,
    /// The signer is neither the client nor a key the client delegated to.
    NotDelegated,
    /// The delegated key's limit does not cover the price limit.
    LimitExceeded,
    /// The free part of the client's deposit does not cover the price limit.
    DepositTooLow,
    /// The time to finish is over, or the request is settled.
    TooLate,
    /// The token counts are zero or above the profile's context.
    TokensOutOfRange,
    /// The executor's `Finished` is not on chain.
    NotFinished,
    /// The request may still finish.
    NotExpired,
    /// Something that cannot be: the item was left alone.
    Internal,
    /// The answer was made with the tape of another epoch than the request is recorded in.
    OtherEpoch,
}
