//! Transactions: who pays, and who does not.

use crate::chain::{block, block_with, genesis_hash, run, Host};
use codec::Encode;
use frame_support::{dispatch::DispatchClass, BoundedVec};
use pallet_hosts::Endpoints;
use sp_core::{sr25519, Pair};
use sp_runtime::{
    generic::Era,
    transaction_validity::{InvalidTransaction, TransactionValidityError},
    ApplyExtrinsicResult,
};
use starling_primitives::{
    records::{Finished, FinishedIn},
    AccountId, H256,
};
use starling_runtime::{
    genesis, Authorship, Balances, Executive, Runtime, RuntimeCall, SignedPayload, System, TxExtension,
    UncheckedExtrinsic, TOKEN, VERSION,
};

fn extension(nonce: u32) -> TxExtension {
    (
        frame_system::AuthorizeCall::new(),
        frame_system::CheckNonZeroSender::new(),
        frame_system::CheckSpecVersion::new(),
        frame_system::CheckTxVersion::new(),
        frame_system::CheckGenesis::new(),
        frame_system::CheckEra::from(Era::Immortal),
        pallet_duty_calls::CheckDutyNonce::from(nonce),
        frame_system::CheckWeight::new(),
        pallet_skip_feeless_payment::SkipCheckIfFeeless::from(
            pallet_transaction_payment::ChargeTransactionPayment::from(0),
        ),
        frame_metadata_hash_extension::CheckMetadataHash::new(false),
        frame_system::WeightReclaim::new(),
    )
}

pub(crate) fn apply(signer: &sr25519::Pair, call: impl Into<RuntimeCall>) -> ApplyExtrinsicResult {
    let account = AccountId::from(signer.public());
    let extension = extension(System::account_nonce(&account));
    let (spec, transaction) = (VERSION.spec_version, VERSION.transaction_version);
    let genesis = genesis_hash();
    let implicit = ((), (), spec, transaction, genesis, genesis, (), (), (), None, ());
    let payload = SignedPayload::from_raw(call.into(), extension, implicit);
    let signature = payload.using_encoded(|bytes| signer.sign(bytes));
    let (call, extension, _) = payload.deconstruct();
    Executive::apply_extrinsic(UncheckedExtrinsic::new_signed(
        call,
        account.into(),
        signature.into(),
        extension,
    ))
}

/// Answers to requests that nobody made, as many as fit a call.
fn junk() -> pallet_inference::Call<Runtime> {
    let finished = Finished {
        request_id: H256::zero(),
        response_hash: H256::zero(),
        transcript_root: H256::zero(),
        prompt_tokens: 1,
        completion_tokens: 1,
    };
    let items = vec![FinishedIn { epoch: 0, finished }; 256];
    pallet_inference::Call::finish { items: BoundedVec::truncate_from(items) }
}

fn announce() -> pallet_hosts::Call<Runtime> {
    let endpoints = Endpoints { peer_id: BoundedVec::truncate_from(vec![1]), ..Default::default() };
    pallet_hosts::Call::announce { endpoints }
}

#[test]
fn a_worker_without_funds_does_its_duty_for_free_and_once() {
    run(genesis::TEST, || {
        block();
        let alice = Host::named("Alice");
        let worker = AccountId::from(alice.worker.public());
        assert_eq!(Balances::free_balance(&worker), 0);
        let issuance = Balances::total_issuance();
        block_with(|| {
            assert_eq!(apply(&alice.worker, announce()), Ok(Ok(())));
            // Again would be too soon, so it is not free; and the worker has nothing to pay with.
            let refused = Err(TransactionValidityError::Invalid(InvalidTransaction::Payment));
            assert_eq!(apply(&alice.worker, announce()), refused);
        });
        assert_eq!(System::account_nonce(&worker), 1);
        assert_eq!(Balances::total_issuance(), issuance);
    });
}

#[test]
fn nobody_else_gets_a_duty_call_for_free() {
    run(genesis::TEST, || {
        block();
        let stranger = sr25519::Pair::from_string("//Stranger", None).expect("a development path");
        let client = sr25519::Pair::from_string("//Ferdie", None).expect("a development path");
        block_with(|| {
            let refused = Err(TransactionValidityError::Invalid(InvalidTransaction::Payment));
            assert_eq!(apply(&stranger, announce()), refused);
            // Who has funds pays for the failure.
            let account = AccountId::from(client.public());
            let before = Balances::free_balance(&account);
            assert!(matches!(apply(&client, announce()), Ok(Err(_))));
            assert!(Balances::free_balance(&account) < before);
        });
    });
}

#[test]
fn a_host_that_floods_a_block_takes_room_from_nobody_else() {
    run(genesis::TEST, || {
        block();
        let [alice, bob, ..] = Host::all();
        let client = sr25519::Pair::from_string("//Ferdie", None).expect("a development path");
        let exhausted = Err(TransactionValidityError::Invalid(InvalidTransaction::ExhaustsResources));
        let flood = || {
            let mut taken = 0;
            while apply(&alice.worker, junk()) == Ok(Ok(())) {
                taken += 1;
                assert!(taken < 1_000, "a flood without end");
            }
            assert_eq!(apply(&alice.worker, junk()), exhausted);
            taken
        };
        let nonce = || System::account_nonce(AccountId::from(alice.worker.public()));
        for _ in 0..2 {
            let before = nonce();
            let (taken, filled) = block_with(|| {
                let taken = flood();
                let used = pallet_duty_calls::UsedByAll::<Runtime>::get();
                // Neither the duties of others nor who pays waits for the next block.
                if before == 0 {
                    assert_eq!(apply(&bob.worker, announce()), Ok(Ok(())));
                }
                let dest = AccountId::new([9; 32]).into();
                let transfer = pallet_balances::Call::transfer_allow_death { dest, value: TOKEN };
                assert_eq!(apply(&client, transfer), Ok(Ok(())));
                (taken, used)
            });
            assert_eq!(nonce(), before + taken, "what found no room keeps its nonce");
            let weights = <Runtime as frame_system::Config>::BlockWeights::get();
            let limit = weights.get(DispatchClass::Normal).max_total.expect("normal calls are bounded");
            let (used, limit) = (filled.ref_time, limit.ref_time());
            assert!((limit / 8..limit / 7).contains(&used), "{taken} calls: {used} of {limit} ps");
        }
    });
}

#[test]
fn fees_go_to_the_author_and_leave_the_issuance_alone() {
    run(genesis::TEST, || {
        block();
        let client = sr25519::Pair::from_string("//Ferdie", None).expect("a development path");
        let issuance = Balances::total_issuance();
        let (author, before, after) = block_with(|| {
            let author = Authorship::author().expect("every block has an author");
            let before = Balances::free_balance(&author);
            let dest = AccountId::new([9; 32]).into();
            let transfer = pallet_balances::Call::transfer_allow_death { dest, value: TOKEN };
            assert_eq!(apply(&client, transfer), Ok(Ok(())));
            (author.clone(), before, Balances::free_balance(&author))
        });
        assert!(after > before, "{author} got the fee");
        assert_eq!(Balances::total_issuance(), issuance);
    });
}
