//! How much state an epoch leaves, until it is pruned. Run with `--no-capture` to see the figures.

use crate::{
    answers::{Answer, Client},
    chain::{epoch, run, run_to, Host},
};
use frame_support::BoundedVec;
use pallet_sprint::Voter;
use sp_runtime::traits::Get;
use starling_primitives::{
    records::Delivered,
    sprint::{SprintCommitment, SprintVerdict},
    traits::HostWeight,
    verdict::{Figures, Outcome, Verdict},
    AccountId, EpochIndex, H256, TOKEN,
};
use starling_runtime::{genesis, Runtime};

/// Epochs that are kept: the running one and the two before.
const KEPT: usize = 3;
/// Inferences and hosts of the network that is meant.
const INFERENCES: usize = 100_000;
const HOSTS: usize = 1_000;

/// Bytes of all keys and values.
fn state_bytes() -> usize {
    let mut bytes = 0;
    let mut key = Vec::new();
    while let Some(next) = sp_io::storage::next_key(&key) {
        let value = sp_io::storage::get(&next).map_or(0, |value| value.len());
        bytes += next.len() + value;
        key = next;
    }
    bytes
}

fn added<R>(what: impl FnOnce() -> R) -> usize {
    let before = state_bytes();
    what();
    state_bytes() - before
}

fn weigh(epoch: EpochIndex) {
    let entry = |host: Host| HostWeight { host: host.account, weight: 1_000, reputation: 0 };
    let mut hosts: Vec<HostWeight> = Host::all().map(entry).into();
    hosts.sort_by(|a, b| a.host.cmp(&b.host));
    let hosts = BoundedVec::truncate_from(hosts);
    pallet_sprint::EpochWeights::<Runtime>::insert(epoch, hosts.clone());
    pallet_sprint::ProfileWeights::<Runtime>::insert(epoch, 0, hosts);
}

/// A request from start to delivery with the verdict of one verifier, which coverage asks for.
pub(crate) fn infer(client: &Client, gateway: &Host, n: u32) {
    let answer = Answer::new(client, &gateway.account, n, false).expect("hosts have weight");
    answer.start(gateway).expect("it runs");
    answer.finish().expect("it is answered");
    let (request_id, response_hash) = (answer.finished.request_id, answer.finished.response_hash);
    let items = vec![Delivered { request_id, response_hash }].try_into().expect("one fits");
    gateway.call(pallet_inference::Call::<Runtime>::deliver { items }).expect("it is delivered");
    let inference = answer.id().expect("it is recorded");
    let tokens = answer.finished.completion_tokens;
    let outcome = Outcome::Measured(Figures { tokens, distance_sum: 0, margin_sum: 0 });
    let items = vec![Verdict { inference, outcome }].try_into().expect("one fits");
    gateway.call(pallet_verification::Call::<Runtime>::submit_verdicts { items }).expect("it is judged");
}

#[test]
fn an_inference_leaves_less_than_a_kilobyte() {
    run(genesis::TEST, || {
        run_to(1);
        weigh(epoch().index);
        let (client, gateway) = (Client::named("Eve"), Host::named("Alice"));
        client.deposit(100 * TOKEN).expect("the client has funds");
        // What the first one leaves behind is no other's.
        infer(&client, &gateway, 0);
        let count = 20;
        let grown = added(|| {
            (1..=count).for_each(|n| infer(&client, &gateway, n));
            frame_system::Pallet::<Runtime>::reset_events();
        });
        let each = grown / count as usize;
        println!("bytes per inference with one verdict: {each}");
        println!("of {INFERENCES} an epoch, kept for {KEPT}: {} MB", each * INFERENCES * KEPT / 1_000_000);
        assert!((100..1_000).contains(&each), "{each} bytes");
    });
}

/// Everything that a host with one profile adds to an epoch: its weight, contribution, commitment with all the votes it
/// can have, fees and claim.
fn leave_an_epoch(host: &AccountId, epoch: EpochIndex, voters: u32) {
    let entry = HostWeight { host: host.clone(), weight: 1, reputation: 0 };
    pallet_sprint::EpochWeights::<Runtime>::mutate(epoch, |list| list.try_push(entry.clone()))
        .expect("there is room");
    pallet_sprint::ProfileWeights::<Runtime>::mutate(epoch, 0, |list| list.try_push(entry))
        .expect("there is room");
    let contribution = pallet_beacon::types::Contribution { output: H256::zero(), weight: 1 };
    pallet_beacon::Contributions::<Runtime>::insert(epoch, host, contribution);
    let commitment = SprintCommitment { root: H256::zero(), count: 1 };
    pallet_sprint::Commitments::<Runtime>::insert(epoch, (0, host), commitment);
    let verdict = SprintVerdict { checked: 1, failed: 0, fabricated: false };
    let voter =
        |index: u32| Voter { verifier: AccountId::new([index as u8; 32]), weight: 1, score: 0, verdict };
    let voters: Vec<Voter> = (0..voters).map(voter).collect();
    pallet_sprint::Voters::<Runtime>::insert(epoch, (0, host), BoundedVec::truncate_from(voters));
    pallet_rewards::Fees::<Runtime>::insert(epoch, host, 1);
    pallet_rewards::Claimed::<Runtime>::insert(epoch, host, pallet_rewards::Due::default());
}

#[test]
fn a_host_leaves_less_than_ten_kilobytes_an_epoch() {
    run(genesis::TEST, || {
        let most = <Runtime as pallet_sprint::Config>::MaxVoters::get();
        let epoch = 5;
        leave_an_epoch(&AccountId::new([98; 32]), epoch, most);
        let [without, with] = [0, most]
            .map(|voters| added(|| leave_an_epoch(&AccountId::new([100 + voters as u8; 32]), epoch, voters)));
        let all = with * HOSTS * KEPT / 1_000_000;
        println!("bytes per host and epoch: {without} without votes, {with} with {most} votes");
        println!("of {HOSTS} hosts with all votes, kept for {KEPT}: {all} MB");
        assert!(without > 100 && with > without && with < 10_000, "{without} and {with} bytes");
    });
}
