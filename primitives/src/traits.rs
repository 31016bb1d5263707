//! What pallets ask of each other, without knowing each other. The runtime connects them.

use crate::{
    profile::Profile, schedule::EpochState, AccountId, Balance, BlockNumber, EpochIndex, Ppm, ProfileId,
    Work, H256,
};
use alloc::vec::Vec;
use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;

/// The epoch clock.
pub trait Clock {
    /// The current epoch.
    fn epoch() -> EpochState;
    /// State of the epoch before, as it was when it ended.
    fn previous() -> Option<EpochState>;
}

/// Told by the clock, in the runtime's order. Work must be bounded.
pub trait EpochHooks {
    /// First block of the reveal window of `epoch`.
    fn on_reveal(_epoch: EpochIndex) {}
    /// The block in which the race would start. False asks for an extension of the reveal window (or, when none is
    /// left, cancels the sprint).
    fn seed_is_final(_epoch: EpochIndex, _extensions_left: u8) -> bool {
        true
    }
    /// First block of the check: late commitments are absent, the challenge seed is drawn.
    fn on_check(_epoch: EpochIndex) {}
    /// Block `offset` of `epoch` is a multiple of the coverage window's length (0 excluded).
    fn on_coverage_boundary(_epoch: EpochIndex, _offset: BlockNumber) {}
    /// The grace of the epoch before `epoch` is over: claims for it open.
    fn on_claims_open(_epoch: EpochIndex) {}
    /// `ended` has ended and `ended + 1` begins in this block. Called with the clock already in the new epoch.
    fn on_epoch_change(_ended: EpochIndex) {}
}

/// What a seed is for.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub enum Round {
    /// Executor draws and duties of an epoch; also the task of the sprint before it. Final at the race's start in the epoch before.
    Epoch(EpochIndex),
    /// Picks the samples of the sprint at this epoch's end.
    Challenge(EpochIndex),
    /// Assigns the uncovered inferences of a coverage window (epoch, window).
    Coverage(EpochIndex, u32),
    /// Picks the inferences whose duties are checked when this epoch is claimed.
    Claim(EpochIndex),
}

/// Collective random seeds.
pub trait Beacon {
    /// The seed of a round, once it is final and as long as it is kept (two epochs).
    fn seed(round: Round) -> Option<H256>;
    /// Block in whose `on_initialize` the seed of [`Round::Epoch`] became final. A worker key must have been in place
    /// before it to contribute in that epoch's reveal or to claim that epoch; nobody can try keys against a known seed.
    fn final_at(_epoch: EpochIndex) -> Option<BlockNumber> {
        None
    }
    /// Whether this host, having weight, withheld its contribution in this epoch's reveal.
    fn withheld(epoch: EpochIndex, host: &AccountId) -> bool;
    /// The same of a host that is known to have weight in this epoch: for whoever asks for many.
    fn withheld_its_weight(epoch: EpochIndex, host: &AccountId) -> bool {
        Self::withheld(epoch, host)
    }
}

/// The registry of hosts.
pub trait Hosts {
    /// Host that granted this worker key, if it is registered and not suspended or removed.
    fn host_of(worker: &AccountId) -> Option<AccountId>;
    /// Worker key of a host.
    fn worker_of(host: &AccountId) -> Option<AccountId>;
    /// Block since which the worker key has been in place.
    fn worker_since(host: &AccountId) -> Option<BlockNumber>;
    /// Whether the host takes part in sprints: registered, not draining, suspended or removed.
    fn may_sprint(host: &AccountId) -> bool;
    /// Whether the host declared that it serves the profile.
    fn serves(host: &AccountId, profile: ProfileId) -> bool;
    /// Which of these profiles the host serves; `None` if it takes no part in sprints. For whoever asks about many hosts:
    /// one look at the registry can answer all of it.
    fn sprint_profiles(host: &AccountId, among: &[ProfileId]) -> Option<Vec<ProfileId>> {
        let served = || among.iter().copied().filter(|profile| Self::serves(host, *profile)).collect();
        Self::may_sprint(host).then(served)
    }
    /// Whether the host declared beforehand to be down in one of the blocks `from..=to`.
    fn is_away(_host: &AccountId, _from: BlockNumber, _to: BlockNumber) -> bool {
        false
    }
    /// Number of hosts that are neither suspended nor removed.
    fn count() -> u32;
    /// New weights are in force: `weight` decides between Joining and Active.
    fn on_weight(host: &AccountId, weight: Work);
    /// Suspends after a conviction; the second one removes.
    fn convict(host: &AccountId);
    /// Takes up to `amount` of the host's bond and gives it to `to`; returns what was taken.
    fn slash_bond(host: &AccountId, amount: Balance, to: &AccountId) -> Balance;
}

/// What hosts answer with for what their workers say.
pub trait Bonds {
    /// What is held of the host's funds; 0 when it is no host.
    fn bond(host: &AccountId) -> Balance;
    /// Burns up to `amount` of the bond; returns what was burned.
    fn burn(host: &AccountId, amount: Balance) -> Balance;
}

/// The registry of profiles.
pub trait Profiles {
    /// A registered profile that takes new work: until the end of the epoch in which it is retired.
    fn profile(id: ProfileId) -> Option<Profile>;
    /// A registered profile, retired or not: requests that started before it was retired are still priced and judged.
    fn registered(id: ProfileId) -> Option<Profile> {
        Self::profile(id)
    }
}

