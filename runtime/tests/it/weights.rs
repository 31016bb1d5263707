//! What hooks and calls may cost.

use codec::Decode;
use frame_support::{
    dispatch::GetDispatchInfo, pallet_prelude::ConstU32, traits::GetCallName, weights::Weight, BoundedVec,
};
use pallet_authorities::WeightInfo as _;
use pallet_beacon::WeightInfo as _;
use pallet_duty_calls::WeightInfo as _;
use pallet_epochs::WeightInfo as _;
use pallet_inference::WeightInfo as _;
use pallet_rewards::WeightInfo as _;
use pallet_sprint::WeightInfo as _;
use pallet_verification::{cost::AgendaWork, types::MAX_PANEL, WeightInfo as _};
use sp_runtime::traits::{Get, TrailingZeroInput};
use starling_primitives::schedule::Schedule;
use starling_runtime::{
    configs::{MAXIMUM_BLOCK_WEIGHT, NORMAL_DISPATCH_RATIO},
    Runtime, RuntimeCall,
};

/// Hosts of the network whose worst case is meant; each serves and commits to `PROFILES / HOSTS` profiles and more.
const HOSTS: u32 = 1_000;
/// Profiles that hosts commit to in one epoch.
const PROFILES: u32 = 4;
/// Inferences of an epoch.
const INFERENCES: u32 = 100_000;

type Beacon = <Runtime as pallet_beacon::Config>::WeightInfo;
type DutyCalls = <Runtime as pallet_duty_calls::Config>::WeightInfo;
type Sprint = <Runtime as pallet_sprint::Config>::WeightInfo;
type Inference = <Runtime as pallet_inference::Config>::WeightInfo;
type Verification = <Runtime as pallet_verification::Config>::WeightInfo;
type Rewards = <Runtime as pallet_rewards::Config>::WeightInfo;
type Authorities = <Runtime as pallet_authorities::Config>::WeightInfo;

/// The most that a block does of its agenda: as many seats as fit, and the last panel beyond; or as many approvers of plants; or
/// as many disputes without.
fn agenda() -> Weight {
    let seats: u32 = <Runtime as pallet_verification::Config>::MaxSeatsPerBlock::get();
    let largest: u32 = <Runtime as pallet_verification::Config>::SecondPanel::get();
    let done = AgendaWork { disputes: seats / 8, ..AgendaWork::default() };
    let most = seats + largest.min(MAX_PANEL);
    let cost = pallet_verification::cost::agenda::<Runtime>;
    cost(AgendaWork { drawn: most, ..done })
        .max(cost(AgendaWork { closed: most, ..done }))
        .max(cost(AgendaWork { approvers: seats, ..done }))
}

fn attendance_pruning() -> Weight {
    let most: u32 = <Runtime as pallet_attendance::Config>::MaxPrunedPerBlock::get();
    pallet_attendance::weights::prune_step::<Runtime>().saturating_mul(most.into())
}

/// Every piece of work that a block does by itself, at its bound.
fn hooks() -> Vec<(&'static str, Weight)> {
    let election = pallet_sprint::Size { hosts: HOSTS, profiles: PROFILES };
    vec![
        ("the clock", <Runtime as pallet_epochs::Config>::WeightInfo::boundary()),
        ("the beacon's mix", Beacon::roll()),
        ("a seed of a round", Beacon::draw()),
        ("the seed of an epoch", Beacon::finalise(HOSTS)),
        (
            "pruning of the beacon",
            Beacon::prune(<Runtime as pallet_beacon::Config>::MaxPrunedPerBlock::get()),
        ),
        ("the election", pallet_sprint::cost::<Runtime>(election)),
        (
            "pruning of the sprint",
            Sprint::prune(<Runtime as pallet_sprint::Config>::MaxPrunedPerBlock::get()),
        ),
        ("fees that waited", Inference::flush_pending(HOSTS)),
        ("fees that wait on", Inference::close_epoch(HOSTS)),
        (
            "pruning of records",
            Inference::prune(<Runtime as pallet_inference::Config>::MaxPrunedPerBlock::get()),
        ),
        ("panels", agenda()),
        ("a coverage boundary", Verification::coverage()),
        (
            "pruning of verdicts",
            Verification::prune(<Runtime as pallet_verification::Config>::MaxPrunedPerBlock::get()),
        ),
        ("pruning of attendance", attendance_pruning()),
        ("emission and burning", Rewards::epoch_change()),
        ("pruning of pots", Rewards::prune(<Runtime as pallet_rewards::Config>::MaxPrunedPerBlock::get())),
        ("planning a session", Authorities::plan_session(HOSTS)),
        ("beginning a session", Authorities::begin_session(HOSTS)),
    ]
}

#[test]
fn no_hook_takes_more_than_a_tenth_of_a_block() {
    let block = MAXIMUM_BLOCK_WEIGHT.ref_time();
    let mut too_heavy = Vec::new();
    for (hook, weight) in hooks() {
        println!("{hook}: {:.2} ms", weight.ref_time() as f64 / 1e9);
        assert!(weight.ref_time() > 0, "{hook} costs something");
        if weight.ref_time() > block / 10 {
            too_heavy.push(hook);
        }
    }
    assert!(too_heavy.is_empty(), "too heavy: {too_heavy:?}");
}

