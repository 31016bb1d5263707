//! The nonce check that knows duty calls.

use crate::{Config, Pallet, Standing, Usage, WeightInfo};
use alloc::vec::Vec;
use codec::{Decode, DecodeWithMemTracking, Encode};
use core::fmt;
use frame_support::{
    dispatch::{DispatchInfo, PostDispatchInfo},
    pallet_prelude::TransactionSource,
    traits::{Contains, Get},
    weights::Weight,
};
use frame_system::{CheckNonce, RawOrigin};
use scale_info::{StaticTypeInfo, Type, TypeInfo};
use sp_runtime::{
    traits::{
        AsSystemOriginSigner, DispatchInfoOf, Dispatchable, Implication, PostDispatchInfoOf,
        SaturatedConversion, Saturating, TransactionExtension, TransactionExtensionMetadata, ValidateResult,
    },
    transaction_validity::{InvalidTransaction, TransactionPriority, TransactionValidityError},
    DispatchResult,
};
use starling_primitives::{traits::Hosts, AccountId};

/// Priority of the first duty call of a host with weight: above what any tip that exists can buy.
const FIRST: TransactionPriority = 1 << 60;

/// [`CheckNonce`], which also bounds and orders the duty calls of hosts. See [`crate`].
#[derive(Encode, Decode, DecodeWithMemTracking, Clone, PartialEq, Eq)]
#[codec(encode_bound())]
#[codec(decode_bound())]
pub struct CheckDutyNonce<T: Config>(CheckNonce<T>);

impl<T: Config> CheckDutyNonce<T> {
    /// Of a transaction that is its signer's `nonce`-th.
    pub fn from(nonce: T::Nonce) -> Self {
        Self(CheckNonce::from(nonce))
    }
}

impl<T: Config> fmt::Debug for CheckDutyNonce<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// From outside it is the nonce check.
impl<T: Config> TypeInfo for CheckDutyNonce<T>
where
    CheckNonce<T>: StaticTypeInfo,
{
    type Identity = CheckNonce<T>;

    fn type_info() -> Type {
        CheckNonce::<T>::type_info()
    }
}

/// A duty call of a host.
#[derive(Debug)]
pub struct DutyCall {
    host: AccountId,
    standing: Standing,
}

impl<T: Config + Send + Sync> CheckDutyNonce<T>
where
    T::RuntimeOrigin: AsSystemOriginSigner<AccountId>,
{
    /// Whose duty the call is; `None` where it is nobody's.
    fn duty_call(origin: &T::RuntimeOrigin, call: &T::RuntimeCall) -> Option<DutyCall> {
        if !T::DutyCalls::contains(call) {
            return None;
        }
        let host = T::Hosts::host_of(origin.as_system_origin_signer()?)?;
        let standing = Pallet::<T>::standing(&host);
        Some(DutyCall { host, standing })
    }

    /// Calls of the same signer that come before this one.
    fn before(&self, origin: &T::RuntimeOrigin) -> u64 {
        let Some(signer) = origin.as_system_origin_signer() else { return 0 };
        let next = frame_system::Pallet::<T>::account_nonce(signer);
        self.0 .0.saturating_sub(next).saturated_into()
    }
}

impl<T: Config + Send + Sync> TransactionExtension<T::RuntimeCall> for CheckDutyNonce<T>
where
    T::RuntimeCall: Dispatchable<Info = DispatchInfo, PostInfo = PostDispatchInfo>,
    T::RuntimeOrigin: AsSystemOriginSigner<AccountId> + Clone + From<RawOrigin<AccountId>>,
    CheckNonce<T>: TransactionExtension<T::RuntimeCall, Implicit = ()> + StaticTypeInfo,
{
    const IDENTIFIER: &'static str = <CheckNonce<T> as TransactionExtension<T::RuntimeCall>>::IDENTIFIER;
    type Implicit = ();
    type Val = (<CheckNonce<T> as TransactionExtension<T::RuntimeCall>>::Val, Option<DutyCall>);
    /// With the host that took room for it.
    type Pre = (<CheckNonce<T> as TransactionExtension<T::RuntimeCall>>::Pre, Option<AccountId>);

    fn metadata() -> Vec<TransactionExtensionMetadata> {
        <CheckNonce<T> as TransactionExtension<T::RuntimeCall>>::metadata()
    }

    fn weight(&self, call: &T::RuntimeCall) -> Weight {
        let check = if T::DutyCalls::contains(call) { T::WeightInfo::check() } else { Weight::zero() };
        self.0.weight(call).saturating_add(check)
    }

    fn validate(
        &self,
        origin: T::RuntimeOrigin,
        call: &T::RuntimeCall,
        info: &DispatchInfoOf<T::RuntimeCall>,
        len: usize,
        implicit: (),
        implication: &impl Implication,
        source: TransactionSource,
    ) -> ValidateResult<Self::Val, T::RuntimeCall> {
        let (mut validity, nonce, origin) =
            self.0.validate(origin, call, info, len, implicit, implication, source)?;
        let duty_call = Self::duty_call(&origin, call);
        if let Some(duty_call) = &duty_call {
            let before = self.before(&origin);
            if before >= T::MaxWaiting::get().into() {
                return Err(InvalidTransaction::ExhaustsResources.into());
            }
            if duty_call.standing.comes_first() {
                validity.priority = FIRST.saturating_sub(before);
            }
        }
        Ok((validity, (nonce, duty_call), origin))
    }

    fn prepare(
        self,
        (nonce, duty_call): Self::Val,
        origin: &T::RuntimeOrigin,
        call: &T::RuntimeCall,
        info: &DispatchInfoOf<T::RuntimeCall>,
        len: usize,
    ) -> Result<Self::Pre, TransactionValidityError> {
        let host = match duty_call {
            Some(DutyCall { host, standing }) => {
                if !Pallet::<T>::take_room(&host, standing, Pallet::<T>::usage(info, len)) {
                    // The block builder leaves it in the pool.
                    return Err(InvalidTransaction::ExhaustsResources.into());
                }
                Some(host)
            }
            None => None,
        };
        Ok((self.0.prepare(nonce, origin, call, info, len)?, host))
    }

    fn post_dispatch_details(
        (nonce, host): Self::Pre,
        info: &DispatchInfoOf<T::RuntimeCall>,
        post_info: &PostDispatchInfoOf<T::RuntimeCall>,
        len: usize,
        result: &DispatchResult,
    ) -> Result<Weight, TransactionValidityError> {
        if let Some(host) = host {
            let unused = Usage { ref_time: post_info.calc_unspent(info).ref_time(), bytes: 0 };
            Pallet::<T>::give_back(&host, unused);
        }
        CheckNonce::<T>::post_dispatch_details(nonce, info, post_info, len, result)
    }
}