/// A host in the weights of one epoch.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct HostWeight {
    /// The host.
    pub host: AccountId,
    /// Its weight in this epoch, never 0 (capped, over all profiles in the whole; of one profile in a profile's list).
    pub weight: Work,
    /// Its reputation when the epoch began; frozen, so that duties do not move.
    pub reputation: Ppm,
}

/// Weights of an epoch, frozen at its start and sorted by account.
pub trait Weights {
    /// All hosts with weight in `epoch` (kept for the current epoch and the two before). Empty when there are none.
    fn hosts(epoch: EpochIndex) -> Vec<HostWeight>;
    /// The hosts with weight that serve `profile` in `epoch`, with their weight for it.
    fn of_profile(epoch: EpochIndex, profile: ProfileId) -> Vec<HostWeight>;
    /// Weight of one host over all profiles; 0 when absent.
    fn weight(epoch: EpochIndex, host: &AccountId) -> Work;
    /// Sum over all hosts.
    fn total(epoch: EpochIndex) -> Work;
}

/// Reputation of hosts.
pub trait Reputation {
    /// Reputation in ppm, as far as it counts now; 0 for a host nobody knows.
    fn reputation(host: &AccountId) -> Ppm;
    /// Whether the host may get new work: not while too many accuse it.
    fn may_work(_host: &AccountId) -> bool {
        true
    }
    /// The host finished a clean epoch (it claimed it with all duties done).
    fn on_clean_epoch(host: &AccountId, epoch: EpochIndex);
    /// The host missed work of an epoch (an expired or unavailable inference).
    fn on_missed(host: &AccountId, epoch: EpochIndex);
}

/// Whether hosts answer the requests that they are drawn for.
pub trait Attendance {
    /// `count` answers of `executor` to requests that came through `gateway` are recorded.
    fn on_answered(
        epoch: EpochIndex,
        profile: ProfileId,
        executor: &AccountId,
        gateway: &AccountId,
        count: u32,
    );
    /// A recorded answer of `executor` does not stand, or its transcript was not to be had.
    fn on_struck(epoch: EpochIndex, profile: ProfileId, executor: &AccountId);
    /// A recorded answer of `executor` to a request that came through `gateway` was planted: it does not count.
    fn on_planted(epoch: EpochIndex, profile: ProfileId, executor: &AccountId, gateway: &AccountId);
    /// Whether the host answered so little of what it was drawn for that it has no share of the epoch's emission.
    fn is_absent(epoch: EpochIndex, host: &AccountId) -> bool;
    /// The host claims the epoch: what is known of it is final. Returns [`Self::is_absent`].
    fn on_claim(epoch: EpochIndex, host: &AccountId) -> bool;
    /// Profiles that [`Self::is_absent`] looks at for an epoch: what it costs.
    fn profiles(epoch: EpochIndex) -> u32;
}

/// The pots of the epochs: where fees wait for the claim.
pub trait Pots {
    /// Account that `inference` pays fees of `epoch` into.
    fn account(epoch: EpochIndex) -> AccountId;
    /// `amount`, already transferred to [`Pots::account`], belongs to `host`'s due of `epoch`.
    fn on_fee(epoch: EpochIndex, host: &AccountId, amount: Balance);
    /// Gives a fee back to `to`: from the pot, or from the host's bond when it was claimed. Returns what was given.
    fn refund(epoch: EpochIndex, host: &AccountId, amount: Balance, to: &AccountId) -> Balance;
}

/// The records of inferences, as verification and rewards need them.
pub trait Inferences {
    /// Number of records of an epoch.
    fn count(epoch: EpochIndex) -> u32;
    /// One record, as long as it is kept (two epochs after its own).
    fn record(id: crate::InferenceId) -> Option<crate::records::InferenceRecord>;
    /// A first verdict arrived at this block.
    fn note_verdict(id: crate::InferenceId, at: BlockNumber);
    /// Finished or delivered becomes disputed.
    fn dispute(id: crate::InferenceId);
    /// The dispute is over. `valid = false` refunds the client in full (through [`Pots::refund`]).
    fn settle_dispute(id: crate::InferenceId, valid: bool);
    /// The answer is proven wrong, whatever was said of it before: as `settle_dispute` with `valid = false`, but from
    /// every state in which the client has paid. Does nothing in the others.
    fn invalidate(id: crate::InferenceId);
    /// The executor planted the answer: the client has its money back as by `invalidate`, and nothing speaks against the
    /// executor. Does nothing in the states in which the client has not paid.
    fn plant(id: crate::InferenceId);
}

/// Where a proof goes that needs no panel.
pub trait Court {
    /// Convicts a host in the running epoch, unless it has been in it already: no reputation, suspended or removed, its
    /// due of the epoch lost.
    fn convict(host: &AccountId);
}

/// Duties of verification, as a claim checks them.
pub trait Duties {
    /// Undone duties of `host` among the given inferences of `epoch`, given its duty secret. Empty: all done.
    fn undone(epoch: EpochIndex, host: &AccountId, secret: &H256, sample: &[u32]) -> Vec<u32>;
    /// Whether the host lost its due of `epoch`: it was convicted of fraud, or found negligent.
    fn forfeits(epoch: EpochIndex, host: &AccountId) -> bool;
}
