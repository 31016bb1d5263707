//! GRANDPA's side of a session change, with weights.

use crate::{Config, GrandpaSet, Pallet};
use alloc::vec::Vec;
use codec::Encode;
use core::marker::PhantomData;
use frame_support::traits::{Get, OneSessionHandler};
use sp_consensus_grandpa::{AuthorityId, AuthorityWeight, SetId};
use sp_runtime::{traits::Zero, BoundToRuntimeAppPublic};
use sp_staking::SessionIndex;
use starling_primitives::{AccountId, H256};

/// Takes GRANDPA's place in the session keys.
#[derive(Debug)]
pub struct WeightedGrandpa<T>(PhantomData<T>);

type Weighed<'a> = Vec<(&'a AccountId, AuthorityId, AuthorityWeight)>;

fn set_hash(weighed: &Weighed) -> H256 {
    H256(sp_io::hashing::blake2_256(&weighed.encode()))
}

fn authorities(weighed: Weighed) -> Vec<(AuthorityId, AuthorityWeight)> {
    weighed.into_iter().map(|(_, key, weight)| (key, weight)).collect()
}

impl<T: Config> WeightedGrandpa<T> {
    /// Schedules the set, by force if finality was noted as stalled. Returns whether it was taken: none is while another
    /// change is pending.
    fn schedule(weighed: Weighed) -> bool {
        let (delay, forced) = match pallet_grandpa::Stalled::<T>::get() {
            Some((delay, median)) => (delay, Some(median)),
            None => (Zero::zero(), None),
        };
        let hash = set_hash(&weighed);
        let scheduled =
            pallet_grandpa::Pallet::<T>::schedule_change(authorities(weighed), delay, forced).is_ok();
        if scheduled {
            pallet_grandpa::Stalled::<T>::kill();
            GrandpaSet::<T>::put(hash);
        }
        scheduled
    }

    /// Counts the set and forgets the one that is too old for equivocation proofs.
    fn next_set_id() -> SetId {
        let set_id = pallet_grandpa::CurrentSetId::<T>::get().saturating_add(1);
        pallet_grandpa::CurrentSetId::<T>::set(set_id);
        let kept = <T as pallet_grandpa::Config>::MaxSetIdSessionEntries::get().max(1);
        if let Some(forgotten) = set_id.checked_sub(kept) {
            pallet_grandpa::SetIdSession::<T>::remove(forgotten);
        }
        set_id
    }
}

impl<T: Config> BoundToRuntimeAppPublic for WeightedGrandpa<T> {
    type Public = AuthorityId;
}

impl<T: Config> OneSessionHandler<AccountId> for WeightedGrandpa<T> {
    type Key = AuthorityId;

    fn on_genesis_session<'a, I>(validators: I)
    where
        I: Iterator<Item = (&'a AccountId, AuthorityId)> + 'a,
    {
        let weighed = Pallet::<T>::weigh(0, validators);
        GrandpaSet::<T>::put(set_hash(&weighed));
        let authorities = frame_support::WeakBoundedVec::force_from(
            authorities(weighed),
            Some("more GRANDPA authorities in the genesis than the runtime allows"),
        );
        pallet_grandpa::Authorities::<T>::put(authorities);
        pallet_grandpa::SetIdSession::<T>::insert(0, 0);
    }

    /// Schedules a new set when an account, a key or a weight differs, or finality stalled. Without keys, the set stays.
    /// Nothing was announced of it, so an equivocator that was planned for it is left out.
    fn on_new_session<'a, I>(_changed: bool, validators: I, _queued_validators: I)
    where
        I: Iterator<Item = (&'a AccountId, AuthorityId)> + 'a,
    {
        let session: SessionIndex = pallet_session::Pallet::<T>::current_index();
        let validators = validators.filter(|(host, _)| !Pallet::<T>::has_paid(host, session));
        let weighed = Pallet::<T>::weigh(session, validators);
        let differs = set_hash(&weighed) != GrandpaSet::<T>::get();
        let wanted = !weighed.is_empty() && (differs || pallet_grandpa::Stalled::<T>::exists());
        let set_id = if wanted && Self::schedule(weighed) {
            Self::next_set_id()
        } else {
            pallet_grandpa::CurrentSetId::<T>::get()
        };
        // The newest session for which the set is responsible, for proofs of equivocation.
        pallet_grandpa::SetIdSession::<T>::insert(set_id, session);
    }

    fn on_disabled(validator_index: u32) {
        <pallet_grandpa::Pallet<T> as OneSessionHandler<AccountId>>::on_disabled(validator_index);
    }
}
