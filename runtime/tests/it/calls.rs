//! Any call of any of our pallets by anybody: made up field by field, or from bytes.

use crate::{
    answers::Client,
    chain::{genesis_hash, Host},
};
use codec::{Decode, Encode};
use frame_support::{
    dispatch::DispatchResult,
    traits::{GetCallIndex, PalletInfoAccess, UnfilteredDispatchable},
};
use pallet_hosts::Endpoints;
use proptest::{prelude::*, sample};
use sp_core::{ed25519, sr25519, Pair};
use starling_primitives::{
    profile::Profile,
    records::Delivered,
    schedule::Schedule,
    sprint::{SprintCommitment, SprintVerdict},
    traits::{Beacon as _, Clock as _, Round},
    verdict::{Figures, Outcome, Verdict},
    vrf::{self, VrfInput},
    AccountId, Balance, InferenceId, RequestId, H256, PPM, TOKEN,
};
use starling_runtime::{
    genesis, Authorities, Beacon, Epochs, Hosts, Inference, Profiles, Rewards, Runtime, RuntimeCall,
    RuntimeOrigin, Session, SessionKeys, Sprint, Verification,
};

/// Who calls.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Signer {
    Root,
    Nobody,
    Worker(usize),
    Account(usize),
}

const NAMES: [&str; 6] = ["Alice", "Bob", "Charlie", "Dave", "Eve", "Ferdie"];

impl Signer {
    fn origin(self) -> RuntimeOrigin {
        match self {
            Self::Root => RuntimeOrigin::root(),
            Self::Nobody => RuntimeOrigin::none(),
            Self::Worker(n) => RuntimeOrigin::signed(worker(n)),
            Self::Account(n) => RuntimeOrigin::signed(account(n)),
        }
    }
}

fn account(n: usize) -> AccountId {
    Client::named(NAMES[n]).account()
}

fn worker(n: usize) -> AccountId {
    Host::named(NAMES[n]).worker.public().into()
}

fn signer() -> impl Strategy<Value = Signer> {
    prop_oneof![
        2 => Just(Signer::Root),
        1 => Just(Signer::Nobody),
        5 => (0..NAMES.len()).prop_map(Signer::Worker),
        5 => (0..NAMES.len()).prop_map(Signer::Account),
    ]
}

/// What is called, as far as it can be said without the chain.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// A call that decodes from these bytes; which one, the first two numbers choose.
    Bytes {
        pallet: sample::Index,
        call: sample::Index,
        arguments: Vec<u8>,
    },
    Register {
        worker: usize,
    },
    SetWorker(usize),
    Announce(Vec<u8>),
    Delegate {
        key: usize,
        limit: Balance,
    },
    Revoke(usize),
    Deliver {
        request: RequestId,
        matches: bool,
    },
    Schedule(Box<Schedule>),
    RegisterProfile {
        name: u8,
        change: u8,
    },
    RetireProfile(u32),
    Contribute {
        epoch_ahead: bool,
        of: usize,
    },
    Commit {
        count: u32,
        profile: u32,
    },
    SprintVerdict {
        prover: usize,
        verdict: SprintVerdict,
    },
    Verdict {
        epoch_back: u32,
        index: u32,
        outcome: Outcome,
    },
    CommitPlant(u8),
    ContestPlant {
        epoch_back: u32,
        index: u32,
    },
    Claim {
        epoch_back: u32,
        of: usize,
    },
    SetKeys(u8),
    PurgeKeys,
}

/// One call.
#[derive(Clone, Debug)]
pub(crate) struct AnyCall {
    signer: Signer,
    what: What,
}

impl AnyCall {
    /// A call that has a chance to be taken, or one made of bytes.
    pub(crate) fn strategy() -> impl Strategy<Value = Self> {
        (signer(), what()).prop_map(|(signer, what)| Self { signer, what })
    }

    /// Makes the call; whether it is taken is the chain's business.
    pub(crate) fn make(&self) -> DispatchResult {
        let Some(call) = self.what.call(self.signer) else { return Ok(()) };
        call.dispatch_bypass_filter(self.signer.origin()).map(|_| ()).map_err(|failed| failed.error)
    }
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        (0u32..80, 0u64..1 << 20, 0u64..1 << 20).prop_map(|(tokens, distance_sum, margin_sum)| {
            Outcome::Measured(Figures { tokens, distance_sum, margin_sum })
        }),
        Just(Outcome::ReplayFailed),
        Just(Outcome::Unavailable),
    ]
}

