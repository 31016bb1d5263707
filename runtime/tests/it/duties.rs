//! Transactions: who pays, and who does not.

use crate::chain::{block, block_with, genesis_hash, run, Host};
use codec::Encode;
use frame_support::BoundedVec;
use pallet_hosts::Endpoints;
use sp_core::{sr25519, Pair};
use sp_runtime::{
    generic::Era,
    transaction_validity::{InvalidTransaction, TransactionValidityError},
    ApplyExtrinsicResult,
};
use starling_primitives::AccountId;
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
        frame_system::CheckNonce::from(nonce),
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
