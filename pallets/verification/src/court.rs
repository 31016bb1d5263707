//! Convictions that rest on no answer: who signed twice where one may sign once has proven it itself.

use crate::{types::Conviction, Config, Convictions, Pallet};
use starling_math::reputation;
use starling_primitives::{
    traits::{Clock, Court, Hosts},
    AccountId,
};

impl<T: Config> Court for Pallet<T> {
    fn convict(host: &AccountId) {
        let epoch = T::Clock::epoch().index;
        if Convictions::<T>::contains_key(epoch, host) {
            return;
        }
        Convictions::<T>::insert(epoch, host, Conviction { since: Self::now(), answers: 0 });
        Self::set_reputation(host, reputation::after_conviction());
        T::Hosts::convict(host);
    }
}
