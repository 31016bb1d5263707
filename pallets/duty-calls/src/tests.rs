use crate::{mock::*, CheckDutyNonce, Usage, Used, UsedByAll};
use codec::Encode;
use frame_support::{
    dispatch::{DispatchInfo, GetDispatchInfo, PostDispatchInfo},
    weights::Weight,
};
use frame_system::{Call, CheckNonce};
use proptest::prelude::*;
use sp_runtime::{
    traits::{DispatchTransaction, TransactionExtension},
    transaction_validity::{InvalidTransaction, TransactionSource, TransactionValidityError},
};

/// What normal transactions of the mock may use: 80 % of a second.
const BLOCK: u64 = 800_000_000_000;
/// And how long they may be together, in bytes.
const LENGTH: usize = 800_000;

fn duty() -> RuntimeCall {
    Call::remark { remark: vec![] }.into()
}

fn other() -> RuntimeCall {
    Call::remark_with_event { remark: vec![] }.into()
}

fn exhausted<T>() -> Result<T, TransactionValidityError> {
    Err(InvalidTransaction::ExhaustsResources.into())
}

/// The priority that the pool gives the call.
fn pooled(signer: u8, nonce: u32, call: &RuntimeCall) -> Result<u64, TransactionValidityError> {
    let (origin, info) = (RuntimeOrigin::signed(account(signer)), call.get_dispatch_info());
    let extension = CheckDutyNonce::<Test>::from(nonce);
    extension.validate_only(origin, call, &info, 0, TransactionSource::External, 0).map(|(v, ..)| v.priority)
}

/// Puts a call of this weight into the block, with the nonce that is due.
fn included(signer: u8, call: &RuntimeCall, ref_time: u64) -> Result<(), TransactionValidityError> {
    used(signer, call, ref_time, ref_time, 0)
}

/// The same with a call that declares more than it turns out to use, and has a length.
fn used(
    signer: u8,
    call: &RuntimeCall,
    declared: u64,
    ref_time: u64,
    len: usize,
) -> Result<(), TransactionValidityError> {
    type Extension = CheckDutyNonce<Test>;
    let nonce = System::account_nonce(account(signer));
    let origin = RuntimeOrigin::signed(account(signer));
    let weight = |ref_time| Weight::from_parts(ref_time, 0);
    let info = DispatchInfo { call_weight: weight(declared), ..Default::default() };
    let (pre, _) = Extension::from(nonce).validate_and_prepare(origin, call, &info, len, 0)?;
    let post = PostDispatchInfo { actual_weight: Some(weight(ref_time)), ..Default::default() };
    Extension::post_dispatch_details(pre, &info, &post, len, &Ok(())).map(|_| ())
}

#[test]
fn the_pool_holds_a_few_duty_calls_of_a_host_and_any_number_of_others() {
    build_and_execute(&[(1, 10), (2, 10)], || {
        assert!(pooled(1, 3, &duty()).is_ok());
        assert_eq!(pooled(1, 4, &duty()), exhausted());
        assert_eq!(pooled(1, u32::MAX, &duty()), exhausted());
        // Another host has its own room, and what is not owed is not counted.
        assert!(pooled(2, 0, &duty()).is_ok());
        assert!(pooled(1, 4, &other()).is_ok());
        // Who is no host's worker has to pay, and may send what it likes.
        assert!(pooled(9, 400, &duty()).is_ok());
        // What is in the block makes room in the pool.
        included(1, &duty(), 1).unwrap();
        assert!(pooled(1, 4, &duty()).is_ok());
    });
}

#[test]
fn the_first_of_each_host_comes_before_the_second_of_any() {
    build_and_execute(&[(1, 1_000), (2, 1), (3, 0)], || {
        let priority = |signer, nonce, call| pooled(signer, nonce, &call).unwrap();
        assert_eq!(priority(1, 0, duty()), priority(2, 0, duty()));
        assert!(priority(2, 0, duty()) > priority(1, 1, duty()));
        // Before what pays, whose priority is its tip's; a host without weight has to wait for everybody.
        assert!(priority(1, 3, duty()) > u64::MAX >> 5);
        assert_eq!(priority(3, 0, duty()), 0);
        assert_eq!(priority(1, 0, other()), 0);
    });
    // Before anybody has weight, all are equal.
    build_and_execute(&[(1, 0), (2, 0)], || {
        assert!(pooled(1, 0, &duty()).unwrap() > u64::MAX >> 5);
    });
}