/// What an epoch leaves is gone before the next one has left as much.
#[test]
fn pruning_keeps_up_with_a_full_network() {
    let blocks = Schedule::MAIN.epoch_blocks;
    let check = |what: &str, per_block: u32, items: u32| {
        println!("{what}: {items} items take {} of {blocks} blocks", items.div_ceil(per_block));
        assert!(items.div_ceil(per_block) < blocks, "{what} piles up");
    };
    check("records", <Runtime as pallet_inference::Config>::MaxPrunedPerBlock::get(), INFERENCES);
    // Verdict, running product and absence of two verifiers each.
    check("verdicts", <Runtime as pallet_verification::Config>::MaxPrunedPerBlock::get(), 6 * INFERENCES);
    check("votes", <Runtime as pallet_sprint::Config>::MaxPrunedPerBlock::get(), 2 * HOSTS * PROFILES);
    check("contributions", <Runtime as pallet_beacon::Config>::MaxPrunedPerBlock::get(), 2 * HOSTS);
    check("fees and claims", <Runtime as pallet_rewards::Config>::MaxPrunedPerBlock::get(), 2 * HOSTS);
}

/// A value whose encoding is all zeros: what it says does not matter.
fn zero<T: Decode>() -> T {
    T::decode(&mut TrailingZeroInput::zeroes()).expect("zeros decode")
}

/// As many as there can be.
fn full<T: Decode + Clone, const MOST: u32>() -> BoundedVec<T, ConstU32<MOST>> {
    BoundedVec::truncate_from(vec![zero(); MOST as usize])
}

/// Every call of our pallets, as large as it can be.
fn calls() -> Vec<RuntimeCall> {
    use {
        pallet_beacon::Call as Beacon, pallet_epochs::Call as Epochs, pallet_governance::Call as Governance,
        pallet_hosts::Call as Hosts, pallet_inference::Call as Inference, pallet_profiles::Call as Profiles,
        pallet_rewards::Call as Rewards, pallet_sprint::Call as Sprint,
        pallet_verification::Call as Verification,
    };
    vec![
        Epochs::propose_schedule { schedule: zero() }.into(),
        Beacon::contribute { epoch: 0, proof: zero() }.into(),
        Hosts::register { worker: zero(), profiles: full() }.into(),
        Hosts::set_worker { worker: zero() }.into(),
        Hosts::set_profiles { profiles: full() }.into(),
        Hosts::drain {}.into(),
        Hosts::resume {}.into(),
        Hosts::deregister {}.into(),
        Hosts::announce { endpoints: zero() }.into(),
        Hosts::declare_maintenance { from: 0, blocks: 0 }.into(),
        Profiles::register { profile: zero() }.into(),
        Profiles::retire { id: 0 }.into(),
        Sprint::commit { profile: 0, commitment: zero() }.into(),
        Sprint::submit_verdicts { profile: 0, verdicts: full() }.into(),
        Inference::deposit { amount: 0 }.into(),
        Inference::withdraw { amount: 0 }.into(),
        Inference::delegate { key: zero(), limit: 0 }.into(),
        Inference::revoke { key: zero() }.into(),
        Inference::start { items: full() }.into(),
        Inference::finish { items: full() }.into(),
        Inference::deliver { items: full() }.into(),
        Inference::expire { items: full() }.into(),
        Verification::submit_verdicts { items: full() }.into(),
        Verification::prove_fraud { proof: zero() }.into(),
        Verification::commit_verdicts { items: full() }.into(),
        Verification::reveal_verdicts { items: full() }.into(),
        Verification::commit_plant { commitment: zero() }.into(),
        Verification::reveal_plant { inference: zero(), salt: zero(), consent: zero() }.into(),
        Verification::contest_plant { inference: zero() }.into(),
        Rewards::claim { epoch: 0, proof: zero() }.into(),
        Governance::vote { poll: 0, aye: true }.into(),
        Governance::remove_votes { poll: 0 }.into(),
    ]
}

/// What a call may cost before it runs must fit into a block at all, or nobody could send a full batch.
#[test]
fn every_call_costs_something_and_fits_into_a_block() {
    let limit = NORMAL_DISPATCH_RATIO * MAXIMUM_BLOCK_WEIGHT.ref_time();
    let calls = calls();
    let ours: usize = [
        pallet_epochs::Call::<Runtime>::get_call_names(),
        pallet_beacon::Call::<Runtime>::get_call_names(),
        pallet_hosts::Call::<Runtime>::get_call_names(),
        pallet_profiles::Call::<Runtime>::get_call_names(),
        pallet_sprint::Call::<Runtime>::get_call_names(),
        pallet_inference::Call::<Runtime>::get_call_names(),
        pallet_verification::Call::<Runtime>::get_call_names(),
        pallet_rewards::Call::<Runtime>::get_call_names(),
        pallet_governance::Call::<Runtime>::get_call_names(),
    ]
    .iter()
    .map(|names| names.len())
    .sum();
    assert_eq!(calls.len(), ours, "a call is left out");
    for call in calls {
        let name = format!("{call:?}");
        let name: String = name.chars().take(60).collect();
        let weight = call.get_dispatch_info().call_weight.ref_time();
        println!("{:.2} ms: {name}", weight as f64 / 1e9);
        assert!(weight > 0 && weight < limit, "{name} costs {weight}");
    }
    assert!(DutyCalls::check().ref_time() > 0);
}

/// A batch of requests may have a client each.
#[test]
fn the_dearest_batch_of_requests_fits_into_a_block() {
    use pallet_inference::{
        cost::{self, StartShape},
        types::MAX_STARTED,
    };
    let limit = NORMAL_DISPATCH_RATIO * MAXIMUM_BLOCK_WEIGHT.ref_time();
    let shape = StartShape { taken: MAX_STARTED, refused: 0, accounts: 2 * MAX_STARTED, draws: PROFILES };
    let weight = cost::start::<Runtime>(shape).ref_time();
    println!("start: {:.2} ms", weight as f64 / 1e9);
    assert!(weight < limit, "it costs {weight}");
}