/// Valid ones, short ones, and ones that are out of order.
fn schedule() -> impl Strategy<Value = Box<Schedule>> {
    (20u32..40, 0u32..6, 1u32..4, 1u32..4, 0u8..4, 1..=PPM).prop_map(
        |(reveal_start, stage, coverage_blocks, expiry_blocks, max_extensions, max_share)| {
            Box::new(Schedule {
                epoch_blocks: reveal_start + 4 * stage,
                reveal_start,
                race_start: reveal_start + stage,
                commit_start: reveal_start + 2 * stage,
                check_start: reveal_start + 3 * stage,
                coverage_blocks,
                expiry_blocks,
                grace_blocks: 2 * coverage_blocks + expiry_blocks + 2,
                max_extensions,
                max_share,
                ..Schedule::TEST
            })
        },
    )
}

fn what() -> impl Strategy<Value = What> {
    let anybody = 0..NAMES.len();
    let byte = prop_oneof![Just(0u8), Just(4u8), any::<u8>()];
    let verdict = (0u32..12, 0u32..12, any::<bool>())
        .prop_map(|(checked, failed, fabricated)| SprintVerdict { checked, failed, fabricated });
    prop_oneof![
        12 => (any::<sample::Index>(), any::<sample::Index>(), prop::collection::vec(byte, 0..120))
            .prop_map(|(pallet, call, arguments)| What::Bytes { pallet, call, arguments }),
        2 => anybody.clone().prop_map(|worker| What::Register { worker }),
        2 => anybody.clone().prop_map(What::SetWorker),
        1 => prop::collection::vec(any::<u8>(), 0..80).prop_map(What::Announce),
        2 => (anybody.clone(), 0..2 * TOKEN).prop_map(|(key, limit)| What::Delegate { key, limit }),
        1 => anybody.clone().prop_map(What::Revoke),
        2 => any::<bool>().prop_map(|matches| What::Deliver { request: H256::zero(), matches }),
        1 => schedule().prop_map(What::Schedule),
        1 => (any::<u8>(), 0u8..4).prop_map(|(name, change)| What::RegisterProfile { name, change }),
        1 => (0u32..3).prop_map(What::RetireProfile),
        2 => (any::<bool>(), anybody.clone()).prop_map(|(epoch_ahead, of)| What::Contribute { epoch_ahead, of }),
        2 => (any::<u32>(), 0u32..2).prop_map(|(count, profile)| What::Commit { count, profile }),
        2 => (anybody.clone(), verdict).prop_map(|(prover, verdict)| What::SprintVerdict { prover, verdict }),
        4 => (0u32..4, 0u32..10, outcome())
            .prop_map(|(epoch_back, index, outcome)| What::Verdict { epoch_back, index, outcome }),
        1 => any::<u8>().prop_map(What::CommitPlant),
        2 => (0u32..4, 0u32..10).prop_map(|(epoch_back, index)| What::ContestPlant { epoch_back, index }),
        2 => (0u32..3, anybody).prop_map(|(epoch_back, of)| What::Claim { epoch_back, of }),
        1 => any::<u8>().prop_map(What::SetKeys),
        1 => Just(What::PurgeKeys),
    ]
}

/// The pallets that are ours, and the one that holds the hosts' session keys, with the numbers of their calls.
fn pallets() -> Vec<(u8, Vec<u8>)> {
    fn of<P: PalletInfoAccess, C: GetCallIndex>() -> (u8, Vec<u8>) {
        (P::index() as u8, C::get_call_indices().to_vec())
    }
    vec![
        of::<Epochs, pallet_epochs::Call<Runtime>>(),
        of::<Session, pallet_session::Call<Runtime>>(),
        of::<Profiles, pallet_profiles::Call<Runtime>>(),
        of::<Hosts, pallet_hosts::Call<Runtime>>(),
        of::<Beacon, pallet_beacon::Call<Runtime>>(),
        of::<Sprint, pallet_sprint::Call<Runtime>>(),
        of::<Inference, pallet_inference::Call<Runtime>>(),
        of::<Verification, pallet_verification::Call<Runtime>>(),
        of::<Rewards, pallet_rewards::Call<Runtime>>(),
    ]
}

#[test]
fn every_pallet_of_ours_is_called() {
    let ours = pallets().len();
    // Authorities has no calls; BABE, GRANDPA and the money pallets are the SDK's.
    assert_eq!((ours, Authorities::index()), (9, 12));
    assert!(pallets().iter().all(|(_, calls)| !calls.is_empty()));
}

