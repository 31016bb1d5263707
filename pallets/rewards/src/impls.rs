//! Claims, fees and refunds.

use crate::{types::Due, Claimed, Config, Error, Event, Fees, Pallet, Pots};
use alloc::vec::Vec;
use frame_support::{
    defensive, ensure,
    pallet_prelude::{DispatchError, DispatchResult, Get},
    traits::{fungible::Mutate, tokens::Preservation},
};
use frame_system::pallet_prelude::{ensure_signed, BlockNumberFor, OriginFor};
use sp_core::sr25519;
use sp_runtime::traits::{AccountIdConversion, UniqueSaturatedInto};
use starling_math::{clock::may_claim_previous, draw::claim_samples, emission};
use starling_primitives::{
    traits::{self, Attendance, Beacon, Clock, Duties, Hosts, Inferences, Reputation, Round, Weights},
    vrf::{self, VrfInput, VrfProof},
    AccountId, Balance, BlockNumber, EpochIndex, H256,
};

/// A claim that will be paid.
pub(crate) struct Claim {
    pub(crate) host: AccountId,
    pub(crate) due: Due,
    pub(crate) samples: u32,
    /// Profiles that its attendance was looked at for.
    pub(crate) profiles: u32,
}

impl<T: Config> Pallet<T> {
    /// Account of all pots.
    pub fn pots_account() -> AccountId {
        T::PalletId::get().into_account_truncating()
    }

    /// What the host would be paid for an epoch whose duties are done, as (share of the emission, fees): nothing when it
    /// had no weight, withheld, was convicted, was found negligent or has claimed, or when the pot is burned; no share when it was absent.
    pub fn claimable(epoch: EpochIndex, host: &AccountId) -> (Balance, Balance) {
        let due = Self::due(epoch, host);
        (due.emission, due.fees)
    }

    pub(crate) fn due(epoch: EpochIndex, host: &AccountId) -> Due {
        let weight = T::Weights::weight(epoch, host);
        let lost = weight == 0
            || Claimed::<T>::contains_key(epoch, host)
            || !Pots::<T>::contains_key(epoch)
            || T::Beacon::withheld(epoch, host)
            || T::Duties::forfeits(epoch, host);
        if lost {
            return Due::default();
        }
        let share = || emission::due(Pots::<T>::get(epoch).emission, weight, T::Weights::total(epoch));
        let emission = if T::Attendance::is_absent(epoch, host) { 0 } else { share() };
        Due { emission, fees: Fees::<T>::get(epoch, host) }
    }

    /// Undone duties of a host among the inferences that its claim is checked by, given its duty secret. Empty before the
    /// claims open: the sample is not drawn yet.
    pub fn undone_duties(epoch: EpochIndex, host: &AccountId, secret: &H256) -> Vec<u32> {
        T::Duties::undone(epoch, host, secret, &Self::sample(epoch, host))
    }

    fn sample(epoch: EpochIndex, host: &AccountId) -> Vec<u32> {
        let Some(seed) = T::Beacon::seed(Round::Claim(epoch)) else { return Vec::new() };
        // The schedule of the claimed epoch, which is the one before the running one.
        let schedule = T::Clock::previous().unwrap_or_else(T::Clock::epoch).schedule;
        claim_samples(&seed, host, T::Inferences::count(epoch), schedule.claim_samples)
    }

    /// Everything that decides whether a claim is paid; what is free of fees is exactly what succeeds.
    pub(crate) fn check_claim(
        origin: OriginFor<T>,
        epoch: EpochIndex,
        proof: &VrfProof,
    ) -> Result<Claim, DispatchError> {
        let worker = ensure_signed(origin)?;
        let host = T::Hosts::host_of(&worker).ok_or(Error::<T>::NotAWorker)?;
        let current = T::Clock::epoch();
        let open = epoch.checked_add(1) == Some(current.index)
            && may_claim_previous(&current, Self::now())
            && T::Beacon::seed(Round::Claim(epoch)).is_some();
        ensure!(open, Error::<T>::NotOpen);
        ensure!(!Claimed::<T>::contains_key(epoch, &host), Error::<T>::AlreadyClaimed);
        let due = Self::due(epoch, &host);
        ensure!(due.total() > 0, Error::<T>::NothingDue);
        let key_in_place = match (T::Hosts::worker_since(&host), T::Beacon::final_at(epoch)) {
            (Some(since), Some(at)) => since <= at.saturating_sub(1),
            _ => false,
        };
        ensure!(key_in_place, Error::<T>::KeyTooNew);
        let seed = T::Beacon::seed(Round::Epoch(epoch)).ok_or(Error::<T>::NotOpen)?;
        let genesis = frame_system::Pallet::<T>::block_hash(BlockNumberFor::<T>::default());
        let key = sr25519::Public::from_raw(worker.into());
        let secret = vrf::verify(&key, &VrfInput::Duty(genesis, epoch, seed), proof)
            .ok_or(Error::<T>::InvalidProof)?;
        let sample = Self::sample(epoch, &host);
        ensure!(T::Duties::undone(epoch, &host, &secret, &sample).is_empty(), Error::<T>::DutyMissing);
        let profiles = T::Attendance::profiles(epoch);
        Ok(Claim { host, due, samples: sample.len() as u32, profiles })
    }

