//! BABE's side of a session change, with weights.

use crate::{Config, Pallet};
use alloc::vec::Vec;
use core::marker::PhantomData;
use frame_support::{traits::OneSessionHandler, WeakBoundedVec};
use sp_consensus_babe::{AuthorityId, BabeAuthorityWeight};
use sp_runtime::BoundToRuntimeAppPublic;
use starling_primitives::AccountId;

/// Takes BABE's place in the session keys.
#[derive(Debug)]
pub struct WeightedBabe<T>(PhantomData<T>);

type Authorities<T> =
    WeakBoundedVec<(AuthorityId, BabeAuthorityWeight), <T as pallet_babe::Config>::MaxAuthorities>;

fn authorities<'a, T: Config>(
    session: u32,
    keys: impl Iterator<Item = (&'a AccountId, AuthorityId)>,
) -> Authorities<T> {
    let weighed = Pallet::<T>::weigh(session, keys);
    let authorities: Vec<_> = weighed.into_iter().map(|(_, key, weight)| (key, weight)).collect();
    // Plans have the same bound; only a change of the bound between planning and starting can exceed it.
    WeakBoundedVec::force_from(authorities, Some("more BABE authorities than the runtime allows"))
}

impl<T: Config> BoundToRuntimeAppPublic for WeightedBabe<T> {
    type Public = AuthorityId;
}

impl<T: Config> OneSessionHandler<AccountId> for WeightedBabe<T> {
    type Key = AuthorityId;

    fn on_genesis_session<'a, I>(validators: I)
    where
        I: Iterator<Item = (&'a AccountId, AuthorityId)> + 'a,
    {
        let authorities = authorities::<T>(0, validators);
        pallet_babe::Authorities::<T>::put(&authorities);
        pallet_babe::NextAuthorities::<T>::put(&authorities);
    }

    /// Enacts what was announced, and announces what is planned for the session after. Without keys to announce, the set
    /// stays.
    fn on_new_session<'a, I>(_changed: bool, validators: I, queued_validators: I)
    where
        I: Iterator<Item = (&'a AccountId, AuthorityId)> + 'a,
    {
        let session = pallet_session::Pallet::<T>::current_index();
        let announced = pallet_babe::NextAuthorities::<T>::get();
        let current = if announced.is_empty() { authorities::<T>(session, validators) } else { announced };
        let next = authorities::<T>(session.saturating_add(1), queued_validators);
        let next = if next.is_empty() { current.clone() } else { next };
        pallet_babe::Pallet::<T>::enact_epoch_change(current, next, Some(session));
    }

    fn on_disabled(validator_index: u32) {
        <pallet_babe::Pallet<T> as OneSessionHandler<AccountId>>::on_disabled(validator_index);
    }
}
