//! How long the chain takes to carry out a report of an equivocation, from the running session of small and of large sets:
//! the trie of all keys is built from the keys of every authority, twice. Prints one JSON line for each set and backend, in
//! microseconds.
//!
//! `cargo run --workspace --example equivocation`

use codec::{Decode, Encode};
use frame_support::traits::KeyOwnerProofSystem;
use sc_executor::WasmExecutor;
use serde_json::{json, Value};
use sp_consensus_babe::{
    digests::{CompatibleDigestItem, PreDigest, SecondaryPlainPreDigest},
    AuthorityId, EquivocationProof, KEY_TYPE,
};
use sp_core::{
    crypto::UncheckedFrom,
    ed25519, sr25519,
    traits::{CallContext, CodeExecutor, RuntimeCode, WrappedRuntimeCode},
    Pair, H256,
};
use sp_io::{SubstrateHostFunctions, TestExternalities};
use sp_runtime::{traits::Header as _, ApplyExtrinsicResult, BuildStorage, Digest};
use starling_primitives::AccountId;
use starling_runtime::{
    apis, genesis, Babe, Header, Historical, Runtime, RuntimeGenesisConfig, SessionKeys, UncheckedExtrinsic,
};
use std::{borrow::Cow, error::Error, time::Instant};

/// Sizes of the sets.
const SETS: [u32; 3] = [4, 128, 1_024];
/// Reports of each, of which the fastest counts.
const REPORTS: usize = 10;
/// Slot of the block that takes the report.
const SLOT: u64 = 1_000;

type Outcome<T> = Result<T, Box<dyn Error>>;
type Call<'a> = dyn FnMut(&mut TestExternalities, &str, &[u8]) -> Outcome<Vec<u8>> + 'a;

/// RFC 7396.
fn merge(target: &mut Value, patch: Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(target.entry(key).or_insert(Value::Null), value);
            }
        }
        (target, patch) => *target = patch,
    }
}

fn genesis_ext() -> Outcome<TestExternalities> {
    let mut config = serde_json::to_value(RuntimeGenesisConfig::default())?;
    merge(&mut config, genesis::preset_value(genesis::TEST).ok_or("there is no preset `test`")?);
    let config: RuntimeGenesisConfig = serde_json::from_value(config)?;
    Ok(TestExternalities::new(config.build_storage()?))
}

fn header(logs: Vec<sp_runtime::DigestItem>, variant: u8) -> Header {
    Header::new(1, H256::zero(), H256::repeat_byte(variant), H256::zero(), Digest { logs })
}

fn pre_digest() -> sp_runtime::DigestItem {
    let digest = SecondaryPlainPreDigest { authority_index: 0, slot: SLOT.into() };
    CompatibleDigestItem::babe_pre_digest(PreDigest::SecondaryPlain(digest))
}

/// Fills the set up to `authorities`.
fn fill(authorities: u32) {
    let mut validators = pallet_session::Validators::<Runtime>::get();
    for index in validators.len() as u32..authorities {
        let bytes = sp_io::hashing::blake2_256(&index.encode());
        let keys = SessionKeys {
            grandpa: ed25519::Public::unchecked_from(bytes).into(),
            babe: sr25519::Public::unchecked_from(bytes).into(),
        };
        let account = AccountId::new(bytes);
        pallet_session::NextKeys::<Runtime>::insert(&account, keys);
        validators.push(account);
    }
    pallet_session::Validators::<Runtime>::put(validators);
}

/// A report that Alice made two blocks for this slot.
fn report() -> Outcome<UncheckedExtrinsic> {
    let alice = sr25519::Pair::from_string("//Alice", None)?;
    let sealed = |variant| {
        let mut header = header(vec![pre_digest()], variant);
        let seal = alice.sign(header.hash().as_bytes()).into();
        header.digest_mut().push(CompatibleDigestItem::babe_seal(seal));
        header
    };
    let offender = AuthorityId::from(alice.public());
    let key_owner_proof = Historical::prove((KEY_TYPE, offender.clone())).ok_or("Alice is an authority")?;
    let equivocation_proof = Box::new(EquivocationProof {
        offender,
        slot: SLOT.into(),
        first_header: sealed(1),
        second_header: sealed(2),
    });
    let call = pallet_babe::Call::report_equivocation_unsigned { equivocation_proof, key_owner_proof };
    Ok(UncheckedExtrinsic::new_bare(call.into()))
}

/// Time of one report in the first block of a chain.
fn time(authorities: u32, call: &mut Call<'_>) -> Outcome<f64> {
    let mut ext = genesis_ext()?;
    ext.execute_with(|| fill(authorities));
    ext.commit_all()?;
    call(&mut ext, "Core_initialize_block", &header(vec![pre_digest()], 0).encode())?;
    let now = ext.execute_with(|| SLOT * Babe::slot_duration());
    let inherent = UncheckedExtrinsic::new_bare(pallet_timestamp::Call::<Runtime>::set { now }.into());
    call(&mut ext, "BlockBuilder_apply_extrinsic", &inherent.encode())?;
    let report = ext.execute_with(report)?.encode();
    let begin = Instant::now();
    let answer = call(&mut ext, "BlockBuilder_apply_extrinsic", &report)?;
    let elapsed = begin.elapsed().as_secs_f64() * 1e6;
    match ApplyExtrinsicResult::decode(&mut &answer[..])? {
        Ok(Ok(())) => Ok(elapsed),
        refused => Err(format!("the report must convict: {refused:?}").into()),
    }
}

fn main() -> Outcome<()> {
    let code = starling_runtime::WASM_BINARY.ok_or("built with SKIP_WASM_BUILD")?;
    let executor: WasmExecutor<SubstrateHostFunctions> = WasmExecutor::builder().build();
    let hash = sp_io::hashing::blake2_256(code).to_vec();
    let mut wasm = |ext: &mut TestExternalities, method: &str, data: &[u8]| -> Outcome<Vec<u8>> {
        let fetcher = WrappedRuntimeCode(Cow::Borrowed(code));
        let code = RuntimeCode { code_fetcher: &fetcher, heap_pages: None, hash: hash.clone() };
        Ok(executor.call(&mut ext.ext(), &code, method, data, CallContext::Offchain).0?)
    };
    let mut native = |ext: &mut TestExternalities, method: &str, data: &[u8]| -> Outcome<Vec<u8>> {
        Ok(ext.execute_with(|| apis::api::dispatch(method, data)).ok_or("no such call")?)
    };
    let backends: [(&str, &mut Call<'_>); 2] = [("native", &mut native), ("wasm", &mut wasm)];
    for (backend, call) in backends {
        for authorities in SETS {
            let mut fastest = f64::INFINITY;
            for _ in 0..REPORTS {
                fastest = fastest.min(time(authorities, call)?);
            }
            println!("{}", json!({"backend": backend, "authorities": authorities, "report_us": fastest}));
        }
    }
    Ok(())
}
