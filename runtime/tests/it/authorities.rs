//! From a sprint to the weights, and from the weights to BABE's and GRANDPA's authorities.

use crate::chain::{block, block_with, epoch, next_session, run, run_to, Host};
use frame_support::assert_ok;
use starling_math::clock;
use starling_primitives::{
    sprint::{SprintCommitment, SprintVerdict},
    traits::{Clock, Hosts as _, Weights},
    AccountId, Work, H256,
};
use starling_runtime::{genesis, Babe, Epochs, Grandpa, Hosts, Runtime, Session, Sprint};

/// Runs an epoch's sprint, in which the hosts commit to these counts and all find each other's samples clean; ends in the
/// first block of the next epoch.
pub(crate) fn sprint(counts: [u32; 4]) {
    let hosts = Host::all();
    run_to(clock::reveal_start(&epoch()));
    block_with(|| {
        for host in &hosts {
            assert_ok!(host.contribute());
        }
    });
    run_to(clock::commit_start(&epoch()) - 1);
    block_with(|| {
        for (host, count) in hosts.iter().zip(counts) {
            let commitment = SprintCommitment { root: H256::repeat_byte(1), count };
            assert_ok!(host.call(pallet_sprint::Call::<Runtime>::commit { profile: 0, commitment }));
        }
    });
    run_to(clock::check_start(&epoch()));
    block_with(|| {
        let samples = epoch().schedule.sprint_samples;
        for host in &hosts {
            let provers = hosts.iter().filter(|prover| prover.account != host.account);
            let verdicts: Vec<_> = provers
                .map(|prover| {
                    let verdict = SprintVerdict { checked: samples, failed: 0, fabricated: false };
                    (prover.account.clone(), verdict)
                })
                .collect();
            let verdicts = verdicts.try_into().expect("a batch holds three");
            assert_ok!(host.call(pallet_sprint::Call::<Runtime>::submit_verdicts { profile: 0, verdicts }));
        }
    });
    run_to(clock::epoch_end(&epoch()));
}

fn weights() -> Vec<(AccountId, Work)> {
    let hosts = Sprint::hosts(Epochs::epoch().index);
    hosts.into_iter().map(|entry| (entry.host, entry.weight)).collect()
}

fn babe_weights() -> Vec<(AccountId, u64)> {
    let weights = Babe::authorities().into_iter().map(|(_, weight)| weight);
    Session::validators().into_iter().zip(weights).collect()
}

fn grandpa_weights() -> Vec<(AccountId, u64)> {
    let weights = Grandpa::grandpa_authorities().into_iter().map(|(_, weight)| weight);
    Session::validators().into_iter().zip(weights).collect()
}

#[test]
fn the_work_of_a_sprint_becomes_the_weight_of_the_authorities() {
    run(genesis::TEST, || {
        block();
        let equal: Vec<_> = Host::all().into_iter().map(|host| (host.account, 1)).collect();
        assert_eq!((babe_weights(), grandpa_weights()), (equal.clone(), equal));

        sprint([4_000, 2_000, 2_000, 2_000]);
        assert_eq!(epoch().index, 1);
        let weighed = weights();
        let of = |name| {
            let account = Host::named(name).account;
            weighed.iter().find(|(host, _)| *host == account).map_or(0, |(_, weight)| *weight)
        };
        // What the confidence bound takes off is rounded for each host on its own.
        assert!(of("Bob") > 0);
        assert!(of("Alice").abs_diff(2 * of("Bob")) * 1_000 < of("Bob"), "{weighed:?}");
        assert!(Hosts::may_sprint(&Host::named("Alice").account));

        // The session under way was planned before. The next one is announced now, the one after is in force.
        next_session();
        next_session();
        assert_eq!((babe_weights(), grandpa_weights()), (weighed.clone(), weighed));
        assert_eq!(Grandpa::current_set_id(), 1);
    });
}

#[test]
fn a_new_epoch_brings_new_authorities() {
    run(genesis::TEST, || {
        block();
        sprint([1_000, 1_000, 1_000, 1_000]);
        sprint([1_000, 3_000, 1_000, 1_000]);
        assert_eq!(epoch().index, 2);
        let weighed = weights();
        next_session();
        next_session();
        assert_eq!((babe_weights(), grandpa_weights()), (weighed.clone(), weighed));
        assert_eq!(Grandpa::current_set_id(), 2);
    });
}

#[test]
fn without_a_sprint_the_authorities_stay() {
    run(genesis::TEST, || {
        block();
        sprint([1_000, 3_000, 1_000, 1_000]);
        next_session();
        next_session();
        let before = babe_weights();
        // Nobody contributes: the reveal window is extended to its limit, the sprint is cancelled, weights carry over.
        run_to(clock::epoch_end(&epoch()));
        while epoch().index == 1 {
            block();
        }
        let previous = Epochs::previous().expect("epoch 1 has ended");
        assert!(previous.sprint_cancelled);
        next_session();
        next_session();
        assert_eq!((babe_weights(), grandpa_weights()), (before.clone(), before));
        assert_eq!(Grandpa::current_set_id(), 1);
    });
}