    pub(crate) fn do_claim(epoch: EpochIndex, claim: Claim) -> DispatchResult {
        let Claim { host, due, .. } = claim;
        let total = due.total();
        Pots::<T>::try_mutate(epoch, |pot| -> DispatchResult {
            pot.claimed = pot.claimed.checked_add(total).ok_or(Error::<T>::PotTooSmall)?;
            pot.held().ok_or(Error::<T>::PotTooSmall)?;
            Ok(())
        })?;
        T::Currency::transfer(&Self::pots_account(), &host, total, Preservation::Preserve)?;
        Fees::<T>::remove(epoch, &host);
        Claimed::<T>::insert(epoch, &host, due);
        if T::Attendance::on_claim(epoch, &host) {
            Self::deposit_event(Event::Absent { epoch, host: host.clone() });
        } else {
            T::Reputation::on_clean_epoch(&host, epoch);
        }
        Self::deposit_event(Event::Claimed { epoch, host, emission: due.emission, fees: due.fees });
        Ok(())
    }

    /// Takes up to `amount` of a fee out of the pot; returns what was given.
    fn refund_from_pot(epoch: EpochIndex, host: &AccountId, amount: Balance, to: &AccountId) -> Balance {
        if !Pots::<T>::contains_key(epoch) {
            return 0;
        }
        let unclaimed = Fees::<T>::get(epoch, host);
        let given = unclaimed.min(amount);
        let (Some(rest), Some(fees)) =
            (unclaimed.checked_sub(given), Pots::<T>::get(epoch).fees.checked_sub(given))
        else {
            defensive!("a host's fees are part of the pot's");
            return 0;
        };
        // Fails only when `to` would stay below the existential deposit; then the fee stays where it is.
        if given == 0
            || T::Currency::transfer(&Self::pots_account(), to, given, Preservation::Preserve).is_err()
        {
            return 0;
        }
        set_or_remove::<T>(epoch, host, rest);
        Pots::<T>::mutate(epoch, |pot| pot.fees = fees);
        given
    }

    fn now() -> BlockNumber {
        frame_system::Pallet::<T>::block_number().unique_saturated_into()
    }
}

fn set_or_remove<T: Config>(epoch: EpochIndex, host: &AccountId, fees: Balance) {
    if fees == 0 {
        Fees::<T>::remove(epoch, host);
    } else {
        Fees::<T>::insert(epoch, host, fees);
    }
}

impl<T: Config> traits::Pots for Pallet<T> {
    /// The same for all epochs: pots are a ledger over one account.
    fn account(_epoch: EpochIndex) -> AccountId {
        Self::pots_account()
    }

    fn on_fee(epoch: EpochIndex, host: &AccountId, amount: Balance) {
        // A fee that comes after its pot was burned waits in the oldest pot there is; without weight there, it burns.
        let epoch = epoch.max(crate::BurnedTo::<T>::get());
        let pot = Pots::<T>::get(epoch);
        let sums = pot.fees.checked_add(amount).zip(Fees::<T>::get(epoch, host).checked_add(amount));
        let Some((all, own)) = sums else {
            defensive!("fees are part of the issuance");
            return;
        };
        Pots::<T>::insert(epoch, crate::PotInfo { fees: all, ..pot });
        set_or_remove::<T>(epoch, host, own);
    }

    fn refund(epoch: EpochIndex, host: &AccountId, amount: Balance, to: &AccountId) -> Balance {
        let from_pot = Self::refund_from_pot(epoch, host, amount, to);
        let missing = amount.saturating_sub(from_pot);
        let from_bond = if missing > 0 { T::Hosts::slash_bond(host, missing, to) } else { 0 };
        let given = from_pot.saturating_add(from_bond);
        if given > 0 {
            let (host, to) = (host.clone(), to.clone());
            Self::deposit_event(Event::Refunded { epoch, host, to, from_pot, from_bond });
        }
        given
    }
}