#[test]
fn a_flood_takes_room_from_nobody_else() {
    build_and_execute(&[(1, 10), (2, 10), (3, 80), (4, 0)], || {
        // A tenth of the weight: a fifth of the block, and the call that crosses the line.
        included(1, &duty(), BLOCK / 5 - 1).unwrap();
        included(1, &duty(), BLOCK / 10).unwrap();
        assert_eq!(included(1, &duty(), 1), exhausted());
        let ref_time = BLOCK / 5 - 1 + BLOCK / 10;
        assert_eq!(Used::<Test>::get(host(1)), Usage { ref_time, bytes: 0 });
        // Neither other hosts nor its own other calls are touched.
        included(1, &other(), BLOCK).unwrap();
        included(2, &duty(), 1).unwrap();
        // Without weight: one call, or a 64th.
        included(4, &duty(), BLOCK / 64).unwrap();
        assert_eq!(included(4, &duty(), 1), exhausted());
        // A refused call has used up no nonce; it fits the next block.
        let nonce = System::account_nonce(account(1));
        next_block();
        included(1, &duty(), 1).unwrap();
        assert_eq!(System::account_nonce(account(1)), nonce + 1);
    });
}

#[test]
fn what_a_call_does_not_use_is_there_for_the_next() {
    build_and_execute(&[(1, 10), (2, 90)], || {
        for _ in 0..100 {
            used(1, &duty(), BLOCK / 4, BLOCK / 1_000, 0).unwrap();
        }
        assert_eq!(Used::<Test>::get(host(1)).ref_time, BLOCK / 10);
        assert_eq!(UsedByAll::<Test>::get().ref_time, BLOCK / 10);
        used(1, &duty(), BLOCK / 4, BLOCK / 10, 0).unwrap();
        assert_eq!(included(1, &duty(), 1), exhausted());
    });
}

#[test]
fn cheap_calls_cannot_fill_a_block_by_their_length() {
    build_and_execute(&[(1, 10), (2, 40), (3, 50)], || {
        used(1, &duty(), 1, 1, LENGTH / 5).unwrap();
        assert_eq!(used(1, &duty(), 1, 1, 1), exhausted());
        used(2, &duty(), 1, 1, LENGTH * 7 / 10).unwrap();
        assert_eq!(used(3, &duty(), 1, 1, 1), exhausted());
        used(3, &other(), 1, 1, LENGTH / 10).unwrap();
    });
}

#[test]
fn all_together_leave_room_for_who_pays() {
    build_and_execute(&[(1, 50), (2, 50)], || {
        included(1, &duty(), BLOCK - BLOCK / 10).unwrap();
        assert_eq!(included(2, &duty(), 1), exhausted());
        included(9, &duty(), 1).unwrap();
        included(2, &other(), 1).unwrap();
    });
}

#[test]
fn from_outside_it_is_the_nonce_check() {
    use scale_info::TypeInfo;
    assert_eq!(CheckDutyNonce::<Test>::from(7).encode(), CheckNonce::<Test>::from(7).encode());
    assert_eq!(CheckDutyNonce::<Test>::type_info(), CheckNonce::<Test>::type_info());
    type Check = CheckDutyNonce<Test>;
    assert_eq!(<Check as TransactionExtension<RuntimeCall>>::IDENTIFIER, "CheckNonce");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is sent: nobody passes its allowance by more than one call, and all together not theirs.
    #[test]
    fn bounds_hold(
        weights in prop::collection::vec(0u64..100, 1..6),
        calls in prop::collection::vec((0u8..6, 1..BLOCK / 4, 0..BLOCK / 8, any::<bool>()), 0..60),
    ) {
        let hosts: Vec<(u8, u64)> = (0..).zip(weights).collect();
        let total: u64 = hosts.iter().map(|(_, weight)| weight).sum();
        build_and_execute(&hosts, || {
            for (signer, ref_time, unused, ends) in calls {
                let _ = used(signer, &duty(), ref_time.saturating_add(unused), ref_time, 0);
                for (worker, weight) in &hosts {
                    let allowance = starling_math::room::allowance(BLOCK, *weight, total);
                    assert!(Used::<Test>::get(host(*worker)).ref_time < allowance + BLOCK / 4);
                }
                let sum: u64 = Used::<Test>::iter_values().map(|used| used.ref_time).sum();
                assert_eq!(UsedByAll::<Test>::get(), Usage { ref_time: sum, bytes: 0 });
                assert!(sum < BLOCK - BLOCK / 10 + BLOCK / 4);
                if ends {
                    next_block();
                }
            }
        });
    }
}
