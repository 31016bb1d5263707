//! Decisions of the hosts, by weight, without a key.

use crate::chain::{block, epoch, run, Host};
use frame_support::{
    assert_ok,
    traits::{schedule::DispatchTime, StorePreimage, UnfilteredDispatchable},
    BoundedVec,
};
use frame_system::RawOrigin;
use sp_core::{sr25519, Pair};
use starling_primitives::{
    traits::{HostWeight, Profiles as _},
    AccountId, BlockNumber, ProfileId, Work,
};
use starling_runtime::{
    genesis, Governance, OriginCaller, Preimage, Profiles, Referenda, Runtime, RuntimeCall, RuntimeOrigin,
    System,
};

/// The next profile's number.
const NEW: ProfileId = 1;

fn weights(shares: &[(&str, Work)]) {
    let entry = |(name, weight): &(&str, Work)| HostWeight {
        host: Host::named(name).account,
        weight: *weight,
        reputation: 0,
    };
    let mut entries: Vec<_> = shares.iter().map(entry).collect();
    entries.sort_by(|a, b| a.host.cmp(&b.host));
    let entries = BoundedVec::truncate_from(entries);
    pallet_sprint::EpochWeights::<Runtime>::insert(epoch().index, entries.clone());
    pallet_sprint::ProfileWeights::<Runtime>::insert(epoch().index, 0, entries);
}

/// Anyone proposes a profile, and pays for the question.
pub(crate) fn propose() {
    let anyone = AccountId::from(sr25519::Pair::from_string("//Ferdie", None).expect("a path").public());
    let mut profile = genesis::demo_profile();
    profile.name = BoundedVec::truncate_from(b"another".to_vec());
    let call = RuntimeCall::from(pallet_profiles::Call::<Runtime>::register { profile });
    let proposal = Preimage::bound(call).expect("it fits");
    let submit = pallet_referenda::Call::<Runtime>::submit {
        proposal_origin: Box::new(OriginCaller::system(RawOrigin::Root)),
        proposal,
        enactment_moment: DispatchTime::After(0),
    };
    let place = pallet_referenda::Call::<Runtime>::place_decision_deposit { index: 0 };
    for call in [RuntimeCall::from(submit), place.into()] {
        assert_ok!(call.dispatch_bypass_filter(RuntimeOrigin::signed(anyone.clone())));
    }
}

/// A host votes on it.
pub(crate) fn vote(name: &str, aye: bool) {
    assert_ok!(Governance::vote(RuntimeOrigin::signed(Host::named(name).account), 0, aye));
}

/// Block in which the proposal was carried out, looking up to `end`.
fn enacted_by(end: BlockNumber) -> Option<BlockNumber> {
    while Profiles::registered(NEW).is_none() && System::block_number() < end {
        block();
    }
    Profiles::registered(NEW).map(|_| System::block_number())
}

#[test]
fn more_than_half_of_the_weight_registers_a_profile_after_the_delay() {
    run(genesis::TEST, || {
        block();
        weights(&[("Alice", 34), ("Bob", 33), ("Charlie", 33)]);
        propose();
        let proposed = System::block_number();
        vote("Alice", true);
        vote("Charlie", true);
        vote("Bob", false);
        let schedule = epoch().schedule;
        let enacted = enacted_by(proposed + 4 * schedule.epoch_blocks).expect("it is carried out");
        // Never before approval stood for a quarter of an epoch and two more have passed.
        let delay = schedule.epoch_blocks / 4 + 2 * schedule.epoch_blocks;
        assert!(enacted >= proposed + delay, "{enacted} after {proposed}");
    });
}

#[test]
fn half_of_the_weight_decides_nothing() {
    run(genesis::TEST, || {
        block();
        weights(&[("Alice", 50), ("Bob", 25), ("Charlie", 25)]);
        propose();
        // Nobody is against it, and still it is not enough.
        vote("Alice", true);
        let end = System::block_number() + 4 * epoch().schedule.epoch_blocks;
        assert_eq!(enacted_by(end), None);
        assert!(Referenda::ensure_ongoing(0).is_err(), "it is over");
    });
}

#[test]
fn nobody_else_is_root_on_a_main_network() {
    run(genesis::MAIN, || {
        assert_eq!(pallet_sudo::Key::<Runtime>::get(), None);
        let register = pallet_profiles::Call::<Runtime>::register { profile: genesis::demo_profile() };
        let call = RuntimeCall::from(register);
        let refused = call.dispatch_bypass_filter(RuntimeOrigin::signed(Host::named("Alice").account));
        assert!(refused.is_err());
    });
}