impl What {
    /// `None`: there is no such call.
    fn call(&self, signer: Signer) -> Option<RuntimeCall> {
        let now = Epochs::epoch().index;
        Some(match self {
            Self::Bytes { pallet, call, arguments } => {
                let pallets = pallets();
                let (pallet, calls) = pallet.get(&pallets);
                let bytes = [&[*pallet, *call.get(calls)], arguments.as_slice()].concat();
                return RuntimeCall::decode(&mut &bytes[..]).ok();
            }
            Self::Register { worker: n } => {
                let profiles = vec![0].try_into().expect("one fits");
                pallet_hosts::Call::register { worker: worker(*n), profiles }.into()
            }
            Self::SetWorker(n) => pallet_hosts::Call::set_worker { worker: worker(*n) }.into(),
            Self::Announce(peer) => {
                let peer_id = peer.clone().try_into().ok()?;
                let endpoints = Endpoints { peer_id, ..Endpoints::default() };
                pallet_hosts::Call::announce { endpoints }.into()
            }
            Self::Delegate { key, limit } => {
                pallet_inference::Call::delegate { key: account(*key), limit: *limit }.into()
            }
            Self::Revoke(key) => pallet_inference::Call::revoke { key: account(*key) }.into(),
            Self::Deliver { request, matches } => {
                let record = pallet_inference::Inferences::<Runtime>::iter_values().next();
                let request_id = record.as_ref().map_or(*request, |record| record.request_id);
                let told = record.and_then(|record| record.result).filter(|_| *matches);
                let response_hash = told.map_or(H256::zero(), |result| result.response_hash);
                let items = vec![Delivered { request_id, response_hash }].try_into().expect("one fits");
                pallet_inference::Call::deliver { items }.into()
            }
            Self::Schedule(schedule) => pallet_epochs::Call::propose_schedule { schedule: **schedule }.into(),
            Self::RegisterProfile { name, change } => {
                pallet_profiles::Call::register { profile: profile(*name, *change) }.into()
            }
            Self::RetireProfile(id) => pallet_profiles::Call::retire { id: *id }.into(),
            Self::Contribute { epoch_ahead, of } => {
                let epoch = now + u32::from(*epoch_ahead);
                let input = VrfInput::Beacon(genesis_hash(), epoch);
                let (proof, _) = vrf::sign(&Host::named(NAMES[*of]).worker, &input);
                pallet_beacon::Call::contribute { epoch, proof }.into()
            }
            Self::Commit { count, profile } => {
                let commitment = SprintCommitment { root: H256::repeat_byte(3), count: *count };
                pallet_sprint::Call::commit { profile: *profile, commitment }.into()
            }
            Self::SprintVerdict { prover, verdict } => {
                let verdicts = vec![(account(*prover), *verdict); 2].try_into().expect("two fit");
                pallet_sprint::Call::submit_verdicts { profile: 0, verdicts }.into()
            }
            Self::Verdict { epoch_back, index, outcome } => {
                let inference = InferenceId { epoch: now.saturating_sub(*epoch_back), index: *index };
                let items = vec![Verdict { inference, outcome: *outcome }; 2].try_into().expect("two fit");
                pallet_verification::Call::submit_verdicts { items }.into()
            }
            Self::CommitPlant(byte) => {
                let commitment = H256::repeat_byte(*byte);
                pallet_verification::Call::commit_plant { commitment }.into()
            }
            Self::ContestPlant { epoch_back, index } => {
                let inference = InferenceId { epoch: now.saturating_sub(*epoch_back), index: *index };
                pallet_verification::Call::contest_plant { inference }.into()
            }
            Self::Claim { epoch_back, of } => {
                let epoch = now.saturating_sub(*epoch_back);
                let seed = Beacon::seed(Round::Epoch(epoch))?;
                let input = VrfInput::Duty(genesis_hash(), epoch, seed);
                let (proof, _) = vrf::sign(&Host::named(NAMES[*of]).worker, &input);
                pallet_rewards::Call::claim { epoch, proof }.into()
            }
            Self::SetKeys(seed) => session_keys(*seed, signer)?.into(),
            Self::PurgeKeys => pallet_session::Call::purge_keys {}.into(),
        })
    }
}

fn profile(name: u8, change: u8) -> Profile {
    let demo = genesis::demo_profile();
    let name = vec![name, b'x'].try_into().expect("two bytes fit");
    match change {
        0 => Profile { name, ..demo },
        1 => Profile { name, top_k: 0, ..demo },
        2 => Profile { name, completion_work: u32::MAX, completion_price: Balance::MAX, ..demo },
        _ => demo,
    }
}

/// Session keys with the proof that their owner holds them.
fn session_keys(seed: u8, signer: Signer) -> Option<pallet_session::Call<Runtime>> {
    let Signer::Account(n) = signer else { return None };
    let (babe, grandpa) = (sr25519::Pair::from_seed(&[seed; 32]), ed25519::Pair::from_seed(&[seed; 32]));
    let keys = SessionKeys { grandpa: grandpa.public().into(), babe: babe.public().into() };
    let statement = sp_core::proof_of_possession::statement_of_ownership(&account(n).encode());
    let proof = (grandpa.sign(&statement), babe.sign(&statement)).encode();
    Some(pallet_session::Call::set_keys { keys, proof })
}
